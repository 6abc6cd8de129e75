"""Telegram Desktop's `result.json`: one chat, or everything. Replies and topics pair what was said.

People and supergroups get the ids that the Bot API gives them, so that an imported history and a listening bot speak of
the same ones. In other chats message numbers differ between accounts; those stay apart under the export's own id.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memory.importers.jsonfile import items
from memory.importers.records import ImportContext, Record, Skipped, Sourced, Speakers, revision_of, time_of
from memory.importers.shapes import words
from memory.messages import Message, Person, Place, Source, Visibility

ROOTS = ("", "chats.list.item.", "left_chats.list.item.")
LISTS = tuple(f"{root}messages.item" for root in ROOTS)
FACTS = (*(f"{root}{name}" for root in ROOTS for name in ("id", "name", "type")), "personal_information.user_id")
# What is said in these was said to the creator or a bot alone; it must not be quoted to a community.
PRIVATE = {"personal_chat", "bot_chat", "saved_messages", "replies"}
NUMBERED_FOR_ALL = {"private_supergroup", "public_supergroup", "private_channel", "public_channel"}
CHAT = re.compile(r'"type"\s*:\s*"(saved_messages|personal_chat|bot_chat|(private|public)_\w+)"')
EXPORT = re.compile(r'"(personal_information|frequent_contacts|chats)"\s*:\s*\{')


def sniff(head: str, name: str) -> bool:
    return head.lstrip("\ufeff \t\r\n").startswith("{") and bool(CHAT.search(head) or EXPORT.search(head))


def read(path: Path, context: ImportContext) -> Iterator[Record]:
    """Messages as they are. Raises UserMistake when the creator wrote none of them: the id is wrong then."""
    speakers, topics, owner = Speakers(), Topics(), ""
    for where, facts, row in items(path, LISTS, FACTS):
        owner = str(facts.get("personal_information.user_id") or owner)
        chat = Chat.of(where, facts, context)
        record = message(chat, row, topics, context)
        speakers.count(record)
        yield record
    hint = f"; the export's owner is telegram:{owner}" if owner else ""
    speakers.require_creator(path, hint=hint)


class Chat:
    """The chat that a message stands in."""

    def __init__(self, identity: str, name: str, kind: str, community: str) -> None:
        self.kind = kind
        self._id = f"-100{identity}" if kind in NUMBERED_FOR_ALL else f"export-{identity}"
        self._name, self._community = name, community
        self._visibility: Visibility = "private" if kind in PRIVATE else "public"

    @classmethod
    def of(cls, where: str, facts: dict[str, Any], context: ImportContext) -> "Chat":
        root = where.removesuffix("messages.item")
        identity, name, kind = (str(facts.get(f"{root}{fact}") or "") for fact in ("id", "name", "type"))
        return cls(identity, name, kind, context.community)

    def place(self, thread: str) -> Place:
        return Place("telegram", self._id, thread, self._name, self._community, self._visibility)


class Topics:
    """Which messages stand in which topic: exports say so only through the chain of replies to the topic's start."""

    def __init__(self) -> None:
        self._of: dict[tuple[Place, str], str] = {}
        self._roots: set[tuple[Place, str]] = set()

    def start(self, place: Place, number: str) -> None:
        self._roots.add((place, number))
        self._of[place, number] = number

    def thread(self, place: Place, number: str, reply: str | None) -> str:
        found = self._of.get((place, reply or ""), "")
        if found:
            self._of[place, number] = found
        return found

    def is_start(self, place: Place, number: str) -> bool:
        return (place, number) in self._roots


def message(chat: Chat, row: Any, topics: Topics, context: ImportContext) -> Record:
    """One message, or why it is left out."""
    if not isinstance(row, dict):
        return Skipped("not a message")
    number, whole = str(row.get("id")), chat.place("")
    if row.get("type") != "message":
        if row.get("action") == "topic_created":
            topics.start(whole, number)
        return Skipped("a service message")
    here = row.get("reply_to_message_id") and not row.get("reply_to_peer_id")
    reply = str(row["reply_to_message_id"]) if here else None
    thread = topics.thread(whole, number, reply)
    reason = unusable(chat, row)
    if reason:
        return Skipped(reason)
    author, at = (
        str(row.get("from_id") or "").removeprefix("user"),
        time_of(row.get("date_unixtime") or row.get("date")),
    )
    if at is None or not author:
        return Skipped("no time or no author")
    mine = f"telegram:{author}" in context.creator_keys
    said = Message(
        number,
        Person("telegram", author, str(row.get("from") or ""), "creator" if mine else "member"),
        chat.place(thread),
        at,
        text_of(row),
        reply_to=None if reply is None or topics.is_start(whole, reply) else reply,
        mentions=mentions(row),
        revision=revision_of(row.get("edited_unixtime") or row.get("edited")),
    )
    return Sourced(said, Source.CREATOR_ARCHIVE if mine else Source.CHAT_EXPORT)


def unusable(chat: Chat, row: dict[str, Any]) -> str:
    """Why a message says nothing of its author's own; empty when it does."""
    if chat.kind == "verification_codes":
        return "a verification code"
    if "forwarded_from" in row or row.get("forwarded_from_id"):
        return "forwarded from somebody else"
    if row.get("via_bot"):
        return "written by a bot"
    return "" if text_of(row) else "no text, only media"


def text_of(row: dict[str, Any]) -> str:
    return words(row.get("text_entities")) or words(row.get("text"))


def mentions(row: dict[str, Any]) -> tuple[str, ...]:
    """Whom a message mentions by id; names without an id prove nobody."""
    entities = row.get("text_entities") or []
    entities = entities if isinstance(entities, list) else []
    return tuple(f"telegram:{each['user_id']}" for each in entities if isinstance(each, dict) and each.get("user_id"))
