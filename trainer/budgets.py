"""Budgets from settings: what one training may cost here, what it is expected to take, and what the last ones took.

The rate of each way to train is kept beside the models, so that the next training knows its time before it starts.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from infra.files import read_json, write_json
from infra.settings import Settings
from memory.messages import Exchange
from memory.prompt import estimate_tokens
from trainer import estimate
from trainer.base import best_precision
from trainer.dataset import Dataset, Plan, Shares
from trainer.lora import Progress, TrainingBudget, TrainReport, means_for

# Tokens of a row beside its question, answer and notes: who is spoken for, and the template's marks.
FRAME = 70
# What a note costs beside its own words, and how many a row has that has any.
NOTE_FRAME, NOTES, MOST_NOTES = 12, 1.5, 160


def budget_of(settings: Settings, built: Dataset, shape: estimate.Shape) -> TrainingBudget:
    """The budget of one training on a data set; a rank that is left open goes by its answers."""
    answers = sum(estimate_tokens(row.answer) for row in built.rows("train"))
    return budget_with(settings, answer_tokens=answers, shape=shape)


def budget_with(settings: Settings, *, answer_tokens: int, shape: estimate.Shape) -> TrainingBudget:
    models, training = settings.models, settings.training
    return TrainingBudget(
        epochs=models.epochs,
        max_tokens_trained=models.tokens,
        max_seconds=training.max_minutes * 60,
        lr=models.learning_rate,
        rank=training.rank or max(models.rank, estimate.rank_for(answer_tokens, shape)),
        alpha=models.alpha,
        batch=models.batch,
        accumulate=models.accumulate,
        max_length=models.max_length,
        four_bit=models.four_bit,
        checkpointing=models.checkpointing,
        trainer=training.trainer,
    )


def expected(settings: Settings, planned: Plan, gguf: Path) -> tuple[TrainingBudget, estimate.Estimate]:
    """What a training of these exchanges would take, before any row is written: lengths are estimates too.

    With imitations, where the settings ask for a share of them; that there are enough is assumed.
    """
    shape = estimate.shape_of(gguf)
    own = 1 - settings.training.synthetic_share
    answers = round(sum(estimate_tokens(each.answer) for each in planned.train) / own)
    budget = budget_with(settings, answer_tokens=answers, shape=shape)
    lengths = sorted(row_tokens(each) for each in planned.train)
    lengths = [each for each in lengths if each <= budget.max_length] or [budget.max_length]
    tokens = round(budget.epochs * sum(lengths) / own)
    here = means_for(settings.models.trainable, budget)
    return budget, estimate.expect(
        shape,
        budget,
        tokens=min(tokens, budget.max_tokens_trained or tokens),
        padded=estimate.largest(lengths, budget.batch),
        device=here.device,
        half=best_precision() == "bf16",
        free_mib=estimate.available(here.device),
        rate=kept_rate(settings, budget),
    )


def row_tokens(exchange: Exchange) -> int:
    """About how long the row of an exchange will be, its notes on the average."""
    said = estimate_tokens(exchange.question) + estimate_tokens(exchange.answer)
    notes = min(MOST_NOTES, NOTES * (said + NOTE_FRAME))
    return int(FRAME + said + (Shares.own + Shares.others) * notes)


def way(settings: Settings, budget: TrainingBudget) -> str:
    """The name under which a rate is kept: whatever changes it much is in it."""
    models = settings.models
    parts = (models.base, models.trainable or "served", budget.rank, budget.batch, budget.max_length)
    return ":".join(str(each) for each in (*parts, "4bit" if budget.four_bit else "whole", budget.trainer))


def rates_file(settings: Settings) -> Path:
    return settings.data_folder / "models" / "rates.json"


def kept_rate(settings: Settings, budget: TrainingBudget) -> float | None:
    """Tokens per second that this way to train reached here last; None when it was not tried."""
    path = rates_file(settings)
    found: float | None = read_json(path).get(way(settings, budget)) if path.is_file() else None
    return found


def keep_rate(settings: Settings, budget: TrainingBudget, report: TrainReport) -> None:
    """Remember how fast a training was, its looks at what decides when to stop included."""
    if report.tokens and report.wall_s:
        keep(settings, budget, report.tokens / report.wall_s)


def keep(settings: Settings, budget: TrainingBudget, rate: float) -> None:
    path = rates_file(settings)
    known = read_json(path) if path.is_file() else {}
    write_json(path, {**known, way(settings, budget): round(rate, 1)})


def speed(progress: Progress) -> str:
    """How fast it goes and how long it still will, in words."""
    rate = progress.tokens / max(progress.seconds, 0.1)
    left = progress.seconds / progress.step * (progress.steps - progress.step) if progress.step else 0.0
    return f"{rate:.0f} tokens/s, {estimate.in_words(left)} left" if progress.step else f"{rate:.0f} tokens/s"


def outcome(report: TrainReport) -> dict[str, Any]:
    """What was expected of a training and what it took, for the run."""
    took = {"seconds": report.wall_s, "memory_mib": report.peak_memory_mib, "tokens": report.tokens}
    return {
        "trainer": report.means,
        "precision": report.precision,
        "hyperparameters": report.hyperparameters,
        "expected": report.expected,
        "took": took,
        "stopped": report.stopped,
        "best_step": report.best_step,
    }


def compared(outcome: dict[str, Any]) -> Sequence[tuple[str, str, str]]:
    """(what, expected, took) as a table's rows; a preference learns without an estimate."""
    hoped, took = outcome["expected"], outcome["took"]
    expected_s = hoped.get("seconds")
    return [
        ("tokens", f"{hoped['tokens']:,}" if hoped else "", f"{took['tokens']:,}"),
        ("time", estimate.in_words(expected_s) if expected_s else "", estimate.in_words(took["seconds"])),
        ("memory, MiB", f"{hoped['memory']['total']:,}" if hoped else "", f"{took['memory_mib']:,}"),
    ]


def documented(budget: TrainingBudget, found: estimate.Estimate, *, means: str) -> dict[str, Any]:
    """An estimate with its budget, as JSON."""
    return {**found.document(), "trainer": means, "budget": asdict(budget), "price": found.price}
