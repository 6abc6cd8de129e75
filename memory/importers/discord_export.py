"""DiscordChatExporter's JSON: one channel or thread. What it holds was read through Discord's API: it never trains."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memory.importers.jsonfile import items
from memory.importers.records import ImportContext, Record, Skipped, Sourced, Speakers, revision_of, time_of
from memory.importers.shapes import words
from memory.messages import Message, Person, Place, Source, Visibility

FACTS = ("guild.id", "guild.name", "channel.id", "channel.name", "channel.type", "channel.categoryId")
SPOKEN = {"Default", "Reply", "0", "19"}


def sniff(head: str, name: str) -> bool:
    return all(re.search(rf'"{key}"\s*:\s*\{{', head) for key in ("guild", "channel"))


def read(path: Path, context: ImportContext) -> Iterator[Record]:
    """Messages as they are. Raises UserMistake when the creator wrote none of them: the id is wrong then."""
    speakers = Speakers()
    for _, facts, row in items(path, ("messages.item",), FACTS):
        record = message(facts, row, context)
        speakers.count(record)
        yield record
    speakers.require_creator(path)


def message(facts: dict[str, Any], row: Any, context: ImportContext) -> Record:
    """One message, or why it is left out."""
    reason = unusable(row)
    if reason:
        return Skipped(reason)
    author, at = object_in(row, "author"), time_of(row.get("timestamp"))
    if at is None or not author.get("id"):
        return Skipped("no time or no author")
    mine = f"discord:{author['id']}" in context.creator_keys
    name = str(author.get("nickname") or author.get("name") or "")
    channel, guild = str(facts.get("channel.id", "")), str(facts.get("guild.id", ""))
    said = Message(
        str(row.get("id")),
        Person("discord", str(author["id"]), name, "creator" if mine else "member"),
        place_of(facts, context.community),
        at,
        words(row.get("content")),
        reply_to=reply_of(row, channel),
        mentions=tuple(f"discord:{each['id']}" for each in mentioned(row)),
        revision=revision_of(row.get("timestampEdited")),
        url=f"https://discord.com/channels/{guild}/{channel}/{row.get('id')}" if guild and guild != "0" else "",
    )
    return Sourced(said, Source.DISCORD_API)


def place_of(facts: dict[str, Any], community: str) -> Place:
    """A thread stands in its parent channel, which the exporter writes where a channel has its category."""
    channel, kind = str(facts.get("channel.id", "")), str(facts.get("channel.type", ""))
    name = str(facts.get("channel.name", ""))
    visibility: Visibility = "private" if kind.startswith("Direct") else "public"
    if "Thread" not in kind:
        return Place("discord", channel, "", name, community, visibility)
    return Place("discord", str(facts.get("channel.categoryId") or channel), channel, name, community, visibility)


def unusable(row: Any) -> str:
    """Why a message says nothing of its author's own; empty when it does."""
    if not isinstance(row, dict) or str(row.get("type")) not in SPOKEN:
        return "a service message"
    if object_in(row, "author").get("isBot"):
        return "written by a bot"
    if row.get("forwardedMessage") or object_in(row, "reference").get("type") == "Forward":
        return "forwarded from somebody else"
    return "" if words(row.get("content")) else "no text, only media"


def object_in(row: dict[str, Any], name: str) -> dict[str, Any]:
    """A field that should be an object; empty where it is none."""
    found = row.get(name)
    return found if isinstance(found, dict) else {}


def mentioned(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Whom a message mentions by id."""
    found = row.get("mentions")
    return [each for each in found if isinstance(each, dict) and each.get("id")] if isinstance(found, list) else []


def reply_of(row: dict[str, Any], channel: str) -> str | None:
    """The message replied to, if it is in this channel."""
    reference = object_in(row, "reference")
    elsewhere = str(reference.get("channelId") or channel) != channel
    return str(reference["messageId"]) if reference.get("messageId") and not elsewhere else None
