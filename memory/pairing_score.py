"""How well questions are paired with answers: ours beside the five-minute-window rule, on labelled conversations.

The rule to beat is what peers use: the creator's message answers the last member's message of the five minutes before
it. A link is one labelled question message with one message of its answer; it counts as found when both end up in the
same exchange. `tuned` is what the rules were set on; `unseen` was written after they were frozen and is only measured.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Literal

from memory.exchanges import pair
from memory.messages import Exchange, Message, Person, Place

CREATOR = Person("case", "W", "Wren Calloway", role="creator")
BOT = Person("case", "BOT", "Bot", role="bot")
START = datetime(2026, 1, 1, tzinfo=UTC)
PEERS_WINDOW = timedelta(minutes=5)
LINE = re.compile(
    r"(?P<minute>[\d.]+)(?: #(?P<thread>\w+))? (?P<who>\w+)(?: >(?P<reply>\w+))?(?: @(?P<mention>\w+))?: "
    r"(?P<text>.+?)(?: = (?P<labels>[\w,]+))?$"
)
# A reply to a message that its author has deleted.
GONE = "gone"

Split = Literal["tuned", "unseen"]
SPLITS: tuple[Split, ...] = ("tuned", "unseen")
Links = set[tuple[str, str]]


@dataclass(frozen=True)
class Case:
    """One conversation and its labelled (question message, answer message) links."""

    messages: list[Message]
    links: Links


@dataclass(frozen=True)
class Score:
    """Precision, recall and F1 of a rule over all links of a split."""

    rule: str
    cases: str
    conversations: int
    links: int
    precision: float
    recall: float
    f1: float


def compare() -> list[Score]:
    """Both rules on each split: ours before the window's, the split that was tuned on first."""
    rules = (("reply graph, mention, nearness", ours), ("five-minute window", peers))
    return [score(name, rule, split) for split in SPLITS for name, rule in rules]


def labelled(split: Split) -> Iterator[Case]:
    """The bundled conversations of a split."""
    text = (files("memory") / "sample" / "pairing" / f"{split}.txt").read_text(encoding="utf-8")
    for number, block in enumerate(re.split(r"\n\s*\n", text)):
        lines = [line for line in block.splitlines() if line and not line.startswith("#")]
        if lines:
            yield case(lines, number)


def case(lines: Sequence[str], number: int) -> Case:
    """A conversation as written in the file."""
    whole = "t" if lines[0] == "thread" else ""
    messages: list[Message] = []
    labels: dict[str, list[str]] = defaultdict(list)
    for line in lines[1:] if whole else lines:
        found = LINE.match(line)
        if found is None:
            raise ValueError(f"Conversation {number} has a line that is none: {line!r}.")
        identity = str(len(messages))
        reply, mention = found["reply"], found["mention"]
        for label in (found["labels"] or "").split(","):
            labels[label].append(identity)
        messages.append(
            Message(
                identity,
                person(found["who"]),
                Place("case", str(number), thread=found["thread"] or whole),
                START + timedelta(days=number, minutes=float(found["minute"]), milliseconds=len(messages)),
                found["text"],
                reply_to=GONE if reply == GONE else labels[reply][-1] if reply else None,
                mentions=(person(mention).key,) if mention else (),
            )
        )
    return Case(messages, gold(labels))


def person(who: str) -> Person:
    return {"W": CREATOR, "BOT": BOT}.get(who) or Person("case", who, who)


def gold(labels: dict[str, list[str]]) -> Links:
    """Every message of question N with every message of answer N."""
    return {
        (asked, answered)
        for label in list(labels)
        if re.fullmatch(r"q\d+", label)
        for asked in labels[label]
        for answered in labels.get("a" + label[1:], [])
    }


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


def score(name: str, rule: Callable[[Sequence[Message]], Links], split: Split) -> Score:
    """One rule over all conversations of a split."""
    found = [(rule(each.messages), each.links) for each in labelled(split)]
    right = sum(len(made & wanted) for made, wanted in found)
    made, wanted = sum(len(made) for made, _ in found), sum(len(wanted) for _, wanted in found)
    precision, recall = right / max(made, 1), right / max(wanted, 1)
    f1 = 2 * precision * recall / max(precision + recall, 1e-9)
    return Score(name, split, len(found), wanted, round(precision, 3), round(recall, 3), round(f1, 3))
