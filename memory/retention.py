"""How long what members say is kept, place by place; what has expired leaves as if forgotten, without a receipt.

What the creator says stays. So does an exchange with the messages it was paired from, which is the creator's answer and
the reason for all of this, unless the operator says that exchanges expire too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from infra.database import settle
from memory.codec import time_text
from memory.forget import Lines, erase, lines, look
from memory.journal import Journal, Writer, exchange_of
from memory.messages import Event, Kind
from memory.selection import message_key, places_of

EXPIRING = frozenset({Kind.MESSAGE, Kind.EDIT, Kind.QUESTION, Kind.ANSWER, Kind.REPORT})


@dataclass(frozen=True)
class Retention:
    """Days for each place, by its key, and for all others; 0 keeps for ever."""

    days: int = 0
    places: Mapping[str, int] = field(default_factory=dict)
    exchanges: bool = False

    @property
    def shortest(self) -> int:
        """The least number of days that anything is kept; 0 when everything is kept."""
        return min((days for days in (self.days, *self.places.values()) if days), default=0)

    def expired(self, event: Event, *, creator: frozenset[str], now: datetime) -> bool:
        """Whether a line holds a member's words that were kept long enough."""
        days = self.days_of(event)
        heard = event.kind in EXPIRING and event.author.key not in creator and event.author.role != "twin"
        asked = self.exchanges and event.kind is Kind.EXCHANGE and event.payload["exchange"]["asker"] is not None
        return bool(days) and (heard or asked) and event.at < now - timedelta(days=days)

    def days_of(self, event: Event) -> int:
        """What holds where a line is from; threads follow their place."""
        keys = [f"{key}:" for key in places_of(event)]
        named = [days for place, days in self.places.items() if any(key.startswith(f"{place}:") for key in keys)]
        return min(named, default=self.days)


def expire(journal: Journal, rule: Retention, *, creator: frozenset[str], now: datetime) -> Mapping[str, int]:
    """Erase what has expired; returns the counts of what went."""
    if not rule.shortest:
        return {}

    def expired(writer: Writer) -> Lines:
        old = lines(writer, before=time_text(now - timedelta(days=rule.shortest)))
        gone = {seq: event for seq, event in old if rule.expired(event, creator=creator, now=now)}
        return gone if rule.exchanges else without_exchanges(writer, gone)

    doomed = look(journal, expired)
    # Not paired again: with the talk between them gone, what is left would make pairs that never were.
    erase(journal, doomed, creator=creator, pair=False)
    settle(journal.engine)
    return doomed.counts


def without_exchanges(writer: Writer, gone: Lines) -> Lines:
    """Without the messages that exchanges were paired from."""
    kept: set[str] = set()
    for row in writer.run("SELECT payload FROM exchanges WHERE pairing <> 'given'"):
        exchange = exchange_of(row["payload"])
        place = f"{exchange.place.platform}:{exchange.place.id}"
        kept |= {f"{place}:{each}" for each in (*exchange.question_ids, *exchange.answer_ids)}
    return {seq: event for seq, event in gone.items() if message_key(event) not in kept}
