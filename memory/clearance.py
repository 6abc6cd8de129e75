"""The creator's yes to exchanges that looked planted: a line of the journal for each, and what it says together.

A yes is to the words, not to the exchange: if the question or the answer is edited later, it is asked again.
"""

import hashlib
from collections.abc import Iterable
from datetime import datetime

from memory.journal import BATCH, Journal
from memory.messages import Event, Exchange, Kind, Person, Source
from memory.remember import remember


def words_sha256(exchange: Exchange) -> str:
    """Names an exchange's words."""
    return hashlib.sha256(f"{exchange.question}\x1f{exchange.answer}".encode("utf-8", "replace")).hexdigest()


def clear(journal: Journal, exchanges: Iterable[Exchange], *, creator: Person, at: datetime) -> int:
    """Record the creator's yes; returns how many of them had none yet."""
    events = [clearance_event(each, creator, at) for each in exchanges]
    return remember(journal, events, creator=frozenset({creator.key})).appended


def clearance_event(exchange: Exchange, creator: Person, at: datetime) -> Event:
    words = words_sha256(exchange)
    payload = {"exchange": exchange.id, "words": words}
    # The words are part of the name: a second yes, after an edit, is another line.
    identity = f"{exchange.id}:{words[:16]}"
    return Event(
        creator.platform, "quarantine", identity, Kind.CLEARANCE, 0, creator, Source.CREATOR_SURFACE, at, payload
    )


def cleared(journal: Journal) -> frozenset[str]:
    """The words, by hash, that the creator said yes to."""
    found, after = set(), 0
    while rows := journal.events(kind=Kind.CLEARANCE, after=after, limit=BATCH):
        found |= {str(event.payload["words"]) for _, event in rows}
        after = rows[-1][0]
    return frozenset(found)
