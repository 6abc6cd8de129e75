"""What the bot is told, and how: a queue that it polls, or a webhook that is pushed to.

An update stays until it is acknowledged, at most a day. One poll at a time: a new one ends the one that waits, which is
how the Bot API behaves. The webhook gets one update at a time, in order; the real one sends several at once.
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.fakes.telegram_request import Refused

Json = dict[str, Any]
DAY_S = 86400
# What a bot gets that never named any kind: reactions and other people's membership are not among them.
BY_DEFAULT = frozenset({"message", "edited_message", "callback_query", "my_chat_member"})


@dataclass(frozen=True)
class Update:
    id: int
    kind: str
    body: Json
    time: float

    def json(self) -> Json:
        return {"update_id": self.id, self.kind: self.body}


class UpdateQueue:
    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.allowed: frozenset[str] = BY_DEFAULT
        self._waiting: deque[Update] = deque()
        self._arrived = asyncio.Event()
        self._poll: asyncio.Future[str] | None = None
        # Telegram starts anywhere; a bot that counts on small numbers is wrong.
        self._next_id = 700_000_001

    def allow(self, kinds: list[str] | None) -> None:
        """None keeps what was set before; an empty list is the default. Updates that wait are not touched."""
        if kinds is not None:
            self.allowed = frozenset(kinds) or BY_DEFAULT

    def add(self, kind: str, body: Json) -> None:
        if kind not in self.allowed:
            return
        self._waiting.append(Update(self._next_id, kind, body, self.clock()))
        self._next_id += 1
        self._arrived.set()
        self._wake("")

    def pending(self) -> list[Update]:
        while self._waiting and self._waiting[0].time < self.clock() - DAY_S:
            self._waiting.popleft()
        return list(self._waiting)

    def acknowledge(self, before: int) -> None:
        """Forget every update with a smaller id."""
        while self._waiting and self._waiting[0].id < before:
            self._waiting.popleft()

    def keep_last(self, count: int) -> None:
        while len(self._waiting) > count:
            self._waiting.popleft()

    async def poll(self, offset: int, limit: int, timeout_s: float) -> list[Json]:
        self.end_poll("terminated by other getUpdates request; make sure that only one bot instance is running")
        self.keep_last(-offset) if offset < 0 else self.acknowledge(offset)
        if not self.pending() and timeout_s > 0:
            await self._wait_for_one(timeout_s)
        return [update.json() for update in self.pending()[:limit]]

    def end_poll(self, reason: str) -> None:
        self._wake(f"Conflict: {reason}")

    async def arrival(self) -> Update:
        """The oldest update that waits, for the webhook."""
        while not self.pending():
            self._arrived.clear()
            await self._arrived.wait()
        return self._waiting[0]

    async def _wait_for_one(self, timeout_s: float) -> None:
        poll = self._poll = asyncio.get_running_loop().create_future()
        try:
            await asyncio.wait({poll}, timeout=timeout_s)
        finally:
            # A newer poll may already stand here.
            self._poll = None if self._poll is poll else self._poll
        if poll.done() and poll.result():
            raise Refused(409, poll.result())

    def _wake(self, conflict: str) -> None:
        if self._poll and not self._poll.done():
            self._poll.set_result(conflict)


@dataclass
class Webhook:
    """Where updates are pushed while `url` is set."""

    queue: UpdateQueue
    url: str = ""
    secret: str = ""
    retry_s: float = 0.2
    delivered: int = 0
    last_error: str = ""
    last_error_time: float = 0.0
    _task: asyncio.Task[None] | None = None

    def set(self, url: str, secret: str) -> None:
        self.stop()
        self.url, self.secret = url, secret
        if url:
            self._task = asyncio.get_running_loop().create_task(self._push())

    def stop(self) -> None:
        if self._task:
            self._task.cancel()

    async def close(self) -> None:
        self.stop()
        if self._task:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _push(self) -> None:
        async with aiohttp.ClientSession() as session:
            while True:
                update = await self.queue.arrival()
                if await self._deliver(session, update):
                    self.queue.acknowledge(update.id + 1)
                    self.delivered += 1
                else:
                    await asyncio.sleep(self.retry_s)

    async def _deliver(self, session: aiohttp.ClientSession, update: Update) -> bool:
        headers = {"Content-Type": "application/json"}
        if self.secret:
            headers["X-Telegram-Bot-Api-Secret-Token"] = self.secret
        try:
            async with session.post(self.url, data=json.dumps(update.json()), headers=headers) as answer:
                problem = "" if answer.ok else f"Wrong response from the webhook: {answer.status} {answer.reason}"
        except aiohttp.ClientError as error:
            problem = f"Connection failed: {error}"
        if problem:
            self.last_error, self.last_error_time = problem, self.queue.clock()
        return not problem
