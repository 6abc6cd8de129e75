"""What a platform has under way: replies that somebody waits for, and chores that may be left lying at the end."""

import asyncio
import logging
import time
import traceback
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)

# How long replies under way may take to finish when the process is asked to stop.
DRAIN_S = 20.0


class Running:
    """Tasks that nobody awaits. One that fails is logged by what it was and where it failed, never by what was said."""

    def __init__(self) -> None:
        self._replies: set[asyncio.Task[None]] = set()
        self._chores: set[asyncio.Task[None]] = set()

    def reply(self, work: Coroutine[Any, Any, None], what: str) -> None:
        """Begin what somebody waits for: the process does not end before it."""
        begin(work, what, self._replies)

    def chore(self, work: Coroutine[Any, Any, None], what: str) -> None:
        """Begin what may stop anywhere."""
        begin(work, what, self._chores)

    async def drain(self) -> None:
        """Wait for the replies under way, and for those that came meanwhile."""
        deadline = time.monotonic() + DRAIN_S
        while self._replies and (left := deadline - time.monotonic()) > 0:
            await asyncio.wait(self._replies, timeout=left)

    async def cancel(self) -> None:
        """Stop everything that is left."""
        tasks = [*self._replies, *self._chores]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def begin(work: Coroutine[Any, Any, None], what: str, running: set[asyncio.Task[None]]) -> None:
    def ended(task: asyncio.Task[None]) -> None:
        running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            report(what, error)

    task = asyncio.create_task(work)
    running.add(task)
    task.add_done_callback(ended)


def report(what: str, error: BaseException) -> None:
    """Log a failure. The text of an error may quote what somebody wrote, so its kind and place must do."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].name}, line {frames[-1].lineno}" if frames else "an unknown place"
    log.error("Failed: %s (%s in %s).", what, type(error).__name__, where)
