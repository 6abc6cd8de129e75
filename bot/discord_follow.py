"""A training run as it goes on, shown by editing one message; at its end a new one, since edits notify nobody.

The message is the answer to the command as long as Discord lets that be edited, and then, or after a restart, one in
the inbox.
"""

import asyncio
import time
from functools import partial
from typing import Any

from bot.commands import progress
from bot.community import Community
from bot.delivery import courtesy, insist
from bot.discord_show import edited_original
from bot.discord_values import Interaction
from bot.platform import Platform
from bot.running import Running
from bot.screens import Caller, Screen
from infra.errors import ServiceTrouble, UserMistake
from infra.spool import Spool
from memory.codec import encoded, person_from, place_from

FOLLOW_S = 3.0
# An interaction's token lives for fifteen minutes; a training may take longer.
TOKEN_S = 14 * 60.0


class Follower:
    """Follows runs, also those that an earlier process began to follow."""

    def __init__(self, community: Community, platform: Platform, spool: Spool, running: Running) -> None:
        self._community, self._platform, self._spool, self._running = community, platform, spool, running

    async def begin(self, interaction: Interaction, caller: Caller, run_id: str) -> None:
        """Follow a run in the answer to an interaction."""
        following = {
            "run": run_id,
            "place": encoded(caller.place),
            "person": encoded(caller.person),
            "language": caller.language,
        }
        await self._note(following, following)
        self._running.chore(self._follow(following, interaction), f"following run {run_id}")

    async def resume(self) -> None:
        """Go on with what the process before was following."""
        for _, run_id, meaning in await asyncio.to_thread(self._spool.meanings):
            if "following" in meaning:
                self._running.chore(self._follow(meaning["following"], None), f"following run {run_id} again")

    async def _follow(self, following: dict[str, Any], interaction: Interaction | None) -> None:
        place = place_from(following["place"])
        caller = Caller(person_from(following["person"]), place, following["language"])
        until, shown = time.monotonic() + TOKEN_S, ""
        while True:
            await asyncio.sleep(FOLLOW_S)
            try:
                run = await self._community.operate(partial(self._community.operations.run, following["run"]))
            except ServiceTrouble:
                continue  # what knows of runs is away; the run goes on
            except UserMistake:
                break  # the run is gone
            screen = await self._community.operate(partial(progress, self._community, caller, run))
            going = run["state"] in {"queued", "running"}
            if screen.text != shown:
                shown = screen.text
                if interaction and (time.monotonic() > until or not await edited_original(interaction, screen)):
                    interaction = None
                if going and not interaction:
                    await courtesy(partial(self._show_beside, following, screen))
            if not going:
                await insist(partial(self._platform.send, await self._platform.inbox() or place, screen))
                break
        await self._note(following, {})

    async def _show_beside(self, following: dict[str, Any], screen: Screen) -> None:
        """Show progress in a message of its own, which is sent the first time."""
        place = await self._platform.inbox() or place_from(following["place"])
        if "message" in following:
            await self._platform.edit(place, following["message"], screen)
        else:
            following["message"] = await self._platform.send(place, screen)
            await self._note(following, following)

    async def _note(self, following: dict[str, Any], meaning: dict[str, Any]) -> None:
        """Keep what is followed for the next process; nothing, when it ended."""
        key, now = place_from(following["place"]).key, self._community.clock()
        kept = {"following": meaning} if meaning else {}
        await asyncio.to_thread(self._spool.mean, key, following["run"], kept, now=now)
