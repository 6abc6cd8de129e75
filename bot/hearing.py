"""What the twin does with messages that are not meant for it: where it listens, it remembers; what goes, it forgets."""

import asyncio
from dataclasses import replace

from bot import cards
from bot.community import Community
from bot.screens import Caller, Screen
from infra.errors import UserMistake
from memory.messages import Message, Person, Place, Source
from memory.remember import deletion_event, listening_event, message_event
from memory.selection import Selection


async def hear(community: Community, message: Message, source: Source) -> None:
    """Remember a message of a place where an admin switched listening on, unless its author said not to."""
    if message.person.role in {"twin", "bot"} or not message.text.strip():
        return
    if await asyncio.to_thread(may_hear, community, message):
        await community.remember(message_event(message, source))


async def edited(community: Community, message: Message) -> None:
    """Follow its author's edit of a message that the journal knows; `message.revision` is the second of the edit.

    Of several in one second the last one stands, so they must be handed over one after the other.
    """
    known = await asyncio.to_thread(community.journal.said, message.place, message.id)
    if known is None or known[0].person.key != message.person.key or known[0].text == message.text:
        return
    edits = await asyncio.to_thread(community.journal.edits, message.place, message.id)
    revision = message.revision
    while revision in edits:
        if edits[revision] == message.text:
            return  # told again
        revision += 1
    await community.remember(message_event(replace(message, revision=revision), known[1]))


async def deleted(community: Community, place: Place, message_id: str) -> None:
    """Follow a deletion of a message that the journal knows."""
    known = await asyncio.to_thread(community.journal.said, place, message_id)
    if known is not None:
        message, source = known
        event = deletion_event(message.place, message_id, by=message.person, source=source, at=community.clock())
        await community.remember(event)


async def left(community: Community, platform: str, space: str) -> None:
    """The twin is no longer in a server or group: what it heard there goes, and it listens there no more."""
    nobody = Person(platform, "twin", role="twin")
    places = await asyncio.to_thread(community.members.places, platform)
    for place in [each for each, owner in places if owner == space]:
        await community.forget(Selection(place=f"{platform}:{place.id}"))
        await community.remember(listening_event(place, nobody, on=False, space=space, at=community.clock()))


async def answers_card(community: Community, message: Message, caller: Caller) -> Screen | None:
    """The creator's reply to a card of the inbox answers its question; None when it is no such reply."""
    if not community.is_creator(caller) or not message.reply_to:
        return None
    platform = message.place.platform
    shown = await asyncio.to_thread(community.members.cards_shown_as, platform, message.reply_to)
    # A chat numbers its messages over all of its threads, and a reply may stand in another one than its card.
    chat = Place(platform, message.place.id).key
    card = next((each for each in shown if f"{each.place}:".startswith(f"{chat}:")), None)
    if card is None:
        return None
    try:
        return await cards.answer(community, caller, str(card.number), message.text)
    except UserMistake:
        return community.screen("gone", caller)


def may_hear(community: Community, message: Message) -> bool:
    """Whether listening is on in a place, or in the channel that a thread belongs to, and the author lets it be."""
    place, members = message.place, community.members
    on = members.listening(place.key) or members.listening(Place(place.platform, place.id).key)
    return on and members.chosen(message.person.key, "remember")
