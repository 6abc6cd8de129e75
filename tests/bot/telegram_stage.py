"""A stage for tests on Telegram: the double, a staged community, and the platform itself running on both."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

import bot.rounds
import bot.telegram_follow
import bot.telegram_line
from bot.telegram_platform import TelegramPlatform
from infra.settings import TelegramSettings
from memory.journal import InboxItem
from memory.messages import Place
from tests.bot.stage import Script, Stage, staged
from tests.fakes.telegram import FakeTelegram
from tests.fakes.telegram_flood import Limits
from tests.fakes.telegram_world import FakeMessage

ADA = 7
WARM = "How warm should the sourdough be?"
SAYS = "Keep it at 24 degrees"
UNKNOWN = "What is the capital of Mongolia?"


@dataclass
class Scene:
    """Ada is the creator and has opened her private chat; Bob is a member of the group, Ada owns it."""

    telegram: FakeTelegram
    stage: Stage
    folder: Path
    bob: int
    group: int
    settings: dict[str, Any] = field(default_factory=dict)
    _task: asyncio.Task[None] | None = None
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    # The process.

    def start(self) -> None:
        given = {"token": SecretStr(self.telegram.token), "api": self.telegram.api, **self.settings}
        platform = TelegramPlatform(TelegramSettings(**given), self.stage.community, state=self.folder / "state")
        self._stopping = asyncio.Event()
        self._task = asyncio.create_task(platform.run(self._stopping))

    async def stop(self) -> None:
        """Ask it to stop and wait until it has."""
        self._stopping.set()
        assert self._task is not None
        await self._task

    async def ended(self) -> None:
        """Wait until it ends by itself."""
        assert self._task is not None
        await self._task

    async def kill(self) -> None:
        """End it in the middle of whatever it does."""
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    @property
    def running(self) -> bool:
        return self._task is not None and not self._task.done()

    # What people do and see.

    async def private(self, text: str, *, user: int | None = None, **more: Any) -> int:
        """Bob, or another, writes to the twin."""
        user = user or self.bob
        return await self.telegram.say(user, self.telegram.private(user), text, **more)

    async def public(self, text: str, *, user: int | None = None, **more: Any) -> int:
        return await self.telegram.say(user or self.bob, self.group, text, **more)

    def said(self, chat: int) -> list[FakeMessage]:
        return self.telegram.said_by_bot(chat)

    async def reply(self, chat: int, containing: str = "", *, count: int = 1, timeout_s: float = 8.0) -> FakeMessage:
        """The newest message of the twin's in a chat, as soon as there are `count` of them that contain something."""
        found: list[FakeMessage] = []

        def there() -> bool:
            found[:] = [each for each in self.said(chat) if containing in each.text]
            return len(found) >= count

        await self.telegram.until(there, timeout_s)
        return found[-1]

    async def answered(self, chat: int, question: int, *, timeout_s: float = 8.0) -> FakeMessage:
        """The finished answer to a question: the message that replies to it and that the journal knows of."""
        place = f"telegram:{chat}"

        def shown() -> FakeMessage | None:
            found = [each for each in self.said(chat) if each.reply_to == question]
            known = found and self._known(place, found[0].id)
            return found[0] if known else None

        await self.telegram.until(shown, timeout_s)
        answer = shown()
        assert answer is not None
        return answer

    def _known(self, place: str, message: int) -> bool:
        _, _, chat = place.partition(":")
        return self.stage.journal.message(Place("telegram", chat), str(message)) is not None

    async def press(self, user: int, message: FakeMessage, verb: str) -> str:
        """Press the button whose action begins with `verb`; returns what the window over the chat said."""
        actions: list[str] = []

        def there() -> bool:
            actions[:] = [each["callback_data"] for each in message.buttons if each["callback_data"].startswith(verb)]
            return bool(actions)

        await self.telegram.until(there)
        action = actions[0]
        callback = await self.telegram.press(user, message.chat, message.id, action)
        await self.telegram.until(lambda: callback.answered)
        return callback.text

    def labels(self, message: FakeMessage) -> list[str]:
        return [each["text"] for each in message.buttons]

    async def card(self, containing: str = UNKNOWN, *, chat: int = ADA) -> FakeMessage:
        """The card of a question, by default in Ada's private chat, known to the twin as such."""
        card = await self.reply(chat, containing)
        known = self.stage.community.members.cards_shown_as
        await self.telegram.until(lambda: bool(known("telegram", str(card.id))))
        return card

    def inbox(self, state: str = "open") -> list[InboxItem]:
        return self.stage.journal.inbox(state=state)

    def events(self, kind: str) -> list[dict[str, Any]]:
        with self.stage.journal.engine.connect() as connection:
            rows = connection.exec_driver_sql("SELECT payload FROM events WHERE kind = ? ORDER BY seq", (kind,))
            return [json.loads(row[0]) for row in rows]

    async def settled(self) -> None:
        """Everything that Telegram told was handled."""
        await self.telegram.until(lambda: not self.telegram.queue.pending() and not self.waiting())

    def waiting(self) -> int:
        with self.stage.journal.engine.connect() as connection:
            return int(connection.exec_driver_sql("SELECT count(*) FROM spool WHERE payload <> ''").scalar() or 0)


def hurry(patch: pytest.MonkeyPatch) -> None:
    """The paces of minutes in hundredths of seconds."""
    patch.setattr(bot.rounds, "ROUND_S", 0.05)
    patch.setattr(bot.telegram_line, "GROUP_S", 0.1)
    patch.setattr(bot.telegram_line, "PRIVATE_S", 0.05)
    patch.setattr(bot.telegram_follow, "FOLLOW_S", 0.05)


@asynccontextmanager
async def scene(
    folder: Path,
    *,
    voice: Script | None = None,
    teachers: frozenset[str] = frozenset(),
    begin: bool = True,
    limits: Limits | None = None,
    settings: dict[str, Any] | None = None,
    **telegram: Any,
) -> AsyncIterator[Scene]:
    """A running twin. At the end it is stopped, and nothing may have been asked of Telegram that it does not know."""
    with pytest.MonkeyPatch.context() as patch:
        hurry(patch)
        double = FakeTelegram(limits=limits or Limits.none(), **telegram)
        async with double, staged(folder, creator=f"telegram:{ADA}", teachers=teachers, voice=voice) as stage:
            double.user("Ada", user_id=ADA)
            bob = double.user("Bob")
            group = double.group("Bakery")
            double.join(group, ADA, "creator")
            double.join(group, bob)
            on = Scene(double, stage, folder, bob, group, settings or {})
            double.world.people[ADA].started = True
            double.world.people[bob].started = True
            if begin:
                on.start()
            try:
                yield on
            finally:
                if on.running:
                    await on.stop()
            assert double.violations == []
