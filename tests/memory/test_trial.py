"""When a canary has to stop: what is worse and not by chance, and what is nobody's fault."""

import random
from itertools import accumulate

import pytest

from infra.settings import CanarySettings
from memory.journal import Judged
from memory.trial import Worse, by_chance, quantile, worse_in

LIMITS = CanarySettings()
FAST = tuple(100.0 + n for n in range(100))


def judged(answers: int = 0, failed: int = 0, *, good: int = 0, bad: int = 0, critics: int = 9) -> Judged:
    return Judged(answers, good, bad, failed, min(critics, bad))


def timed(times: tuple[float, ...]) -> Judged:
    return Judged(answers=len(times), first_tokens=times)


def test_a_canary_that_fails_more_is_worse() -> None:
    assert worse_in(judged(40, 20), judged(300, 6), LIMITS) == Worse("failed", 0.5, 0.02, 40, 300)


@pytest.mark.parametrize(
    ("canary", "current"),
    [
        (judged(40, 40), judged(300, 300)),  # the model is down: both fail
        (judged(40, 20), judged(300, 140)),
        (judged(19, 19), judged(300, 0)),  # too few to say
        (judged(40, 40), judged(0, 0)),  # nothing to compare with
        (judged(20, 3), judged(300, 3)),  # more than is allowed, but it may be chance
        (judged(100_000, 3_000), judged(900_000, 9_000)),  # surely more, but not by more than is allowed
        (judged(40, 0), judged(300, 200)),  # better
        (Judged(), Judged()),
    ],
)
def test_failures_that_are_no_fault_of_the_canary(canary: Judged, current: Judged) -> None:
    assert worse_in(canary, current, LIMITS) is None


def test_a_canary_that_is_disliked_by_several_is_worse() -> None:
    current = judged(300, good=80, bad=5)

    assert worse_in(judged(40, good=3, bad=17), current, LIMITS) == Worse("bad", 0.85, 5 / 85, 20, 85)
    assert worse_in(judged(40, good=3, bad=17, critics=1), current, LIMITS) is None
    assert worse_in(judged(40, bad=9), current, LIMITS) is None
    assert worse_in(judged(40, good=3, bad=17), judged(300, good=10, bad=75), LIMITS) is None


def test_a_canary_that_begins_later_is_worse() -> None:
    slow = tuple(3 * time for time in FAST[:40])
    found = worse_in(timed(slow), timed(FAST), LIMITS)

    assert found == Worse("median", quantile(slow, 0.5), quantile(FAST, 0.5), 40, 100)
    assert worse_in(timed(tuple(1.9 * time for time in FAST[:40])), timed(FAST), LIMITS) is None
    assert worse_in(timed(slow), timed(tuple(3 * time for time in FAST)), LIMITS) is None
    assert worse_in(timed(slow[:19]), timed(FAST), LIMITS) is None
    assert worse_in(timed(slow), timed(FAST[:19]), LIMITS) is None


def test_a_canary_that_stalls_every_fifth_time_is_worse() -> None:
    stalling = tuple(9_000.0 if n % 5 == 0 else time for n, time in enumerate(FAST))

    found = worse_in(timed(stalling), timed(FAST * 3), LIMITS)

    assert found is not None
    assert (found.limit, found.mine) == ("slowest", 9_000.0)


@pytest.mark.parametrize(
    ("hits", "of", "other_hits", "others", "known"),
    [
        (3, 4, 1, 4, 17 / 70),  # the lady tasting tea
        (10, 13, 2, 17, 40_235 / 86_493_225),  # his convicts with a brother
        (0, 5, 7, 9, 1.0),
        (2000, 2000, 0, 20_000, 0.0),
    ],
)
def test_chance_is_what_fishers_exact_test_says(hits: int, of: int, other_hits: int, others: int, known: float) -> None:
    assert by_chance(hits, of, other_hits, others) == pytest.approx(known, rel=1e-9, abs=1e-300)


def test_a_canary_that_is_no_worse_outlives_its_trial_however_often_it_is_looked_at() -> None:
    """Of equals that fail each tenth time, tests that do not pay for the looks stop some of every hundred."""
    drawn, stopped, once = random.Random(20), 0, 0
    loose = LIMITS.model_copy(update={"failed": 0.0})
    for _ in range(100):
        own, others = (list(accumulate(drawn.random() < 0.1 for _ in range(n))) for n in (100, 900))
        looks = [(judged(n, own[n - 1]), judged(9 * n, others[9 * n - 1])) for n in range(20, 101)]
        stopped += any(worse_in(*look, loose) for look in looks)
        once += any(by_chance(c.failed, c.answers, o.failed, o.answers) < 0.05 for c, o in looks)

    assert stopped == 0
    assert once > 5
