"""Several GPUs: `accelerate launch` starts this module once for each, and all of them do one training together.

Only the training itself is done by several processes. The run, its data set, the proof, the gate and publishing stay
with the one process that called `train`, so nothing can be published twice. Rows keep their order, shared out batch by
batch; a step learns from the same rows as on one GPU. The first process writes the checkpoints, progress and how it
ended as files beside them; being cancelled is a file too, on which all agree after a step. If the caller dies, so do
they. On a CPU the same command works with two processes over gloo: that is how it is tested.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from infra.errors import Refused, ServiceTrouble, UnderstudyError, UserMistake
from infra.files import finished, read_json, write_json
from infra.processes import die_with_parent, start, stop
from trainer import gpu, lora

LOOK_S = 0.2
# How long processes that were asked to stop may take for their last step and its checkpoint.
PATIENCE_S = 600.0
PROGRESS, START, ENDED, STOP = "progress.json", "start.json", "ended.json", "stop.json"
ERRORS: dict[str, type[UnderstudyError]] = {each.__name__: each for each in (Refused, UserMistake)}


def train(
    dataset_folder: Path,
    out: Path,
    *,
    base_gguf: Path,
    trainable: str = "",
    budget: lora.TrainingBudget,
    seed: int,
    on_progress: Callable[[lora.Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
    on_start: Callable[[str], None] = lambda sentence: None,
    ranks: int = 0,
    log: Path | None = None,
) -> lora.TrainReport:
    """`lora.train`, by as many processes as there are GPUs for it, or `ranks`; in this process where that is one.

    Raises what `lora.train` raises, and ServiceTrouble when the processes end without a word.
    """
    count = ranks or lora.means_for(trainable, budget).ranks
    if count == 1 or finished(out) is not None:
        return lora.train(
            dataset_folder,
            out,
            base_gguf=base_gguf,
            trainable=trainable,
            budget=budget,
            seed=seed,
            on_progress=on_progress,
            should_stop=should_stop,
            on_start=on_start,
        )
    told = out.with_name(f".{out.name}-ranks")
    told.mkdir(parents=True, exist_ok=True)
    for name in (PROGRESS, START, ENDED, STOP):
        (told / name).unlink(missing_ok=True)
    job = {
        "dataset": str(dataset_folder),
        "out": str(out),
        "base": str(base_gguf),
        "trainable": trainable,
        "budget": asdict(budget),
        "seed": seed,
    }
    write_json(told / "job.json", job)
    process = start(command(count, told), log=log)
    try:
        seen = ""
        asked = 0.0
        while process.poll() is None:
            seen = follow(told, seen, on_progress, on_start)
            if should_stop() and not asked:
                write_json(told / STOP, {})
                asked = time.monotonic()
            if asked and time.monotonic() - asked > PATIENCE_S:
                break
            time.sleep(LOOK_S)
        follow(told, seen, on_progress, on_start)
    finally:
        stop(process)
    return report_of(told, out, process.returncode)


def command(ranks: int, told: Path) -> list[str]:
    """What Python runs: this module, which becomes accelerate's launcher."""
    return ["-m", "trainer.ranks", "--told", str(told), "--launch", str(ranks)]


def launch(ranks: int, told: Path) -> None:
    """`accelerate launch`, told everything, so that no configuration of the user's is read."""
    from accelerate.commands.launch import launch_command, launch_command_parser

    options = ["--multi_gpu", "--num_machines", "1", "--num_processes", str(ranks), "--main_process_port", "0"]
    plain = ["--mixed_precision", "no", "--dynamo_backend", "no"]
    launch_command(launch_command_parser().parse_args([*options, *plain, "-m", "trainer.ranks", "--told", str(told)]))


def follow(told: Path, seen: str, on_progress: Callable[[lora.Progress], None], on_start: Callable[[str], None]) -> str:
    """Pass on what the first process has written since `seen`."""
    begun, path = told / START, told / PROGRESS
    if begun.is_file():
        on_start(str(read_json(begun)["said"]))
        begun.unlink()
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if text and text != seen:
        on_progress(lora.Progress(**json.loads(text)))
    return text


def report_of(told: Path, out: Path, status: int | None) -> lora.TrainReport:
    """How it ended. Raises what ended it."""
    ended: dict[str, Any] = read_json(told / ENDED) if (told / ENDED).is_file() else {}
    if "error" in ended:
        kind = ERRORS.get(ended["error"])
        if kind is not None:
            raise kind(ended["said"])
        raise ServiceTrouble(ended["said"], permanent=ended["permanent"])
    if "report" not in ended:
        raise ServiceTrouble(f"The training processes ended with status {status} and said nothing; see the log.")
    found = ended["report"]
    if found["peft"] is not None:
        return lora.report_from(found, out)
    return lora.TrainReport(**{**found, "validation": [tuple(look) for look in found["validation"]]})


def main() -> int:
    """Be the launcher, or one of the processes that it starts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--told", type=Path, required=True)
    parser.add_argument("--launch", type=int, help="be the launcher of so many processes")
    parser.add_argument("--parent", type=int, help="end when this process does")
    given = parser.parse_args()
    die_with_parent(given.parent or os.getppid())
    if given.launch:
        launch(given.launch, given.told)
        return 0
    return take_part(given.told)


def take_part(told: Path) -> int:
    """Train as one of several processes; the first says how it goes and how it ended."""
    from accelerate import PartialState

    state = PartialState(cpu=gpu.Found.here().cuda == 0)
    job = read_json(told / "job.json")
    first = state.is_main_process

    def on_progress(progress: lora.Progress) -> None:
        if first:
            write_json(told / PROGRESS, asdict(progress))

    def on_start(sentence: str) -> None:
        if first:
            write_json(told / START, {"said": sentence})

    try:
        report = lora.train(
            Path(job["dataset"]),
            Path(job["out"]),
            base_gguf=Path(job["base"]),
            trainable=job["trainable"],
            budget=lora.TrainingBudget(**job["budget"]),
            seed=job["seed"],
            on_progress=on_progress,
            should_stop=(told / STOP).is_file,
            on_start=on_start,
            ranks=state.num_processes,
            main=first,
        )
    except UnderstudyError as error:
        said = {"error": type(error).__name__, "said": str(error), "permanent": getattr(error, "permanent", False)}
        write_json(told / ENDED, said)
        return 1
    if first:
        found = {**asdict(report), "peft": report.peft.name if report.peft else None}
        write_json(told / ENDED, {"report": found})
    state.wait_for_everyone()
    state.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
