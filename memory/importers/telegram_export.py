"""Telegram Desktop's `result.json`: one chat, or everything. Replies and topics pair what was said."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memory.importers.jsonfile import items
from memory.importers.records import ImportContext, Record, Skipped, Sourced, broken, time_of
from memory.importers.shapes import words
from memory.messages import Message, Person, Place, Source

ONE, ALL = "messages.item", "chats.list.item.messages.item"
FACTS = ("id", "name", "type", "chats.list.item.id", "chats.list.item.name", "chats.list.item.type")


def sniff(head: str, name: str) -> bool:
    return (name.endswith(".json") and '"from_id"' in head) or ('"chats"' in head and '"list"' in head)


def read(path: Path, context: ImportContext) -> Iterator[Record]:
    """Messages as they are. Raises UserMistake when the creator wrote none of them: the id is wrong then."""
    seen, ours = 0, 0
    for facts, row in items(path, (ONE, ALL), FACTS):
        record = message(facts, row, context)
        if isinstance(record, Sourced):
            seen += 1
            ours += record.message.person.role == "creator"
        yield record
    if not seen:
        raise broken(path, "its top", "no messages")
    if not ours:
        wanted = "creator.ids must hold telegram:from_id as the export writes it, for example telegram:user12345"
        raise broken(path, "all of it", f"none of its {seen} messages is the creator's; {wanted}")


def message(facts: dict[str, Any], row: Any, context: ImportContext) -> Record:
    if not isinstance(row, dict) or row.get("type") != "message":
        return Skipped("a service message")
    if row.get("forwarded_from"):
        return Skipped("forwarded from somebody else")
    text = words(row.get("text"))
    if not text:
        return Skipped("no text, only media")
    at = time_of(row.get("date_unixtime") or row.get("date"))
    if at is None or not row.get("from_id"):
        return Skipped("no time or no author")
    chat = facts.get("chats.list.item.id", facts.get("id", ""))
    name = facts.get("chats.list.item.name", facts.get("name", "")) or ""
    key = f"telegram:{row['from_id']}"
    mine = key in context.creator_keys
    person = Person("telegram", str(row["from_id"]), str(row.get("from") or ""), "creator" if mine else "member")
    thread = str(row.get("topic_id") or row.get("message_thread_id") or "")
    place = Place("telegram", str(chat), thread=thread, name=str(name), community=context.community)
    reply = row.get("reply_to_message_id")
    said = Message(
        str(row.get("id")), person, place, at, text, reply_to=str(reply) if reply else None, mentions=mentions(row)
    )
    return Sourced(said, Source.CREATOR_ARCHIVE if mine else Source.CHAT_EXPORT)


def mentions(row: dict[str, Any]) -> tuple[str, ...]:
    """Whom a message mentions by id; names without an id prove nobody."""
    entities = row.get("text_entities") or []
    return tuple(f"telegram:user{e['user_id']}" for e in entities if isinstance(e, dict) and e.get("user_id"))
