"""How the twin's screens and replies look on Discord: messages, buttons, forms, and what its errors mean for us."""

import asyncio
import math
import re
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import aiohttp
import discord

from bot.asking import Draw
from bot.delivery import split
from bot.discord_values import Interaction
from bot.screens import Button, Form, Screen
from infra.errors import Busy, ServiceTrouble
from memory.messages import Answer, Message

MOST_TEXT = 2000
MOST_FIELD = 4000
MOST_HEADING = 45
# Sends and edits in one channel draw from one bucket of five in five seconds; this leaves room for the final.
PREVIEW_S = 1.2
# Codes of the API. The first two forbid a reply but not a message; the last is no matter of patience.
NO_HISTORY, UNKNOWN_REFERENCE, TOO_OLD_TO_EDIT = 160002, 50035, 30046
LINK = re.compile(r"\]\((https?://[^\s()<>]+)\)")


@contextmanager
def translated() -> Iterator[None]:
    """Discord's errors as ours: be patient, try again, or never."""
    try:
        yield
    except discord.RateLimited as error:
        raise Busy("Discord asks for patience.", retry_after_s=math.ceil(error.retry_after)) from error
    except discord.HTTPException as error:
        raise trouble_of(error) from error
    except (aiohttp.ClientError, OSError) as error:
        raise ServiceTrouble(f"Discord cannot be reached ({type(error).__name__}).") from error


def trouble_of(error: discord.HTTPException) -> ServiceTrouble:
    """An answer of the API that is an error. Its text is left out: it may quote what somebody wrote."""
    if error.status == 429 and error.code != TOO_OLD_TO_EDIT:
        return Busy("Discord asks for patience.", retry_after_s=int(error.response.headers.get("Retry-After", 60)))
    message = f"Discord refused with {error.status}, code {error.code}."
    return ServiceTrouble(message, permanent=error.status < 500)


class Pace:
    """One pace for each channel, over all replies in it."""

    def __init__(self, interval_s: float = PREVIEW_S) -> None:
        self.interval_s = interval_s
        self._free_at: dict[int, float] = {}
        self._shown_at: dict[int, float] = {}

    def turn(self, channel: int) -> "Turn":
        return Turn(self, channel)

    def promise(self, channel: int) -> float:
        """When the next preview in a channel is due: later than all that were promised before."""
        now = time.monotonic()
        self._free_at = {each: at for each, at in self._free_at.items() if at > now}
        self._shown_at = {each: at for each, at in self._shown_at.items() if at > now - self.interval_s}
        at = max(now, self._free_at.get(channel, 0.0))
        self._free_at[channel] = at + self.interval_s
        return at

    def wait_s(self, channel: int, due: float) -> float:
        """How long a preview must wait that is due then; one that was due before may have come late."""
        return max(due, self._shown_at.get(channel, 0.0) + self.interval_s) - time.monotonic()

    def shown(self, channel: int) -> None:
        self._shown_at[channel] = time.monotonic()


class Turn:
    """One reply's place in the row of its channel. A turn is promised once and kept, so no reply starves."""

    def __init__(self, pace: Pace, channel: int) -> None:
        self._pace, self._channel = pace, channel
        self._due: float | None = None

    @property
    def interval_s(self) -> float:
        return self._pace.interval_s

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Show a preview, or raise Busy with how long to wait. The pace counts from when Discord has it."""
        if self._due is None:
            self._due = self._pace.promise(self._channel)
        if (wait := self._pace.wait_s(self._channel, self._due)) > 0:
            raise Busy("Other replies in this channel come first.", retry_after_s=math.ceil(wait))
        self._due = None
        self._pace.shown(self._channel)
        try:
            yield
        finally:
            self._pace.shown(self._channel)


@dataclass(frozen=True)
class Part:
    """One message of an answer."""

    number: int
    text: str
    buttons: tuple[Button, ...] = ()


def parts_of(screen: Screen) -> list[Part]:
    """A screen as messages that Discord takes, buttons on the last."""
    texts = split(screen.text, MOST_TEXT) or ["…"]
    last = len(texts) - 1
    return [Part(number, text, screen.buttons if number == last else ()) for number, text in enumerate(texts)]


class ChannelOutlet:
    """A reply in a channel: a message that answers another and is edited while it grows."""

    def __init__(self, channel: discord.PartialMessageable, message: Message, draw: Draw, turn: Turn) -> None:
        self.interval_s = turn.interval_s
        self._channel, self._message, self._draw, self._turn = channel, message, draw, turn
        self._preview: discord.PartialMessage | None = None
        self._previewed = ""
        self._lost = 0

    async def typing(self) -> None:
        with translated():
            await self._channel.typing()

    async def preview(self, text: str) -> None:
        text = text[:MOST_TEXT].strip()
        if not text or text == self._previewed:
            return
        with self._turn.taken(), translated():
            await self._put(Part(0, text))
        self._previewed = text

    def parts(self, answer: Answer) -> Sequence[Part]:
        return parts_of(self._draw(answer))

    async def send(self, part: Part) -> str:
        with translated():
            return await self._put(part)

    async def _put(self, part: Part) -> str:
        """Show a part, the first one in place of the preview, unless somebody has deleted that."""
        if part.number == 0 and self._preview is not None:
            try:
                await self._preview.edit(content=part.text, view=view_of(part.buttons))
                return str(self._preview.id)
            except discord.NotFound:
                self._preview, self._lost = None, self._lost + 1
        # Discord keeps one message for one nonce: an answer that was lost on its way back is not said twice.
        sent = await post(
            self._channel,
            part,
            reply_to=self._message.id if part.number == 0 else "",
            nonce=f"{self._message.id[-18:]}.{part.number}.{self._lost}",
        )
        if part.number == 0:
            self._preview = self._channel.get_partial_message(sent.id)
        if sent.content.strip() != part.text.strip():
            await self._channel.get_partial_message(sent.id).edit(content=part.text, view=view_of(part.buttons))
        return str(sent.id)


class InteractionOutlet:
    """A reply to a command: its deferred answer, edited. `otherwise` is where it goes when Discord's token is dead."""

    def __init__(
        self, interaction: Interaction, draw: Draw, turn: Turn, *, private: bool, otherwise: ChannelOutlet
    ) -> None:
        self.interval_s = turn.interval_s
        self._interaction, self._draw, self._turn = interaction, draw, turn
        self._private, self._otherwise = private, otherwise
        self._previewed = ""

    async def typing(self) -> None:
        """Discord shows that the twin is thinking."""

    async def preview(self, text: str) -> None:
        text = text[:MOST_TEXT].strip()
        if not text or text == self._previewed:
            return
        with self._turn.taken(), translated():
            await self._interaction.edit_original_response(content=text)
        self._previewed = text

    def parts(self, answer: Answer) -> Sequence[Part]:
        """An answer in private offers nothing that would be said in public."""
        screen = self._draw(answer)
        buttons = [b for b in screen.buttons if not (self._private and b.action.startswith("ask:"))]
        # An edit of such an answer cannot say that links shall not unfold.
        return parts_of(Screen(LINK.sub(r"](<\1>)", screen.text), tuple(buttons)))

    async def send(self, part: Part) -> str:
        try:
            with translated():
                return await self._put(part)
        except ServiceTrouble as trouble:
            if not trouble.permanent or self._private:
                raise
            return await self._otherwise.send(part)

    async def _put(self, part: Part) -> str:
        if part.number == 0:
            edited = await self._interaction.edit_original_response(content=part.text, view=view_of(part.buttons))
            return str(edited.id)
        return await follow_up(self._interaction, part, private=self._private)


async def post(
    channel: discord.abc.Messageable,
    part: Part,
    *,
    reply_to: str = "",
    nonce: str | None = None,
    file: tuple[str, bytes] | None = None,
) -> discord.Message:
    """One message, as a reply where that is possible: what it answers may be deleted or unreadable by now."""

    async def sent(reference: discord.MessageReference | None) -> discord.Message:
        given = {"reference": reference, "nonce": nonce, **beside(part, file)}
        return await channel.send(part.text, suppress_embeds=True, **given)

    reference = reference_to(channel, reply_to)
    try:
        return await sent(reference)
    except discord.HTTPException as error:
        if reference is None or error.code not in {NO_HISTORY, UNKNOWN_REFERENCE}:
            raise
        return await sent(None)


def reference_to(channel: discord.abc.Messageable, message_id: str) -> discord.MessageReference | None:
    """What a message answers; commands have no message to answer."""
    if not message_id.isdigit():
        return None
    here: int = channel.id  # type: ignore[attr-defined]  # everything we send to has one
    return discord.MessageReference(message_id=int(message_id), channel_id=here, fail_if_not_exists=False)


async def follow_up(
    interaction: Interaction, part: Part, *, private: bool, file: tuple[str, bytes] | None = None
) -> str:
    """A further message to an interaction; the first one after a deferral takes its place."""
    given = beside(part, file)
    sent = await interaction.followup.send(part.text, ephemeral=private, wait=True, suppress_embeds=True, **given)
    return str(sent.id)


async def show(interaction: Interaction, screen: Screen) -> None:
    """A screen as the answer to an interaction that has none, or was deferred; private ones for one pair of eyes."""
    private = screen.private and interaction.guild_id is not None
    parts = parts_of(screen)
    with translated():
        if interaction.response.is_done() and not private and interaction.guild_id is not None:
            # The deferral was for one pair of eyes, and what takes its place would be too.
            await interaction.delete_original_response()
        for part in parts:
            file = screen.file if part is parts[-1] else None
            if interaction.response.is_done():
                await follow_up(interaction, part, private=private, file=file)
            else:
                await first(interaction, part, private=private, file=file)


async def first(interaction: Interaction, part: Part, *, private: bool, file: tuple[str, bytes] | None) -> None:
    """The answer to an interaction."""
    given = beside(part, file)
    await interaction.response.send_message(part.text, ephemeral=private, suppress_embeds=True, **given)


async def edited_original(interaction: Interaction, screen: Screen) -> bool:
    """Show a screen in place of an interaction's answer; False when that is not there any more."""
    part = parts_of(screen)[-1]
    try:
        with translated():
            await interaction.edit_original_response(content=part.text, view=view_of(part.buttons))
    except ServiceTrouble as trouble:
        return not trouble.permanent
    return True


async def in_time(interaction: Interaction, work: Coroutine[Any, Any, Screen], *, within_s: float) -> Screen:
    """What `work` makes; Discord is told to wait when that takes long, since it gives up after three seconds."""
    working = asyncio.create_task(work)
    await asyncio.wait([working], timeout=within_s)
    if not working.done():
        with translated():
            await interaction.response.defer(ephemeral=interaction.guild_id is not None, thinking=True)
    return await working


def view_of(buttons: Sequence[Button]) -> discord.ui.View | None:
    """Buttons under a message. They are answered by their ids, so that they outlive this process."""
    if not buttons:
        return None
    view = discord.ui.View(timeout=None)
    for button in buttons:
        view.add_item(discord.ui.Button[Any](label=button.label[:80], custom_id=button.action))
    view.stop()  # or the library would keep it for ever, to call what it does not have
    return view


def modal_of(form: Form) -> discord.ui.Modal:
    """A form with one field."""
    modal = discord.ui.Modal(title=form.title[:MOST_HEADING], custom_id=form.action)
    field = discord.ui.TextInput[Any](
        style=discord.TextStyle.paragraph, custom_id="text", default=form.value[:MOST_FIELD], max_length=MOST_FIELD
    )
    modal.add_item(discord.ui.Label[Any](text=form.label[:MOST_HEADING], component=field))
    modal.stop()
    return modal


def typed_in(data: Any) -> str:
    """What a form was filled with."""
    if isinstance(data, dict):
        return str(data["value"]) if "value" in data else typed_in([*data.values()])
    if isinstance(data, list):
        return next((text for each in data if (text := typed_in(each))), "")
    return ""


def beside(part: Part, file: tuple[str, bytes] | None) -> dict[str, Any]:
    """Buttons and file of a message, if it has any."""
    given: dict[str, Any] = {"view": view_of(part.buttons)} if part.buttons else {}
    return given | ({"file": discord.File(BytesIO(file[1]), file[0])} if file else {})
