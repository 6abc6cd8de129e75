"""The double's gateway: sockets, sessions and the events they are told.

A session outlives its socket, as at Discord: what happens in between is kept and replayed on RESUME. Frames are plain
text, which the client library takes whatever compression it asked for. Voice is not here.
"""

import asyncio
import json
import secrets
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from tests.fakes import discord_payloads as payloads
from tests.fakes.discord_limits import Json
from tests.fakes.discord_payloads import Render
from tests.fakes.discord_world import PRIVILEGED, FakeGuild, Intent, World

DISPATCH, HEARTBEAT, IDENTIFY, PRESENCE, VOICE, RESUME, RECONNECT, MEMBERS, INVALID, HELLO, ACK = (
    *range(5),
    *range(6, 12),
)
UNKNOWN_OP, BAD_PAYLOAD, NOT_IDENTIFIED, BAD_TOKEN, IDENTIFIED_TWICE = 4001, 4002, 4003, 4004, 4005
TOO_FAST, BAD_SHARD, SHARDS_NEEDED, BAD_INTENTS, INTENTS_NOT_ALLOWED = 4008, 4010, 4011, 4013, 4014
# A client that says goodbye with one of these gives its session up.
GOODBYE = (1000, 1001)
EVERY_INTENT = (1 << 26) - 1
MOST_FRAME = 4096
MOST_FRAMES, FRAMES_S = 120, 60.0


class Connection:
    """One socket. Sending is queued, so that the world can change without waiting for anybody to read."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self.socket = socket
        self.session: Session | None = None
        self.frames: deque[float] = deque()
        self.dropped = False
        self._outbox: asyncio.Queue[str | int] = asyncio.Queue()
        self._writer = asyncio.create_task(self._write())

    def send(self, op: int, data: Any = None, **more: Any) -> None:
        self._outbox.put_nowait(json.dumps({"op": op, "d": data, "s": None, "t": None, **more}))

    def send_text(self, packet: str) -> None:
        self._outbox.put_nowait(packet)

    def close(self, code: int) -> None:
        """Close from this side, after all that is queued."""
        self.dropped = True
        self._outbox.put_nowait(code)

    async def _write(self) -> None:
        while True:
            item = await self._outbox.get()
            if isinstance(item, int):
                await self.socket.close(code=item)
                return
            try:
                await self.socket.send_str(item)
            except ConnectionResetError:
                return

    async def closed(self) -> None:
        await self._writer


@dataclass
class Session:
    """What a client has been told since it identified; `history` makes a RESUME possible."""

    id: str
    intents: int
    shard: int
    shards: int
    connection: Connection | None = None
    history: list[str] = field(default_factory=list)

    def hears(self, intent: int, guild: int | None) -> bool:
        """Whether an event that needs `intent` and happens in `guild` is for this session."""
        mine = (0 if guild is None else (guild >> 22) % self.shards) == self.shard
        return mine and self.intents & intent == intent

    def dispatch(self, event: str, data: Json | None) -> None:
        number = len(self.history) + 1
        packet = json.dumps({"op": DISPATCH, "t": event, "s": number, "d": data})
        self.history.append(packet)
        if self.connection is not None:
            self.connection.send_text(packet)


class Gateway:
    """All sockets and sessions of one application."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sessions: dict[str, Session] = {}
        self.connections: set[Connection] = set()
        self.heartbeat_s = 41.25
        self.acks_heartbeats = True
        self.heartbeats = 0
        self.identifies = 0
        self.resumes = 0
        world.announce = self.announce

    def announce(self, event: str, render: Render, *, intent: int, guild: int | None) -> None:
        for session in self.sessions.values():
            if session.hears(intent, guild):
                session.dispatch(event, render(session.intents))

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(timeout=1.0)
        await socket.prepare(request)
        connection = Connection(socket)
        self.connections.add(connection)
        connection.send(HELLO, {"heartbeat_interval": int(self.heartbeat_s * 1000)})
        try:
            await self._listen(connection)
        finally:
            await self._lost(connection)
        return socket

    async def _listen(self, connection: Connection) -> None:
        async for frame in connection.socket:
            if frame.type is WSMsgType.TEXT:
                self._receive(connection, frame.data)

    async def _lost(self, connection: Connection) -> None:
        self.connections.discard(connection)
        said_goodbye = not connection.dropped and connection.socket.close_code in GOODBYE
        connection.close(1000)
        await connection.closed()
        session = connection.session
        if session is not None and session.connection is connection:
            session.connection = None
            if said_goodbye:
                self.sessions.pop(session.id, None)

    def _receive(self, connection: Connection, text: str) -> None:
        if len(text.encode()) > MOST_FRAME:
            return connection.close(BAD_PAYLOAD)
        if self._too_fast(connection):
            self.world.violations.append(f"gateway: more than {MOST_FRAMES} frames within {FRAMES_S:.0f} s")
            return connection.close(TOO_FAST)
        packet = json.loads(text)
        return self._act(connection, packet["op"], packet.get("d"))

    def _too_fast(self, connection: Connection) -> bool:
        now = self.world.clock.now()
        connection.frames.append(now)
        while now - connection.frames[0] > FRAMES_S:
            connection.frames.popleft()
        return len(connection.frames) > MOST_FRAMES

    def _act(self, connection: Connection, op: int, data: Any) -> None:
        if op == HEARTBEAT:
            self._heartbeat(connection)
        elif op == IDENTIFY:
            self._identify(connection, data)
        elif op == RESUME:
            self._resume(connection, data)
        elif op not in (PRESENCE, VOICE, MEMBERS):
            connection.close(UNKNOWN_OP)
        elif connection.session is None:
            connection.close(NOT_IDENTIFIED)
        elif op == MEMBERS:
            self._members(connection.session, data)

    def _heartbeat(self, connection: Connection) -> None:
        self.heartbeats += 1
        if self.acks_heartbeats:
            connection.send(ACK)

    def _identify(self, connection: Connection, data: Json) -> None:
        refused = self._identify_refused(connection, data)
        if refused:
            return connection.close(refused)
        self.identifies += 1
        shard, shards = data.get("shard", (0, 1))
        session = Session(secrets.token_hex(16), data["intents"], shard, shards, connection)
        self.sessions[session.id] = session
        connection.session = session
        session.dispatch("READY", self._ready(session))
        return self._tell_guilds(session)

    def _identify_refused(self, connection: Connection, data: Json) -> int | None:
        """The code that the socket is closed with instead of a READY."""
        shard, shards = data.get("shard", (0, 1))
        refusals = {
            IDENTIFIED_TWICE: connection.session is not None,
            BAD_TOKEN: data["token"] != self.world.token,
            BAD_INTENTS: bool(data["intents"] & ~EVERY_INTENT),
            INTENTS_NOT_ALLOWED: bool(data["intents"] & PRIVILEGED & ~self.world.intents_allowed),
            BAD_SHARD: not 0 <= shard < shards,
            SHARDS_NEEDED: shards < self.world.shards,
        }
        return next((code for code, refused in refusals.items() if refused), None)

    def _guilds(self, session: Session) -> Iterable[FakeGuild]:
        return [one for one in self.world.guilds.values() if one.has_bot and session.hears(0, one.id)]

    def _ready(self, session: Session) -> Json:
        return {
            "v": 10,
            "user": {**payloads.user(self.world.users[self.world.bot_id]), "verified": True, "mfa_enabled": False},
            "guilds": [{"id": str(one.id), "unavailable": True} for one in self._guilds(session)],
            "session_id": session.id,
            "session_type": "normal",
            "resume_gateway_url": f"{self.world.base.replace('http', 'ws', 1)}/gw/",
            "shard": [session.shard, session.shards],
            "application": {"id": str(self.world.application_id), "flags": payloads.application_flags(self.world)},
            "private_channels": [],
        }

    def _tell_guilds(self, session: Session) -> None:
        if not session.intents & Intent.GUILDS:
            return
        for one in self._guilds(session):
            session.dispatch("GUILD_CREATE", payloads.guild_create(self.world, one, session.intents))

    def _resume(self, connection: Connection, data: Json) -> None:
        session = self.sessions.get(data["session_id"])
        if data["token"] != self.world.token:
            return connection.close(BAD_TOKEN)
        if session is None or not 0 <= (data["seq"] or 0) <= len(session.history):
            return connection.send(INVALID, data=False)
        self.resumes += 1
        session.connection = connection
        connection.session = session
        for packet in session.history[data["seq"] :]:
            connection.send_text(packet)
        return session.dispatch("RESUMED", {"_trace": []})

    def _members(self, session: Session, data: Json) -> None:
        """GUILD_MEMBERS_CHUNK in one piece: by id, by the start of the name, or everybody."""
        guild = self.world.guilds[int(data["guild_id"])]
        wanted = {int(one) for one in _listed(data.get("user_ids"))}
        everybody = not wanted and not data.get("query")
        if everybody and not session.intents & Intent.GUILD_MEMBERS:
            self.world.violations.append("gateway: all members asked for without the members intent")
            return
        names = {who: self.world.users[who].name.lower() for who in guild.members}
        start = (data.get("query") or "").lower()
        found = [who for who, name in names.items() if (who in wanted if wanted else name.startswith(start))]
        session.dispatch("GUILD_MEMBERS_CHUNK", self._chunk(guild, found, wanted, data.get("nonce")))

    def _chunk(self, guild: FakeGuild, found: list[int], wanted: set[int], nonce: str | None) -> Json:
        return {
            "guild_id": str(guild.id),
            "members": [payloads.full_member(self.world, guild, who) for who in found],
            "chunk_index": 0,
            "chunk_count": 1,
            "not_found": [str(who) for who in wanted - set(found)],
            "nonce": nonce,
        }

    async def drop(self, code: int) -> None:
        """Close every socket from this side; the sessions stay."""
        leaving = list(self.connections)
        for connection in leaving:
            connection.close(code)
        await asyncio.gather(*(one.closed() for one in leaving))

    def ask_to_reconnect(self) -> None:
        for connection in self.connections:
            connection.send(RECONNECT)

    def invalidate(self, resumable: bool) -> None:
        if not resumable:
            self.sessions.clear()
        for connection in self.connections:
            connection.send(INVALID, data=resumable)


def _listed(value: Any) -> list[Any]:
    """Discord takes one id or a list of them."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
