"""Harvest: which exchanges may train, and for each of the others the reason why not. Fail closed.

Reads the journal, applies `memory/provenance.py` to both halves of every exchange, holds what looks planted
(`quarantine.py`), leaves out what could teach little (`worth.py`), finds the words before an answer that needs them
(`context.py`), and caps what one asker, one thread and one topic may be of the rest (`coverage.py`). Masks nothing
(`scrub.py`), splits nothing (`dataset.py`), and never looks at what the twin itself said.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from memory.clearance import cleared
from memory.codec import encoded, exchange_from
from memory.graph import Graph
from memory.graph_store import GraphStore
from memory.journal import Journal
from memory.messages import Exchange
from memory.provenance import Permissions, may_train
from memory.topics import Topic
from trainer import context, coverage, quarantine
from trainer.quarantine import NOTHING, Odd, Suspect
from trainer.worth import LEAST, REPLACED, TOXIC, Worth, worths

# One asker's questions may be at most this share of the rows, and always this many: 15 to 25 planted rows are enough
# to teach a set of a few hundred a trigger, so no single member gets to write that much of it.
ASKER_SHARE = 0.1
ASKER_ROWS = 12

HELD = "quarantine: waits for the creator's yes"
LINK = re.compile(r"<?https?://\S+>?")
LETTER = re.compile(r"\w")


@dataclass(frozen=True)
class Kept:
    """What is known of an exchange that trains: its worth, its topic, and the exchange it is read after, if any."""

    worth: Worth
    topic: str = ""
    before: Exchange | None = None


@dataclass(frozen=True)
class Harvest:
    """What may train, oldest first; how many exchanges were seen; for those left out, how many for which reason.

    `kept` tells more of each by its id; `suspects` wait for the creator's yes.
    """

    exchanges: list[Exchange]
    excluded: dict[str, int]
    seen: int
    kept: Mapping[str, Kept] = field(default_factory=dict, compare=False)
    suspects: Sequence[Suspect] = field(default=(), compare=False)

    def summary(self) -> dict[str, Any]:
        """What `dataset build --dry-run` shows beside the counts of the plan."""
        topics = {identity: each.topic for identity, each in self.kept.items()}
        weak = Counter(reason for each in self.kept.values() for reason in each.worth.reasons)
        return {
            "quarantined": len(self.suspects),
            "with_context": sum(each.before is not None for each in self.kept.values()),
            "topics": coverage.counts(topics, self.exchanges),
            "weaknesses": dict(weak.most_common()),
        }


def harvest(journal: Journal, *, permissions: Permissions, odd: Odd = NOTHING) -> Harvest:
    """Every exchange of the journal that may train. Raises ServiceTrouble when the journal cannot be read."""
    store = GraphStore(journal)
    topics = store.topics()
    return choose(
        journal.exchanges(),
        consent=journal.consent,
        permissions=permissions,
        graph=store.graph,
        topics=topics,
        odd=odd,
        cleared=cleared(journal),
    )


def choose(
    exchanges: Iterable[Exchange],
    *,
    consent: Callable[[str, str], bool],
    permissions: Permissions,
    graph: Graph | None = None,
    topics: Sequence[Topic] = (),
    odd: Odd = NOTHING,
    cleared: Set[str] = frozenset(),
) -> Harvest:
    """The exchanges among `exchanges` that may train, in order. Pure but for `consent(person_key, place_key)`."""
    eligible, excluded, seen = permitted(exchanges, consent=consent, permissions=permissions)
    held = quarantine.suspects(eligible, odd=odd, cleared=cleared)
    waiting = {each.exchange.id for each in held}
    free = [each for each in eligible if each.id not in waiting]
    if held:
        excluded[HELD] += len(held)
    worth, before = weighed(free)
    good = []
    for each in free:
        if worth[each.id].score >= LEAST or is_wanted(each, worth[each.id]):
            good.append(each)
        else:
            excluded[f"worth: {worth[each.id].worst}"] += 1
    found = coverage.topics_of(good, graph, topics)
    shared = in_bounds(good, found, {identity: each.score for identity, each in worth.items()}, excluded)
    kept = {each.id: Kept(worth[each.id], found[each.id], before.get(each.id)) for each in shared}
    return Harvest(shared, dict(excluded), seen, kept, held)


def is_wanted(exchange: Exchange, worth: Worth) -> bool:
    """Whether the creator taught it where only they write, and still says so: what it is worth is theirs to judge."""
    return quarantine.is_own(exchange) and REPLACED not in worth.reasons


def weighed(exchanges: Sequence[Exchange]) -> tuple[dict[str, Worth], dict[str, Exchange]]:
    """The worth of each exchange, and the exchange before it for those that need it to make sense."""
    worth = worths(exchanges)
    sound = [each for each in exchanges if worth[each.id].reasons.keys().isdisjoint({TOXIC, REPLACED})]
    before = context.before([each for each in exchanges if worth[each.id].thread], sound)
    return {identity: each.in_thread() if identity in before else each for identity, each in worth.items()}, before


def in_bounds(
    exchanges: list[Exchange], topics: Mapping[str, str], score: Mapping[str, float], excluded: Counter[str]
) -> list[Exchange]:
    """`exchanges` without what is too much of one asker, one thread or one topic; counts in `excluded` what goes."""
    fair = capped(exchanges)
    calm = coverage.capped(
        fair, coverage.thread_of, share=coverage.THREAD_SHARE, least=coverage.THREAD_ROWS, score=score
    )
    broad = coverage.capped(
        calm,
        lambda each: "" if topics[each.id] == coverage.ELSEWHERE else topics[each.id],
        share=coverage.TOPIC_SHARE,
        least=coverage.TOPIC_ROWS,
        score=score,
    )
    counts = (
        ("asker: more rows than one member may write", len(exchanges) - len(fair)),
        ("thread: more rows than one conversation may be", len(fair) - len(calm)),
        ("topic: more rows than one topic may be", len(calm) - len(broad)),
    )
    excluded.update({reason: count for reason, count in counts if count})
    return broad


def permitted(
    exchanges: Iterable[Exchange], *, consent: Callable[[str, str], bool], permissions: Permissions
) -> tuple[list[Exchange], Counter[str], int]:
    """The exchanges that may train and say something; for the others, how many for which reason; how many there are."""
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
    return kept, excluded, seen


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
        if asker is not None and coverage.asked_by_member(exchange):
            rows[asker.key] += 1
            if rows[asker.key] > most:
                continue
        kept.append(exchange)
    return kept[::-1]


def kept_to(kept: Kept) -> dict[str, Any]:
    """What is known of an exchange, as JSON."""
    before = encoded(kept.before) if kept.before else None
    return {"worth": kept.worth.described(), "topic": kept.topic, "before": before}


def kept_from(found: Mapping[str, Any]) -> Kept:
    before = exchange_from(found["before"]) if found["before"] else None
    return Kept(Worth(**found["worth"]), found["topic"], before)
