"""One reply on its way to a platform: previews while it grows, and a final message that always arrives.

Previews are a courtesy: they keep the platform's pace, stop while it asks for patience and are dropped when they fail.
The final is a promise: it is tried again until it is shown, or until the platform says that it never can be.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Generic, Protocol, TypeVar

from infra.errors import Busy, ServiceTrouble
from memory.messages import Answer

# Discord shows "typing" for 10 seconds and Telegram for 5.
TYPING_S = 4.5
# A platform that is down for longer than this has lost the reply; the journal still has it.
INSIST_S = 15 * 60
MOST_BACKOFF_S = 30.0

# What a cut must not go through: links, bare addresses, inline code.
WHOLE = re.compile(r"\[[^\[\]\n]*\]\([^)\s]*\)|https?://\S+|`[^`\n]+`")
FENCE = re.compile(r"^(```|~~~)[^\n]*$", re.MULTILINE)
# From the best place to cut to the worst; each matches up to where the next part may begin.
CUTS = (
    re.compile(r"\n\n+"),
    re.compile(r"\n"),
    re.compile(r"(?<![.!?…])[.!?…]+\s+|[。！？]+"),
    re.compile(r"\s+|[，、；：]"),
)
# Families and flags of regions have a dozen code points.
LONGEST_CHARACTER = 64

Part = TypeVar("Part")


class Outlet(Protocol[Part]):
    """Where one reply is shown. Every call may raise Busy, which says when to come back, or ServiceTrouble."""

    interval_s: float
    """The least time between two previews, in seconds."""

    async def typing(self) -> None:
        """Show that an answer is being written."""
        ...

    async def preview(self, text: str) -> None:
        """Show what there is so far, in place of the preview before."""
        ...

    def parts(self, answer: Answer) -> Sequence[Part]:
        """The whole answer as messages that the platform takes, in order."""
        ...

    async def send(self, part: Part) -> str:
        """Show one part for good, the first of them in place of the preview; returns the message's id."""
        ...


class Delivery(Generic[Part]):
    """A `bot.platform.Reply` over an outlet."""

    def __init__(self, outlet: Outlet[Part]) -> None:
        self._outlet = outlet
        self._text = ""
        self._grown = asyncio.Event()
        self._closing = False
        self._showing: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Show that somebody is at it, before there is a first word."""
        self._showing = asyncio.create_task(self._show())

    async def preview(self, piece: str) -> None:
        self._text += piece
        self._grown.set()

    async def deliver(self, answer: Answer) -> tuple[str, ...]:
        """Show the whole answer; returns the ids of its messages. Raises ServiceTrouble when it could not be shown."""
        await self.close()
        parts = self._outlet.parts(answer)
        return tuple([await insist(partial(self._outlet.send, part)) for part in parts])

    async def close(self) -> None:
        """End the previews. One that is on its way is waited for: it must not land on top of the final message."""
        self._closing = True
        self._grown.set()
        if self._showing is not None:
            await self._showing
            self._showing = None

    async def _show(self) -> None:
        """Typing until there is text, then previews at the outlet's pace."""
        while not self._closing and not self._text.strip():
            wait = await courtesy(self._outlet.typing)
            await self._rest(max(wait, TYPING_S), until=lambda: bool(self._text.strip()))
        shown = ""
        while not self._closing:
            text, wait = self._text, 0.0
            if text != shown:
                wait = await courtesy(partial(self._outlet.preview, text))
                shown = shown if wait else text
            await self._rest(max(wait, self._outlet.interval_s))

    async def _rest(self, seconds: float, *, until: Callable[[], bool] = lambda: False) -> None:
        """Sleep; less, when the reply ends or `until` is true after it has grown."""
        deadline = time.monotonic() + seconds
        while not self._closing and not until() and (left := deadline - time.monotonic()) > 0:
            self._grown.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._grown.wait(), left)


async def courtesy(act: Callable[[], Awaitable[None]]) -> float:
    """Do what may be left out; returns for how many seconds to leave the platform alone."""
    try:
        await act()
    except Busy as busy:
        return busy.retry_after_s
    except ServiceTrouble as trouble:
        return INSIST_S if trouble.permanent else TYPING_S
    return 0.0


async def insist(act: Callable[[], Awaitable[str]]) -> str:
    """Do what must be done. Raises ServiceTrouble when it never can be, or not within a quarter of an hour."""
    deadline, pause = time.monotonic() + INSIST_S, 0.5
    while True:
        try:
            return await act()
        except ServiceTrouble as trouble:
            wait = trouble.retry_after_s if isinstance(trouble, Busy) else pause
            if trouble.permanent or time.monotonic() + wait > deadline:
                raise
            await asyncio.sleep(wait)
            pause = min(2 * pause, MOST_BACKOFF_S)


def split(text: str, limit: int, *, size: Callable[[str], int] = len) -> list[str]:
    """`text` as parts of at most `limit`, measured by `size`; never cut inside a link, inline code or character.

    A code block that must be cut is closed and opened again, so that each part is whole Markdown.
    """
    parts, rest = [], text.strip()
    while size(rest) > limit:
        head, fence = cut(rest, limit, size=size)
        rest = rest[len(head) :].lstrip("\n")
        parts.append(f"{head.rstrip()}\n{fence[:3]}" if fence else head.rstrip())
        rest = f"{fence}\n{rest}" if fence else rest.lstrip()
    return [*parts, rest] if rest else parts


def cut(text: str, limit: int, *, size: Callable[[str], int]) -> tuple[str, str]:
    """The longest good beginning of `text`, and the opening line of the code block that it ends inside of, if any."""
    at = fitting(text, limit - len("\n```"), size=size)
    end = next((end for end in (last_end(kind, text, at) for kind in CUTS) if end > at // 2), at)
    best = whole(text, end, most=at)
    if opening(text[:best]) and best <= at // 2:
        # Code is opened again in the next part: what was kept whole in it might never fit, and it would never end.
        best = character(text, end)
    opened = opening(text[:best])
    return text[:best], opened if size(opened) <= limit // 8 else opened[:3]


def opening(head: str) -> str:
    """The line that opens the code block which a text ends inside of; empty if it does not."""
    fences = [match.group() for match in FENCE.finditer(head)]
    return fences[-1] if len(fences) % 2 else ""


def fitting(text: str, limit: int, *, size: Callable[[str], int]) -> int:
    """How many characters from the beginning fit: at least one. No character is of less than one unit."""
    low, high = 1, max(1, min(len(text), limit))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if size(text[:middle]) <= limit else (low, middle - 1)
    return low


def last_end(kind: re.Pattern[str], text: str, at: int) -> int:
    """Where the last match of `kind` before `at` ends; 0 when there is none."""
    return max((match.end() for match in kind.finditer(text, 0, at)), default=0)


def whole(text: str, at: int, *, most: int) -> int:
    """`at`, moved to before what must not be cut; to behind it if it begins the text and ends before `most`."""
    at = character(text, at)
    # What is longer than a part is cut anyway.
    for match in WHOLE.finditer(text, 0, at + most):
        if match.start() < at < match.end():
            return match.start() or (match.end() if match.end() <= most else at)
    return at


def character(text: str, at: int) -> int:
    """`at`, moved to before the character that it is inside of, as people see characters.

    One that is as long as half of what is before `at` is cut: letters can carry any number of marks.
    """
    import regex

    for match in regex.finditer(r"\X", text, endpos=at + LONGEST_CHARACTER):
        if match.end() >= at:
            return match.start() if match.end() > at and match.start() > at // 2 else at
    return at


def utf16(text: str) -> int:
    """How long Telegram takes a text to be: in UTF-16 code units."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
