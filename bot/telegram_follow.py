"""A training run as it goes on, shown by editing one message; at its end a new one, since edits notify nobody."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from bot.commands import progress
from bot.community import Community
from bot.delivery import courtesy, insist
from bot.screens import Caller
from bot.telegram_line import Line
from infra.errors import ServiceTrouble, UserMistake
from infra.spool import Spool
from memory.codec import encoded, person_from, place_from
from memory.messages import Place

log = logging.getLogger(__name__)

FOLLOW_S = 5.0

Spawn = Callable[[Coroutine[Any, Any, None]], object]


class Follower:
    """Follows runs, also those that an earlier process began to follow. `spawn` runs a task beside everything else."""

    def __init__(self, community: Community, line: Line, spool: Spool, spawn: Spawn) -> None:
        self._community, self._line, self._spool, self._spawn = community, line, spool, spawn

    async def begin(self, caller: Caller, place: Place, message_id: str, run_id: str) -> None:
        """Follow a run in a message of the twin's."""
        following = {
            "run": run_id,
            "place": encoded(place),
            "person": encoded(caller.person),
            "language": caller.language,
        }
        known = await asyncio.to_thread(self._spool.meaning, place.key, message_id)
        await self._line.mean(place, message_id, {**known, "following": following})
        self._spawn(self._follow(message_id, following))

    async def resume(self) -> None:
        """Go on with what the process before was following."""
        for _, message_id, meaning in await asyncio.to_thread(self._spool.meanings):
            if "following" in meaning:
                self._spawn(self._follow(message_id, meaning["following"]))

    async def _follow(self, message_id: str, following: dict[str, Any]) -> None:
        place = place_from(following["place"])
        caller = Caller(person_from(following["person"]), place, following["language"])
        shown = ""
        while True:
            await asyncio.sleep(FOLLOW_S)
            try:
                run = await self._community.operate(partial(self._community.operations.run, following["run"]))
            except ServiceTrouble:
                continue
            except UserMistake:
                break  # the run is gone
            screen = await self._community.operate(partial(progress, self._community, caller, run))
            if run["state"] not in {"queued", "running"}:
                await insist(partial(self._line.show, place, screen))
                break
            if screen.text != shown:
                await courtesy(partial(self._line.change, place, message_id, screen))
                shown = screen.text
        await asyncio.to_thread(self._spool.mean, place.key, message_id, {}, now=self._community.clock())
