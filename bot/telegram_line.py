"""The line to Telegram: every call the twin makes, its troubles in our words, and the pace of each chat.

A chat that became a supergroup is followed to its new id. A message is sent again without its styling when Telegram
cannot read it, and without its reply when what it replies to is gone.
"""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from telegram import Bot, ForceReply, LinkPreviewOptions, Message, ReplyParameters
from telegram.constants import ChatAction
from telegram.error import BadRequest, ChatMigrated, Forbidden, InvalidToken, RetryAfter, TelegramError

from bot.delivery import insist, utf16
from bot.screens import Form, Screen
from bot.telegram_show import MOST_CAPTION, MOST_PLACEHOLDER, Part, keyboard, parts_of, question
from infra.errors import Busy, ServiceTrouble
from infra.spool import Spool
from memory.messages import Place

log = logging.getLogger(__name__)
T = TypeVar("T")
Meaning = Mapping[str, Any]

# Telegram takes twenty messages a minute in a group, edits included, and about one a second in a private chat.
GROUP_S = 3.0
PRIVATE_S = 1.0
GROUP_A_MINUTE = 20
NO_PREVIEW = LinkPreviewOptions(is_disabled=True)


class Pace:
    """When a chat may be written to: one for all replies under way in it."""

    def __init__(self, *, private: bool) -> None:
        self.interval_s = PRIVATE_S if private else GROUP_S
        self.most = 10**9 if private else GROUP_A_MINUTE
        # Each of these still has to send its final message.
        self.finals = 0
        self._spent: deque[float] = deque(maxlen=64)
        self._last = self._muted_until = 0.0

    def free(self) -> bool:
        """Whether a preview may go now: not too soon, and never in the place of a final message."""
        now = time.monotonic()
        spent = sum(now - each < 60 for each in self._spent)
        return self.due_s() <= 0 and now >= self._muted_until and spent + self.finals < self.most

    def due_s(self) -> float:
        """How long until the chat's last message is old enough."""
        return self._last + self.interval_s - time.monotonic()

    def spend(self) -> None:
        """Count a message that is about to go: two replies must not both take the same moment."""
        self._last = time.monotonic()
        self._spent.append(self._last)

    def spent(self) -> None:
        """It went; on a slow line that is later than it was begun."""
        self._last = time.monotonic()

    def mute(self, seconds: float) -> None:
        self._muted_until = max(self._muted_until, time.monotonic() + seconds)

    def heed(self) -> None:
        """Raise Busy while Telegram asked for silence in this chat."""
        if (left := self._muted_until - time.monotonic()) > 0:
            raise Busy("Telegram asked for patience in this chat.", retry_after_s=math.ceil(left))


class Line:
    """Calls to Telegram. Each raises Busy, ServiceTrouble, or a permanent ServiceTrouble; see `trouble`."""

    def __init__(self, bot: Bot, spool: Spool, clock: Callable[[], datetime]) -> None:
        self.bot, self._spool, self._clock = bot, spool, clock
        self._paces: dict[str, Pace] = {}
        self._moved: dict[int, int] = {}

    def pace(self, place: Place) -> Pace:
        """The pace of a chat, its topics included."""
        return self._paces.setdefault(place.id, Pace(private=place.visibility == "private"))

    # Screens and forms.

    async def show(self, place: Place, screen: Screen, *, reply_to: str = "") -> str:
        """Send a screen; returns the id of the message with its buttons."""
        if screen.file:
            return await self._file(place, screen, reply_to=reply_to)
        first, *rest = parts_of(screen)
        shown = await self.write(place, first, reply_to=reply_to)
        for part in rest:  # the first part stands already: giving up now would show it twice
            shown = await insist(partial(self.write, place, part))
        return shown

    async def show_meaning(self, place: Place, screen: Screen, meaning: Meaning) -> str:
        """Send a screen whose buttons mean something by `meaning`: they appear when it is kept, not before."""
        shown = await self.show(place, replace(screen, buttons=()))
        await self.mean(place, shown, meaning)
        await self._call(
            place,
            lambda chat: self.bot.edit_message_reply_markup(chat, int(shown), reply_markup=keyboard(screen.buttons)),
        )
        return shown

    async def change(self, place: Place, message_id: str, screen: Screen) -> None:
        """Show a screen in place of a message; what does not fit into it is left out."""
        first = parts_of(screen)[0]
        await self.rewrite(place, message_id, Part(first.text, first.entities, keyboard(screen.buttons)))

    async def ask(self, place: Place, form: Form, *, reply_to: str = "", meaning: Meaning) -> str:
        """Ask for a form's text by a message to reply to; `meaning` says what the reply is for."""
        part = question(form)
        box = ForceReply(selective=True, input_field_placeholder=form.label[:MOST_PLACEHOLDER])
        shown = await self._send(place, part, reply_to=reply_to, markup=box)
        await self.mean(place, shown, meaning)
        return shown

    async def mean(self, place: Place, message_id: str, meaning: Meaning) -> None:
        if meaning:
            await asyncio.to_thread(self._spool.mean, place.key, message_id, meaning, now=self._clock())

    # Single messages.

    async def write(self, place: Place, part: Part, *, reply_to: str = "") -> str:
        """Send one message."""
        return await self._send(place, part, reply_to=reply_to, markup=part.buttons)

    async def rewrite(self, place: Place, message_id: str, part: Part) -> None:
        """Change one message. An edit without buttons takes them away, so they are always given again."""

        async def act(chat: int, *, styled: bool) -> None:
            if chat != int(place.id):  # in a chat that moved the number is another message's
                raise BadRequest("message to edit not found")
            try:
                await self.bot.edit_message_text(
                    part.text,
                    chat,
                    int(message_id),
                    entities=part.entities if styled else None,
                    reply_markup=part.buttons,
                    link_preview_options=NO_PREVIEW,
                )
            except BadRequest as refusal:
                if "not modified" not in refusal.message.lower():
                    raise

        await self._speak(place, act, part)

    async def draft(self, place: Place, draft_id: int, part: Part) -> None:
        """Show what there is of an answer in a private chat, for half a minute at most."""

        async def act(chat: int, *, styled: bool) -> None:
            entities = part.entities if styled else None
            await self.bot.send_message_draft(
                chat, draft_id, part.text, entities=entities, message_thread_id=topic(place)
            )

        await self._speak(place, act, part)

    async def typing(self, place: Place) -> None:
        await self._call(
            place, lambda chat: self.bot.send_chat_action(chat, ChatAction.TYPING, message_thread_id=topic(place))
        )

    async def manages(self, place: Place, person_id: str) -> bool:
        """Whether somebody is an administrator of a group; who cannot be looked up is none."""
        try:
            member = await self._call(place, lambda chat: self.bot.get_chat_member(chat, int(person_id)))
        except ServiceTrouble:
            return False
        return member.status in {"creator", "administrator"}

    async def reads_all(self, place: Place) -> bool:
        """Whether Telegram shows the twin what is not meant for it: to administrators, or without privacy mode."""
        me = await self._call(place, lambda chat: self.bot.get_me())
        return bool(me.can_read_all_group_messages) or await self.manages(place, str(me.id))

    async def _send(self, place: Place, part: Part, *, reply_to: str, markup: Any) -> str:
        async def act(chat: int, *, styled: bool) -> Message:
            return await self.bot.send_message(
                chat,
                part.text,
                entities=part.entities if styled else None,
                reply_markup=markup,
                reply_parameters=replying(place, chat, reply_to),
                message_thread_id=topic(place),
                link_preview_options=NO_PREVIEW,
            )

        sent = await self._speak(place, act, part)
        return str(sent.message_id)

    async def _file(self, place: Place, screen: Screen, *, reply_to: str) -> str:
        """A document, or a picture where it is one, with the screen's text under it or, when too long, before it."""
        assert screen.file is not None
        name, content = screen.file
        parts = parts_of(screen)
        if len(parts) > 1 or utf16(parts[0].text) > MOST_CAPTION:
            await self.show(place, Screen(screen.text, private=screen.private), reply_to=reply_to)
            parts = [Part("", (), parts[-1].buttons)]
        send = self.bot.send_photo if name.endswith(".png") else self.bot.send_document

        async def act(chat: int, *, styled: bool) -> Message:
            return await send(
                chat,
                content,
                filename=name,
                caption=parts[0].text or None,
                caption_entities=parts[0].entities if styled else None,
                reply_markup=parts[0].buttons,
                reply_parameters=replying(place, chat, reply_to),
                message_thread_id=topic(place),
            )

        sent = await self._speak(place, act, parts[0])
        return str(sent.message_id)

    async def _speak(self, place: Place, act: Callable[..., Awaitable[T]], part: Part) -> T:
        """A call that counts as a message."""
        pace = self.pace(place)
        pace.heed()
        pace.spend()
        try:
            return await self._call(place, partial(self._styled, act, part))
        finally:
            pace.spent()

    async def _styled(self, act: Callable[..., Awaitable[T]], part: Part, chat: int) -> T:
        """Do it with the part's entities; when Telegram cannot read them, without."""
        try:
            return await act(chat, styled=True)
        except BadRequest as refusal:
            if not part.entities or "entit" not in refusal.message.lower():
                raise
            log.warning("Telegram refused the styling of a message; it goes out plain")
            return await act(chat, styled=False)

    async def _call(self, place: Place, act: Callable[[int], Awaitable[T]]) -> T:
        pace = self.pace(place)
        pace.heed()
        chat = int(place.id)
        while chat in self._moved:
            chat = self._moved[chat]
        try:
            return await act(chat)
        except ChatMigrated as moved:
            self._moved[chat] = moved.new_chat_id
            return await self._call(place, act)
        except RetryAfter as flood:
            # The library's own property changes its type with a setting of the environment.
            seconds = flood._retry_after.total_seconds()
            pace.mute(seconds)
            raise Busy("Telegram asked for patience in this chat.", retry_after_s=math.ceil(seconds)) from flood
        except TelegramError as error:
            raise trouble(error) from error


def trouble(error: TelegramError) -> ServiceTrouble:
    """What a failure means: blocked, gone and not allowed are for good, everything else may work later."""
    permanent = isinstance(error, BadRequest | Forbidden) and not isinstance(error, InvalidToken)
    return ServiceTrouble(f"Telegram: {error.message.rstrip('.')}.", permanent=permanent)


def topic(place: Place) -> int | None:
    return int(place.thread) if place.thread else None


def replying(place: Place, chat: int, reply_to: str) -> ReplyParameters | None:
    """A chat that moved numbers its messages anew: there an old number would be somebody else's message."""
    if not reply_to or chat != int(place.id):
        return None
    return ReplyParameters(int(reply_to), allow_sending_without_reply=True)
