"""How well questions are paired with answers: ours beside the five-minute-window rule, on labelled conversations.

The rule to beat is what peers use: the creator's message answers the last member's message of the five minutes before
it. A pair counts as found when a labelled question and a labelled answer of it end up in the same exchange.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files

from memory.exchanges import pair
from memory.messages import Exchange, Message, Person, Place

CREATOR = Person("case", "W", role="creator")
START = datetime(2026, 1, 1, tzinfo=UTC)
PEERS_WINDOW = timedelta(minutes=5)
LINE = re.compile(r"(\d+) (\w)(?: >(\w+))?(?: @(\w))?: (.+?)(?: = (\w+))?$")

Links = set[tuple[str, str]]


@dataclass(frozen=True)
class Case:
    """One conversation and its labelled (question message, answer message) links."""

    messages: list[Message]
    links: Links


@dataclass(frozen=True)
class Score:
    """Precision, recall and F1 of a rule over all links."""

    rule: str
    conversations: int
    links: int
    precision: float
    recall: float
    f1: float


def compare() -> list[Score]:
    """Both rules on all labelled conversations."""
    cases = list(labelled())
    return [score("reply graph, mention, nearness", ours, cases), score("five-minute window", peers, cases)]


def labelled() -> Iterator[Case]:
    """The bundled conversations."""
    text = (files("memory") / "sample" / "pairing.txt").read_text(encoding="utf-8")
    for number, block in enumerate(re.split(r"\n\s*\n", text)):
        lines = [line for line in block.splitlines() if line and not line.startswith("#")]
        if lines:
            yield case(lines, number)


def case(lines: Sequence[str], number: int) -> Case:
    """A conversation as written in the file."""
    place = Place("case", str(number), thread="t" if lines[0] == "thread" else "")
    messages: list[Message] = []
    labels: dict[str, list[str]] = defaultdict(list)
    for line in lines[1:] if lines[0] == "thread" else lines:
        found = LINE.match(line)
        assert found, f"conversation {number} has a line that is none: {line!r}"
        minutes, who, reply, mention, text, label = found.groups()
        identity = str(len(messages))
        person = CREATOR if who == "W" else Person("case", who)
        if label:
            labels[label].append(identity)
        at = START + timedelta(days=number, minutes=int(minutes), seconds=len(messages))
        replied = labels[reply][0] if reply else None
        mentioned = (f"case:{mention}",) if mention else ()
        messages.append(Message(identity, person, place, at, text, reply_to=replied, mentions=mentioned))
    links = {
        (asked, answered)
        for label in labels
        if label.startswith("q")
        for asked in labels[label]
        for answered in labels.get("a" + label[1:], [])
    }
    return Case(messages, links)


def ours(messages: Sequence[Message]) -> Links:
    """The links of our pairing."""
    return links_of(pair(messages, creator=frozenset({CREATOR.key})))


def links_of(exchanges: Sequence[Exchange]) -> Links:
    return {(asked, answered) for each in exchanges for asked in each.question_ids for answered in each.answer_ids}


def peers(messages: Sequence[Message]) -> Links:
    """The links of the five-minute-window rule."""
    found: Links = set()
    for index, message in enumerate(messages):
        if message.person != CREATOR:
            continue
        before = [each for each in messages[:index] if each.person != CREATOR and message.at - each.at <= PEERS_WINDOW]
        if before:
            found.add((before[-1].id, message.id))
    return found


def score(name: str, rule: Callable[[Sequence[Message]], Links], cases: Sequence[Case]) -> Score:
    """One rule over all conversations."""
    found = [(rule(each.messages), each.links) for each in cases]
    right = sum(len(made & wanted) for made, wanted in found)
    made, wanted = sum(len(made) for made, _ in found), sum(len(wanted) for _, wanted in found)
    precision, recall = right / max(made, 1), right / max(wanted, 1)
    f1 = 2 * precision * recall / max(precision + recall, 1e-9)
    return Score(name, len(cases), wanted, round(precision, 3), round(recall, 3), round(f1, 3))
