"""`retrain --tune N`: a budgeted search over rank, learning rate and epochs, before the training itself.

Successive halving (Jamieson and Talwalkar 2016, "Non-stochastic best arm identification"): N candidates learn from a
small share of the rows, the better half of them from a larger one, until a round leaves a winner. A round reads about
as many tokens as one training, and more where an eighth of the rows is above each one's part, so N candidates cost
about log2(N) trainings. A candidate is judged by its lowest loss on the rows that decide when to stop; what judges an
adapter is never looked at. The first candidate is the default itself. Every trial is a folder with a manifest, so a
search that was killed goes on where it was.
"""

import itertools
import math
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from infra.errors import Refused, ServiceTrouble, UserMistake
from infra.files import finish_folder, finished
from trainer.lora import TrainingBudget, TrainReport

RANKS = (8, 16, 32, 64)
# Beside the default rate: what "LoRA without regret" found to be worth a difference.
RATES = (0.5, 1.0, 2.0)
EPOCHS = (1, 2, 3)
MOST = 32
# The first round's share of the rows: less than this teaches too little to tell candidates apart.
LEAST_SHARE = 0.125

Train = Callable[[Path, TrainingBudget], TrainReport]


@dataclass(frozen=True)
class Trial:
    """One candidate in one round. `nll` is None where it diverged."""

    round: int
    rank: int
    lr: float
    epochs: int
    share: float
    nll: float | None
    tokens: int
    seconds: float
    kept: bool = False


def candidates(default: TrainingBudget, count: int, *, seed: int) -> list[TrainingBudget]:
    """The default and `count` - 1 others drawn by the seed. Raises UserMistake for a count that makes no search."""
    refuse_count(count)
    grid = itertools.product(sorted({*RANKS, default.rank}), RATES, EPOCHS)
    made = [replace(default, rank=rank, lr=default.lr * rate, epochs=epochs) for rank, rate, epochs in grid]
    others = [each for each in made if each != default]
    return [default, *random.Random(seed).sample(others, count - 1)]  # noqa: S311 - a search, not a secret


def refuse_count(count: int) -> None:
    """Raise UserMistake for a count that makes no search, or more than one."""
    if not 2 <= count <= MOST:
        raise UserMistake(f"--tune takes 2 to {MOST} candidates, not {count}.")


def rounds(count: int) -> list[tuple[int, float]]:
    """(candidates, share of the rows) of each round: halves of the one before, on all that one training would read."""
    sizes = [count]
    while (count := math.ceil(count / 2)) > 1:
        sizes.append(count)
    return [(size, max(LEAST_SHARE, 1 / size)) for size in sizes]


def price(count: int) -> str:
    """What a search costs, in words."""
    plan = rounds(count)
    cost = sum(size * share for size, share in plan)
    return f"A search among {count} candidates in {len(plan)} rounds first: about as much as {cost:.1f} trainings."


def search(
    folder: Path,
    default: TrainingBudget,
    count: int,
    *,
    seed: int,
    train: Train,
    tell: Callable[[int, int, str], None] = lambda done, total, text: None,
) -> tuple[TrainingBudget, list[Trial]]:
    """The best candidate, with the default's whole budget again, and every trial. Goes on where it was left.

    `train(folder, budget)` is a training that can be continued. Raises Refused when nothing decides when to stop.
    """
    field = candidates(default, count, seed=seed)
    done = finished(folder)
    if done is not None:
        trials = [Trial(**each) for each in done["trials"]]
        return replace(default, **done["best"]), trials
    plan, trials, made = rounds(count), list[Trial](), 0
    for number, (size, share) in enumerate(plan):
        tried = list[Trial]()
        for candidate in field[:size]:
            tell(made, sum(size for size, _ in plan), f"rank {candidate.rank}, rate {candidate.lr:g}")
            tried.append(attempt(folder / f"{number}-{len(tried)}", candidate, share, number, train))
            made += 1
        # A tie goes to whoever came first, so to the default.
        ranking = sorted(range(len(tried)), key=lambda at: math.inf if (nll := tried[at].nll) is None else nll)
        keep = plan[number + 1][0] if number + 1 < len(plan) else 1
        trials += [replace(trial, kept=at in ranking[:keep]) for at, trial in enumerate(tried)]
        field = [field[at] for at in ranking[:keep]]
    best = {"rank": field[0].rank, "lr": field[0].lr, "epochs": field[0].epochs}
    finish_folder(folder, {"kind": "tune", "best": best, "trials": [asdict(each) for each in trials]})
    return field[0], trials


def attempt(folder: Path, candidate: TrainingBudget, share: float, number: int, train: Train) -> Trial:
    """Train one candidate on a share of the rows; its adapter is thrown away, since its share was not all."""
    small = replace(candidate, share=share, max_tokens_trained=math.ceil(share * candidate.max_tokens_trained))
    try:
        report = train(folder, small)
    except ServiceTrouble as trouble:
        if "diverged" not in str(trouble):
            raise
        return Trial(number, candidate.rank, candidate.lr, candidate.epochs, share, None, 0, 0.0)
    if not report.validation:
        raise Refused("There are no rows to compare candidates on; a search needs more exchanges. Leave --tune away.")
    if report.peft is not None and report.peft.is_dir():
        shutil.rmtree(report.peft)
    nll = min(nll for _, nll in report.validation)
    return Trial(
        number, candidate.rank, candidate.lr, candidate.epochs, share, nll, report.tokens, round(report.wall_s, 1)
    )


def in_words(trials: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Trials as a table's rows."""
    return [
        (
            str(each["round"] + 1),
            str(each["rank"]),
            f"{each['lr']:g}",
            str(each["epochs"]),
            f"{each['share']:.0%}",
            "diverged" if each["nll"] is None else f"{each['nll']:.3f}",
            f"{each['tokens']:,}",
            "kept" if each["kept"] else "",
        )
        for each in trials
    ]
