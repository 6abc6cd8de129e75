"""The people, servers and channels of the double, who may do what in them, and the clock they live by.

Nothing here speaks HTTP or knows a socket: a change that Discord would tell its bots about goes to `announce`.
Permissions are whole bit fields per member (each distinct one becomes a role, so that the client library computes the
same) and denials per channel; threads take those of their parent.
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntFlag
from typing import Any, Protocol

from tests.fakes.discord_limits import EPHEMERAL, LOADING, Json, Refusal

EPOCH_MS = 1_420_070_400_000

TEXT, DM, CATEGORY, NEWS, NEWS_THREAD, PUBLIC_THREAD, PRIVATE_THREAD, FORUM = 0, 1, 4, 5, 10, 11, 12, 15
THREADS = (NEWS_THREAD, PUBLIC_THREAD, PRIVATE_THREAD)


class Permission(IntFlag):
    """The bits the double looks at; others pass through."""

    ADMINISTRATOR = 1 << 3
    MANAGE_GUILD = 1 << 5
    ADD_REACTIONS = 1 << 6
    VIEW_CHANNEL = 1 << 10
    SEND_MESSAGES = 1 << 11
    MANAGE_MESSAGES = 1 << 13
    EMBED_LINKS = 1 << 14
    ATTACH_FILES = 1 << 15
    READ_MESSAGE_HISTORY = 1 << 16
    MENTION_EVERYONE = 1 << 17
    USE_APPLICATION_COMMANDS = 1 << 31
    MANAGE_THREADS = 1 << 34
    CREATE_PUBLIC_THREADS = 1 << 35
    CREATE_PRIVATE_THREADS = 1 << 36
    SEND_MESSAGES_IN_THREADS = 1 << 38


DEFAULT = int(
    Permission.ADD_REACTIONS
    | Permission.VIEW_CHANNEL
    | Permission.SEND_MESSAGES
    | Permission.EMBED_LINKS
    | Permission.ATTACH_FILES
    | Permission.READ_MESSAGE_HISTORY
    | Permission.USE_APPLICATION_COMMANDS
    | Permission.CREATE_PUBLIC_THREADS
    | Permission.SEND_MESSAGES_IN_THREADS
)
EVERY = (1 << 53) - 1


class Intent(IntFlag):
    """The gateway intents the double tells apart."""

    GUILDS = 1 << 0
    GUILD_MEMBERS = 1 << 1
    GUILD_PRESENCES = 1 << 8
    GUILD_MESSAGES = 1 << 9
    GUILD_MESSAGE_REACTIONS = 1 << 10
    DIRECT_MESSAGES = 1 << 12
    DIRECT_MESSAGE_REACTIONS = 1 << 13
    MESSAGE_CONTENT = 1 << 15


PRIVILEGED = int(Intent.GUILD_MEMBERS | Intent.GUILD_PRESENCES | Intent.MESSAGE_CONTENT)


class Announce(Protocol):
    """Tells the sessions that want to hear it; `render` gets the intents of each."""

    def __call__(self, event: str, render: Callable[[int], Json], *, intent: int, guild: int | None) -> None: ...


def _unheard(event: str, render: Callable[[int], Json], *, intent: int, guild: int | None) -> None:
    """Nobody listens before there is a gateway."""


class Clock:
    """Real time, which a test may push forward instead of waiting."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> float:
        return time.monotonic() + self.ahead

    def wall(self) -> float:
        return time.time() + self.ahead


@dataclass
class FakeUser:
    id: int
    name: str
    locale: str
    bot: bool
    dms_open: bool = True


@dataclass
class FakeGuild:
    """A server; `members` holds everybody's permissions, `roles` the role that carries each such set."""

    id: int
    name: str
    locale: str
    owner: int
    members: dict[int, int] = field(default_factory=dict)
    roles: dict[int, int] = field(default_factory=dict)
    has_bot: bool = True


@dataclass
class FakeChannel:
    id: int
    name: str
    kind: int
    guild: int | None = None
    parent: int | None = None
    owner: int | None = None
    recipient: int | None = None
    denied: dict[int, int] = field(default_factory=dict)
    hidden: bool = False
    members: set[int] = field(default_factory=set)
    messages: list[int] = field(default_factory=list)
    archived: bool = False

    @property
    def is_thread(self) -> bool:
        return self.kind in THREADS


@dataclass
class FakeFile:
    id: int
    name: str
    data: bytes


@dataclass
class FakeMessage:
    """A message as it stands, with every text an edit gave it and when."""

    id: int
    channel: int
    author: int
    content: str
    kind: int = 0
    reply_to: int | None = None
    pings_author: bool = False
    flags: int = 0
    nonce: str | int | None = None
    edits: list[tuple[float, str]] = field(default_factory=list)
    edited_at: float | None = None
    components: list[Json] = field(default_factory=list)
    embeds: list[Json] = field(default_factory=list)
    attachments: list[FakeFile] = field(default_factory=list)
    allowed_mentions: Json | None = None
    mentions: list[int] = field(default_factory=list)
    mentioned_roles: list[int] = field(default_factory=list)
    everyone: bool = False
    reactions: dict[str, list[int]] = field(default_factory=dict)
    interaction: Json | None = None
    only_for: int | None = None
    deleted: bool = False

    @property
    def ephemeral(self) -> bool:
        return bool(self.flags & EPHEMERAL)

    @property
    def loading(self) -> bool:
        return bool(self.flags & LOADING)


class World:
    """Everything that exists, by id."""

    def __init__(self, clock: Clock, token: str, intents_allowed: int) -> None:
        self.clock = clock
        self.token = token
        self.intents_allowed = intents_allowed
        self.shards = 1
        self.base = ""
        self.announce: Announce = _unheard
        self.violations: list[str] = []
        self.users: dict[int, FakeUser] = {}
        self.guilds: dict[int, FakeGuild] = {}
        self.channels: dict[int, FakeChannel] = {}
        self.messages: dict[int, FakeMessage] = {}
        self._last_ms = 0
        self._counter = itertools.count()
        self.application_id = self.new_id()
        self.bot_id = self.add_user("Twin", bot=True)
        self.owner_id = self.add_user("Ada")

    def new_id(self) -> int:
        """A snowflake of its own millisecond, so that ids sort by age and servers spread over the shards."""
        self._last_ms = max(int(self.clock.wall() * 1000), self._last_ms + 1)
        return (self._last_ms - EPOCH_MS) << 22 | next(self._counter) & 0xFFF

    def add_user(self, name: str, locale: str = "en-US", bot: bool = False) -> int:
        user = FakeUser(self.new_id(), name, locale, bot)
        self.users[user.id] = user
        return user.id

    def add_guild(self, name: str, locale: str) -> FakeGuild:
        guild = FakeGuild(self.new_id(), name, locale, self.owner_id)
        self.guilds[guild.id] = guild
        self.join(guild.id, self.owner_id, EVERY)
        self.join(guild.id, self.bot_id, DEFAULT)
        return guild

    def join(self, guild: int, user: int, permissions: int) -> bool:
        """Whether these permissions needed a new role."""
        place = self.guilds[guild]
        place.members[user] = int(permissions)
        is_new = int(permissions) not in place.roles
        place.roles.setdefault(int(permissions), self.new_id())
        return is_new

    def add_channel(self, channel: FakeChannel) -> FakeChannel:
        self.channels[channel.id] = channel
        return channel

    def dm_with(self, user: int) -> FakeChannel:
        for channel in self.channels.values():
            if channel.recipient == user:
                return channel
        return self.add_channel(FakeChannel(self.new_id(), "", DM, recipient=user))

    def found_channel(self, channel: int) -> FakeChannel:
        if channel not in self.channels:
            raise Refusal(404, 10003, "Unknown Channel")
        return self.channels[channel]

    def found_message(self, channel: int, message: int) -> FakeMessage:
        """A message that the API can reach by its id; what is shown to one person only it cannot."""
        found = self.messages.get(message)
        if found is None or found.deleted or found.ephemeral or found.channel != channel:
            raise Refusal(404, 10008, "Unknown Message")
        return found

    def guild_of(self, channel: FakeChannel) -> FakeGuild | None:
        return None if channel.guild is None else self.guilds[channel.guild]

    def permissions(self, user: int, channel: FakeChannel) -> int:
        """What `user` may do in `channel`, as Discord computes it."""
        guild = self.guild_of(channel)
        if guild is None:
            return DEFAULT | Permission.MENTION_EVERYONE if user in (self.bot_id, channel.recipient) else 0
        held = guild.members.get(user, 0)
        if user == guild.owner or held & Permission.ADMINISTRATOR:
            return EVERY if user in guild.members else 0
        place = self.channels[channel.parent] if channel.is_thread and channel.parent else channel
        allowed = held & ~place.denied.get(user, 0)
        return allowed if allowed & Permission.VIEW_CHANNEL else 0

    def bot_may(self, channel: FakeChannel, permission: int) -> bool:
        return self.permissions(self.bot_id, channel) & permission == permission

    def bot_sees(self, channel: FakeChannel) -> bool:
        guild = self.guild_of(channel)
        if guild is not None and not guild.has_bot:
            return False
        hidden = channel.kind == PRIVATE_THREAD and self.bot_id not in channel.members
        needed = Permission.VIEW_CHANNEL | (Permission.MANAGE_THREADS if hidden else 0)
        return self.bot_may(channel, needed)

    def viewable(self, channel: int) -> FakeChannel:
        """The channel, if the bot may see it."""
        found = self.found_channel(channel)
        if not self.bot_sees(found):
            raise Refusal(403, 50001, "Missing Access")
        return found


def created_at(snowflake: int) -> datetime:
    return datetime.fromtimestamp(((snowflake >> 22) + EPOCH_MS) / 1000, UTC)


def stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def ids(values: Any) -> list[str]:
    """Ids travel as strings."""
    return [str(one) for one in values]
