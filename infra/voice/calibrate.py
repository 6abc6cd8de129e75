"""The calibration: which of llama.cpp's ways to compute is the fastest on this machine, measured in about a minute.

Everything that may be done otherwise races against the default. What wins clearly is taken together and has to win once
more; the default stays otherwise, and whenever other work had much of the machine meanwhile. What changes results by
more than rounding must also lose next to no perplexity.

Not measured are a larger logical batch, since the engine keeps its steps short for those who are being answered, and
llama.cpp's "auto" for the fused attention, which is on or off.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from statistics import median
from typing import Any

from infra.machine import Spent
from infra.voice.llama import Model
from infra.voice.score import HELDOUT, MOST_LOSS, Scorer
from infra.voice.speed import Effort, middle, race, speed_of
from infra.voice.tuning import Basis, Calibration, Measured, Speed, Tuning

# A candidate must take so much less time than the default at the median, and less in every lap.
LEAST_GAIN = 0.05
UBATCHES = (128, 256)
FASTER = "faster"


@dataclass(frozen=True)
class Candidate:
    """Something done otherwise than by default; of those `about` the same thing, at most one is taken."""

    name: str
    about: str
    changes: Mapping[str, Any]


def candidates(threads: int) -> list[Candidate]:
    """What to try where there are so many threads to choose from; 1 is no choice."""
    fewer = sorted({threads // 4, threads // 2, threads * 3 // 4, threads - 1} - {0})
    return [
        Candidate("flash attention", "attention", {"flash": True}),
        Candidate("flash attention, q8_0 memory", "attention", {"flash": True, "kv": "q8_0"}),
        *(Candidate(f"{rows} rows at once", "rows", {"ubatch": rows}) for rows in UBATCHES),
        *(Candidate(f"threads to speak: {n}", "threads", {"threads": n}) for n in fewer),
        *(Candidate(f"threads: {n}", "threads", {"threads": n, "batch_threads": n}) for n in fewer),
    ]


@dataclass(frozen=True)
class Contest:
    """Ways to compute beside the default: `run` times one, `perplexity` says how well it still knows its words."""

    default: Tuning
    run: Callable[[Tuning], Speed]
    perplexity: Callable[[Tuning], float]
    laps: int

    def hold(self, ways: Mapping[str, Tuning]) -> list[Measured]:
        """The default, and then every way with its verdict."""
        times = race(self.run, [self.default, *ways.values()], laps=self.laps)
        beside = times[self.default]
        judged = [self._judged(name, way, times[way], beside) for name, way in ways.items()]
        known = self.perplexity(self.default) if any(each.perplexity for each in judged) else None
        return [Measured("default", middle(beside), 1.0, "", known), *judged]

    def _judged(self, name: str, way: Tuning, times: Sequence[Speed], beside: Sequence[Speed]) -> Measured:
        shares = [own.turn_s / other.turn_s for own, other in zip(times, beside, strict=False)]
        share = median(shares)
        measured = partial(Measured, name, middle(times), share)
        if len(shares) < self.laps or max(shares) >= 1 or share > 1 - LEAST_GAIN:
            return measured("not clearly faster")
        if way.kv == self.default.kv:
            return measured(FASTER)
        found = self.perplexity(way)
        limit = self.perplexity(self.default) * (1 + MOST_LOSS)
        return measured(FASTER if found <= limit else "loses too much", found)


def settle(contest: Contest, tried: Sequence[Candidate]) -> tuple[Tuning, list[Measured]]:
    """The tuning to take, and everything that was measured."""
    measured = contest.hold({each.name: replace(contest.default, **each.changes) for each in tried})
    shares = {each.name: each.share for each in measured if each.verdict == FASTER}
    best: dict[str, Candidate] = {}
    for candidate in sorted((each for each in tried if each.name in shares), key=lambda each: shares[each.name]):
        best.setdefault(candidate.about, candidate)
    if not best:
        return contest.default, measured
    together = replace(contest.default, **{key: value for each in best.values() for key, value in each.changes.items()})
    again = contest.hold({f"again: {' + '.join(each.name for each in best.values())}": together})[-1]
    return (together if again.verdict == FASTER else contest.default), [*measured, again]


def calibrate(weights: Path, basis: Basis, *, threads: int, choose_threads: bool, effort: Effort) -> Calibration:
    """Measure every candidate on these weights and choose; the default, where others had too much of the machine.

    Raises ServiceTrouble when the weights cannot be loaded or memory does not suffice.
    """
    model = Model(weights, gpu_layers=basis.gpu_layers)

    @cache
    def perplexity(tuning: Tuning) -> float:
        with Scorer(weights, threads=threads, tuning=tuning) as scorer:
            return scorer.perplexity(HELDOUT.read_text(encoding="utf-8"))

    run = partial(speed_of, model, threads=threads, effort=effort)
    contest = Contest(Tuning(gpu_layers=basis.gpu_layers), run, perplexity, effort.laps)
    began = Spent.now()
    try:
        tuning, measured = settle(contest, candidates(threads if choose_threads else 1))
    finally:
        model.free()
    found = Calibration(basis, tuning, tuple(measured), Spent.now().others_since(began))
    return replace(found, tuning=contest.default) if found.disturbed else found
