"""New questions for a teacher to answer: what members asked and nobody answered, what the graph knows of, and real
questions put into other words. Each says where it is from, so that it goes when that goes.

Fail closed: a member's words are used on the terms of `memory/provenance.py`, scrubbed, or left out and counted; a
thing of the graph is asked about only where an exchange that may train names it. The paraphrases are the teacher's to
write: here is only which question it shall put into other words.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice, pairwise, zip_longest
from typing import Any

from infra.errors import Refused
from memory.alike import normal_form
from memory.graph import Graph
from memory.journal import Journal
from memory.messages import Event, Exchange, Kind, Person, Place, Source
from memory.prompt import as_data, estimate_tokens
from memory.provenance import Permissions, half
from memory.terms import IS_CJK
from memory.topics import Topic
from memory.wording import asks
from trainer.dataset import folded
from trainer.harvest import ASKER_ROWS, ASKER_SHARE
from trainer.scrub import scrub

# A longer question is a text with a question somewhere in it.
MOST_TOKENS = 120
# Of one real question so many paraphrases are asked for at the most: more repeat themselves.
VARIATIONS = 8
# What may be asked of anything that a creator speaks of, whatever it is; {other} is of the same topic.
TEMPLATES = {
    "en": (
        "What do you think of {name}?",
        "When would you use {name}?",
        "What should a beginner know about {name}?",
        "What goes wrong most often with {name}?",
    ),
    "zh": ("你怎么看{name}？", "什么时候该用{name}？", "刚开始的人要知道{name}的什么？", "{name}最容易出什么问题？"),
}
PAIRED = {
    "en": ("How do {name} and {other} go together?", "{name} or {other}: which would you choose?"),
    "zh": ("{name}和{other}是什么关系？", "{name}和{other}，你选哪个？"),
}


@dataclass(frozen=True)
class Question:
    """A question to be imitated. `origin` says where it is from; `made_of` is the exchange it was made of, if any.

    Of a paraphrase, `text` is the real question, and `variation` counts those asked for.
    """

    text: str
    origin: Mapping[str, Any]
    made_of: Exchange | None = None
    variation: int = 0


@dataclass
class Found:
    """Members' questions that may be used, and how many may not, for which reason."""

    questions: list[Question] = field(default_factory=list)
    excluded: Counter[str] = field(default_factory=Counter)


def language_of(text: str) -> str:
    """ "zh" where a fifth of the letters are Chinese, Japanese or Korean, else "en": which of two scripts it is in."""
    letters = [sign for sign in text if sign.isalpha()]
    return "zh" if letters and sum(bool(IS_CJK.match(sign)) for sign in letters) * 5 >= len(letters) else "en"


def unanswered(journal: Journal, *, answering: frozenset[str], permissions: Permissions) -> Found:
    """What members asked, in the inbox or in their archive, and nobody answered; only what may train."""
    found, seen, asked_by = Found(), set[str](), Counter[str]()
    for text, author, source, place, origin in chain(waiting(journal), archived(journal, answering)):
        reason = reason_against(text, author.key, source, place, journal=journal, permissions=permissions)
        form = normal_form(text)
        if not reason and (form in seen or journal.answers_to(form)):
            reason = "question: was answered, or asked twice"
        clean = "" if reason else cleaned(text)
        if not reason and not clean:
            reason = "question: a secret that could not be masked with certainty"
        seen.add(form)
        if reason:
            found.excluded[reason] += 1
            continue
        asked_by[author.key] += 1
        found.questions.append(Question(clean, origin))
    return shared(found, asked_by)


def shared(found: Found, asked_by: Mapping[str, int]) -> Found:
    """Without the questions of any member beyond what one may write of the rows, see `harvest.py`."""
    most = max(ASKER_ROWS, int(len(found.questions) * ASKER_SHARE))
    if all(count <= most for count in asked_by.values()):
        return found
    kept, rows = [], Counter[str]()
    for question in found.questions:
        rows[question.origin["author"]] += 1
        if rows[question.origin["author"]] <= most:
            kept.append(question)
    found.excluded["question: more than one member may write"] += len(found.questions) - len(kept)
    return Found(kept, found.excluded)


Asked = tuple[str, Person, Source, str, dict[str, Any]]


def waiting(journal: Journal) -> Iterator[Asked]:
    """The open questions of the inbox."""
    for item in journal.inbox():
        at = item.at.isoformat()
        yield (
            item.question,
            item.asker,
            item.source,
            item.place.key,
            origin_of(
                item.place.platform, item.place.id, item.question_id, item.asker, item.source, at, item.place.key
            ),
        )


def archived(journal: Journal, answering: frozenset[str]) -> Iterator[Asked]:
    """Members' messages that ask something and are no question of any exchange, as they read now."""
    paired = {identity for exchange in journal.exchanges() for identity in exchange.question_ids}
    last = 0
    while events := journal.events(kind=Kind.MESSAGE, after=last):
        last = events[-1][0]
        for _, event in events:
            author = event.author
            if author.role != "member" or author.key in answering or event.message_id in paired:
                continue
            said = current(journal, event)
            if said is not None and asks(said[0]):
                text, place = said
                at = event.at.isoformat()
                yield (
                    text,
                    author,
                    event.source,
                    place,
                    origin_of(event.platform, event.place, event.message_id, author, event.source, at, place),
                )


def current(journal: Journal, event: Event) -> tuple[str, str] | None:
    """What a message says now and the key of where it stands; None for one that is gone."""
    if not asks(str(event.payload.get("text", ""))):
        return None
    message = journal.message(Place(event.platform, event.place), event.message_id)
    return (message.text, message.place.key) if message else None


def origin_of(
    platform: str, place: str, identity: str, author: Person, source: Source, at: str, place_key: str
) -> dict[str, Any]:
    """Where a member's question is from: everything that forgetting and consent ask for."""
    return {
        "kind": "message",
        "platform": platform,
        "place": place,
        "message": identity,
        "author": author.key,
        "source": str(source),
        "at": at,
        "place_key": place_key,
    }


def reason_against(
    text: str, author: str, source: Source, place: str, *, journal: Journal, permissions: Permissions
) -> str:
    """Why a member's question may not be imitated; empty when it may."""
    terms = half(source, author, place, consent=journal.consent, permissions=permissions)
    if terms:
        return f"question: {terms}"
    if not folded(text):
        return "question: empty"
    return "question: too long" if estimate_tokens(text) > MOST_TOKENS else ""


def cleaned(text: str) -> str:
    """A text scrubbed and on one line; empty where that is refused."""
    try:
        return as_data(scrub(text).text)
    except Refused:
        return ""


def of_graph(graph: Graph, topics: Iterable[Topic], eligible: Mapping[str, Exchange]) -> Iterator[Question]:
    """Questions about what the creator speaks of: first one of each thing, then the next; then two of a topic."""
    known = [each for entity in graph.entities() if (each := named(graph, entity.id, eligible))]
    for number in range(len(TEMPLATES["en"])):
        for name, source in known:
            text = TEMPLATES[language_of(source.question)][number].format(name=name)
            yield Question(text, {"kind": "graph", "exchange": source.id})
    for topic in topics:
        members = [each for identity in topic.members if (each := named(graph, identity, eligible))]
        for (name, source), (other, beside) in pairwise(members):
            for template in PAIRED[language_of(source.question)]:
                text = template.format(name=name, other=other)
                yield Question(text, {"kind": "graph", "exchange": source.id, "beside": beside.id})


def named(graph: Graph, identity: str, eligible: Mapping[str, Exchange]) -> tuple[str, Exchange] | None:
    """What a thing is called and an exchange that calls it so and may train; None where there is none."""
    entity = graph.entity(identity)
    for source in entity.sources if entity else ():
        exchange = eligible.get(source)
        if exchange and entity and entity.name.casefold() in f"{exchange.question} {exchange.answer}".casefold():
            return as_data(entity.name), exchange
    return None


def paraphrases(exchanges: Sequence[Exchange]) -> Iterator[Question]:
    """Real questions to put into other words: all of them once, then all once more."""
    fit = [each for each in exchanges if estimate_tokens(each.question) <= MOST_TOKENS]
    for variation in range(VARIATIONS):
        for exchange in fit:
            origin = {"kind": "paraphrase", "exchange": exchange.id}
            yield Question(exchange.question, origin, made_of=exchange, variation=variation)


def mixed(kinds: Sequence[Iterable[Question]], rows: int) -> list[Question]:
    """The first `rows` questions, taken from each kind in turn, each text once unless it is to be paraphrased."""
    seen: set[tuple[str, int]] = set()

    def fresh() -> Iterator[Question]:
        for each in chain.from_iterable(zip_longest(*kinds)):
            if each is None:
                continue
            name = (folded(each.text), each.variation if each.made_of else -1)
            if name not in seen:
                seen.add(name)
                yield each

    return list(islice(fresh(), rows))
