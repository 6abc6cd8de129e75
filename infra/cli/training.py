"""What a training takes and how it went, for people: estimates before it, trials of a search, `bench train`."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.cli.bench import machine
from infra.cli.compose import open_journal, served_weights
from infra.cli.console import err, out, print_json, table
from infra.errors import Refused, UserMistake
from infra.runs import Run
from infra.settings import Settings, offline

if TYPE_CHECKING:
    from trainer.lora import TrainingBudget


SFT, PREFERENCE = "sft", "preference"


def checked_stage(stage: str) -> str:
    """The stage as runs know it: empty is supervised tuning. Raises UserMistake when there is none of that name."""
    if stage not in {SFT, PREFERENCE}:
        raise UserMistake(f"The stage is {SFT}, {PREFERENCE} or, of retrain, grpo with --data; not {stage!r}.")
    return "" if stage == SFT else stage


def dry_run(settings: Settings, *, as_json: bool) -> None:
    """What would be learned, with which trainer, and what it would take; exit 1 when it cannot fit."""
    from trainer import budgets, estimate
    from trainer.lora import means_for
    from trainer.planning import planned

    gguf = served_weights(settings).path
    plan = planned(settings, open_journal(settings))
    budget, found = budgets.expected(settings, plan, gguf)
    if found.rate is None:
        err().print("Measuring how fast this machine trains, once ...")
        rows = max(1, budget.epochs * len(plan.train))
        budgets.keep(settings, budget, warm_rate(settings, budget, gguf, found.tokens // rows))
        budget, found = budgets.expected(settings, plan, gguf)
    means = str(means_for(settings.models.trainable, budget))
    summary = plan.summary()
    if as_json:
        print_json({**summary, "estimate": budgets.documented(budget, found, means=means)})
    else:
        out().print(f"{summary['rows']} rows: {summary['train']} to train on, {summary['validation']} held out.")
        out().print(table("Left out", ("rows", "why"), ((n, why) for why, n in summary["excluded"].items())))
        out().print(f"{means}.", markup=False, soft_wrap=True)
        out().print(str(found), markup=False, soft_wrap=True)
    estimate.refuse_what_cannot_fit(found)


def warm_rate(settings: Settings, budget: "TrainingBudget", gguf: Path, tokens: int) -> float:
    """Tokens per second of a step of this budget on rows of about so many tokens, after one to warm up."""
    from trainer.train_bench import Side, measured

    models = settings.models
    side = Side(
        models.base,
        budget.trainer,
        budget.rank,
        max(32, min(tokens, budget.max_length)),
        budget.batch,
        budget.four_bit,
        steps=2,
        gguf=str(gguf),
        trainable=models.trainable,
    )
    with tempfile.TemporaryDirectory() as folder:
        return float(measured(side, Path(folder) / "side")["rate"])


def before(settings: Settings) -> str:
    """What a run that is about to begin will take, in words; raises Refused when it cannot fit.

    That there is too little to learn from is said by the run, which is where people look for it.
    """
    from trainer import budgets, estimate
    from trainer.planning import planned

    try:
        plan = planned(settings, open_journal(settings))
    except Refused as refusal:
        return str(refusal)
    _, found = budgets.expected(settings, plan, served_weights(settings).path)
    estimate.refuse_what_cannot_fit(found)
    return str(found)


def show_training(run: Run) -> None:
    """Which trainer ran and why, what was expected and what it took, and the trials of a search."""
    from trainer.budgets import compared
    from trainer.tune import in_words

    said = run.progress.get("training")
    found: dict[str, Any] | None = run.result.get("training")
    if found is None:
        if said:
            out().print(str(said), markup=False, soft_wrap=True)
        return
    if found["trainer"]:
        out().print(f"{found['trainer']}.", markup=False, soft_wrap=True)
    out().print(table("Training", ("", "expected", "took"), compared(found)))
    if trials := run.result.get("trials"):
        columns = ("round", "rank", "rate", "epochs", "rows", "NLL", "tokens", "")
        out().print(table("Search", columns, in_words(trials)))


def bench(
    bases: list[str], ranks: str, trainers: str, *, length: int, batch: int, four_bit: bool, as_json: bool
) -> None:
    """Tokens per second, peak memory and minutes per 1,000 exchanges, all sides in one run."""
    from trainer import train_bench

    offline()
    try:
        wanted = [int(each) for each in ranks.split(",")]
    except ValueError as error:
        raise UserMistake(f"--rank takes numbers with commas between, not {ranks!r}.") from error
    sides = train_bench.sides(bases, wanted, trainers.split(","), length=length, batch=batch, four_bit=four_bit)
    figures = train_bench.measure(sides, say=err().print)
    claims = train_bench.claims(figures)
    if as_json:
        print_json({"machine": machine(), "figures": figures, "claims": claims})
        return
    err().print(" · ".join(str(value) for value in machine().values()), markup=False)
    for title, rows in (("Training", figures), ("What the founding documents say", claims)):
        out().print(table(title, list(rows[0]), ([each[name] for name in rows[0]] for each in rows)))
