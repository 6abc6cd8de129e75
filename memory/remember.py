"""The one write. Events go in; exchanges, passages, inbox and the index's outbox follow in the same transaction.

Safe to repeat: an event that is already in the journal changes nothing. Safe to reorder: exchanges, passages and
consents depend only on the set of events; the inbox lists questions by arrival, and what closes one may come before it.
`remember` returns after the commit, so whoever acknowledges a message does so afterwards.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from memory import members
from memory.alike import normal_form
from memory.codec import (
    cleaned,
    encoded,
    exchange_from,
    message_from,
    passage_from,
    place_from,
    time_of,
    time_text,
)
from memory.exchanges import NEAR, WINDOW, pair
from memory.journal import InboxItem, Journal, Writer
from memory.members import Choice
from memory.messages import Answer, Event, Exchange, Kind, Message, Passage, Person, Place, Source
from memory.provenance import may_answer

# A conversation is paired day by day, each day read with a fixed margin: so what is paired cannot depend on which
# message came first. Against pairing everything at once, on random chats of 200 to 400 messages: in dense ones 1 of 206
# exchanges differs (7 with half the margin before), in sparse ones those whose replies reach back more than a day.
DAY = 2 * WINDOW
BEFORE, AFTER = 2 * WINDOW, NEAR
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Receipt:
    """What one write did: new events, those there already, those forgotten before; exchanges and passages changed."""

    appended: int
    duplicates: int
    forgotten: int
    exchanges: int
    passages: int


@dataclass(frozen=True)
class Conversation:
    """Where messages are paired: one thread of one place, or the place's main conversation."""

    platform: str
    place: str
    thread: str

    @property
    def key(self) -> str:
        return Place(self.platform, self.place, self.thread).key


# Moments at which something changed, by conversation.
Touched = dict[Conversation, list[datetime]]


def remember(journal: Journal, events: Iterable[Event], *, creator: frozenset[str]) -> Receipt:
    """Append `events` and derive what follows, in one transaction, committed on return.

    `creator` holds the person keys of the creator. What was forgotten is left out, wherever it comes from. Raises
    ServiceTrouble when the journal cannot be written; nothing of this call is kept then and it may be repeated.
    """
    touched: Touched = defaultdict(list)
    counts = {"appended": 0, "duplicates": 0, "forgotten": 0, "exchanges": 0, "passages": 0}
    with journal.writing() as writer:
        tombstones = writer.tombstones()
        for event in map(cleaned, events):
            if any(tombstone.covers(event) for tombstone in tombstones):
                counts["forgotten"] += 1
                continue
            if not writer.append(event):
                counts["duplicates"] += 1
                continue
            counts["appended"] += 1
            learned = may_answer(event.source)
            counts["exchanges"] += learned and event.kind is Kind.EXCHANGE
            counts["passages"] += learned and event.kind is Kind.PASSAGE
            derive(writer, event, touched, creator=creator)
        counts["exchanges"] += sum(pair_again(writer, *each, creator=creator) for each in touched.items())
    return Receipt(**counts)


def derive(writer: Writer, event: Event, touched: Touched, *, creator: frozenset[str]) -> None:
    """What one new event changes, apart from pairing, which waits until all events of the call are in."""
    payload: Any = event.payload
    match event.kind:
        case Kind.MESSAGE | Kind.EDIT:
            # Before and after: an edit may move a message to another thread.
            message, known = message_from(payload), touch(writer, event, touched)
            writer.put_message(message, event.source)
            if known or message.person.key in creator or not comes_last(writer, message):
                touch(writer, event, touched)
        case Kind.DELETION:
            touch(writer, event, touched)
            writer.delete_message(event.platform, event.place, event.message_id, at=event.at)
        # What the policy keeps from answering, such as the twin's own words, is recorded and never becomes memory.
        case Kind.EXCHANGE | Kind.PASSAGE if not may_answer(event.source):
            pass
        case Kind.EXCHANGE:
            exchange = exchange_from(payload["exchange"])
            writer.put_exchange(exchange)
            if payload["answers"]:
                writer.close_question(payload["answers"], "answered", exchange_id=exchange.id)
        case Kind.PASSAGE:
            writer.put_passage(passage_from(payload), revision=event.revision)
        case Kind.IMPORT:
            writer.put_document(**payload)
        case Kind.QUESTION:
            writer.open_question(event.message_id, payload, normalised=normal_form(payload["question"]), at=event.at)
        case Kind.DISMISSAL:
            writer.close_question(event.message_id, "dismissed")
        case Kind.CONSENT:
            place = place_from(payload["place"])
            writer.put_consent(event.author.key, place.key, granted=int(payload["granted"]), at=event.at)
        case _:
            pass  # the record itself is all that the others add here
    members.derive(writer, event)


def touch(writer: Writer, event: Event, touched: Touched) -> bool:
    """Note which conversations, and when in them, an event about a message may change the pairing of, if any."""
    rows = writer.neighbours(event.platform, event.place, event.message_id)
    for row in rows:
        touched[Conversation(event.platform, event.place, row["thread"])].append(time_of(row["at"]))
    return bool(rows)


def comes_last(writer: Writer, message: Message) -> bool:
    """Whether a message that was not known ends its conversation and brings nothing older into it.

    A member's then changes no pair: only what the creator says makes one, and they have said nothing since.
    """
    place = message.place
    if writer.said(place.platform, place.id, place.thread, start=time_text(message.at), besides=message.id):
        return False
    found = writer.message(place.platform, place.id, message.reply_to) if message.reply_to else None
    return found is None or (found[0].place.thread == place.thread and message.at - found[0].at <= BEFORE)


def pair_again(writer: Writer, where: Conversation, moments: Sequence[datetime], *, creator: frozenset[str]) -> int:
    """Pair the days of a conversation that may have changed, and store the difference. Returns its size."""
    changed = 0
    for start in days(moments):
        stored = writer.paired_between(where.key, start=time_text(start), end=time_text(start + DAY))
        found = paired(writer, where, start, creator=creator)
        for identity in stored.keys() - found.keys():
            writer.drop_exchange(identity)
            changed += 1
        for identity, exchange in found.items():
            if stored.get(identity) != exchange:
                writer.put_exchange(exchange)
                changed += 1
    return changed


def paired(writer: Writer, where: Conversation, start: datetime, *, creator: frozenset[str]) -> dict[str, Exchange]:
    """The exchanges of one day by id, with what was replied to fetched from wherever it is, and their sources."""
    end = start + DAY
    conversation = where.platform, where.place, where.thread
    if not writer.said(*conversation, start=time_text(start), end=time_text(end)):
        return {}
    found = writer.messages_between(*conversation, start=time_text(start - BEFORE), end=time_text(end + AFTER))
    if not any(start <= message.at < end and message.person.key in creator for message, _ in found):
        return {}
    sources = {message.id: source for message, source in found}
    targets = {message.reply_to for message, _ in found if message.reply_to} - sources.keys()
    beyond = [each for target in targets if (each := writer.message(where.platform, where.place, target))]
    sources |= {message.id: source for message, source in beyond}
    everything = [message for message, _ in [*beyond, *found]]
    known = {message.id: message for message in everything}
    return {
        exchange.id: replace(
            exchange, source=sources[exchange.answer_ids[0]], question_source=sources[exchange.question_ids[0]]
        )
        for exchange in pair(everything, creator=creator)
        if start <= exchange.at < end
        and exchange.place.key == where.key
        and may_answer(sources[exchange.answer_ids[0]])
        and asked_so(writer, exchange, known)
    }


def asked_so(writer: Writer, exchange: Exchange, messages: Mapping[str, Message]) -> bool:
    """Whether the question still asks what was answered.

    Who rewrites their question afterwards would otherwise have the creator say "yes" to whatever they like.
    """
    # An edit in the very second of the answer may have waited for it.
    before = int(messages[exchange.answer_ids[0]].at.timestamp()) - 1
    return all(
        normal_form(writer.text_at(message, before)) == normal_form(message.text)
        for message in (messages[identity] for identity in exchange.question_ids)
        if message.revision > before
    )


def days(moments: Sequence[datetime]) -> list[datetime]:
    """The beginnings of all days that are read with one of `moments` in them or in their margins, in order."""
    numbers: set[int] = set()
    for moment in moments:
        numbers.update(range((moment - AFTER - EPOCH) // DAY, (moment + BEFORE - EPOCH) // DAY + 1))
    return [EPOCH + number * DAY for number in sorted(numbers)]


def message_event(message: Message, source: Source) -> Event:
    """A message as first seen, or an edit when its revision is above 0."""
    kind = Kind.EDIT if message.revision else Kind.MESSAGE
    return about(message, message.id, kind, source=source, payload=encoded(message), revision=message.revision)


def deletion_event(place: Place, message_id: str, *, by: Person, source: Source, at: datetime) -> Event:
    """A message that its platform no longer has."""
    return Event(place.platform, place.id, message_id, Kind.DELETION, 0, by, source, at)


def exchange_event(exchange: Exchange, *, answers: str = "") -> Event:
    """An exchange that came as a pair; `answers` is the inbox question that it closes."""
    payload = {"exchange": encoded(exchange), "answers": answers}
    return about(exchange, exchange.id, Kind.EXCHANGE, source=exchange.source, payload=payload)


def passage_event(passage: Passage, *, revision: int = 0) -> Event:
    """A piece of a document; `revision` counts the document's imports."""
    payload = encoded(passage)
    return about(passage, passage.id, Kind.PASSAGE, source=passage.source, payload=payload, revision=revision)


def file_event(
    name: str,
    by: Person,
    place: Place,
    *,
    at: datetime,
    revision: int,
    sha256: str,
    passages: Sequence[str] = (),
    exchanges: Sequence[str] = (),
    source: Source = Source.CREATOR_DOCUMENT,
) -> Event:
    """A file as a whole: after it, exactly these passages and exchanges are known from it.

    `sha256` is that of what was read, and empty for a file that is gone.
    """
    payload = {
        "document": name,
        "revision": revision,
        "sha256": sha256,
        "passages": list(passages),
        "exchanges": list(exchanges),
    }
    return Event(place.platform, place.id, name, Kind.IMPORT, revision, by, source, at, payload)


def question_event(message: Message, source: Source) -> Event:
    """A question that memory has no answer to."""
    payload = {
        "question": message.text,
        "asker": encoded(message.person),
        "place": encoded(message.place),
        "source": str(source),
    }
    return about(message, f"{message.place.key}:{message.id}", Kind.QUESTION, source=source, payload=payload)


def answer_event(answer: Answer, message: Message, *, at: datetime) -> Event:
    """What the twin answered to `message`."""
    place = message.place
    payload = {"answer": encoded(answer), "question": message.text, "place": encoded(place)}
    return Event(place.platform, place.key, answer.id, Kind.ANSWER, 0, message.person, Source.TWIN, at, payload)


def vote_event(answer_id: str, person: Person, *, value: Literal["good", "bad"], at: datetime) -> Event:
    """A person's vote; each has its own line, the last one counts."""
    payload = {"person": encoded(person), "value": value}
    identity = f"{person.key}:{time_text(at)}"
    return Event(person.platform, answer_id, identity, Kind.VOTE, 0, person, Source.OWN_DIRECT, at, payload)


def consent_event(person: Person, place: Place, *, granted: Literal["yes", "no"], at: datetime) -> Event:
    """A person's decision whether what they write in a place may train."""
    payload = {"place": encoded(place), "granted": granted == "yes"}
    identity = f"{person.key}:{time_text(at)}"
    return Event(place.platform, place.id, identity, Kind.CONSENT, 0, person, Source.OWN_DIRECT, at, payload)


def draft_event(question_id: str, text: str, voice: str, *, notes: Sequence[str], platform: str, at: datetime) -> Event:
    """What the twin would have answered to a question that waits, for the creator to use, edit or throw away.

    `notes` are the ids of what it was made from.
    """
    twin = Person(platform, "twin", role="twin")
    payload = {"text": text, "voice": voice, "notes": list(notes)}
    return Event(platform, question_id, time_text(at), Kind.DRAFT, 0, twin, Source.TWIN, at, payload)


def preference_event(question_id: str, question: str, *, draft: str, edited: str, by: Person, at: datetime) -> Event:
    """The creator's own answer beside the draft that they did not use."""
    payload = {"question": question, "draft": draft, "edited": edited}
    return Event(by.platform, "inbox", question_id, Kind.PREFERENCE, 0, by, Source.CREATOR_SURFACE, at, payload)


def choice_event(person: Person, name: Choice, *, value: bool, at: datetime) -> Event:
    """A member's choice about themselves, everywhere on their platform."""
    payload = {"name": name, "value": value}
    identity = f"{person.key}:{name}:{time_text(at)}"
    return Event(person.platform, "choices", identity, Kind.CHOICE, 0, person, Source.OWN_DIRECT, at, payload)


def listening_event(place: Place, by: Person, *, on: bool, space: str, at: datetime) -> Event:
    """An admin's switch for one place; `space` is the server or group that it belongs to."""
    payload = {"place": encoded(place), "on": on, "space": space}
    return Event(
        place.platform, place.id, f"listen:{time_text(at)}", Kind.LISTENING, 0, by, Source.OWN_DIRECT, at, payload
    )


def card_event(item: InboxItem, *, place: Place, message_id: str, at: datetime) -> Event:
    """Where a question of the inbox is shown to the creator, and how it stood then; the last one counts."""
    shown = f"{item.state}:{item.count}"
    payload = {"number": item.number, "place": place.key, "message_id": message_id, "shown": shown}
    twin = Person(place.platform, "twin", role="twin")
    return Event(
        place.platform, place.id, f"card:{item.number}:{time_text(at)}", Kind.CARD, 0, twin, Source.TWIN, at, payload
    )


def notice_event(identity: str, platform: str, *, at: datetime) -> Event:
    """Somebody was told what they were to be told: the answer to their question, or a report."""
    twin = Person(platform, "twin", role="twin")
    return Event(platform, "notices", identity, Kind.NOTICE, 0, twin, Source.TWIN, at)


def report_event(answer_id: str, person: Person, *, reason: str, at: datetime) -> Event:
    """A member's word that an answer is wrong or harmful."""
    payload = {"answer": answer_id, "reason": reason}
    identity = f"{person.key}:{time_text(at)}"
    return Event(person.platform, answer_id, identity, Kind.REPORT, 0, person, Source.OWN_DIRECT, at, payload)


def dismissal_event(question_id: str, by: Person, *, at: datetime) -> Event:
    """The creator's decision not to answer a question."""
    return Event(by.platform, "inbox", question_id, Kind.DISMISSAL, 0, by, Source.CREATOR_SURFACE, at)


def about(
    value: Message | Exchange | Passage,
    identity: str,
    kind: Kind,
    *,
    source: Source,
    payload: dict[str, Any],
    revision: int = 0,
) -> Event:
    """An event that happened where and when `value` did, by whoever wrote it."""
    author = value.person if isinstance(value, Message) else value.author
    place = value.place
    return Event(place.platform, place.id, identity, kind, revision, author, source, value.at, payload)
