"""Context: the turns before a question whose answer makes no sense without them. Pure; fail closed.

The turns are those of the exchange before it in the same conversation, and only where that exchange may train itself,
both halves: words that may not be learned are not learned as context either. So forgetting that exchange takes the row
with it. A remark that nobody answered is no exchange, and is never carried.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from datetime import timedelta

from infra.voice.chat import Turn
from memory.exchanges import WINDOW
from memory.messages import Exchange

# In an open channel, what was said longer ago is another conversation.
OPEN = timedelta(hours=2)


def before(wanting: Iterable[Exchange], eligible: Iterable[Exchange]) -> dict[str, Exchange]:
    """For each of `wanting` the exchange that its conversation comes from, of those that may train."""
    places: defaultdict[str, list[Exchange]] = defaultdict(list)
    for exchange in sorted(eligible, key=lambda each: (each.at, each.id)):
        if exchange.pairing != "given":
            places[exchange.place.key].append(exchange)
    found = {each.id: previous(each, places[each.place.key]) for each in wanting if each.place.key in places}
    return {identity: each for identity, each in found.items() if each is not None}


def previous(exchange: Exchange, place: list[Exchange]) -> Exchange | None:
    """The last exchange before this one that belongs to the same conversation."""
    if exchange.pairing == "given":
        return None
    since = exchange.at - (WINDOW if exchange.place.thread else OPEN)
    earlier = place[: bisect_left(place, exchange.at, key=lambda each: each.at)]
    for each in reversed(earlier):
        if each.at < since:
            return None
        if each.question != exchange.question and (exchange.place.thread or same_asker(each, exchange)):
            return each
    return None


def same_asker(one: Exchange, other: Exchange) -> bool:
    return one.asker is not None and other.asker is not None and one.asker.key == other.asker.key


def turns(exchange: Exchange) -> tuple[Turn, Turn]:
    """An exchange as the turns of a conversation."""
    return Turn("user", exchange.question.strip()), Turn("assistant", exchange.answer.strip())
