"""What was said while the twin was away: since when, in which conversations, and what of it is still to be done."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

import discord

from bot.community import Community
from bot.discord_values import PLATFORM
from infra.files import write_atomic
from memory.messages import Place

# Who asked longer ago does not wait any more, and an admin who starts the twin anew does not want old talk learned.
LOOK_BACK = timedelta(hours=24)
# A question that was being answered when the process died began this long before, at most.
UNDER_WAY = timedelta(minutes=10)
# Somebody who has not written privately for so long is not looked up at every start.
FRIENDS = timedelta(days=30)
MOST_MESSAGES = 100
MOST_PLACES = 100
BEAT_S = 30.0


class Heartbeat:
    """A file that says until when everything was heard. What came before is never fetched again: it may be erased."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def last(self) -> datetime | None:
        """When it beat last; None at the very first start."""
        try:
            return datetime.fromisoformat(self._path.read_text(encoding="utf-8").strip())
        except (OSError, ValueError):
            return None

    def beat(self, now: datetime) -> None:
        write_atomic(self._path, now.isoformat())


def conversations(community: Community, *, now: datetime) -> list[Place]:
    """Where something may have been missed: private chats, where the twin listens, where it was asked of late."""
    seen = community.journal.visited(PLATFORM, since=now - FRIENDS)
    recent = [place for place, at in seen if place.visibility == "private" or at >= now - LOOK_BACK]
    listening = [place for place, _ in community.members.places(PLATFORM)]
    found = {place.key: place for place in [*listening, *recent]}
    return list(found.values())[:MOST_PLACES]


def answered_in(messages: Iterable[discord.Message], me: int) -> set[int]:
    """The messages that the twin has replied to already."""
    mine = [message.reference for message in messages if message.author.id == me]
    return {reference.message_id for reference in mine if reference and reference.message_id}
