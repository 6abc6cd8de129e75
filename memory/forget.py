"""The one erasure: what a selection fits leaves the journal and all that derives from it.

An erased line of the journal is gone, not marked. With it go the lines that repeat it: the twin's replies, answers that
quote it, drafts and votes on those. The outbox carries the deletions to the index; the ids of what went stay, for
whoever keeps datasets and adapters that learned from it (`trainer/frozen.py`), and a tombstone, so that nothing of it
comes back.
"""

import json
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any, TypeVar

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
# Erasing so many lines takes about a second on two busy cores. Who waits for an SQLite database looks every tenth of a
# second whether it is free, and would never find it so between two batches without a pause.
BATCH, PAUSE_S = 2000, 0.12
Value = TypeVar("Value")
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


@dataclass(frozen=True)
class Doomed:
    """Everything that an erasure takes: lines by number, those first that repeat others, and what derives from them.

    Found by reading alone, so that nobody waits for it; what was said, by key, includes what the twin said to it.
    """

    lines: Lines
    said: dict[str, Message]
    paired: tuple[Exchange, ...]
    exchanges: frozenset[str]
    passages: frozenset[str]

    @property
    def counts(self) -> dict[str, int]:
        kinds = Counter(COUNTED[event.kind] for event in self.lines.values() if event.kind in COUNTED)
        return {"messages": len(self.said), "exchanges": len(self.exchanges), **kinds, "events": len(self.lines)}


def forget(journal: Journal, selection: Selection, *, creator: frozenset[str], now: datetime) -> Forgotten:
    """Erase everything that fits, and leave a tombstone, which comes first: so it can be repeated if it is cut off."""
    done, doomed = planned(journal, selection, now=now)
    erase(journal, doomed, creator=creator, tombstone=done.tombstone)
    # What was written while the others were looked for; from now on the tombstone keeps it out.
    late = look(journal, lambda writer: covered(fitting(writer, selection).items(), done.tombstone))
    erase(journal, late, creator=creator)
    settle(journal.engine)
    return done


def rehearse(journal: Journal, selection: Selection, *, now: datetime) -> Forgotten:
    """What `forget` would do: nothing is changed."""
    return planned(journal, selection, now=now)[0]


def planned(journal: Journal, selection: Selection, *, now: datetime) -> tuple[Forgotten, Doomed]:
    """What is to go, and the tombstone for it."""
    doomed = look(journal, lambda writer: fitting(writer, selection))
    receipt = name_uuid("forget", dumps(selection.described()), now.isoformat())
    kept = replace(selection.sealed(salt(journal.tombstones())), undated=undated(selection, doomed.lines))
    # Platforms date messages by the second: what is said in the second of the forgetting is not from before it.
    tombstone = Tombstone(receipt, now.replace(microsecond=0), kept, doomed.counts)
    return Forgotten(tombstone, tuple(sorted(doomed.exchanges))), doomed


def covered(found: Iterable[tuple[int, Event]], tombstone: Tombstone) -> Lines:
    """The lines that a tombstone must not let back."""
    return {seq: event for seq, event in found if tombstone.covers(event)}


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
        doomed = look(journal, partial(everything_covered, tombstone=tombstone))
        erase(journal, doomed, creator=creator, after=last, tombstone=tombstone)
    if fresh:
        settle(journal.engine)
    return len(fresh)


def everything_covered(writer: Writer, tombstone: Tombstone) -> Lines:
    return covered(lines(writer), tombstone)


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
    with journal.looking() as writer:
        found = fitting(writer, Selection(person=person))
    return [
        {"when": time_text(each.at), "what": str(each.kind), "where": each.place, "content": each.payload}
        for each in found.values()
    ]


def look(journal: Journal, choose: Callable[[Writer], Lines]) -> Doomed:
    """What goes with the lines that are chosen; writers go on meanwhile."""
    with journal.looking() as writer:
        gone = choose(writer)
        said = messages_of(writer, gone.values())
        paired = tuple(paired_from(writer, said.values()))
        exchanges = {event.message_id for event in gone.values() if event.kind is Kind.EXCHANGE}
        exchanges |= {each.id for each in paired}
        passages = frozenset(passages_of(writer, gone))
        # What was forgotten before too: an erasure that was cut off may have left what repeats it.
        learned = exchanges | passages | (writer.all_forgotten() if gone else set())
        repeats = repeating(writer, gone, said.values(), learned=learned)
        said |= twin_replies(writer, [*gone.values(), *repeats.values()], said.values())
        return Doomed(repeats | gone | lines_of(writer, said.values()), said, paired, frozenset(exchanges), passages)


def erase(
    journal: Journal,
    doomed: Doomed,
    *,
    creator: frozenset[str],
    after: int = 0,
    pair: bool = True,
    tombstone: Tombstone | None = None,
) -> None:
    """Delete what is doomed: first what answers, at once and with the tombstone if there is one, then line by line.

    In batches, because others who write wait for each. Every batch is whole, and the order is such that an erasure
    which is cut off answers from nothing any more, and finds the rest when it is repeated. Without `pair` conversations
    are not paired again.
    """
    for messages in batches(doomed.said.values()):
        with journal.writing() as writer:
            writer.hide_messages(messages)
    with journal.writing() as writer:
        if tombstone is not None:
            writer.put_tombstone(tombstone)
        drop_derived(writer, doomed, after=after)
    for batch in batches(doomed.lines.items()):
        with journal.writing() as writer:
            erase_lines(writer, dict(batch))
            said = {message_key(event) for _, event in batch if event.kind in SAID} & doomed.said.keys()
            again(writer, [doomed.said[key] for key in said] if pair else [], creator=creator)
    for exchanges in batches(doomed.paired if pair else ()):
        with journal.writing() as writer:
            again(writer, exchanges, creator=creator)


def batches(values: Iterable[Value]) -> Iterator[list[Value]]:
    """The values in batches, with a pause between two in which somebody else gets their turn."""
    iterator = iter(values)
    batch = list(islice(iterator, BATCH))
    while batch:
        yield batch
        if batch := list(islice(iterator, BATCH)):
            time.sleep(PAUSE_S)


def again(writer: Writer, values: Iterable[Message | Exchange], *, creator: frozenset[str]) -> None:
    """Pair the conversations again that messages or exchanges stood in."""
    for where, moments in touched_by(values).items():
        pair_again(writer, where, moments, creator=creator)


def drop_derived(writer: Writer, doomed: Doomed, *, after: int) -> None:
    """Take exchanges and passages out of what answers, and tell the index."""
    for identity in sorted(doomed.exchanges):
        drop_exchange(writer, identity, after=after)
    for identity in sorted(doomed.passages):
        writer.drop_passage(identity)


def erase_lines(writer: Writer, batch: Lines) -> None:
    """Lines of the journal, with the messages that they say."""
    for seq, event in batch.items():
        if event.kind in SAID:
            writer.run(
                "DELETE FROM messages WHERE platform = :platform AND place = :place AND message_id = :id",
                platform=event.platform,
                place=event.place,
                id=event.message_id,
            )
        erase_line(writer, seq, event)
    drop_documents(writer)


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
    # What the creator answered to a question of the inbox stands beside its draft, too.
    named |= {e.payload["answers"] for e in gone.values() if e.kind is Kind.EXCHANGE} - {""}
    hanging = dict(lines(writer, Kind.DRAFT, Kind.PREFERENCE, Kind.VOTE, Kind.REPORT))
    named |= {e.place for e in hanging.values() if e.kind is Kind.DRAFT and drafted_from(e, learned)}
    found |= {seq: event for seq, event in hanging.items() if {event.place, event.message_id} & named}
    return found


def drafted_from(draft: Event, learned: set[str]) -> bool:
    """Whether a draft was made from what was learned. One that does not say from what is taken to be."""
    notes = draft.payload.get("notes")
    return bool(learned) if notes is None else not learned.isdisjoint(notes)


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


def erase_line(writer: Writer, seq: int, event: Event) -> None:
    """One line of the journal, if it is still there, and what it put into the small tables."""
    writer.run("DELETE FROM events WHERE seq = :seq", seq=seq)
    if event.kind is Kind.VOTE:
        # Who learned from the vote finds out by the id of the answer that it was about.
        writer.mark_forgotten(event.place)
    if event.kind is Kind.QUESTION:
        erase_question(writer, event.message_id)
    if event.kind is Kind.CONSENT:
        place = place_from(event.payload["place"])
        person, key = event.author.key, place.key
        writer.run("DELETE FROM consents WHERE person = :person AND place = :place", person=person, place=key)


def drop_exchange(writer: Writer, identity: str, *, after: int) -> None:
    """Take an exchange out of what answers, tell the index, and keep its id for those who learned it."""
    writer.drop_exchange(identity)
    writer.run("DELETE FROM document_exchanges WHERE exchange_id = :id", id=identity)
    writer.mark_forgotten(identity, after=after)
    writer.run(
        "DELETE FROM notices WHERE question_id IN (SELECT a.question_id FROM inbox_askers a "
        "JOIN inbox i ON i.number = a.number WHERE i.exchange_id = :id)",
        id=identity,
    )


def passages_of(writer: Writer, gone: Lines) -> Iterator[str]:
    """The passages of which no line is left."""
    for identity in {event.message_id for event in gone.values() if event.kind is Kind.PASSAGE}:
        rows = writer.run("SELECT seq FROM events WHERE kind = 'passage' AND message_id = :id", id=identity)
        if all(row["seq"] in gone for row in rows):
            yield identity


def lines_of(writer: Writer, said: Iterable[Message]) -> Lines:
    """The lines that say or edit messages."""
    found: Lines = {}
    for message in said:
        rows = writer.run(
            "SELECT * FROM events WHERE platform = :platform AND place = :place AND message_id = :id "
            "AND kind IN ('message', 'edit')",
            platform=message.place.platform,
            place=message.place.id,
            id=message.id,
        )
        found.update((row["seq"], event_of(row)) for row in rows)
    return found


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


def salt(tombstones: Iterable[Tombstone]) -> str:
    """One for all seals of a journal, so that a person is hashed once, however many were forgotten."""
    sealed = (each.selection.person for each in tombstones if each.selection.person)
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
