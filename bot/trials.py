"""Trials of voices that ended by themselves, as the creator is told of them."""

import asyncio
from datetime import timedelta

from bot.community import Community
from bot.platform import Platform
from bot.screens import Screen
from bot.wording import say
from memory.remember import notice_event
from memory.trial import Ending, endings

# A platform that is new need not tell of what ended longer ago.
NEWS = timedelta(days=7)


def sentence(ending: Ending, language: str) -> str:
    """That a trial ended, and why."""
    worse = ending.worse
    shares = worse.limit in {"failed", "bad"}
    mine, theirs = (f"{100 * each:.0f} %" if shares else f"{each / 1000:.1f} s" for each in (worse.mine, worse.theirs))
    reason = say(f"trial_{worse.limit}", language, mine=mine, theirs=theirs, of=worse.of, others=worse.others)
    return say("trial_ended", language, canary=ending.version, reason=reason)


async def tell_endings(community: Community, platform: Platform) -> None:
    """Tell the creator which trials ended by themselves, and why."""
    for ending in await asyncio.to_thread(endings, community.journal):
        if community.clock() - ending.at > NEWS or await asyncio.to_thread(
            community.members.told, platform.name, ending.id
        ):
            continue
        if (place := await platform.inbox()) is None:
            return
        await platform.send(place, Screen(sentence(ending, community.persona.language)))
        await community.remember(notice_event(ending.id, platform.name, at=community.clock()))
