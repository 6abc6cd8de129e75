"""A double of Discord: its HTTP API v10 and its gateway, on loopback, for the real client library to talk to.

    async with FakeDiscord() as discord:
        guild = discord.guild()
        channel = discord.channel(guild)
        bob = discord.user("Bob")
        discord.member(guild, bob)
        ...  # start the bot at `discord.api` and `discord.gateway`
        await discord.say(bob, channel, f"<@{discord.bot_id}> how warm?")
        await discord.until(lambda: discord.said_by_bot(channel))
        assert discord.violations == []

It enforces what the real one enforces (limits, permissions, intents, time to answer, rate limits) and notes in
`violations` what the real one would punish. It encodes our reading of the documentation; voice, polls, webhooks of
servers and compressed frames are not here.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from tests.fakes import discord_payloads as payloads
from tests.fakes import waiting
from tests.fakes.discord_commands import Commands, NotVisible
from tests.fakes.discord_gateway import Gateway
from tests.fakes.discord_http import PREFIX, Failure, Limit, Request, Server, attachment
from tests.fakes.discord_interactions import Interaction, Interactions
from tests.fakes.discord_limits import Json
from tests.fakes.discord_rest import Rest
from tests.fakes.discord_talk import Talk
from tests.fakes.discord_world import (
    DEFAULT,
    PUBLIC_THREAD,
    TEXT,
    Clock,
    FakeChannel,
    FakeFile,
    FakeMessage,
    Intent,
    Permission,
    World,
)

__all__ = [
    "DEFAULT",
    "Clock",
    "FakeDiscord",
    "FakeMessage",
    "Intent",
    "Interaction",
    "Limit",
    "NotVisible",
    "Permission",
]


class FakeDiscord:
    """One Discord with one application in it; `owner_id` is Ada, who owns the application and every server."""

    def __init__(
        self,
        *,
        token: str = "token-of-the-twin",
        intents_allowed: int = 0,
        seed: int = 0,
        clock: Clock | None = None,
        port: int = 0,
    ) -> None:
        self.clock = clock or Clock()
        self.world = World(self.clock, token, int(intents_allowed))
        self.talk = Talk(self.world)
        self.gateway_server = Gateway(self.world)
        self.server = Server(self.world, seed)
        self.rest = Rest(self.world, self.talk)
        self.registry = Commands(self.world)
        self.interactions = Interactions(self.world, self.talk, self.registry, self.rest.shown)
        self.server.routes += [*self.rest.routes(), *self.registry.routes(), *self.interactions.routes()]
        self.rest.left = self._left
        self._port = port
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=32 * 1024 * 1024)
        app.router.add_get("/gw/", self.gateway_server.handle)
        app.router.add_get("/attachments/{channel}/{message}/{name}", self._attachment)
        app.router.add_route("*", "/{rest:.*}", self.server.handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.5, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self.world.base = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        self.interactions.stop()
        await self.gateway_server.drop(1001)
        await self._runner.cleanup()

    async def _attachment(self, request: web.Request) -> web.Response:
        return attachment(self.world, [request.match_info[name] for name in ("channel", "message", "name")])

    # Where it is and who is in it

    @property
    def api(self) -> str:
        return self.world.base + PREFIX

    @property
    def gateway(self) -> str:
        return self.world.base.replace("http", "ws", 1) + "/gw/"

    @property
    def token(self) -> str:
        return self.world.token

    @property
    def application_id(self) -> int:
        return self.world.application_id

    @property
    def bot_id(self) -> int:
        return self.world.bot_id

    @property
    def owner_id(self) -> int:
        return self.world.owner_id

    @property
    def intents_allowed(self) -> int:
        """The privileged intents that are switched on in the portal."""
        return self.world.intents_allowed

    @intents_allowed.setter
    def intents_allowed(self, intents: int) -> None:
        self.world.intents_allowed = int(intents)

    @property
    def shards(self) -> int:
        """How many shards `/gateway/bot` asks for."""
        return self.world.shards

    @shards.setter
    def shards(self, shards: int) -> None:
        self.world.shards = shards

    # Building the world. What is built while the bot is connected is told to it.

    def guild(self, name: str = "Community", locale: str = "en-US") -> int:
        """A server with the bot in it."""
        guild = self.world.add_guild(name, locale)
        self._tell_whole(guild.id)
        return guild.id

    def _tell_whole(self, guild: int) -> None:
        place = self.world.guilds[guild]
        self._tell(guild, "GUILD_CREATE", lambda intents: payloads.guild_create(self.world, place, intents))

    def channel(self, guild: int, name: str = "general", kind: int = TEXT, parent: int | None = None) -> int:
        made = FakeChannel(self.world.new_id(), name, kind, guild, parent)
        self.world.add_channel(made)
        self._tell(guild, "CHANNEL_CREATE", lambda _: payloads.channel(self.world, made))
        return made.id

    def thread(self, parent: int, name: str, starter: int | None = None, owner: int | None = None) -> int:
        """A public thread, or a post if `parent` is a forum; `starter` is the message it began at."""
        place = self.world.channels[parent]
        return self.rest.new_thread(place, name, PUBLIC_THREAD, owner or self.owner_id, starter).id

    def user(self, name: str, locale: str = "en-US", bot: bool = False) -> int:
        return self.world.add_user(name, locale, bot)

    def member(self, guild: int, user: int, permissions: int = DEFAULT) -> None:
        """Let somebody join with exactly these permissions, or change those of a member, the bot included."""
        place = self.world.guilds[guild]
        event = "GUILD_MEMBER_UPDATE" if user in place.members else "GUILD_MEMBER_ADD"
        if self.world.join(guild, user, permissions):
            role = {"guild_id": str(guild), "role": payloads.roles(place)[-1]}
            self._tell(guild, "GUILD_ROLE_CREATE", lambda _: role)
        intent = 0 if user == self.bot_id else Intent.GUILD_MEMBERS
        body = {"guild_id": str(guild), **payloads.full_member(self.world, place, user)}
        self.world.announce(event, lambda _: body, intent=intent, guild=guild)

    def deny(self, channel: int, permissions: int, user: int | None = None) -> None:
        """Take permissions in one channel away, from the bot unless a `user` is named."""
        place = self.world.channels[channel]
        who = user or self.bot_id
        place.denied[who] = place.denied.get(who, 0) | int(permissions)
        if place.guild is not None:
            self._tell(place.guild, "CHANNEL_UPDATE", lambda _: payloads.channel(self.world, place))

    def hide(self, channel: int) -> None:
        """Close a channel to everybody's role; the members so far keep their own way in."""
        place = self.world.channels[channel]
        place.hidden = True
        if place.guild is not None:
            self._tell(place.guild, "CHANNEL_UPDATE", lambda _: payloads.channel(self.world, place))

    def grant(self, user: int, command: str) -> None:
        """Offer a command to somebody against its default permissions, as an admin can under Integrations."""
        self.registry.granted.add((user, command))

    def close_dms(self, user: int) -> None:
        self.world.users[user].dms_open = False

    def pass_time(self, seconds: float) -> None:
        """Push the clock forward; interactions that were left unanswered so long are noticed."""
        self.clock.ahead += seconds
        self.interactions.look_for_late_ones()

    def _tell(self, guild: int, event: str, render: Callable[[int], Json]) -> None:
        self.world.announce(event, render, intent=Intent.GUILDS, guild=guild)

    # People acting

    async def say(
        self,
        user: int,
        channel: int,
        text: str,
        reply_to: int | None = None,
        ping: bool = True,
        *,
        files: Mapping[str, bytes] | None = None,
    ) -> int:
        place = self.world.channels[channel]
        if not self.world.permissions(user, place) & Permission.SEND_MESSAGES:
            raise NotVisible(f"{self.world.users[user].name} may not speak in {place.name or 'that channel'}")
        message = self.talk.new(place, user, text, reply_to)
        message.attachments = [FakeFile(self.world.new_id(), name, data) for name, data in (files or {}).items()]
        return self.talk.by_person(message, ping).id

    async def dm(self, user: int, text: str, reply_to: int | None = None) -> int:
        return await self.say(user, self.world.dm_with(user).id, text, reply_to)

    async def edit(self, message: int, text: str) -> None:
        self.talk.reword(self.messages[message], text)

    async def unfurl(self, message: int, embed: Json) -> None:
        """Show the preview of a link, which is an update of a message that nobody edited."""
        found = self.messages[message]
        found.embeds = [*found.embeds, embed]
        self.talk.tell("MESSAGE_UPDATE", found)

    async def delete(self, message: int) -> None:
        found = self.messages[message]
        self.talk.remove(self.world.channels[found.channel], [found])

    async def bulk_delete(self, channel: int, messages: Sequence[int]) -> None:
        self.talk.remove(self.world.channels[channel], [self.messages[one] for one in messages])

    async def react(self, user: int, message: int, emoji: str) -> None:
        self.talk.react(user, self.messages[message], emoji)

    async def unreact(self, user: int, message: int, emoji: str) -> None:
        self.talk.react(user, self.messages[message], emoji, add=False)

    async def slash(self, user: int, channel: int, name: str, /, **options: Any) -> Interaction:
        """Use a command; a sub command is given as "memory search"."""
        return self.interactions.slash(user, channel, name, options)

    async def menu(self, user: int, channel: int, name: str, message: int) -> Interaction:
        return self.interactions.menu(user, channel, name, message)

    async def click(self, user: int, message: int, custom_id: str, values: Sequence[str] = ()) -> Interaction:
        return self.interactions.click(user, message, custom_id, values)

    async def submit(self, interaction_with_modal: Interaction, values: Mapping[str, str]) -> Interaction:
        return self.interactions.submit(interaction_with_modal, values)

    async def leave(self, guild: int) -> None:
        """Throw the bot out of a server."""
        self._left(guild)

    def _left(self, guild: int) -> None:
        self.world.guilds[guild].has_bot = False
        self._tell(guild, "GUILD_DELETE", lambda _: {"id": str(guild)})

    async def outage(self, guild: int) -> None:
        """Let a server become unavailable for a while, which is no reason to forget it."""
        self._tell(guild, "GUILD_DELETE", lambda _: {"id": str(guild), "unavailable": True})

    async def admit(self, guild: int) -> None:
        """Let the bot in again, or end an outage."""
        self.world.guilds[guild].has_bot = True
        self._tell_whole(guild)

    async def drop_sockets(self, code: int = 1011) -> None:
        await self.gateway_server.drop(code)

    async def reconnect(self) -> None:
        """Ask the client to connect anew and resume."""
        self.gateway_server.ask_to_reconnect()

    async def invalidate_sessions(self, resumable: bool = False) -> None:
        self.gateway_server.invalidate(resumable)

    # What happened

    @property
    def messages(self) -> dict[int, FakeMessage]:
        return self.world.messages

    @property
    def requests(self) -> list[Request]:
        return self.server.requests

    @property
    def commands(self) -> list[Json]:
        return self.registry.all()

    @property
    def command_syncs(self) -> int:
        return self.registry.syncs

    @property
    def typing(self) -> list[tuple[int, float]]:
        return self.rest.typing

    @property
    def violations(self) -> list[str]:
        return self.world.violations

    @property
    def invalid_requests(self) -> int:
        """Answers with 401, 403 or 429 within the last ten minutes."""
        return len(self.server.invalid)

    @property
    def error_rate(self) -> float:
        """The share of REST requests that fail by chance, from a seed."""
        return self.server.error_rate

    @error_rate.setter
    def error_rate(self, share: float) -> None:
        self.server.error_rate = share

    @property
    def limits(self) -> dict[str, Limit]:
        """The size of each bucket, to be replaced by smaller ones; the one of all requests is `server.everything`."""
        return self.server.limits

    @property
    def seed(self) -> int:
        return self.server.seed

    @seed.setter
    def seed(self, seed: int) -> None:
        """Start the same row of chances again."""
        self.server.seed = seed
        self.server.random.seed(seed)

    def channel_messages(self, channel: int) -> list[FakeMessage]:
        """What stands in a channel, oldest first, with what only one person sees."""
        found = (self.messages[one] for one in self.world.channels[channel].messages)
        return [one for one in found if not one.deleted]

    def dm_channel(self, user: int) -> int:
        return self.world.dm_with(user).id

    def said_by_bot(self, channel: int | None = None) -> list[FakeMessage]:
        mine = (one for one in self.messages.values() if one.author == self.bot_id and not one.loading)
        return [one for one in mine if not one.deleted and channel in (None, one.channel)]

    async def until(self, condition: Callable[[], Any], timeout_s: float = 5.0) -> Any:
        return await waiting.until(condition, timeout_s, self.seen)

    def seen(self) -> str:
        """The last that happened, for the message of a test that waited in vain."""
        messages = [f"  {self.world.users[one.author].name}: {one.content!r}" for one in self.messages.values()]
        requests = [f"  {one.method} {one.path} -> {one.status}" for one in self.requests]
        return "\n".join(["messages", *messages[-10:], "requests", *requests[-15:], "violations", *self.violations])

    # Trouble

    def fail_next(
        self,
        method: str,
        path_regex: str,
        status: int = 500,
        retry_after: float | None = None,
        times: int = 1,
        shared: bool = False,
        *,
        via: bool = True,
        after: bool = False,
    ) -> None:
        """Fail matching requests: status 0 cuts the connection, `after` does the work first and loses the answer.

        A 429 without `via` is a ban by the network in front of Discord.
        """
        self.server.failures.append(
            Failure(method, re.compile(path_regex), status, retry_after, times, shared, via, after)
        )
