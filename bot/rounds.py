"""What a platform does by itself, again and again: the creator's cards, members' notices, reports, news.

Safe to repeat.

Each round shows what is due and journals that it was shown; a crash between the two shows one thing twice, and loses
nothing.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from bot import cards
from bot.community import Community
from bot.news import tell_news
from bot.platform import Platform
from bot.screens import Screen
from bot.wording import language_of, say
from infra.errors import Busy, ServiceTrouble
from memory.journal import InboxItem
from memory.members import Card, Notice
from memory.messages import Place
from memory.remember import card_event, draft_event, notice_event

log = logging.getLogger(__name__)

ROUND_S = 2.0
# When the platform is down, its next round waits this long.
TROUBLE_S = 15.0

Part = Callable[[Community, Platform], Awaitable[None]]


async def rounds(community: Community, platform: Platform, stopping: asyncio.Event) -> None:
    """Go round until asked to stop. What keeps one part from being shown keeps back no other."""
    async with asyncio.TaskGroup() as parts:
        for part in (show_cards, tell_members, show_reports, tell_news):
            parts.create_task(repeat(part, community, platform, stopping))


async def repeat(part: Part, community: Community, platform: Platform, stopping: asyncio.Event) -> None:
    while not stopping.is_set():
        wait = await turn(part, community, platform)
        try:
            await asyncio.wait_for(stopping.wait(), wait)
        except TimeoutError:
            continue


async def turn(part: Part, community: Community, platform: Platform) -> float:
    """One part of a round; returns for how long to rest."""
    try:
        await part(community, platform)
    except Busy as busy:
        return float(busy.retry_after_s)
    except ServiceTrouble as trouble:
        log.warning("%s: %s failed: %s", platform.name, part.__name__, trouble)
        return TROUBLE_S
    community.alive()
    return ROUND_S


async def show_cards(community: Community, platform: Platform) -> None:
    """A card for every question that waits; a card whose question changed or was closed says so."""
    place = await platform.inbox()
    if place is None:
        return
    for item, card in await asyncio.to_thread(community.members.due_cards, platform.name):
        await show_card(community, platform, place, item, card=card)


async def show_card(
    community: Community, platform: Platform, place: Place, item: InboxItem, *, card: Card | None
) -> None:
    """Send a question's card, or change it to what holds now."""
    draft = await drafted(community, platform.name, item) if item.state == "open" else ""
    screen = cards.card(community, item, draft=draft, language=community.persona.language)
    if card is None:
        message_id = await platform.send(place, screen)
    else:
        message_id = card.message_id
        await forgiving(platform, place, message_id, screen)
    await community.remember(card_event(item, place=place, message_id=message_id, at=community.clock()))


async def forgiving(platform: Platform, place: Place, message_id: str, screen: Screen) -> None:
    """Change a card; one that the creator deleted, or that is too old to change, stays as it is."""
    try:
        await platform.edit(place, message_id, screen)
    except ServiceTrouble as trouble:
        if not trouble.permanent:
            raise


async def drafted(community: Community, platform: str, item: InboxItem) -> str:
    """The draft for a question, written once; none while the voice cannot be reached."""
    if draft := await asyncio.to_thread(community.members.draft, item.question_id):
        return draft
    text, voice, notes = await community.twin.draft(item.question, item.place)
    if text:
        await community.remember(
            draft_event(item.question_id, text, voice, notes=notes, platform=platform, at=community.clock())
        )
    return text


async def tell_members(community: Community, platform: Platform) -> None:
    """Tell everybody whose question was answered after all; nobody while the kill switch is thrown."""
    if await community.silenced():
        return
    for notice in await asyncio.to_thread(community.members.notices, platform.name):
        await tell(community, platform, notice)
        await community.remember(notice_event(notice.question_id, platform.name, at=community.clock()))


async def tell(community: Community, platform: Platform, notice: Notice) -> None:
    """Where they asked, or privately if they chose so; who cannot be reached any more is not tried for ever."""
    language = language_of(notice.question, community.persona.language)
    text = say(
        "answered_after_all",
        language,
        who="",
        creator=community.persona.name,
        question=notice.question,
        answer=notice.answer,
    )
    screen = Screen(text, private=False)
    try:
        if await asyncio.to_thread(community.members.chosen, notice.person, "direct"):
            place = await platform.direct(notice.person.partition(":")[2])
            await platform.send(place, screen)
        else:
            await platform.send(notice.place, screen, reply_to=notice.message_id)
    except ServiceTrouble as trouble:
        if not trouble.permanent:
            raise


async def show_reports(community: Community, platform: Platform) -> None:
    """Show the creator what members reported."""
    place = await platform.inbox()
    if place is None:
        return
    for report in await asyncio.to_thread(community.members.reports, platform.name):
        answer = await asyncio.to_thread(community.journal.answer, report.answer)
        asked = await asyncio.to_thread(community.journal.asked, report.answer)
        text = say(
            "report_card",
            community.persona.language,
            question=asked[0].text if asked else "",
            answer=answer.text if answer else "",
            reason=report.reason,
        )
        await platform.send(place, Screen(text))
        await community.remember(notice_event(report.id, platform.name, at=community.clock()))
