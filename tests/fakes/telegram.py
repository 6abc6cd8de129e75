"""A Telegram of our own: the Bot API over real HTTP on this machine, with the chats and the people behind it.

    async with FakeTelegram() as telegram:
        ada = telegram.user("Ada")
        await telegram.start(ada)
        ...a bot with base_url=telegram.api + "/bot" and base_file_url=telegram.api + "/file/bot"...

It refuses what Telegram refuses, in Telegram's words, and keeps what happened. Not in it: channels, inline mode,
Markdown, payments, polls, albums, rich messages. What it does not know answers 404 and stands in `violations`.
"""

import asyncio
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from tests.fakes.telegram_flood import Flood, Limits
from tests.fakes.telegram_messages import MessageMethods
from tests.fakes.telegram_people import People
from tests.fakes.telegram_profile import ProfileMethods
from tests.fakes.telegram_request import Params, Refused, Request, read_params
from tests.fakes.telegram_updates import UpdateQueue, Webhook
from tests.fakes.telegram_world import Callback, Draft, FakeMessage, Person, World

TOKEN = re.compile(r"\d+:[\w-]{35}")
DRAFT_S = 30.0
WORDS = {
    400: "Bad Request",
    403: "Forbidden",
    409: "Conflict",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
}


@dataclass
class Fault:
    """What goes wrong the next `times` that a method is called."""

    method: re.Pattern[str]
    refusal: Refused
    times: int
    applied: bool


class FakeTelegram(People):
    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        limits: Limits | None = None,
        privacy_mode: bool = True,
        bot_username: str = "twin_bot",
        seed: int = 0,
        port: int = 0,
    ) -> None:
        self.bot_id = 7_000_000_001
        self.bot_username = bot_username
        self.token = f"{self.bot_id}:{'no-secret-'.ljust(35, '0')}"
        self.error_rate = 0.0
        self.latency_s = 0.0
        self.requests: list[Request] = []
        self.violations: list[str] = []
        self.limits = limits or Limits()
        world = World(Person(self.bot_id, "Twin", bot_username, bot=True), clock)
        super().__init__(world, UpdateQueue(clock))
        self._messages = MessageMethods(world, Flood(self.limits, clock))
        self._profile = ProfileMethods(world, self._messages, self.queue)
        self._methods = self._messages.table() | self._profile.table()
        self._random = random.Random(seed)
        self._faults: list[Fault] = []
        self._port = port
        self.privacy_mode = privacy_mode

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_get("/file/bot{token}/{path:.+}", self._download)
        app.router.add_route("*", "/bot{token}/{method}", self._call)
        # A bot that dies must free its poll at once, or the next one would be told of a conflict.
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.webhook.close()
        await self._runner.cleanup()

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def privacy_mode(self) -> bool:
        return self._profile.privacy_mode

    @privacy_mode.setter
    def privacy_mode(self, on: bool) -> None:
        self._profile.privacy_mode = on

    # What happened.

    @property
    def messages(self) -> dict[tuple[int, int], FakeMessage]:
        return self.world.messages

    @property
    def drafts(self) -> list[Draft]:
        return self.world.drafts

    @property
    def actions(self) -> list[tuple[int, str, float]]:
        return self.world.actions

    @property
    def callbacks(self) -> dict[str, Callback]:
        return self.world.callbacks

    @property
    def commands(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        return self._profile.commands

    @property
    def webhook(self) -> Webhook:
        return self._profile.webhook

    def chat_messages(self, chat: int) -> list[FakeMessage]:
        """What a person sees in the chat: everything that was not deleted."""
        return [message for message in self.messages.values() if message.chat == chat and not message.deleted]

    def said_by_bot(self, chat: int | None = None) -> list[FakeMessage]:
        mine = [message for message in self.messages.values() if message.author == self.bot_id and not message.deleted]
        return [message for message in mine if chat in (None, message.chat)]

    def shown_draft(self, chat: int) -> Draft | None:
        """The preview on the screen: it lives 30 seconds, and the bot's next message replaces it."""
        draft = self.world.previews.get(chat)
        return draft if draft and self.world.clock() - draft.time <= DRAFT_S else None

    def menu(self, chat: int, user: int) -> list[tuple[str, str]]:
        """The commands and their descriptions that this person is offered in this chat."""
        offered = self._profile.menu(self.world.chat(chat), user)
        return [(command["command"], command["description"]) for command in offered]

    def calls(self, method: str) -> list[Request]:
        return [request for request in self.requests if request.method.lower() == method.lower()]

    async def until(self, condition: Callable[[], object], timeout_s: float = 5.0) -> None:
        """Wait until something is true. It looks again and again, as the condition may be about anything."""
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end:
                last = [f"{each.method} -> {each.status} {each.description}" for each in self.requests[-8:]]
                raise TimeoutError(f"not within {timeout_s} s; the last calls were {last}")
            await asyncio.sleep(0.005)

    # What goes wrong.

    def fail_next(
        self,
        method_regex: str,
        status: int = 500,
        description: str = "",
        retry_after: int | None = None,
        times: int = 1,
        *,
        applied: bool = False,
    ) -> None:
        """Let the next calls fail; status 0 cuts the connection. With `applied` only the answer is lost."""
        parameters = {"retry_after": retry_after} if retry_after else {}
        waiting = f": retry after {retry_after}" if retry_after else ""
        refusal = Refused(status, description or f"{WORDS.get(status, 'Error')}{waiting}", **parameters)
        self._faults.append(Fault(re.compile(method_regex, re.IGNORECASE), refusal, times, applied))

    def _fault(self, method: str) -> Fault | None:
        for fault in self._faults:
            if fault.times > 0 and fault.method.fullmatch(method):
                fault.times -= 1
                return fault
        if self._random.random() < self.error_rate:
            status = self._random.choice([500, 502])
            return Fault(re.compile(""), Refused(status, WORDS[status]), 1, applied=False)
        return None

    # The server.

    async def _call(self, request: web.Request) -> web.StreamResponse:
        if refusal := self._wrong_token(request):
            return _answer(refusal.code, refusal.body())
        params = await read_params(request)
        record = Request(request.match_info["method"], params.recorded(), self.world.clock())
        self.requests.append(record)
        try:
            body = {"ok": True, "result": await self._result(record.method, params)}
            record.status = 200
        except Refused as refusal:
            body, record.status, record.description = refusal.body(), refusal.code, refusal.description
        except asyncio.CancelledError:
            record.status = 499
            raise
        finally:
            if record.status == 0 and not record.description:
                self.violations.append(f"the double itself failed on {record.method}({record.params})")
        if record.status == 0 and request.transport:
            request.transport.abort()
        return _answer(record.status or 500, body)

    async def _result(self, method: str, params: Params) -> Any:
        await asyncio.sleep(self.latency_s)
        fault = self._fault(method)
        if fault and not fault.applied:
            raise fault.refusal
        result = await self._apply(method, params)
        if fault:
            raise fault.refusal
        return result

    async def _apply(self, method: str, params: Params) -> Any:
        if method.lower() == "getupdates":
            return await self._profile.get_updates(params)
        if method.lower() not in self._methods:
            self.violations.append(f"unknown method {method}")
            raise Refused(404, "Not Found")
        return self._methods[method.lower()](params)

    async def _download(self, request: web.Request) -> web.StreamResponse:
        if refusal := self._wrong_token(request):
            return _answer(refusal.code, refusal.body())
        upload = self.world.files.get(request.match_info["path"].split("/")[-1])
        if upload is None:
            return _answer(404, Refused(404, "Not Found").body())
        return web.Response(body=upload.content, content_type="application/octet-stream")

    def _wrong_token(self, request: web.Request) -> Refused | None:
        token = request.match_info["token"]
        if token == self.token:
            return None
        return Refused(401, "Unauthorized") if TOKEN.fullmatch(token) else Refused(404, "Not Found")


def _answer(status: int, body: dict[str, Any]) -> web.Response:
    return web.json_response(body, status=status)
