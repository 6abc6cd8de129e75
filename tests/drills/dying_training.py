"""A training whose worker is killed at a chosen point: `python -m tests.drills.dying_training POINT --run ...`.

The training kills the process that supervises it, with -9, and then hangs where it is: the kernel has to end it with
its parent. POINT is "STAGE begins" for any stage, "STAGE ends" right before the stage's manifest or effect would be
there, "STAGE midway" when it tells its first progress or, of gguf, when the file is there and its proof is not,
"finished" right before the run's end is written down, or "never". At "lora waits" it kills nobody: it waits at its first
progress until it is told to stop. The gate always says yes here, and the evals ask
little: what is drilled is dying, and the stages behind the gate are part of it.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import infra.voice.engine
import trainer.ability
import trainer.cycle
import trainer.dataset
import trainer.evals
import trainer.learning
import trainer.lora
import trainer.parity
import trainer.swap
from infra.adapters import AdapterStore
from infra.runs import Run, Runs
from trainer.gate import Verdict
from trainer.train import main

MANIFESTS = ("harvest", "dataset", "lora", "gguf", "evals")
POINTS = (
    *("harvest begins", "harvest ends", "dataset begins", "dataset ends"),
    # Those that take long die on the way: doing all of their work twice would drill nothing more.
    *("lora begins", "lora midway", "gguf begins", "gguf midway", "evals begins", "evals midway"),
    "gate begins",
    "publish begins",
    "publish ends",
    "swap begins",
    "swap ends",
    "finished",
    "never",
)
WAITS = "lora waits"


def kill_the_worker() -> None:
    """Kill the parent and wait for the same."""
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


def before(owner: Any, name: str, *, applies: Callable[..., bool]) -> None:
    """Let `owner.name` kill the worker instead of doing its work, when `applies` to its arguments."""
    original = getattr(owner, name)

    def deadly(*arguments: Any, **named: Any) -> Any:
        if applies(*arguments, **named):
            kill_the_worker()
        return original(*arguments, **named)

    setattr(owner, name, deadly)


def wait_at_first_progress() -> None:
    """Let a training wait for a signal as soon as it has made a step, once."""
    report, waited = Runs.report, False

    def waiting(runs: Runs, run: Run, stage: str, *, progress: Any) -> Run:
        nonlocal waited
        told = report(runs, run, stage, progress=progress)
        if stage == "lora" and progress["done"] > 0 and not waited:
            waited = True
            signal.pause()
        return told

    Runs.report = waiting  # type: ignore[method-assign]


def arm(point: str) -> None:
    """Put the trap where `point` says."""
    stage, _, edge = point.partition(" ")
    if edge == "begins":
        before(Runs, "report", applies=lambda runs, run, now, **_: now == stage)
    elif point == "gguf midway":
        before(trainer.parity, "probe", applies=lambda *_: True)
    elif edge == "midway":
        before(Runs, "report", applies=lambda runs, run, now, progress: now == stage and progress["done"] > 0)
    elif stage in MANIFESTS:
        for module in (trainer.cycle, trainer.dataset, trainer.learning, trainer.lora):
            if hasattr(module, "finish_folder"):
                before(module, "finish_folder", applies=lambda folder, manifest: Path(folder).name == stage)
    elif stage == "publish":
        before(AdapterStore, "publish", applies=lambda *_: True)
    elif stage == "swap":
        before(trainer.swap, "promote", applies=lambda *_: True)
    else:
        before(Runs, "finish", applies=lambda runs, run, *_, **__: isinstance(run, Run))


if __name__ == "__main__":
    at = sys.argv.pop(1)
    assert at in {*POINTS, WAITS}, at
    few = trainer.ability.probe()[:4]
    trainer.evals.OTHERS = 10
    trainer.ability.sheet = trainer.evals.sheet = trainer.evals.probe = lambda: few
    infra.voice.engine.probe = lambda context, between_steps: None  # one layer has nothing to say
    trainer.cycle.gate.decide = lambda card: Verdict(passed=True, reasons=())
    if at == WAITS:
        wait_at_first_progress()
    elif at != "never":
        arm(at)
    sys.exit(main())
