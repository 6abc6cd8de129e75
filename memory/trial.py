"""When a canary has to stop: what it does worse than the voice beside it, by more than is allowed and than by chance.

Both voices answer at the same time, and which conversation gets which is drawn by lot, so what strikes both, such as a
model that is down, is no fault of the canary. Each limit asks one question of counts: of the canary's answers and of
the current voice's, how many failed, were disliked, or came late. Pure, apart from the events at the end.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from infra.settings import CanarySettings
from memory.journal import Journal, Judged
from memory.members import TWIN
from memory.messages import Event, Kind, Source

Limit = Literal["failed", "bad", "median", "slowest"]
# In how many trials of a canary that is no worse it may be stopped, over the whole of the trial and all limits.
FALSE_ALARMS = 0.05
LIMITS = 4
# One member alone ends no trial: so many people must dislike what a canary says.
CRITICS = 2
QUANTILES: dict[Limit, float] = {"median": 0.5, "slowest": 0.95}


@dataclass(frozen=True)
class Worse:
    """What a canary does worse: `mine` is its share or its milliseconds, `theirs` the current voice's, of so many."""

    limit: Limit
    mine: float
    theirs: float
    of: int
    others: int


@dataclass(frozen=True)
class Ending:
    """A trial that ended by itself: of which version, begun when (ISO text), ended when, and why."""

    version: str
    since: str
    at: datetime
    worse: Worse

    @property
    def id(self) -> str:
        return trial_id(self.version, self.since)


def worse_in(canary: Judged, current: Judged, limits: CanarySettings) -> Worse | None:
    """What the canary must be stopped for, or None. Both are judged since the trial began."""
    return (
        more_failed(canary, current, limits)
        or more_disliked(canary, current, limits)
        or later("median", canary, current, limits)
        or later("slowest", canary, current, limits)
    )


def more_failed(canary: Judged, current: Judged, limits: CanarySettings) -> Worse | None:
    if canary.answers < limits.answers:
        return None
    counts = (canary.failed, canary.answers, current.failed, current.answers)
    return more("failed", *counts, margin=limits.failed)


def more_disliked(canary: Judged, current: Judged, limits: CanarySettings) -> Worse | None:
    votes, others = canary.good + canary.bad, current.good + current.bad
    if votes < limits.votes or canary.critics < CRITICS:
        return None
    return more("bad", canary.bad, votes, current.bad, others, margin=limits.bad)


def more(limit: Limit, hits: int, of: int, other_hits: int, others: int, *, margin: float) -> Worse | None:
    """Whether hits are more frequent among `of` than among `others` by more than `margin`, and not by chance."""
    if not others or hits / of - other_hits / others <= margin:
        return None
    if not beyond_chance(hits, of, other_hits, others, looks=of + others):
        return None
    return Worse(limit, hits / of, other_hits / others, of, others)


def later(limit: Limit, canary: Judged, current: Judged, limits: CanarySettings) -> Worse | None:
    """Whether first words come later than the current voice's time at this quantile allows, and not by chance."""
    own, others = canary.first_tokens, current.first_tokens
    if min(len(own), len(others)) < limits.answers:
        return None
    mine, theirs = quantile(own, QUANTILES[limit]), quantile(others, QUANTILES[limit])
    allowed = limits.slower * theirs
    late, others_late = (sum(time > allowed for time in times) for times in (own, others))
    looks = canary.answers + current.answers
    if mine <= allowed or not beyond_chance(late, len(own), others_late, len(others), looks=looks):
        return None
    return Worse(limit, mine, theirs, len(own), len(others))


def quantile(times: Sequence[float], share: float) -> float:
    """The smallest time that so large a share of them does not exceed."""
    return sorted(times)[math.ceil(share * len(times)) - 1]


def beyond_chance(hits: int, of: int, other_hits: int, others: int, *, looks: int) -> bool:
    """Whether chance alone would not do this, when it is the n-th of the `looks` that a trial may get.

    A trial is looked at again and again while it goes on, at most after each answer. With a level in proportion to
    1/(n(n+1)), which add up to 1, all looks together raise at most `FALSE_ALARMS` (Bonferroni's inequality).
    """
    return by_chance(hits, of, other_hits, others) <= FALSE_ALARMS / LIMITS / (looks * (looks + 1))


def by_chance(hits: int, of: int, other_hits: int, others: int) -> float:
    """How likely at least so many hits fall among `of`, were they dealt out to all at random.

    Fisher's exact test, one-sided (Statistical Methods for Research Workers, 5th edition 1934, section 21.02); in
    logarithms, since the numbers of ways have thousands of digits.
    """
    dealt = hits + other_hits
    every = log_ways(of + others, dealt)
    ways = (log_ways(of, n) + log_ways(others, dealt - n) for n in range(hits, min(of, dealt) + 1))
    return math.fsum(math.exp(each - every) for each in ways)


def log_ways(of: int, chosen: int) -> float:
    """The logarithm of the binomial coefficient."""
    return math.lgamma(of + 1) - math.lgamma(chosen + 1) - math.lgamma(of - chosen + 1)


def figures(judged: Judged) -> dict[str, Any]:
    """What a trial is judged by, in few numbers, for the journal."""
    times = judged.first_tokens
    counts = {name: value for name, value in asdict(judged).items() if name != "first_tokens"}
    return {**counts, **{limit: quantile(times, share) if times else None for limit, share in QUANTILES.items()}}


def trial_id(version: str, since: str) -> str:
    return f"{version}:{since}"


def trial_event(ending: Ending, *, reason: str, canary: Judged, current: Judged) -> Event:
    """A trial that ended by itself: why, as a sentence and as numbers, and the figures of both voices."""
    payload = {
        "version": ending.version,
        "since": ending.since,
        "reason": reason,
        "worse": asdict(ending.worse),
        "figures": {"canary": figures(canary), "current": figures(current)},
    }
    return Event(TWIN.platform, "trials", ending.id, Kind.TRIAL, 0, TWIN, Source.TWIN, ending.at, payload)


def endings(journal: Journal) -> list[Ending]:
    """The trials that ended by themselves, oldest first."""
    return [ending_of(event) for _, event in journal.events(kind=Kind.TRIAL)]


def ending_of(event: Event) -> Ending:
    found: Any = event.payload
    return Ending(found["version"], found["since"], event.at, Worse(**found["worse"]))
