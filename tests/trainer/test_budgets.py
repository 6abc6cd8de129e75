"""Budgets from settings: the rank that is left open, the rate that is remembered, what was expected and what it took."""

from dataclasses import replace
from pathlib import Path

import pytest

from infra.settings import Settings, load_settings
from tests.memory.making import taught
from tests.trainer.conftest import DOUGHS, METHODS
from trainer import budgets, dataset, estimate, lora


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    text = '[creator]\nname = "Ada"\n[training]\nbatch = 2\naccumulate = 3\nfour_bit = true\ntrainer = "trl"\n'
    (tmp_path / "understudy.toml").write_text(text, encoding="utf-8")
    return load_settings(tmp_path)


def test_settings_become_a_budget(settings: Settings, small_dataset: Path, served: Path) -> None:
    budget = budgets.budget_of(settings, dataset.load(small_dataset), estimate.shape_of(served))

    assert (budget.rank, budget.batch, budget.accumulate, budget.trainer) == (16, 2, 3, "trl")
    assert (budget.four_bit, budget.checkpointing, budget.lr) == (True, True, settings.models.learning_rate)


def test_a_rate_that_was_reached_is_expected_next_time(settings: Settings, served: Path, small_dataset: Path) -> None:
    plan = dataset.plan(
        taught(f"May I {m} {d}?", f"Aye, {m} it well.", days=n)
        for n, (d, m) in enumerate((d, m) for d in DOUGHS for m in METHODS)
    )
    budget, before = budgets.expected(settings, plan, served)
    report = lora.TrainReport(
        None, "finished", 9, 0, 9, 9, 5000, [], 0, "fp32", 50.0, 900, {}, "TRL", before.document()
    )
    budgets.keep_rate(settings, budget, report)
    _, after = budgets.expected(settings, plan, served)

    assert (before.rate, after.rate) == (None, 100.0)
    assert after.seconds == after.tokens / 100
    # Another way to train is as fast as it is.
    assert budgets.kept_rate(settings, replace(budget, rank=128)) is None


def test_row_lengths_are_about_what_they_turn_out_to_be(small_dataset: Path, served: Path) -> None:
    """Of rows without notes, which these are; those of the bundled community are in docs/training.md."""
    made = [taught(f"May I {m} {d}?", f"Aye, {m} it 3 times, says Ada.") for d in DOUGHS for m in METHODS]
    job = lora.prepare(small_dataset, served, "", budget=lora.TrainingBudget(), seed=1)
    real = sum(len(row.ids) for row in job.rows) / len(job.rows)

    assert real < sum(budgets.row_tokens(each) for each in made) / len(made) < 4 * real


def test_what_was_expected_stands_beside_what_it_took(adapter: lora.TrainReport) -> None:
    """On the packaged base: every token is foreseen, memory to a third, and the run keeps both."""
    found = budgets.outcome(adapter)
    hoped, took = found["expected"], found["took"]

    assert hoped["tokens"] == took["tokens"]
    assert hoped["seconds"] > 0
    assert hoped["memory"]["total"] == pytest.approx(took["memory_mib"], rel=0.5)
    assert found["trainer"].startswith("TRL and PEFT on ")
    assert [row[0] for row in budgets.compared(found)] == ["tokens", "time", "memory, MiB"]


def test_what_was_learned_without_an_estimate_is_shown_without_one() -> None:
    """As a preference is."""
    found = {"expected": {}, "took": {"tokens": 1200, "seconds": 30.0, "memory_mib": 900}}

    assert [row[1:] for row in budgets.compared(found)] == [("", "1,200"), ("", "30 s"), ("", "900")]


def test_speed_is_said_with_what_is_left() -> None:
    assert budgets.speed(lora.Progress(5, 20, 1000, 1.0, None, 10.0)) == "100 tokens/s, 30 s left"
    assert budgets.speed(lora.Progress(0, 20, 0, 1.0, None, 1.0)) == "0 tokens/s"
