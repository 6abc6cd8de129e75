"""Telegram, where the twin talks: connect, answer what an earlier process left, take updates, stop without losing one.

    await TelegramPlatform(settings, community, state=folder).run(stopping)

An update is in our database before Telegram is told that it arrived, and leaves it when it was handled: whatever dies
in between, it is handled once. `bot/telegram_talk.py` says what an update does.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from telegram import Bot, Update
from telegram.error import InvalidToken, TelegramError
from telegram.ext import (
    Application,
    ApplicationBuilder,
    BaseUpdateProcessor,
    CallbackQueryHandler,
    ChatMemberHandler,
    CommandHandler,
    ContextTypes,
    MessageHandler,
    filters,
)

from bot import asking
from bot.commands import COMMANDS
from bot.community import Community
from bot.delivery import MOST_BACKOFF_S
from bot.rounds import rounds
from bot.screens import Screen
from bot.telegram_follow import Follower
from bot.telegram_line import Line
from bot.telegram_menu import register
from bot.telegram_talk import Talk
from bot.telegram_values import PLATFORM, private
from infra.errors import ServiceTrouble, UserMistake
from infra.settings import TelegramSettings
from infra.spool import Spool
from memory.messages import Place

log = logging.getLogger(__name__)
App = Application[Any, Any, Any, Any, Any, Any]
T = TypeVar("T")

AT_ONCE = 64
# Running replies are finished within this when the process is asked to stop; what is left is done after the next start.
DRAIN_S = 20.0
# Answers that an earlier process did not send go first, as far as that goes quickly.
CATCH_UP_S = 5.0
# A round that is cut off between showing and noting it shows one thing twice.
ROUNDS_END_S = 3.0
POLL_S = 30
ALLOWED = ["message", "edited_message", "callback_query", "my_chat_member"]


class TelegramPlatform:
    """A `bot.platform.Platform` on python-telegram-bot. `state` is a folder for what need not be in the database."""

    name = PLATFORM

    def __init__(self, settings: TelegramSettings, community: Community, *, state: Path) -> None:
        self._settings, self._community, self._state = settings, community, state
        self._spool = Spool(community.journal.engine, PLATFORM)
        self._tasks: set[asyncio.Task[None]] = set()
        self._line: Line | None = None

    async def run(self, stopping: asyncio.Event) -> None:
        """Talk until asked to stop, then finish the replies that run. Raises UserMistake for a wrong token."""
        quieten()
        queue = SpooledQueue(self._spool, self._community)
        handling = Handling(self._spool)
        app = self._application(queue, handling)
        try:
            if await self._connect(app, stopping):
                await self._serve(app, queue, stopping)
        finally:
            await self._stop(app, handling, drain_s=DRAIN_S if stopping.is_set() else 0.0)

    # What the rounds need.

    async def send(self, place: Place, screen: Screen, *, reply_to: str = "") -> str:
        return await self.line.show(place, screen, reply_to=reply_to)

    async def edit(self, place: Place, message_id: str, screen: Screen) -> None:
        await self.line.change(place, message_id, screen)

    async def direct(self, person_id: str) -> Place:
        return private(person_id)

    async def inbox(self) -> Place | None:
        if self._settings.inbox_chat:
            return Place(PLATFORM, self._settings.inbox_chat)
        mine = self._people(self._community.creator)
        return private(mine[0]) if mine else None

    @property
    def line(self) -> Line:
        assert self._line is not None, "there is no line before run()"
        return self._line

    # The process.

    def _application(self, queue: "SpooledQueue", handling: "Handling") -> App:
        token, api = self._settings.token, self._settings.api.rstrip("/")
        if token is None:
            raise UserMistake("telegram.token is not set; @BotFather gives one.")
        builder = ApplicationBuilder().token(token.get_secret_value())
        builder = builder.base_url(f"{api}/bot").base_file_url(f"{api}/file/bot").update_queue(queue)
        # A slow answer of Telegram's is better waited for than sent twice.
        return builder.concurrent_updates(handling).read_timeout(20).write_timeout(20).build()

    async def _connect(self, app: App, stopping: asyncio.Event) -> bool:
        """Greet Telegram, again and again while the network is down; False when asked to stop meanwhile."""
        pause = 1.0
        while not stopping.is_set():
            try:
                await app.initialize()
                return True
            except InvalidToken:
                # The library's own sentence contains the token.
                raise UserMistake("Telegram refuses telegram.token: copy it again from @BotFather.") from None
            except TelegramError as error:
                log.warning("Telegram cannot be reached (%s); trying again in %.0f s", type(error).__name__, pause)
            await unless(stopping, asyncio.sleep(pause))
            pause = min(2 * pause, MOST_BACKOFF_S)
        return False

    async def _serve(self, app: App, queue: "SpooledQueue", stopping: asyncio.Event) -> None:
        """Everything between hello and goodbye."""
        bot: Bot = app.bot
        line = self._line = Line(bot, self._spool, self._community.clock)
        follower = Follower(self._community, line, self._spool, self._spawn)
        talk = Talk(self._community, line, self._spool, follower, bot.bot)
        add_handlers(app, talk)

        # 1 what an earlier process left
        await self._catch_up(app, queue, talk)

        # 2 what happens by itself
        self._spawn(self._register(bot))
        await follower.resume()
        going = self._spawn(rounds(self._community, self, stopping))

        # 3 what comes in
        await unless(stopping, self._listen(app))
        await unless(stopping, asyncio.wait({going}))
        if not stopping.is_set():
            raise ServiceTrouble("The rounds of Telegram ended; the log says why.")
        await asyncio.wait({going}, timeout=ROUNDS_END_S)

    async def _catch_up(self, app: App, queue: "SpooledQueue", talk: Talk) -> None:
        """What was written and not sent, then what was taken and not handled."""
        late = self._spawn(asking.catch_up(self._community, PLATFORM, talk.outlet))
        # A chat that asks for patience must not hold up the others.
        await asyncio.wait({late}, timeout=CATCH_UP_S)
        for _, payload in await asyncio.to_thread(self._spool.waiting):
            await queue.again(Update.de_json(json.loads(payload), app.bot))
        await app.start()

    async def _listen(self, app: App) -> None:
        """Have updates posted, or poll for them."""
        assert app.updater is not None
        if not self._settings.webhook_url:
            await app.updater.start_polling(
                poll_interval=0, timeout=POLL_S, bootstrap_retries=-1, allowed_updates=ALLOWED, error_callback=polled
            )
            return
        assert self._settings.webhook_secret is not None
        await app.updater.start_webhook(
            self._settings.webhook_host,
            self._settings.webhook_port,
            urlsplit(self._settings.webhook_url).path.lstrip("/"),
            bootstrap_retries=-1,
            webhook_url=self._settings.webhook_url,
            allowed_updates=ALLOWED,
            secret_token=self._settings.webhook_secret.get_secret_value(),
        )

    async def _register(self, bot: Bot) -> None:
        """Offer the commands; the menus may come late, so nothing waits for them."""
        pause = 1.0
        while True:
            try:
                return await register(bot, self._state, self._people(self._community.admins | self._community.creator))
            except ServiceTrouble:
                await asyncio.sleep(pause)
                pause = min(2 * pause, MOST_BACKOFF_S)

    async def _stop(self, app: App, handling: "Handling", *, drain_s: float) -> None:
        """Take nothing new, finish what runs as long as there is time, and let go."""
        if app.updater and app.updater.running:
            await app.updater.stop()
        if app.running:
            try:
                await asyncio.wait_for(app.stop(), drain_s or 0.01)
            except TimeoutError:
                handling.closed = True
                await cancelled(handling.running)
        await cancelled(self._tasks)
        await app.shutdown()
        await app.bot.shutdown()  # which the line above leaves out when there never was a hello

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something beside everything else; what it fails with is in the log."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a task of Telegram's ended with %s", outline(error))

    def _people(self, keys: frozenset[str]) -> list[str]:
        """The Telegram ids among some keys."""
        return sorted(key.partition(":")[2] for key in keys if key.startswith(f"{PLATFORM}:"))


class SpooledQueue(asyncio.Queue[object]):
    """The queue between the library's connection and its handlers. What it has taken is in our database."""

    def __init__(self, spool: Spool, community: Community) -> None:
        super().__init__()
        self._spool, self._community = spool, community

    async def put(self, item: object) -> None:
        """Take an update; Telegram is told that it arrived when this returns, and repeats it when this raises."""
        if not isinstance(item, Update):
            return await super().put(item)
        now = self._community.clock()
        try:
            new = await asyncio.to_thread(self._spool.put, str(item.update_id), item.to_json(), now=now)
        except ServiceTrouble as trouble:
            # The one kind of error that the library's polling survives.
            raise TelegramError("The update could not be kept.") from trouble
        if new:
            await super().put(item)
        return None

    async def again(self, update: Update) -> None:
        """Queue an update that is in the database since before."""
        await super().put(update)


class Handling(BaseUpdateProcessor):
    """Many updates at once; each is forgotten once it was handled, or once it is clear that it never can be."""

    def __init__(self, spool: Spool) -> None:
        super().__init__(AT_ONCE)
        self._spool = spool
        self.running: set[asyncio.Task[Any]] = set()
        self.unfinished: set[int] = set()
        self.closed = False

    async def do_process_update(self, update: object, coroutine: Any) -> None:
        task = asyncio.current_task()
        assert isinstance(update, Update)
        assert task is not None
        if self.closed:  # there was no time left for it: it waits in the database
            coroutine.close()
            return
        self.running.add(task)
        task.add_done_callback(self.running.discard)
        await coroutine
        if update.update_id not in self.unfinished:
            await asyncio.to_thread(self._spool.done, str(update.update_id))

    async def failed(self, update: object, context: ContextTypes.DEFAULT_TYPE) -> None:
        """Note what went wrong, never what was said. Trouble that may pass keeps the update for the next start."""
        number = update.update_id if isinstance(update, Update) else 0
        if isinstance(context.error, ServiceTrouble) and not context.error.permanent:
            self.unfinished.add(number)
        log.error("update %s was not handled: %s", number, outline(context.error))

    async def initialize(self) -> None:
        """Nothing to prepare."""

    async def shutdown(self) -> None:
        """Nothing to let go."""


def add_handlers(app: App, talk: Talk) -> None:
    """Which update goes where. Only new messages are commands: an edited one was obeyed already."""
    new = filters.UpdateType.MESSAGE
    app.add_handler(CommandHandler("ask", talk.ask, new))
    app.add_handler(CommandHandler("start", talk.start, new))
    app.add_handler(CommandHandler("teach", talk.teach, new))
    for command in COMMANDS:
        if command.run is not None:
            app.add_handler(CommandHandler(command.name, partial(talk.command, command.name), new))
    app.add_handler(MessageHandler(new, talk.message))
    app.add_handler(MessageHandler(filters.UpdateType.EDITED_MESSAGE, talk.edited))
    app.add_handler(CallbackQueryHandler(talk.pressed))
    app.add_handler(ChatMemberHandler(talk.membership, ChatMemberHandler.MY_CHAT_MEMBER))
    processor = app.update_processor
    assert isinstance(processor, Handling)
    app.add_error_handler(processor.failed)


def quieten() -> None:
    """The libraries log addresses, and Telegram's have the token in them."""
    for name in ("httpx", "httpcore", "telegram", "tornado.access"):
        logging.getLogger(name).setLevel(logging.WARNING)


def polled(error: TelegramError) -> None:
    log.warning("polling Telegram failed (%s); the library tries again", type(error).__name__)


def outline(error: BaseException | None) -> str:
    """An exception without its words, which may be people's: its kind, and the line of ours it came from."""
    trace, where = error.__traceback__ if error else None, ""
    while trace is not None:
        name = trace.tb_frame.f_globals.get("__name__", "")
        if name.split(".")[0] in {"bot", "memory", "infra"}:
            where = f" in {name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__}{where}"


async def unless(stopping: asyncio.Event, work: Awaitable[Any]) -> None:
    """Do something, at most until asked to stop."""
    doing, asked = asyncio.ensure_future(work), asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({doing, asked}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            doing.result()
    finally:
        await cancelled({doing, asked})


async def cancelled(tasks: Any) -> None:
    """Cancel tasks and wait until they are gone."""
    going = list(tasks)
    for task in going:
        task.cancel()
    await asyncio.gather(*going, return_exceptions=True)
