"""The one erasure: what a person wrote, or what came from a place, leaves the journal and all that derives from it.

An erased line of the journal is gone, not marked. The outbox carries the deletions to the index; the ids of what went
stay, for whoever keeps datasets and adapters that learned from it: see `trainer/frozen.py`.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from memory.codec import dumps, message_from
from memory.journal import Journal, Writer
from memory.messages import Kind, Message, name_uuid
from memory.remember import Conversation, Touched, pair_again

# A person's decisions about their data outlive the data: forgetting them would switch listening back on.
KEPT = (str(Kind.CHOICE),)


@dataclass(frozen=True)
class Forgotten:
    """What went: ids of exchanges, and how many messages and lines of the journal. `receipt` names this erasure."""

    receipt: str
    messages: int
    exchanges: tuple[str, ...]
    events: int


def forget_person(journal: Journal, person: str, *, creator: frozenset[str], now: datetime) -> Forgotten:
    """Erase what one person wrote, what was answered to it, and the exchanges that hold their words."""
    platform, _, identity = person.partition(":")
    with journal.writing() as writer:
        events = [row for row in lines(writer) if by_or_for(row, platform, identity)]
        messages = [m for m in messages_of(writer, platform) if m.person.id == identity]
        return erase(writer, events, messages, creator=creator, receipt=name_uuid("forget", person, now.isoformat()))


def forget_place(journal: Journal, platform: str, place: str, *, creator: frozenset[str], now: datetime) -> Forgotten:
    """Erase everything that was said in one place, its threads included."""
    with journal.writing() as writer:
        events = [row for row in lines(writer, platform) if row["place"] == place or in_place(row, platform, place)]
        messages = [message for message in messages_of(writer, platform) if message.place.id == place]
        receipt = name_uuid("forget", platform, place, now.isoformat())
        return erase(writer, events, messages, creator=creator, receipt=receipt)


def known_of(journal: Journal, person: str) -> list[dict[str, Any]]:
    """Everything the journal holds of one person, oldest first, as they may read it."""
    platform, _, identity = person.partition(":")
    with journal.writing() as writer:
        found = [row for row in lines(writer) if by_or_for(row, platform, identity)]
    return [
        {"when": row["at"], "what": row["kind"], "where": row["place"], "content": json.loads(row["payload"] or "{}")}
        for row in found
    ]


def erase(
    writer: Writer,
    events: Iterable[dict[str, Any]],
    messages: Iterable[Message],
    *,
    creator: frozenset[str],
    receipt: str,
) -> Forgotten:
    """Delete lines and messages, and bring everything derived from them up to date."""
    gone, said = list(events), list(messages)
    said += [reply for message in said for reply in twin_replies(writer, message)]
    exchanges = {row["message_id"] for row in gone if row["kind"] == Kind.EXCHANGE}
    exchanges |= {identity for message in said for identity in paired_from(writer, message)}
    touched: Touched = {}
    for message in said:
        where = Conversation(message.place.platform, message.place.id, message.place.thread)
        touched.setdefault(where, []).append(message.at)
        erase_message(writer, message)
    for row in gone:
        erase_line(writer, row)
    for identity in sorted(exchanges):
        writer.drop_exchange(identity)
        writer.run("INSERT INTO forgotten (exchange_id) VALUES (:id)", id=identity)
    for where, moments in touched.items():
        pair_again(writer, where, moments, creator=creator)
    return Forgotten(receipt, len(said), tuple(sorted(exchanges)), len(gone))


def erase_message(writer: Writer, message: Message) -> None:
    names = {"platform": message.place.platform, "place": message.place.id, "id": message.id}
    writer.run("DELETE FROM messages WHERE platform = :platform AND place = :place AND message_id = :id", **names)
    writer.run(
        "DELETE FROM events WHERE platform = :platform AND place = :place AND message_id = :id "
        "AND kind IN ('message', 'edit')",
        **names,
    )


def erase_line(writer: Writer, row: dict[str, Any]) -> None:
    """One line of the journal and what it put into the small tables."""
    writer.run("DELETE FROM events WHERE seq = :seq", seq=row["seq"])
    if row["kind"] == Kind.QUESTION:
        erase_question(writer, row["message_id"])
    if row["kind"] == Kind.CONSENT:
        person = json.loads(row["author"])
        writer.run("DELETE FROM consents WHERE person = :person", person=f"{person['platform']}:{person['id']}")


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


def twin_replies(writer: Writer, message: Message) -> list[Message]:
    """What the twin said to a message: it repeats it."""
    rows = writer.run(
        "SELECT payload FROM messages WHERE platform = :platform AND place = :place AND reply_to = :id "
        "AND source = 'twin'",
        platform=message.place.platform,
        place=message.place.id,
        id=message.id,
    )
    return [message_from(json.loads(row["payload"])) for row in rows]


def paired_from(writer: Writer, message: Message) -> list[str]:
    """The exchanges that were paired from a message."""
    rows = writer.run(
        "SELECT id, payload FROM exchanges WHERE place_key = :place AND pairing <> 'given'", place=message.place.key
    )
    halves = ((row["id"], json.loads(row["payload"])) for row in rows)
    return [identity for identity, each in halves if message.id in {*each["question_ids"], *each["answer_ids"]}]


def lines(writer: Writer, platform: str = "") -> Iterator[dict[str, Any]]:
    """Every line of the journal that may be erased, in order."""
    last = 0
    while rows := writer.run("SELECT * FROM events WHERE seq > :last ORDER BY seq LIMIT 1000", last=last):
        yield from (row for row in rows if row["kind"] not in KEPT and platform in {"", row["platform"]})
        last = rows[-1]["seq"]


def messages_of(writer: Writer, platform: str) -> Iterator[Message]:
    """Every current message of a platform."""
    last = ("", "")
    while rows := writer.run(
        "SELECT place, message_id, payload FROM messages WHERE platform = :platform AND revision >= 0 AND "
        "(place > :place OR (place = :place AND message_id > :id)) ORDER BY place, message_id LIMIT 1000",
        platform=platform,
        place=last[0],
        id=last[1],
    ):
        yield from (message_from(json.loads(row["payload"])) for row in rows)
        last = (rows[-1]["place"], rows[-1]["message_id"])


def by_or_for(row: dict[str, Any], platform: str, identity: str) -> bool:
    """Whether a line was written by this person, or holds an exchange that begins with their question."""
    author = json.loads(row["author"])
    if (author["platform"], author["id"]) == (platform, identity):
        return True
    if row["kind"] != Kind.EXCHANGE:
        return False
    asker = json.loads(row["payload"])["exchange"]["asker"]
    return bool(asker and (asker["platform"], asker["id"]) == (platform, identity))


def in_place(row: dict[str, Any], platform: str, place: str) -> bool:
    """Whether a line is about a place although it is filed elsewhere: answers are filed by conversation."""
    filed = row["place"] == f"{platform}:{place}" or row["place"].startswith(f"{platform}:{place}:")
    asked = row["kind"] == Kind.QUESTION and row["message_id"].startswith(f"{platform}:{place}:")
    return bool(filed or asked)
