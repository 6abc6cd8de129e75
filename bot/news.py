"""What the creator is told by itself, once on each platform: trials of voices that ended, and trainings that failed."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from bot.community import Community
from bot.platform import Platform
from bot.screens import Screen
from bot.wording import say
from memory.remember import notice_event
from memory.trial import Ending, endings

# A platform that is new need not tell of what is older.
NEWS = timedelta(days=7)


@dataclass(frozen=True)
class Item:
    """One thing to tell: what it is called where it was told, and when it happened."""

    id: str
    at: datetime
    text: str


def of_trial(ending: Ending, language: str) -> Item:
    """That a trial ended, and why."""
    worse = ending.worse
    shares = worse.limit in {"failed", "bad"}
    mine, theirs = (f"{100 * each:.0f} %" if shares else f"{each / 1000:.1f} s" for each in (worse.mine, worse.theirs))
    reason = say(f"trial_{worse.limit}", language, mine=mine, theirs=theirs, of=worse.of, others=worse.others)
    return Item(ending.id, ending.at, say("trial_ended", language, canary=ending.version, reason=reason))


def of_run(run: Mapping[str, Any], language: str) -> Item:
    """That a training failed, and why."""
    text = say("run_failed", language, run=run["id"], reason=run["error"])
    return Item(f"run:{run['id']}", datetime.fromisoformat(run["ended"]), text)


def news(community: Community) -> Iterator[Item]:
    """Everything there is to tell; the same thing is there again and again."""
    language = community.persona.language
    yield from (of_trial(ending, language) for ending in endings(community.journal))
    yield from (of_run(run, language) for run in community.operations.failures())


async def tell_news(community: Community, platform: Platform) -> None:
    """Tell the creator what is new."""
    for item in await asyncio.to_thread(lambda: [*news(community)]):
        old = community.clock() - item.at > NEWS
        if old or await asyncio.to_thread(community.members.told, platform.name, item.id):
            continue
        if (place := await platform.inbox()) is None:
            return
        await platform.send(place, Screen(item.text))
        await community.remember(notice_event(item.id, platform.name, at=community.clock()))
