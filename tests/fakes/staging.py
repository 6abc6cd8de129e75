"""A stage for tests of the Telegram double: the world, a real bot on it, and short ways to ask."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from telegram import (
    Bot,
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    Update,
)
from telegram.error import (
    BadRequest,
    NetworkError,
    RetryAfter,
)
from telegram.ext import Application, ApplicationBuilder, TypeHandler

from tests.fakes.telegram import FakeTelegram
from tests.fakes.telegram_flood import Limits

YES = InlineKeyboardMarkup([[InlineKeyboardButton("Yes", callback_data="yes")]])


@dataclass
class Clock:
    now: float = 1_770_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Stage:
    """A Telegram, a bot on it, and Ada, who started it."""

    telegram: FakeTelegram
    bot: Bot
    clock: Clock
    ada: int
    group: int
    seen: list[Update] = field(default_factory=list)


@asynccontextmanager
async def stage(**options: Any) -> AsyncIterator[Stage]:
    clock = Clock()
    async with FakeTelegram(clock=clock, limits=options.pop("limits", Limits.none()), **options) as telegram:
        ada = telegram.user("Ada")
        await telegram.start(ada)
        group = telegram.group("Bakery")
        telegram.join(group, ada, "creator")
        bot = bot_on(telegram)
        async with bot:
            yield Stage(telegram, bot, clock, ada, group)
        assert telegram.violations == []


def bot_on(telegram: FakeTelegram, token: str = "") -> Bot:
    return Bot(token or telegram.token, base_url=f"{telegram.api}/bot", base_file_url=f"{telegram.api}/file/bot")


@asynccontextmanager
async def polling(
    on: Stage, allowed: list[str] | None = None
) -> AsyncIterator[Application[Any, Any, Any, Any, Any, Any]]:
    """The library's own application, that writes down every update."""
    builder = ApplicationBuilder().token(on.telegram.token)
    app = builder.base_url(f"{on.telegram.api}/bot").base_file_url(f"{on.telegram.api}/file/bot").build()

    async def note(update: Update, _: Any) -> None:
        on.seen.append(update)

    app.add_handler(TypeHandler(Update, note))
    async with app:
        await app.start()
        assert app.updater
        await app.updater.start_polling(timeout=5, poll_interval=0, allowed_updates=allowed)
        yield app
        await app.updater.stop()
        await app.stop()


async def told(on: Stage) -> list[Update]:
    """What waits for the bot now; asking again would tell it again."""
    return list(await on.bot.get_updates(timeout=0, allowed_updates=Update.ALL_TYPES))


async def forget(on: Stage) -> None:
    """Acknowledge everything."""
    await on.bot.get_updates(offset=(await told(on))[-1].update_id + 1, timeout=0)


async def refused(call: Any, error: type[Exception] = BadRequest) -> str:
    with pytest.raises(error) as caught:
        await call
    return str(caught.value)


async def retry_after(call: Any) -> int:
    with pytest.raises(RetryAfter) as caught:
        await call
    return int(caught.value._retry_after.total_seconds())


async def quietly(call: Any) -> None:
    try:
        await call
    except NetworkError:
        return


def texts_in(chat: int, updates: list[Update]) -> list[str | None]:
    return [update.message.text for update in updates if update.message and update.message.chat_id == chat]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
