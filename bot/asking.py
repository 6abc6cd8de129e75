"""A member's question on a platform, from the message to the shown answer."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

from bot.community import Community
from bot.delivery import Delivery, Outlet, Part
from bot.screens import Screen, answer_buttons, answer_text
from bot.wording import language_of
from infra.errors import ServiceTrouble
from memory.messages import Answer, Message, Source

# An answer that could not be shown is tried again at the next start; after a day nobody waits for it.
STALE = timedelta(days=1)
# While the kill switch is thrown they wait; so often it is looked whether it still is.
SILENT_S = 2.0

Draw = Callable[[Answer], Screen]
MakeOutlet = Callable[[Message, Draw], Outlet[Part]]


async def ask(
    community: Community,
    message: Message,
    make: MakeOutlet[Part],
    *,
    source: Source,
    language: str = "",
    space: str = "",
) -> Answer:
    """Answer a message that is meant for the twin; what was answered before, or is nobody's to answer, shows nothing.

    `make` gives the outlet for a message, with the function that draws its answer. `space` is the server or group that
    it was asked in, empty for a private chat. Raises ServiceTrouble when the
    journal or the platform failed for good.
    """
    met = await asyncio.to_thread(community.members.chosen, message.person.key, "met")
    draw = drawing(community, language or language_of(message.text, community.persona.language), met=met)
    delivery = Delivery(make(message, draw))
    await delivery.begin()
    try:
        where = f"{message.place.platform}:{space}" if space else ""
        return await community.twin.answer(
            message, delivery, source=source, language=language, community=where, offers=True
        )
    finally:
        await delivery.close()


async def catch_up(community: Community, platform: str, make: MakeOutlet[Part]) -> None:
    """Show the answers that an earlier process wrote down and did not live to send, once the twin may speak."""
    while await community.silenced():
        await asyncio.sleep(SILENT_S)
    left = await asyncio.to_thread(community.journal.unshown, platform, since=community.clock() - STALE)
    for message, answer in left:
        draw = drawing(community, language_of(message.text, community.persona.language), met=True)
        try:
            await community.twin.show(message, Delivery(make(message, draw)), answer)
        except ServiceTrouble:
            continue  # its place is gone, or its platform is down again


def drawing(community: Community, language: str, *, met: bool) -> Draw:
    """How an answer looks: introduction at first contact, words, label, sources, buttons."""

    def draw(answer: Answer) -> Screen:
        text = answer_text(answer, creator=community.persona.name, language=language, met=met)
        return Screen(text, answer_buttons(answer, language=language), private=False)

    return draw
