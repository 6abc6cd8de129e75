"""The one erasure: what a selection fits leaves the journal and all that derives from it.

An erased line of the journal is gone, not marked. With it go the lines that repeat it: the twin's replies, answers that
quote it, drafts and votes on those. The outbox carries the deletions to the index; the ids of what went stay, for
whoever keeps datasets and adapters that learned from it (`trainer/frozen.py`), and a tombstone, so that nothing of it
comes back.
"""

import json
import secrets
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from infra.database import settle
from infra.errors import UserMistake
from memory.codec import dumps, place_from, time_text
from memory.journal import Journal, Writer, event_of, exchange_of, message_of
from memory.messages import Event, Exchange, Kind, Message, name_uuid
from memory.remember import Conversation, Touched, pair_again
from memory.selection import Selection, Tombstone, is_undated, message_key

# Lines of the journal by number.
Lines = dict[int, Event]
SAID = frozenset({Kind.MESSAGE, Kind.EDIT})
# After every time that can be kept.
LAST = "9999"
COUNTED = {
    Kind.PASSAGE: "passages",
    Kind.QUESTION: "questions",
    Kind.ANSWER: "answers",
    Kind.DRAFT: "drafts",
    Kind.VOTE: "votes",
    Kind.REPORT: "reports",
    Kind.CONSENT: "consents",
}


@dataclass(frozen=True)
class Forgotten:
    """What went: the tombstone that is left, with the counts, and the ids of exchanges."""

    tombstone: Tombstone
    exchanges: tuple[str, ...]

    @property
    def receipt(self) -> str:
        return self.tombstone.receipt

    @property
    def messages(self) -> int:
        return self.tombstone.counts.get("messages", 0)

    @property
    def events(self) -> int:
        """Lines of the journal."""
        return self.tombstone.counts.get("events", 0)


def forget(journal: Journal, selection: Selection, *, creator: frozenset[str], now: datetime) -> Forgotten:
    """Erase everything that fits, and leave a tombstone, in one transaction."""
    with journal.writing() as writer:
        done = bury(writer, selection, creator=creator, now=now)
    settle(journal.engine)
    return done


def rehearse(journal: Journal, selection: Selection, *, creator: frozenset[str], now: datetime) -> Forgotten:
    """What `forget` would do, counted by doing it and taking it back: nothing is changed."""
    with journal.writing() as writer:
        found = bury(writer, selection, creator=creator, now=now)
        writer.take_back()
    return found


def bury(writer: Writer, selection: Selection, *, creator: frozenset[str], now: datetime) -> Forgotten:
    """Erase within a transaction, and keep the tombstone."""
    gone = fitting(writer, selection)
    counts, exchanges = erase(writer, gone, creator=creator)
    receipt = name_uuid("forget", dumps(selection.described()), now.isoformat())
    # Platforms date messages by the second: what is said in the second of the forgetting is not from before it.
    kept = replace(selection.sealed(salt(writer)), undated=undated(selection, gone))
    tombstone = Tombstone(receipt, now.replace(microsecond=0), kept, counts)
    writer.put_tombstone(tombstone)
    return Forgotten(tombstone, tuple(sorted(exchanges)))


def undated(selection: Selection, gone: Lines) -> frozenset[str]:
    """The ids by which a tombstone knows what has no date of its own, and is not named otherwise."""
    if selection.document or selection.exchange:
        return frozenset()
    return frozenset(event.message_id for event in gone.values() if is_undated(event))


def bury_again(journal: Journal, tombstones: Iterable[Tombstone], *, last: int, creator: frozenset[str]) -> int:
    """Take over what another journal forgot, this one's copy or successor; returns how many were new here.

    `last` is the number of the other's latest forgetting: what is forgotten here again is numbered after it, so that
    adapters that learned it find out.
    """
    known = {each.receipt: each.lifted for each in journal.tombstones()}
    fresh = [each for each in tombstones if each.receipt not in known or (each.lifted and not known[each.receipt])]
    for tombstone in fresh:
        with journal.writing() as writer:
            gone = {seq: event for seq, event in lines(writer) if tombstone.covers(event)}
            erase(writer, gone, creator=creator, after=last)
            writer.put_tombstone(tombstone)
    if fresh:
        settle(journal.engine)
    return len(fresh)


def lift(journal: Journal, receipt: str) -> None:
    """Let what a forgetting named be imported again. Raises UserMistake for an unknown receipt."""
    found = next((each for each in journal.tombstones() if each.receipt == receipt), None)
    if found is None:
        raise UserMistake(f'There is no receipt {receipt!r}. See "understudy forget --receipts".')
    with journal.writing() as writer:
        writer.put_tombstone(replace(found, lifted=True))
        # A file that was read meanwhile, and of which this was left out, is read again.
        writer.run("UPDATE documents SET sha256 = ''")


def selection_of_exchange(journal: Journal, selection: Selection) -> Selection:
    """The same with the messages that its exchange was paired from. Raises UserMistake when there is no such one."""
    found = next(journal.exchanges([selection.exchange]), None)
    if found is None:
        raise UserMistake(f'There is no exchange {selection.exchange!r}. "understudy recall QUESTION" shows their ids.')
    halves = (*found.question_ids, *found.answer_ids)
    messages = tuple(f"{found.place.platform}:{found.place.id}:{each}" for each in halves)
    return replace(selection, messages=messages)


def known_of(journal: Journal, person: str) -> list[dict[str, Any]]:
    """Everything the journal holds of one person, oldest first, as they may read it."""
    with journal.writing() as writer:
        found = fitting(writer, Selection(person=person))
    return [
        {"when": time_text(each.at), "what": str(each.kind), "where": each.place, "content": each.payload}
        for each in found.values()
    ]


def erase(
    writer: Writer, gone: Lines, *, creator: frozenset[str], after: int = 0, pair: bool = True
) -> tuple[dict[str, int], set[str]]:
    """Delete lines, what they said and what repeats it, and bring everything derived from them up to date.

    Returns the counts of what went and the ids of its exchanges. Without `pair` conversations are not paired again.
    """
    said = messages_of(writer, gone.values())
    paired = list(paired_from(writer, said.values()))
    exchanges = {event.message_id for event in gone.values() if event.kind is Kind.EXCHANGE}
    exchanges |= {each.id for each in paired}
    passages = {event.message_id for event in gone.values() if event.kind is Kind.PASSAGE}
    gone = gone | repeating(writer, gone, said.values(), learned=exchanges | passages)
    said = said | twin_replies(writer, gone.values(), said.values())
    deleted = sum(erase_message(writer, message) for message in said.values())
    deleted += sum(erase_line(writer, seq, event) for seq, event in gone.items())
    drop_derived(writer, exchanges, passages, after=after)
    for where, moments in touched_by([*said.values(), *paired]).items() if pair else ():
        pair_again(writer, where, moments, creator=creator)
    kinds = Counter(COUNTED[event.kind] for event in gone.values() if event.kind in COUNTED)
    return {"messages": len(said), "exchanges": len(exchanges), **kinds, "events": deleted}, exchanges


def fitting(writer: Writer, selection: Selection) -> Lines:
    """The lines that a selection fits. The database leaves out most others: reading a line takes far longer there."""
    where, values = ["at >= :after"], {"after": time_text(selection.after) if selection.after else ""}
    if selection.person:
        where += [f"(kind = 'exchange' OR {writer.json_text('author', 'id')} = :person)"]
        values["person"] = selection.person.partition(":")[2]
    if selection.place:
        where += ["(kind = 'exchange' OR place = :id OR substr(place, 1, length(:place)) = :place)"]
        values |= {"place": selection.place, "id": selection.place.partition(":")[2]}
    before = time_text(selection.before) if selection.before else LAST
    found = lines(writer, before=before, where=" AND ".join(where), **values)
    return {seq: event for seq, event in found if selection.fits(event)}


def lines(
    writer: Writer, *kinds: Kind, before: str = LAST, where: str = "1 = 1", **values: str
) -> Iterator[tuple[int, Event]]:
    """The lines of the journal with their numbers, in order: all of them, or those of some kinds."""
    last = 0
    chosen = f"AND kind IN ({', '.join(repr(str(kind)) for kind in kinds)})" if kinds else ""
    while rows := writer.run(
        f"SELECT * FROM events WHERE seq > :last AND at < :before AND {where} {chosen} ORDER BY seq LIMIT 1000",
        last=last,
        before=before,
        **values,
    ):
        yield from ((row["seq"], event_of(row)) for row in rows)
        last = rows[-1]["seq"]


def messages_of(writer: Writer, events: Iterable[Event]) -> dict[str, Message]:
    """The messages that lines say or edit, deleted ones too, by their keys."""
    found: dict[str, Message] = {}
    for event in events:
        if event.kind in SAID and (key := message_key(event)) not in found:
            rows = writer.run(
                "SELECT payload FROM messages WHERE platform = :platform AND place = :place AND message_id = :id "
                "AND revision >= 0",
                platform=event.platform,
                place=event.place,
                id=event.message_id,
            )
            found.update((key, message_of(row["payload"])) for row in rows)
    return found


def paired_from(writer: Writer, messages: Iterable[Message]) -> Iterator[Exchange]:
    """The exchanges that were paired from messages, in whichever threads of their places."""
    wanted: dict[tuple[str, str], set[str]] = defaultdict(set)
    for message in messages:
        wanted[message.place.platform, message.place.id].add(message.id)
    for (platform, place), ids in wanted.items():
        prefix = f"{platform}:{place}:"
        rows = writer.run(
            "SELECT payload FROM exchanges WHERE pairing <> 'given' AND substr(place_key || ':', 1, :length) = :prefix",
            length=len(prefix),
            prefix=prefix,
        )
        found = (exchange_of(row["payload"]) for row in rows)
        yield from (each for each in found if not ids.isdisjoint({*each.question_ids, *each.answer_ids}))


def repeating(writer: Writer, gone: Lines, said: Collection[Message], *, learned: set[str]) -> Lines:
    """The lines that repeat what goes: questions and answers to it, answers that quote it, and what hangs on those."""
    if not gone:
        return {}
    asked = {f"{message.place.key}:{message.id}" for message in said}
    found = {
        seq: event for seq, event in lines(writer, Kind.QUESTION, Kind.ANSWER) if repeats(event, asked, learned=learned)
    }
    named = {e.message_id for e in (*gone.values(), *found.values()) if e.kind in {Kind.QUESTION, Kind.ANSWER}}
    hanging = lines(writer, Kind.DRAFT, Kind.PREFERENCE, Kind.VOTE, Kind.REPORT)
    # Drafts do not say what they were made from; they are made anew.
    found |= {s: e for s, e in hanging if {e.place, e.message_id} & named or (learned and e.kind is Kind.DRAFT)}
    return found


def repeats(event: Event, asked: set[str], *, learned: set[str]) -> bool:
    """Whether a question is one of `asked`, or an answer answers one of them or quotes what was learned."""
    if event.kind is Kind.QUESTION:
        return event.message_id in asked
    answer = event.payload["answer"]
    quoted = {note["id"] for note in answer["notes"]}
    return f"{event.place}:{answer['question_id']}" in asked or not quoted.isdisjoint(learned)


def twin_replies(writer: Writer, gone: Iterable[Event], said: Iterable[Message]) -> dict[str, Message]:
    """What the twin said to messages, and what shows its answers that go, by key: it repeats them."""
    asked = {(message.place.platform, message.place.id, message.id) for message in said}
    asked |= {
        (event.platform, event.payload["place"]["id"], event.payload["answer"]["question_id"])
        for event in gone
        if event.kind is Kind.ANSWER
    }
    found: dict[str, Message] = {}
    for platform, place, identity in asked:
        rows = writer.run(
            "SELECT message_id, payload FROM messages WHERE platform = :platform AND place = :place "
            "AND reply_to = :id AND source = 'twin' AND revision >= 0",
            platform=platform,
            place=place,
            id=identity,
        )
        found |= {f"{platform}:{place}:{row['message_id']}": message_of(row["payload"]) for row in rows}
    return found


def touched_by(values: Iterable[Message | Exchange]) -> Touched:
    """In which conversations, and when in them, pairs may have changed."""
    touched: Touched = defaultdict(list)
    for value in values:
        touched[Conversation(value.place.platform, value.place.id, value.place.thread)].append(value.at)
    return touched


def erase_message(writer: Writer, message: Message) -> int:
    """A message with all its edits; returns how many lines of the journal that was."""
    names = {"platform": message.place.platform, "place": message.place.id, "id": message.id}
    writer.run("DELETE FROM messages WHERE platform = :platform AND place = :place AND message_id = :id", **names)
    deleted = writer.run(
        "DELETE FROM events WHERE platform = :platform AND place = :place AND message_id = :id "
        "AND kind IN ('message', 'edit') RETURNING seq",
        **names,
    )
    return len(deleted)


def erase_line(writer: Writer, seq: int, event: Event) -> int:
    """One line of the journal, if it is still there, and what it put into the small tables."""
    deleted = writer.run("DELETE FROM events WHERE seq = :seq RETURNING seq", seq=seq)
    if event.kind is Kind.QUESTION:
        erase_question(writer, event.message_id)
    if event.kind is Kind.CONSENT:
        place = place_from(event.payload["place"])
        person, key = event.author.key, place.key
        writer.run("DELETE FROM consents WHERE person = :person AND place = :place", person=person, place=key)
    return len(deleted)


def drop_derived(writer: Writer, exchanges: Iterable[str], passages: Iterable[str], *, after: int) -> None:
    """Take exchanges, and passages of which no line is left, out of what answers, and tell the index."""
    for identity in sorted(exchanges):
        writer.drop_exchange(identity)
        writer.run("DELETE FROM document_exchanges WHERE exchange_id = :id", id=identity)
        writer.mark_forgotten(identity, after=after)
        writer.run(
            "DELETE FROM notices WHERE question_id IN (SELECT a.question_id FROM inbox_askers a "
            "JOIN inbox i ON i.number = a.number WHERE i.exchange_id = :id)",
            id=identity,
        )
    for identity in sorted(passages):
        if not writer.run("SELECT 1 FROM events WHERE kind = 'passage' AND message_id = :id LIMIT 1", id=identity):
            writer.drop_passage(identity)
    drop_documents(writer)


def drop_documents(writer: Writer) -> None:
    """Files of which no line is left are unknown again; one of which nothing else is left may be imported again."""
    writer.run(
        "DELETE FROM documents WHERE NOT EXISTS "
        "(SELECT 1 FROM events e WHERE e.kind = 'import' AND e.message_id = documents.document)"
    )
    writer.run(
        "UPDATE documents SET sha256 = '' "
        "WHERE NOT EXISTS (SELECT 1 FROM passages p WHERE p.document = documents.document) "
        "AND NOT EXISTS (SELECT 1 FROM document_exchanges x WHERE x.document = documents.document)"
    )


def salt(writer: Writer) -> str:
    """One for all seals of a journal, so that a person is hashed once, however many were forgotten."""
    sealed = (each.selection.person for each in writer.tombstones() if each.selection.person)
    return next((person.split("$")[1] for person in sealed), "") or secrets.token_hex(8)


def erase_question(writer: Writer, question_id: str) -> None:
    """One asker's share in a question of the inbox; the question itself with its last asker."""
    writer.run("DELETE FROM notices WHERE question_id = :id", id=question_id)
    for row in writer.run("DELETE FROM inbox_askers WHERE question_id = :id RETURNING number", id=question_id):
        number = row["number"]
        left = writer.run(
            "SELECT question_id, payload FROM inbox_askers WHERE number = :number ORDER BY question_id", number=number
        )
        if left:
            hand_on(writer, number, left, gone=question_id)
        else:
            writer.run("DELETE FROM cards WHERE number = :number", number=number)
            writer.run("DELETE FROM inbox WHERE number = :number", number=number)


def hand_on(writer: Writer, number: int, left: list[dict[str, Any]], *, gone: str) -> None:
    """Leave a question of the inbox to those who are left; in the words of one of them, if it was in the gone one's."""
    writer.run("UPDATE inbox SET count = :count WHERE number = :number", count=len(left), number=number)
    (item,) = writer.run("SELECT payload FROM inbox WHERE number = :number", number=number)
    if json.loads(item["payload"])["question_id"] == gone:
        payload = {**json.loads(left[0]["payload"]), "question_id": left[0]["question_id"]}
        writer.run(
            "UPDATE inbox SET question = :question, payload = :payload WHERE number = :number",
            question=payload["question"],
            payload=dumps(payload),
            number=number,
        )
