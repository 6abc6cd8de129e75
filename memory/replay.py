"""A journal as it was at a moment, made again from the events that it had then.

What was forgotten since does not come back: its lines are gone, and its tombstones come over first. Decisions that
people made since about themselves, and what they deleted on a platform, hold too. Events keep their numbers, and so do
the questions of the inbox, since cards in chats name them.
"""

import json
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from infra.database import last_numbers, restart_numbers
from memory.codec import time_of, time_text
from memory.journal import BATCH, Journal, Writer, event_of
from memory.messages import Exchange, Kind
from memory.remember import Touched, derive, pair_again, remember

# A deletion on the platform is one, too: who takes back a message does not mean until the next restore.
DECISIONS = (Kind.CHOICE, Kind.CONSENT, Kind.LISTENING, Kind.DELETION)
# Of the latest answers, so many say who spoke then: a canary has a share of them, and pinned voices theirs.
ANSWERS = 20


def last_written(journal: Journal, by: datetime) -> int:
    """The number of the last event that was written down by then; 0 when there was none."""
    return int(one(journal, "SELECT coalesce(max(seq), 0) AS n FROM events WHERE written <= :at", at=time_text(by)))


def written(journal: Journal, number: int) -> datetime | None:
    """When the last event up to this number was written down; None when there is none."""
    found = one(journal, "SELECT max(written) AS n FROM events WHERE seq <= :number", number=number)
    return time_of(found) if found else None


def spoke(journal: Journal) -> str | None:
    """The name of the voice that gave most of the latest answers; None when there was no answer."""
    with journal.looking() as reader:
        rows = reader.run("SELECT payload FROM events WHERE kind = 'answer' ORDER BY seq DESC LIMIT :n", n=ANSWERS)
    voices = [voice for row in rows if (voice := json.loads(row["payload"])["answer"]["voice"])]
    return max(voices, key=voices.count) if voices else None


def replay(source: Journal, target: Journal, scratch: Journal, *, until: int, creator: frozenset[str]) -> None:
    """Make `target`, which is empty, what `source` was when event `until` was its last. `scratch` is empty, too.

    Retention takes lines out of conversations whose pairs stay, and what is left of them would be paired otherwise. So
    where all the events together do not make what `source` has, what it has stands.
    """
    bury(source, target)
    derive_again(source, scratch, until=source.last(), creator=creator)
    derive_again(source, target, until=until, creator=creator)
    with target.writing() as writer:
        correct(writer, pairs(target), made=pairs(scratch), had=pairs(source))
        renumber(writer, numbers(source))
    with source.looking() as before, target.writing() as writer:
        restart_numbers(writer.connection, last_numbers(before.connection))
    decide_again(source, target, after=until, creator=creator)


def bury(source: Journal, target: Journal) -> None:
    """Tombstones and the numbers of what was forgotten."""
    with source.looking() as reader, target.writing() as writer:
        for tombstone in source.tombstones():
            writer.put_tombstone(tombstone)
        for row in reader.run("SELECT seq, exchange_id FROM forgotten ORDER BY seq"):
            writer.run("INSERT INTO forgotten (seq, exchange_id) VALUES (:seq, :exchange_id)", **row)


def derive_again(source: Journal, target: Journal, *, until: int, creator: frozenset[str]) -> None:
    """Copy events with their numbers, and derive what follows, as `remember` does."""
    after = 0
    while rows := lines(source, after, until):
        touched: Touched = defaultdict(list)
        with target.writing() as writer:
            for row in rows:
                writer.run(
                    f"INSERT INTO events ({', '.join(row)}) VALUES ({', '.join(f':{name}' for name in row)})", **row
                )
                derive(writer, event_of(row), touched, creator=creator)
            for where, moments in touched.items():
                pair_again(writer, where, moments, creator=creator)
        after = rows[-1]["seq"]


def lines(source: Journal, after: int, until: int) -> list[dict[str, Any]]:
    """The next lines of a journal as they are kept."""
    with source.looking() as reader:
        return reader.run(
            "SELECT * FROM events WHERE seq > :after AND seq <= :until ORDER BY seq LIMIT :limit",
            after=after,
            until=until,
            limit=BATCH,
        )


def pairs(journal: Journal) -> dict[str, Exchange]:
    """The exchanges that were paired from conversations, by id."""
    return {each.id: each for each in journal.exchanges() if each.pairing != "given"}


def correct(
    writer: Writer, found: Mapping[str, Exchange], *, made: Mapping[str, Exchange], had: Mapping[str, Exchange]
) -> None:
    """Undo, of the exchanges that were found, what is made otherwise than it was had."""
    for identity in sorted(made.keys() | had.keys()):
        was, would = had.get(identity), made.get(identity)
        if was == would:
            continue
        if would is not None and found.get(identity) == would:
            writer.drop_exchange(identity)
        if was is not None and all(is_known(writer, was, each) for each in (*was.question_ids, *was.answer_ids)):
            writer.put_exchange(was)


def is_known(writer: Writer, exchange: Exchange, message_id: str) -> bool:
    return writer.message(exchange.place.platform, exchange.place.id, message_id) is not None


def numbers(journal: Journal) -> dict[str, int]:
    """Under which number each asker's question is in the inbox."""
    with journal.looking() as reader:
        return {row["question_id"]: row["number"] for row in reader.run("SELECT * FROM inbox_askers")}


def renumber(writer: Writer, known: Mapping[str, int]) -> None:
    """Give the questions of the inbox the numbers that they had: a forgotten one before them has left a gap."""
    wanted: dict[int, int] = {}
    for row in writer.run("SELECT question_id, number FROM inbox_askers ORDER BY number, question_id"):
        number = known.get(row["question_id"])
        if row["number"] not in wanted and number is not None and number not in wanted.values():
            wanted[row["number"]] = number
    for table in ("inbox", "inbox_askers"):
        # By way of negative ones, so that no two are the same meanwhile.
        for old, new in wanted.items():
            writer.run(f"UPDATE {table} SET number = :new WHERE number = :old", old=old, new=-new)
        writer.run(f"UPDATE {table} SET number = -number WHERE number < 0")


def decide_again(source: Journal, target: Journal, *, after: int, creator: frozenset[str]) -> None:
    """What people decided since about what is kept of them."""
    last = after
    while found := source.events(after=last):
        remember(target, [event for _, event in found if event.kind in DECISIONS], creator=creator)
        last = found[-1][0]


def one(journal: Journal, statement: str, **values: Any) -> Any:
    with journal.looking() as reader:
        return reader.run(statement, **values)[0]["n"]
