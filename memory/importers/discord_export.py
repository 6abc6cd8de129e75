"""DiscordChatExporter's JSON: one channel or thread. What it holds was read through Discord's API: it never trains."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memory.importers.jsonfile import items
from memory.importers.records import ImportContext, Record, Skipped, Sourced, broken, time_of
from memory.importers.shapes import words
from memory.messages import Message, Person, Place, Source

FACTS = ("guild.id", "guild.name", "channel.id", "channel.name", "channel.type", "channel.categoryId")
SPOKEN = {"Default", "Reply", "0", "19"}


def sniff(head: str, name: str) -> bool:
    return name.endswith(".json") and '"guild"' in head and '"channel"' in head


def read(path: Path, context: ImportContext) -> Iterator[Record]:
    """Messages as they are. Raises UserMistake when the creator wrote none of them: the id is wrong then."""
    seen, ours = 0, 0
    for facts, row in items(path, ("messages.item",), FACTS):
        record = message(facts, row, context)
        if isinstance(record, Sourced):
            seen += 1
            ours += record.message.person.role == "creator"
        yield record
    if not seen:
        raise broken(path, "its top", "no messages")
    if not ours:
        wanted = "creator.ids must hold discord:USER-ID"
        raise broken(path, "all of it", f"none of its {seen} messages is the creator's; {wanted}")


def message(facts: dict[str, Any], row: Any, context: ImportContext) -> Record:
    if not isinstance(row, dict) or str(row.get("type")) not in SPOKEN:
        return Skipped("a service message")
    author = row.get("author") or {}
    if author.get("isBot"):
        return Skipped("written by a bot")
    text = words(row.get("content"))
    if not text:
        return Skipped("no text, only media")
    at = time_of(row.get("timestamp"))
    if at is None or not author.get("id"):
        return Skipped("no time or no author")
    mine = f"discord:{author['id']}" in context.creator_keys
    name = str(author.get("nickname") or author.get("name") or "")
    person = Person("discord", str(author["id"]), name, "creator" if mine else "member")
    channel, guild = str(facts.get("channel.id", "")), str(facts.get("guild.id", ""))
    thread = channel if "Thread" in str(facts.get("channel.type", "")) else ""
    place = Place(
        "discord", channel, thread=thread, name=str(facts.get("channel.name", "")), community=context.community
    )
    reply = (row.get("reference") or {}).get("messageId")
    said = Message(
        str(row.get("id")),
        person,
        place,
        at,
        text,
        reply_to=str(reply) if reply else None,
        mentions=tuple(f"discord:{each['id']}" for each in row.get("mentions") or [] if each.get("id")),
        url=f"https://discord.com/channels/{guild}/{channel}/{row.get('id')}" if guild and guild != "0" else "",
    )
    return Sourced(said, Source.DISCORD_API)
