"""A training of a second: `python -m tests.drills.brief_training --run ...`, as `trainer.train`, without the learning.

Everything around the learning is the product's: the run table, the fencing, publishing and the pointer. It waits where
the file `wait-TOKEN-POINT` lies in the home, and says by `at-TOKEN-POINT` that it has come there. The points are
"learning", "held" (the token was compared, nothing is published) and "copying" (half of the adapter is staged).
"""

import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import infra.postgresql
import trainer.train
from infra.adapters import AdapterStore
from infra.runs import Run, Runs
from trainer import swap
from trainer.cycle import Work, published, version_of
from trainer.gate import Verdict
from trainer.gpu import Found

STEPS = 10
PASSED = asdict(Verdict(passed=True, reasons=()))


class Learned:
    """In the place of a dataset: what a version is named after."""

    id = "0123456789abcdef"


def pass_point(work: Work, point: str) -> None:
    """Say that this point is reached, and wait for as long as the test wants."""
    at = f"{work.run.token}-{point}"
    (work.settings.home / f"at-{at}").touch()
    while (work.settings.home / f"wait-{at}").exists():
        time.sleep(0.01)


def brief_cycle(work: Work) -> dict[str, Any]:
    """The end of `run_cycle`, after steps that learn nothing."""
    folder = work.folder
    for name in ("peft/adapter_model.safetensors", "gguf/adapter.gguf", "evals/evalcard.json", "evals/evalcard.html"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"{}" + b" " * 100_000)
    for step in range(STEPS):
        work.tell("lora", step, STEPS)
        pass_point(work, "learning")
        time.sleep(0.05)
    stand_still(work)
    store, version = AdapterStore(work.settings.data_folder / "adapters"), version_of(work, Learned())  # type: ignore[arg-type]
    described = {"base_sha256": "0" * 64, "verdict": PASSED, "by": work.run.token}
    published(work, store, version, folder / "peft", described=described)
    work.tell("swap", 0, 0)
    work.runs.hold(work.run)
    return {"adapter": version, "swap": swap.promote(work.settings, store, version)}


def stand_still(work: Work) -> None:
    """Pass the points that are inside of `published`."""
    hold, copy = Runs.hold, shutil.copy2

    def held(runs: Runs, run: Run) -> Run:
        found = hold(runs, run)
        pass_point(work, "held")
        return found

    def copied(source: Path, target: Path, **named: Any) -> Any:
        if Path(target).name == "adapter.gguf":
            pass_point(work, "copying")
        return copy(source, target, **named)

    Runs.hold, shutil.copy2 = held, copied  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    infra.postgresql.SILENCE_S = infra.postgresql.PATIENCE["connect_timeout"] = 2
    trainer.train.run_cycle = brief_cycle
    Found.here = Found  # type: ignore[method-assign, assignment]  # it needs no torch to find nothing
    sys.exit(trainer.train.main())
