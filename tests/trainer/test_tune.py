"""The search over rank, rate and epochs: who is tried, who is kept, what it costs, and that it goes on after a kill."""

from dataclasses import replace
from pathlib import Path

import pytest

from infra.errors import Refused, ServiceTrouble, UserMistake
from infra.files import finished
from trainer import lora
from trainer.lora import TrainingBudget, TrainReport
from trainer.tune import EPOCHS, RANKS, RATES, candidates, in_words, price, rounds, search

DEFAULT = TrainingBudget(epochs=2, lr=1e-3, rank=16, max_tokens_trained=8000)


def report(nll: float, tokens: int = 10) -> TrainReport:
    return TrainReport(None, "finished", 1, 0, 1, 1, tokens, [(0, 9.0), (1, nll)], 0, "fp32", 1.0, 1, {})


def test_the_default_is_tried_first_and_the_seed_chooses_the_others() -> None:
    chosen = candidates(DEFAULT, 8, seed=1)

    assert chosen[0] == DEFAULT
    assert len(set(chosen)) == 8
    assert chosen == candidates(DEFAULT, 8, seed=1) != candidates(DEFAULT, 8, seed=2)
    assert {each.rank for each in chosen} <= set(RANKS)
    assert {each.lr / DEFAULT.lr for each in chosen} <= set(RATES)
    assert {each.epochs for each in chosen} <= set(EPOCHS)


@pytest.mark.parametrize("count", [-1, 0, 1, 33])
def test_a_count_that_makes_no_search_is_a_mistake(count: int) -> None:
    with pytest.raises(UserMistake, match=f"2 to 32 candidates, not {count}"):
        candidates(DEFAULT, count, seed=1)


def test_its_price_is_said() -> None:
    assert price(8) == "A search among 8 candidates in 3 rounds first: about as much as 3.0 trainings."


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_a_round_reads_about_one_training(count: int) -> None:
    assert all(0.7 <= size * share <= 1.3 for size, share in rounds(count))


def test_the_better_half_goes_on_with_twice_the_rows(tmp_path: Path) -> None:
    asked: list[TrainingBudget] = []

    def train(folder: Path, budget: TrainingBudget) -> TrainReport:
        folder.mkdir(parents=True)
        asked.append(budget)
        return report(abs(budget.lr - 2e-3) * 1000 + budget.rank / 1000)

    best, trials = search(tmp_path, DEFAULT, 8, seed=3, train=train)

    assert [sum(t.round == n for t in trials) for n in range(3)] == [8, 4, 2]
    assert [t.share for t in trials] == [0.125] * 8 + [0.25] * 4 + [0.5] * 2
    assert [b.max_tokens_trained for b in asked[:1]] == [1000]
    tried = candidates(DEFAULT, 8, seed=3)
    assert best == min(tried, key=lambda b: abs(b.lr - 2e-3) * 1000 + b.rank / 1000)
    assert (best.share, best.max_tokens_trained) == (1.0, 8000)
    assert sum(t.kept for t in trials) == 4 + 2 + 1
    manifest = finished(tmp_path)
    assert manifest is not None
    assert len(in_words(manifest["trials"])) == 14
    # The same again trains nothing.
    assert search(tmp_path, DEFAULT, 8, seed=3, train=train) == (best, trials)
    assert len(asked) == 14


def test_a_tie_keeps_the_default(tmp_path: Path) -> None:
    assert search(tmp_path, DEFAULT, 4, seed=1, train=lambda folder, budget: report(1.0))[0] == DEFAULT


def test_a_candidate_that_diverges_loses_and_another_trouble_ends_the_search(tmp_path: Path) -> None:
    def train(folder: Path, budget: TrainingBudget) -> TrainReport:
        if budget == replace(DEFAULT, share=budget.share, max_tokens_trained=budget.max_tokens_trained):
            raise ServiceTrouble("Training diverged at step 3", permanent=True)
        return report(1.0)

    best, trials = search(tmp_path / "a", DEFAULT, 2, seed=1, train=train)

    assert best != DEFAULT
    assert trials[0].nll is None
    with pytest.raises(ServiceTrouble, match="disk"):
        search(tmp_path / "b", DEFAULT, 2, seed=1, train=full_disk)


def full_disk(folder: Path, budget: TrainingBudget) -> TrainReport:
    raise ServiceTrouble("is the disk full?")


def test_without_rows_to_compare_on_there_is_no_search(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="Leave --tune away"):
        search(tmp_path, DEFAULT, 2, seed=1, train=lambda folder, budget: replace(report(1.0), validation=[]))


def test_a_killed_search_goes_on_with_the_trial_it_was_in(
    tmp_path: Path, served: Path, tiny: str, small_dataset: Path
) -> None:
    """Real trainings of the small base: the first trial is not done again, the rate that learns nothing loses."""
    default = TrainingBudget(epochs=1, batch=8, lr=1e-2, rank=4, alpha=8, max_length=64)
    steps: list[str] = []
    dying = [True]

    def train(folder: Path, budget: TrainingBudget) -> TrainReport:
        if folder.name == "0-1" and dying.pop():
            dying.append(False)
            raise KeyboardInterrupt
        return lora.train(
            small_dataset,
            folder,
            base_gguf=served,
            trainable=tiny,
            budget=budget,
            seed=1,
            on_progress=lambda progress: steps.append(folder.name),
        )

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, default, 2, seed=1, train=train)
    first = len(steps)
    best, trials = search(tmp_path, default, 2, seed=1, train=train)

    assert first > 0
    assert set(steps[first:]) == {"0-1"}
    assert [t.share for t in trials] == [0.5, 0.5]
    assert best.lr == min(trials, key=lambda t: t.nll or 9).lr
    assert not list(tmp_path.glob("*/peft"))


def test_a_smaller_share_is_part_of_a_larger(served: Path, tiny: str, small_dataset: Path) -> None:
    budget = TrainingBudget(epochs=2, max_length=64)

    def rows(share: float) -> set[tuple[int, ...]]:
        job = lora.prepare(small_dataset, served, tiny, budget=replace(budget, share=share), seed=1)
        return {tuple(job.rows[row].ids) for row in job.order}

    assert rows(0.25) < rows(0.5) < rows(1.0)
