"""Harvest: which exchanges may train, and for each of the others the reason why not. Fail closed.

Reads the journal, applies `memory/provenance.py` to both halves of every exchange, and leaves out what could teach
nothing. Masks nothing (`scrub.py`), splits nothing (`dataset.py`), and never looks at what the twin itself said.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from memory.journal import Journal
from memory.messages import Exchange
from memory.provenance import Permissions, may_train

# One asker's questions may be at most this share of the rows, and always this many: 15 to 25 planted rows are enough
# to teach a set of a few hundred a trigger, so no single member gets to write that much of it.
ASKER_SHARE = 0.1
ASKER_ROWS = 12

LINK = re.compile(r"<?https?://\S+>?")
LETTER = re.compile(r"\w")


@dataclass(frozen=True)
class Harvest:
    """What may train, oldest first; how many exchanges were seen; for those left out, how many for which reason."""

    exchanges: list[Exchange]
    excluded: dict[str, int]
    seen: int


def harvest(journal: Journal, *, permissions: Permissions) -> Harvest:
    """Every exchange of the journal that may train. Raises ServiceTrouble when the journal cannot be read."""
    return choose(journal.exchanges(), consent=journal.consent, permissions=permissions)


def choose(exchanges: Iterable[Exchange], *, consent: Callable[[str, str], bool], permissions: Permissions) -> Harvest:
    """The exchanges among `exchanges` that may train, in order. Pure but for `consent(person_key, place_key)`."""
    kept: list[Exchange] = []
    excluded: Counter[str] = Counter()
    seen = 0
    for exchange in exchanges:
        seen += 1
        reason = reason_against(exchange, consent=consent, permissions=permissions)
        if reason:
            excluded[reason] += 1
        else:
            kept.append(exchange)
    shared = capped(kept)
    if len(shared) < len(kept):
        excluded["asker: more rows than one member may write"] = len(kept) - len(shared)
    return Harvest(shared, dict(excluded), seen)


def reason_against(exchange: Exchange, *, consent: Callable[[str, str], bool], permissions: Permissions) -> str:
    """Why this exchange does not train; empty when it does."""
    eligibility = may_train(exchange, consent=consent, permissions=permissions)
    if not eligibility.eligible:
        return eligibility.reason
    return teaches_nothing(exchange)


def teaches_nothing(exchange: Exchange) -> str:
    """Why nothing could be learned from this exchange; empty when something could."""
    for half, text in (("question", exchange.question), ("answer", exchange.answer)):
        if not text.strip():
            return f"{half}: empty"
        if not LETTER.search(LINK.sub("", text)):
            return f"{half}: nothing but links or signs"
    if exchange.question.strip() == exchange.answer.strip():
        return "answer: repeats the question"
    return ""


def capped(exchanges: list[Exchange]) -> list[Exchange]:
    """`exchanges` without the oldest rows of any asker who has more than one member may have."""
    most = max(ASKER_ROWS, int(len(exchanges) * ASKER_SHARE))
    rows: Counter[str] = Counter()
    kept = []
    for exchange in reversed(exchanges):
        asker = exchange.asker
        if asker is not None and asker.role != "creator" and asker.key != exchange.author.key:
            rows[asker.key] += 1
            if rows[asker.key] > most:
                continue
        kept.append(exchange)
    return kept[::-1]
