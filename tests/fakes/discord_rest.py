"""The routes of the double's API that concern users, servers, channels, messages and threads.

Interactions and commands have their own modules.
"""

from collections.abc import Callable
from typing import Any

from tests.fakes import discord_payloads as payloads
from tests.fakes.discord_http import Call, Route
from tests.fakes.discord_limits import Json, Refusal, between, invalid
from tests.fakes.discord_talk import Talk
from tests.fakes.discord_world import (
    FORUM,
    PRIVATE_THREAD,
    PUBLIC_THREAD,
    FakeChannel,
    FakeGuild,
    FakeMessage,
    FakeUser,
    Intent,
    Permission,
    World,
    created_at,
)

NONCE_S = 120.0
HAS_THREAD = 1 << 5


class Rest:
    """What a bot can read and do without anybody asking it."""

    def __init__(self, world: World, talk: Talk) -> None:
        self.world = world
        self.talk = talk
        self.typing: list[tuple[int, float]] = []
        self.left: Callable[[int], None] = lambda guild: None

    def routes(self) -> list[Route]:
        return [*self._account_routes(), *self._message_routes(), *self._channel_routes()]

    def _account_routes(self) -> list[Route]:
        return [
            Route("GET", "/gateway", self.gateway, open_to_all=True),
            Route("GET", "/gateway/bot", self.gateway_bot),
            Route("GET", "/users/@me", self.me),
            Route("GET", "/users/@me/guilds", self.my_guilds),
            Route("POST", "/users/@me/channels", self.open_dm),
            Route("DELETE", "/users/@me/guilds/{guild}", self.leave),
            Route("GET", "/users/{user}", self.user),
            Route("GET", "/oauth2/applications/@me", self.application),
            Route("GET", "/guilds/{guild}", self.guild),
            Route("GET", "/guilds/{guild}/channels", self.guild_channels),
            Route("GET", "/guilds/{guild}/members/{user}", self.member),
            Route("GET", "/guilds/{guild}/threads/active", self.active_threads),
        ]

    def _message_routes(self) -> list[Route]:
        one = "/channels/{channel}/messages/{message}"
        mine = one + "/reactions/{emoji}/@me"
        return [
            Route("POST", "/channels/{channel}/messages", self.send, bucket="messages"),
            Route("GET", "/channels/{channel}/messages", self.history),
            Route("GET", one, self.fetch),
            Route("PATCH", one, self.edit, bucket="messages"),
            Route("DELETE", one, self.delete, bucket="deletes"),
            Route("PUT", mine, self.react, bucket="reactions"),
            Route("DELETE", mine, self.unreact, bucket="reactions"),
            Route("POST", "/channels/{channel}/typing", self.type, bucket="typing"),
        ]

    def _channel_routes(self) -> list[Route]:
        return [
            Route("GET", "/channels/{channel}", self.channel),
            Route("PATCH", "/channels/{channel}", self.edit_thread),
            Route("POST", "/channels/{channel}/threads", self.start_thread),
            Route("POST", "/channels/{channel}/messages/{message}/threads", self.start_thread_from),
            Route("PUT", "/channels/{channel}/thread-members/@me", self.join_thread),
            Route("DELETE", "/channels/{channel}/thread-members/@me", self.leave_thread),
            Route("GET", "/channels/{channel}/thread-members", self.thread_members),
            Route("GET", "/channels/{channel}/threads/archived/public", self.archived_threads),
        ]

    # The account

    def gateway(self, call: Call) -> Json:
        return {"url": f"{self.world.base.replace('http', 'ws', 1)}/gw/"}

    def gateway_bot(self, call: Call) -> Json:
        starts = {"total": 1000, "remaining": 1000, "reset_after": 0, "max_concurrency": 1}
        return {**self.gateway(call), "shards": self.world.shards, "session_start_limit": starts}

    def me(self, call: Call) -> Json:
        return {**payloads.user(self.world.users[self.world.bot_id]), "verified": True, "mfa_enabled": False}

    def my_guilds(self, call: Call) -> list[Json]:
        return [payloads.guild(one) for one in self.world.guilds.values() if one.has_bot]

    def open_dm(self, call: Call) -> Json:
        user = self._user(int(call.body["recipient_id"]))
        return payloads.channel(self.world, self.world.dm_with(user.id))

    def leave(self, call: Call) -> None:
        self.left(self._guild(call).id)

    def user(self, call: Call) -> Json:
        return payloads.user(self._user(call.id("user")))

    def _user(self, user: int) -> FakeUser:
        if user not in self.world.users:
            raise Refusal(404, 10013, "Unknown User")
        return self.world.users[user]

    def application(self, call: Call) -> Json:
        world = self.world
        return {
            "id": str(world.application_id),
            "name": world.users[world.bot_id].name,
            "icon": None,
            "description": "",
            "bot_public": False,
            "bot_require_code_grant": False,
            "verify_key": "0" * 64,
            "owner": payloads.user(world.users[world.owner_id]),
            "team": None,
            "flags": payloads.application_flags(world),
            "rpc_origins": [],
            "integration_types_config": {"0": {}, "1": {}},
        }

    # Servers

    def _guild(self, call: Call) -> FakeGuild:
        guild = self.world.guilds.get(call.id("guild"))
        if guild is None or not guild.has_bot:
            raise Refusal(404, 10004, "Unknown Guild")
        return guild

    def guild(self, call: Call) -> Json:
        return payloads.guild(self._guild(call))

    def guild_channels(self, call: Call) -> list[Json]:
        guild = self._guild(call)
        mine = [one for one in self.world.channels.values() if one.guild == guild.id and not one.is_thread]
        return [payloads.channel(self.world, one) for one in mine]

    def member(self, call: Call) -> Json:
        guild, user = self._guild(call), call.id("user")
        if user not in guild.members:
            raise Refusal(404, 10007, "Unknown Member")
        return payloads.full_member(self.world, guild, user)

    def active_threads(self, call: Call) -> Json:
        return self._threads(lambda one: one.guild == self._guild(call).id and not one.archived)

    def archived_threads(self, call: Call) -> Json:
        parent = self.world.viewable(call.id("channel"))
        return {**self._threads(lambda one: one.parent == parent.id and one.archived), "has_more": False}

    def _threads(self, wanted: Callable[[FakeChannel], bool]) -> Json:
        found = [one for one in self.world.channels.values() if one.is_thread and wanted(one)]
        seen = [one for one in found if self.world.bot_sees(one)]
        mine = [payloads.thread_member(one, self.world.bot_id) for one in seen if self.world.bot_id in one.members]
        return {"threads": [payloads.channel(self.world, one) for one in seen], "members": mine}

    # Messages

    def shown(self, message: FakeMessage) -> Json:
        """REST goes by the switch in the portal, not by what a session asked for."""
        return payloads.message(self.world, message, self.world.intents_allowed & Intent.MESSAGE_CONTENT)

    def send(self, call: Call) -> Json:
        where = self.world.viewable(call.id("channel"))
        self.talk.may_send(where, call.body, call.request.files)
        return self.shown(self._same(where, call.body) or self.talk.by_bot(where, call.body, call.request.files))

    def _same(self, where: FakeChannel, body: Json) -> FakeMessage | None:
        """A message already sent with this nonce, if the caller asked that there be only one."""
        if not body.get("enforce_nonce"):
            return None
        since = self.world.clock.wall() - NONCE_S
        recent = (self.world.messages[one] for one in where.messages)
        same = (one for one in recent if one.nonce == body["nonce"] and one.author == self.world.bot_id)
        return next((one for one in same if created_at(one.id).timestamp() > since), None)

    def history(self, call: Call) -> list[Json]:
        where = self.world.viewable(call.id("channel"))
        if not self.world.bot_may(where, Permission.READ_MESSAGE_HISTORY):
            return []
        found = [self.world.messages[one] for one in where.messages]
        kept = [one for one in found if not one.deleted and not one.ephemeral]
        return [self.shown(one) for one in page(kept, call.request.query)]

    def _message(self, call: Call) -> FakeMessage:
        where = self.world.viewable(call.id("channel"))
        return self.world.found_message(where.id, call.id("message"))

    def fetch(self, call: Call) -> Json:
        where = self.world.viewable(call.id("channel"))
        if not self.world.bot_may(where, Permission.READ_MESSAGE_HISTORY):
            raise Refusal(403, 50001, "Missing Access")
        return self.shown(self._message(call))

    def edit(self, call: Call) -> Json:
        message = self._message(call)
        if message.author != self.world.bot_id:
            raise Refusal(403, 50005, "Cannot edit a message authored by another user")
        self.talk.rewrite(message, call.body, call.request.files)
        return self.shown(message)

    def delete(self, call: Call) -> None:
        message = self._message(call)
        where = self.world.channels[message.channel]
        if message.author != self.world.bot_id:
            self._may_moderate(where)
        self.talk.remove(where, [message])

    def _may_moderate(self, where: FakeChannel) -> None:
        if where.guild is None:
            raise Refusal(403, 50003, "Cannot execute action on a DM channel")
        if not self.world.bot_may(where, Permission.MANAGE_MESSAGES):
            raise Refusal(403, 50013, "Missing Permissions")

    def react(self, call: Call) -> None:
        message = self._message(call)
        if not self.world.bot_may(self.world.channels[message.channel], Permission.ADD_REACTIONS):
            raise Refusal(403, 50013, "Missing Permissions")
        self.talk.react(self.world.bot_id, message, call.path["emoji"])

    def unreact(self, call: Call) -> None:
        self.talk.react(self.world.bot_id, self._message(call), call.path["emoji"], add=False)

    def type(self, call: Call) -> None:
        where = self.world.viewable(call.id("channel"))
        self.talk.may_send(where, {}, {})
        self.typing.append((where.id, call.request.time))

    # Channels and threads

    def channel(self, call: Call) -> Json:
        return payloads.channel(self.world, self.world.viewable(call.id("channel")))

    def edit_thread(self, call: Call) -> Json:
        thread = self._thread(call)
        if thread.owner != self.world.bot_id and not self.world.bot_may(thread, Permission.MANAGE_THREADS):
            raise Refusal(403, 50013, "Missing Permissions")
        thread.archived = call.body.get("archived", thread.archived)
        thread.name = call.body.get("name", thread.name)
        body = payloads.channel(self.world, thread)
        self.world.announce("THREAD_UPDATE", lambda _: body, intent=Intent.GUILDS, guild=thread.guild)
        return body

    def _thread(self, call: Call) -> FakeChannel:
        found = self.world.viewable(call.id("channel"))
        if not found.is_thread:
            raise Refusal(400, 50024, "Cannot execute action on this channel type")
        return found

    def start_thread(self, call: Call) -> Json:
        """A thread on nothing, or a post in a forum, which needs its first message."""
        parent = self.world.viewable(call.id("channel"))
        kind = PUBLIC_THREAD if parent.kind == FORUM else call.body.get("type", PRIVATE_THREAD)
        self._may_start(parent, kind)
        thread = self.new_thread(parent, call.body.get("name", ""), kind, self.world.bot_id)
        if parent.kind == FORUM:
            first = self.talk.by_bot(thread, call.body["message"], call.request.files)
            return {**payloads.channel(self.world, thread), "message": self.shown(first)}
        return payloads.channel(self.world, thread)

    def _may_start(self, parent: FakeChannel, kind: int) -> None:
        public = Permission.SEND_MESSAGES if parent.kind == FORUM else Permission.CREATE_PUBLIC_THREADS
        if not self.world.bot_may(parent, Permission.CREATE_PRIVATE_THREADS if kind == PRIVATE_THREAD else public):
            raise Refusal(403, 50013, "Missing Permissions")

    def start_thread_from(self, call: Call) -> Json:
        message = self._message(call)
        parent = self.world.channels[message.channel]
        self._may_start(parent, PUBLIC_THREAD)
        if message.id in self.world.channels:
            raise Refusal(400, 160004, "A thread has already been created for this message")
        thread = self.new_thread(parent, call.body.get("name", ""), PUBLIC_THREAD, self.world.bot_id, message.id)
        return payloads.channel(self.world, thread)

    def new_thread(
        self, parent: FakeChannel, name: str, kind: int, owner: int, starter: int | None = None
    ) -> FakeChannel:
        """A thread that began at a message bears that message's id."""
        between("name", name, 1, 100)
        if starter is not None:
            self.world.messages[starter].flags |= HAS_THREAD
        thread = FakeChannel(starter or self.world.new_id(), name, kind, parent.guild, parent.id, owner)
        thread.members.add(owner)
        self.world.add_channel(thread)
        if self.world.bot_sees(thread):
            body = {**payloads.channel(self.world, thread), "newly_created": True}
            self.world.announce("THREAD_CREATE", lambda _: body, intent=Intent.GUILDS, guild=thread.guild)
        return thread

    def join_thread(self, call: Call) -> None:
        self._thread(call).members.add(self.world.bot_id)

    def leave_thread(self, call: Call) -> None:
        self._thread(call).members.discard(self.world.bot_id)

    def thread_members(self, call: Call) -> list[Json]:
        thread = self._thread(call)
        return [payloads.thread_member(thread, who) for who in sorted(thread.members)]


def page(messages: list[FakeMessage], query: dict[str, str]) -> list[FakeMessage]:
    """A page of a channel's history, newest first whichever way it was asked for."""
    limit = int(query.get("limit", 50))
    if not 1 <= limit <= 100:
        raise invalid("limit", "NUMBER_TYPE_MAX", "int value should be between 1 and 100.")
    found = sorted(messages, key=_id)
    if "after" in query:
        found = [one for one in found if one.id > int(query["after"])][:limit]
    elif "around" in query:
        found = _around(found, int(query["around"]), limit)
    elif "before" in query:
        found = [one for one in found if one.id < int(query["before"])]
    return found[-limit:][::-1]


def _id(message: FakeMessage) -> Any:
    return message.id


def _around(found: list[FakeMessage], middle: int, limit: int) -> list[FakeMessage]:
    before = [one for one in found if one.id < middle][-(limit // 2) :]
    after = [one for one in found if one.id > middle][: (limit - 1) // 2]
    return [*before, *(one for one in found if one.id == middle), *after]
