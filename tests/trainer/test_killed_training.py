"""A training that is killed, at whatever point, goes on from its last whole checkpoint and ends as if it never was."""

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.settings import child_environment
from tests.drills.full_disk import on_a_full_disk
from trainer.lora import TrainingBudget, TrainReport, train

BUDGET = TrainingBudget(epochs=2, batch=8, lr=1e-2, rank=4, alpha=8, max_length=64)
ROOT = Path(__file__).parents[2]

# Prints each step when it is done and each checkpoint before it is marked as whole, and stands still at the line it is
# to be killed at, so that nothing more gets done before the signal arrives.
PROGRAM = """
import signal, sys
from pathlib import Path
from trainer import lora
from tests.trainer.test_killed_training import BUDGET

dataset, out, served, tiny, last = sys.argv[1:]
marked = lora.finish_folder

def say(line):
    print(line, flush=True)
    if line == last:
        signal.pause()

def marking(folder, manifest):
    say(f"marking {folder.name}")
    marked(folder, manifest)

lora.finish_folder = marking
lora.train(Path(dataset), Path(out), base_gguf=Path(served), trainable=tiny, budget=BUDGET, seed=1,
           on_progress=lambda progress: say(f"step {progress.step}"))
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, served: Path, tiny: str, small_dataset: Path) -> TrainReport:
    """The same training, left alone."""
    out = tmp_path_factory.mktemp("left-alone")
    return train(small_dataset, out, base_gguf=served, trainable=tiny, budget=BUDGET, seed=1)


@pytest.fixture
def kill_at(tmp_path: Path, served: Path, tiny: str, small_dataset: Path) -> Callable[[str], None]:
    """Train in a process of its own and kill it with SIGKILL when it prints this line."""

    def run(line: str) -> None:
        arguments = [str(small_dataset), str(tmp_path), str(served), tiny, line]
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
            env=child_environment(),
        ) as process:
            assert process.stdout is not None
            found = any(printed.strip() == line for printed in process.stdout)
            process.kill()
        assert found, f"the training ended before it printed {line!r}"

    return run


def test_a_training_that_is_asked_to_stop_loses_no_step(
    tmp_path: Path, served: Path, tiny: str, small_dataset: Path, whole: TrainReport
) -> None:
    steps: list[int] = []
    common = {"base_gguf": served, "trainable": tiny, "budget": BUDGET, "seed": 1}

    left = train(
        small_dataset,
        tmp_path,
        on_progress=lambda progress: steps.append(progress.step),
        should_stop=lambda: len(steps) >= 9,
        **common,
    )
    report = train(small_dataset, tmp_path, **common)

    assert (left.stopped, left.peft) == ("asked", None)
    assert report.resumed_from == max(steps)
    assert (report.validation, report.best_step) == (whole.validation, whole.best_step)
    assert adapter(report) == adapter(whole)


def adapter(report: TrainReport) -> bytes:
    assert report.peft is not None
    return (report.peft / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("line", "resumed"),
    [
        ("step 9", 8),
        # The files of the checkpoint are there, its manifest is not: it does not exist.
        ("marking checkpoint-6", 4),
    ],
)
def test_a_killed_training_goes_on_from_its_last_whole_checkpoint(
    kill_at: Callable[[str], None],
    tmp_path: Path,
    served: Path,
    tiny: str,
    small_dataset: Path,
    whole: TrainReport,
    line: str,
    resumed: int,
) -> None:
    """The step count goes on, nothing is trained twice, and the adapter is bit for bit the one left alone."""
    kill_at(line)
    steps: list[int] = []

    report = train(
        small_dataset,
        tmp_path,
        base_gguf=served,
        trainable=tiny,
        budget=BUDGET,
        seed=1,
        on_progress=lambda progress: steps.append(progress.step),
    )

    assert (report.resumed_from, min(steps), max(steps)) == (resumed, resumed + 1, whole.steps)
    assert (report.validation, report.best_step) == (whole.validation, whole.best_step)
    assert adapter(report) == adapter(whole)


def test_a_disk_that_is_full_while_a_checkpoint_is_written_costs_none_of_those_before(
    tmp_path: Path, served: Path, tiny: str, small_dataset: Path, whole: TrainReport
) -> None:
    found = on_a_full_disk(tmp_path / "disk", "training", str(small_dataset), str(served), tiny)

    assert "is the disk full?" in found["said"]
    assert found["resumed_from"] == 4
    assert found["sha256"] == hashlib.sha256(adapter(whole)).hexdigest()
