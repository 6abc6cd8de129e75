"""Several processes do one training together: two over gloo here, by the command that starts one for each GPU."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from infra.errors import Refused, ServiceTrouble, UserMistake
from infra.files import finished, write_json
from trainer import lora, ranks
from trainer.lora import TrainingBudget, TrainReport

BUDGET = TrainingBudget(epochs=1, batch=2, accumulate=2, lr=1e-2, rank=4, alpha=8, max_length=64)


@pytest.fixture
def budget(served: Path, tiny: str, small_dataset: Path) -> TrainingBudget:
    """As many tokens as whole steps of two processes have: eight of four rows."""
    job = lora.prepare(small_dataset, served, tiny, budget=BUDGET, seed=1)
    return replace(BUDGET, max_tokens_trained=sum(len(job.rows[row].ids) for row in job.order[:32]))


def matrices(report: TrainReport) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    assert report.peft is not None
    return load_file(report.peft / "adapter_model.safetensors")


def asked_after(steps: int) -> tuple[Callable[[lora.Progress], None], Callable[[], bool]]:
    seen = [0]

    def on_progress(progress: lora.Progress) -> None:
        seen[0] = progress.step

    return on_progress, lambda: seen[0] >= steps


def test_two_processes_cancelled_and_taken_up_again_learn_what_one_does(
    tmp_path: Path, served: Path, tiny: str, small_dataset: Path, budget: TrainingBudget
) -> None:
    """Same rows, each once, in the same steps: the matrices agree to rounding, a tenth of what one step changes."""
    alone = lora.train(small_dataset, tmp_path / "one", base_gguf=served, trainable=tiny, budget=budget, seed=1)
    on_progress, should_stop = asked_after(2)
    given = {"base_gguf": served, "trainable": tiny, "budget": budget, "seed": 1, "ranks": 2}
    out, said, steps = tmp_path / "two", list[str](), list[int]()

    left = ranks.train(small_dataset, out, on_progress=on_progress, should_stop=should_stop, **given)  # type: ignore[arg-type]
    unfinished = finished(out)
    report = ranks.train(
        small_dataset,
        out,
        on_progress=lambda p: steps.append(p.step),
        on_start=said.append,
        **given,  # type: ignore[arg-type]
    )

    assert (left.peft, left.stopped, unfinished) == (None, "asked", None)
    assert 2 <= left.steps < report.steps == alone.steps == 8
    assert (report.resumed_from, steps[-1]) == (left.steps, 8)
    assert (report.best_step, alone.best_step) == (8, 8)
    assert report.validation[-1][1] < report.validation[0][1] - 0.05
    assert said
    assert said[0].startswith("TRL and PEFT on CPU")
    one, two = matrices(alone), matrices(report)
    assert one.keys() == two.keys()
    assert all(np.allclose(one[name], two[name], atol=1e-3) for name in one)
    # The same again is not done again.
    assert ranks.train(small_dataset, out, **given) == report  # type: ignore[arg-type]


def test_a_last_batch_that_not_all_have_is_left_out(served: Path, tiny: str, small_dataset: Path) -> None:
    """It would be filled up with rows that were seen already."""
    one = lora.prepare(small_dataset, served, tiny, budget=BUDGET, seed=1)
    four = lora.prepare(small_dataset, served, tiny, budget=BUDGET, seed=1, ranks=4)

    assert (four.batch, four.accumulate, four.rows_per_step) == (1, 1, one.rows_per_step)
    assert len(four.order) == len(one.order) - len(one.order) % 4
    assert four.order == one.order[: len(four.order)]
    assert len(four.stop) == len(one.stop) - len(one.stop) % 4 > 0
    assert four.fingerprint != one.fingerprint


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({"error": "Refused", "said": "No.", "permanent": False}, Refused),
        ({"error": "UserMistake", "said": "No.", "permanent": False}, UserMistake),
        ({"error": "ServiceTrouble", "said": "No.", "permanent": True}, ServiceTrouble),
    ],
)
def test_what_ends_the_processes_ends_the_caller(
    tmp_path: Path, said: dict[str, object], kind: type[Exception]
) -> None:
    write_json(tmp_path / ranks.ENDED, said)

    with pytest.raises(kind, match="No.") as raised:
        ranks.report_of(tmp_path, tmp_path, 1)
    assert getattr(raised.value, "permanent", False) == said["permanent"]


def test_processes_that_end_without_a_word_are_a_trouble(tmp_path: Path) -> None:
    with pytest.raises(ServiceTrouble, match="status -9"):
        ranks.report_of(tmp_path, tmp_path, -9)
