"""GRPO: an adapter learns to think before it answers, from rewards that are relative within a group of its own answers.

The algorithm is DeepSeekMath's (Shao et al. 2024, arXiv 2402.03300) in TRL's trainer; on CUDA, with unsloth installed
and a base from a hub or folder, over unsloth's model. What an answer is worth is `rewards.py`'s affair. It goes on from
the adapter that the run's first training made, which also is what it may not drift far from. Prompts are the tokens
that serving reads. Every step leaves the mean of each reward, some steps a whole group with its rewards, in the run's
folder. A killed training goes on from its last whole checkpoint. Judges nothing and writes no GGUF.

That its model is unsloth's has never been measured: no machine of ours had a GPU.
"""

import hashlib
import json
import math
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from infra.errors import ServiceTrouble, UserMistake
from infra.files import finish_folder, finished, write_atomic
from infra.voice.chat import Turn
from infra.voice.llama import Model
from trainer import lora, rewards
from trainer.base import best_precision
from trainer.rewards import Kind, Likeness, Similarity

# Below these rewards rarely rise, say the authors of unsloth's guide to GRPO; with fewer it is a rehearsal.
LEAST_PARAMETERS, LEAST_STEPS = 1.5e9, 300
# What each reward counts beside the others: being right most.
WEIGHTS = {"correct": 2.0, "form": 1.0, "language": 0.5, "persona": 0.5, "brevity": 0.25}
# Groups shown of one training, evenly over its steps.
SHOWN = 8
# Checkpoints of one training.
SAVES = 8
REWARDS, SAMPLES = "rewards.jsonl", "samples.jsonl"
CALCULATOR = re.compile(r"<<[^>]*>>")


@dataclass(frozen=True)
class Case:
    """A worked case: a question, its answer, of which kind that is, and the steps to it where somebody wrote them."""

    question: str
    answer: str
    kind: Kind
    steps: str = ""


@dataclass(frozen=True)
class GrpoBudget:
    """How long and how it learns.

    TRL's learning rate for LoRA; DeepSeekMath's weight of the KL divergence from where it began. `group` answers to one
    question, of at most `completion` tokens each, are one step.
    """

    steps: int = LEAST_STEPS
    group: int = 8
    completion: int = 512
    lr: float = 1e-5
    beta: float = 0.04
    temperature: float = 1.0


@dataclass(frozen=True)
class Step:
    """Where a training is: the weighted reward of the last step's group and the mean of each part of it."""

    step: int
    steps: int
    reward: float
    parts: Mapping[str, float]
    seconds: float


@dataclass(frozen=True)
class GrpoReport:
    """What a training did; `peft` is None when it was asked to stop. `trained_by` says in words which code ran.

    `first` and `last` are the mean rewards of the first and the last quarter of all steps.
    """

    peft: Path | None
    steps: int
    resumed_from: int
    trained_by: str
    first: Mapping[str, float]
    last: Mapping[str, float]
    wall_s: float
    peak_memory_mib: int
    budget: Mapping[str, Any]
    warnings: Sequence[str] = ()


def cases_of(path: Path) -> list[Case]:
    """The worked cases of a jsonl file: GSM8K's (`answer` ends with `#### number`), or question, answer and steps.

    Raises UserMistake, naming the line, for one that is no case.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserMistake(f"{str(path)!r} cannot be read: {error}.") from error
    found = [case_of(line, f"{path.name}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise UserMistake(f"{str(path)!r} holds no worked cases.")
    return found


def case_of(line: str, where: str) -> Case:
    try:
        row = json.loads(line)
        question, answer = str(row["question"]).strip(), str(row["answer"]).strip()
        steps = row.get("steps") or ""
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserMistake(f'{where}: a worked case is {{"question": ..., "answer": ..., "steps": ...}}.') from error
    steps = "\n".join(map(str, steps)) if isinstance(steps, list) else str(steps)
    before, mark, after = answer.rpartition("####")
    if mark:
        steps, answer = steps or CALCULATOR.sub("", before).strip(), after.strip()
    if not question or not answer:
        raise UserMistake(f"{where}: question and answer must not be empty.")
    kind = row.get("kind") or ("number" if mark else kind_of(answer))
    if kind not in ("number", "choice", "open"):
        raise UserMistake(f"{where}: kind is number, choice or open, not {kind!r}.")
    if kind == "number" and rewards.number_of(answer) is None:
        raise UserMistake(f"{where}: {answer!r} is no number.")
    return Case(question, answer, kind, steps.strip())


def kind_of(answer: str) -> Kind:
    """What kind of answer this is: a bare number, a bare letter, or words."""
    if re.fullmatch(r"[$€£¥]?\s*[-+]?[\d,]+(?:\.\d+)?(?:/\d+)?\s*%?\.?", answer):
        return "number"
    return "choice" if re.fullmatch(r"\(?[A-H]\)?\.?", answer) else "open"


def parameters(gguf_file: Path) -> int:
    """How many weights a base has."""
    model = Model(gguf_file)
    try:
        return model.parameters
    finally:
        model.free()


def warnings_for(weights: int, steps: int) -> list[str]:
    """What to expect little of, in words."""
    small = f"The base has {weights / 1e9:.2f}B parameters; under 1.5B thinking rarely helps, and rewards may not rise."
    short = f"{steps} steps are fewer than the {LEAST_STEPS} after which rewards usually begin to rise."
    return [*([small] if weights < LEAST_PARAMETERS else []), *([short] if steps < LEAST_STEPS else [])]


@dataclass
class Paying:
    """What the answers of one group are worth, and the record of it. Its functions are TRL's reward functions.

    TRL calls each reward on the same answers in turn, so they are judged once and looked up after that.
    """

    out: Path
    every: int
    tokens: int
    similarity: Similarity | None = None
    likeness: Likeness | None = None
    _judged: tuple[Sequence[str], list[dict[str, float]]] = field(default=((), []))

    @property
    def names(self) -> list[str]:
        return [name for name in WEIGHTS if name != "persona" or self.likeness]

    def functions(self) -> list[Callable[..., list[float]]]:
        return [self._one(name) for name in self.names]

    def _one(self, name: str) -> Callable[..., list[float]]:
        def reward(completions: Sequence[str], **columns: Any) -> list[float]:
            return [each[name] for each in self.judged(completions, **columns)]

        reward.__name__ = name
        return reward

    def judged(
        self,
        completions: Sequence[str],
        *,
        question: Sequence[str],
        expected: Sequence[str],
        kind: Sequence[Kind],
        trainer_state: Any,
        **rest: Any,
    ) -> list[dict[str, float]]:
        """Every reward of every answer; a group to be shown is written down."""
        if self._judged[0] is not completions:
            asked = zip(completions, question, expected, kind, strict=True)
            found = [self.worth(Case(q, e, k), text) for text, q, e, k in asked]
            self._judged = (completions, found)
            if trainer_state.global_step % self.every == 0:
                answers = [{"text": t, "rewards": r} for t, r in zip(completions, found, strict=True)]
                one = {"question": question[0], "expected": expected[0], "answers": answers}
                append(self.out / SAMPLES, {"step": trainer_state.global_step + 1, **one})
        return self._judged[1]

    def worth(self, case: Case, text: str) -> dict[str, float]:
        """Each reward of one answer."""
        found = {
            "correct": rewards.correct(text, case.answer, case.kind, similarity=self.similarity),
            "form": rewards.form(text),
            "language": rewards.language(text, case.question),
            "brevity": rewards.brevity(text, self.tokens),
        }
        return {**found, "persona": rewards.persona(text, self.likeness)} if self.likeness else found


@dataclass
class Watch:
    """The eyes on a running training: it reports, keeps every step's rewards, stops, and marks whole checkpoints."""

    out: Path
    steps: int
    fingerprint: str
    on_step: Callable[[Step], None]
    should_stop: Callable[[], bool]
    spent_s: float
    began: float = field(default_factory=time.monotonic)
    asked: bool = False

    def seconds(self) -> float:
        return self.spent_s + time.monotonic() - self.began

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.asked = self.should_stop()
        if self.asked:
            control.should_training_stop = True
        # The last step too, or the reward of what was learned last would be lost with a kill after it.
        if self.asked or state.global_step >= state.max_steps:
            control.should_save = True

    def on_log(self, args: Any, state: Any, control: Any, *, logs: dict[str, float], **rest: Any) -> None:
        """Raises ServiceTrouble when the loss is no number any more."""
        if "reward" not in logs:
            return
        for name in ("loss", "grad_norm"):
            if not math.isfinite(logs.get(name, 0.0)):
                raise ServiceTrouble(f"GRPO diverged at step {state.global_step}: {name} is no number.", permanent=True)
        parts = {name: round(logs[key], 4) for name in WEIGHTS if (key := f"rewards/{name}/mean") in logs}
        one = Step(state.global_step, self.steps, round(logs["reward"], 4), parts, round(self.seconds(), 1))
        more = {"tokens": logs.get("completions/mean_length"), "cut": logs.get("completions/clipped_ratio")}
        append(self.out / REWARDS, {"step": one.step, "reward": one.reward, **parts, "seconds": one.seconds, **more})
        self.on_step(one)

    def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """A checkpoint without its manifest does not exist."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        finish_folder(folder, {"fingerprint": self.fingerprint, "seconds": self.seconds()})


def reason(
    cases: Sequence[Case],
    out: Path,
    *,
    peft: Path,
    base_gguf: Path,
    trainable: str = "",
    four_bit: bool = False,
    prompt_of: Callable[[str], Sequence[Turn]],
    paying: Paying,
    budget: GrpoBudget,
    seed: int,
    on_step: Callable[[Step], None] = lambda step: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> GrpoReport:
    """Go on training the adapter in `peft` on `cases` into `out`/peft, or go on where a killed attempt left off.

    `four_bit` is how a base on CUDA is loaded, as it was for the adapter. Raises ServiceTrouble when the disk is full,
    memory does not suffice or the loss diverges.
    """
    if (done := finished(out)) is not None:
        return replace(GrpoReport(**done["report"]), peft=out / done["report"]["peft"])
    out.mkdir(parents=True, exist_ok=True)
    start = hashlib.sha256((peft / "adapter_model.safetensors").read_bytes()).hexdigest()
    facts = [[asdict(case) for case in cases], start, asdict(budget), base_gguf.name, trainable, four_bit, seed]
    fingerprint = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    checkpoint = lora.last_whole(out / "checkpoints", fingerprint)
    began_at = int(checkpoint.name.split("-")[1]) if checkpoint else 0
    before = finished(checkpoint) if checkpoint else None
    for name in (REWARDS, SAMPLES):
        keep_until(out / name, began_at)
    watch = Watch(out, budget.steps, fingerprint, on_step, should_stop, spent_s=before["seconds"] if before else 0.0)
    with lora.troubles(out):
        report = run(
            cases,
            out,
            peft=peft,
            base_gguf=base_gguf,
            trainable=trainable,
            four_bit=four_bit,
            prompt_of=prompt_of,
            paying=paying,
            budget=budget,
            seed=seed,
            watch=watch,
            checkpoint=checkpoint,
        )
    report = replace(report, resumed_from=began_at, warnings=warnings_for(parameters(base_gguf), budget.steps))
    if report.peft is not None:
        shutil.rmtree(out / "checkpoints")
        finish_folder(out, {"kind": "grpo", "report": {**asdict(report), "peft": report.peft.name}})
    return report


def run(
    cases: Sequence[Case],
    out: Path,
    *,
    peft: Path,
    base_gguf: Path,
    trainable: str,
    four_bit: bool,
    prompt_of: Callable[[str], Sequence[Turn]],
    paying: Paying,
    budget: GrpoBudget,
    seed: int,
    watch: Watch,
    checkpoint: Path | None,
) -> GrpoReport:
    """Load, train and save."""
    served = Model(base_gguf)
    try:
        prompts = {case.question: list(prompt_of(case.question)) for case in cases}
        texts = {question: served.prompt(turns) for question, turns in prompts.items()}
        known = {texts[question]: served.turn_tokens(turns) for question, turns in prompts.items()}
        model, trained_by = started(base_gguf, trainable, peft, four_bit=four_bit, seed=seed)
        trainer = make_trainer(
            model,
            tokens_of(served, known),
            table(cases, texts),
            out=out,
            paying=paying,
            budget=budget,
            seed=seed,
            watch=watch,
        )
        with computing():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        served.free()
    saved = None if watch.asked else out / "peft"
    if saved is not None:
        if "ref" in trainer.model.peft_config:
            trainer.model.delete_adapter("ref")
        lora.save(trainer.model, saved, base_gguf)
    rows = lines_of(out / REWARDS)
    quarter = max(1, len(rows) // 4)
    return GrpoReport(
        peft=saved,
        steps=int(trainer.state.global_step),
        resumed_from=0,
        trained_by=trained_by,
        first=mean(rows[:quarter]),
        last=mean(rows[-quarter:]),
        wall_s=round(watch.seconds(), 1),
        peak_memory_mib=lora.peak_memory_mib(),
        budget=asdict(budget),
    )


def computing() -> AbstractContextManager[Any]:
    """On a CPU that trains in bf16 answers are drawn in it too: TRL draws them outside of what it trains in."""
    import torch

    on_cpu = not (torch.cuda.is_available() or torch.backends.mps.is_available())
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=on_cpu and best_precision() == "bf16")


def started(base_gguf: Path, trainable: str, peft: Path, *, four_bit: bool, seed: int) -> tuple[Any, str]:
    """The base with the adapter in `peft` on it, ready to learn on; and what trains it, in words."""
    shape = json.loads((peft / "adapter_config.json").read_text(encoding="utf-8"))
    budget = lora.TrainingBudget(rank=int(shape["r"]), alpha=int(shape["lora_alpha"]), four_bit=four_bit)
    job = lora.Job(rows=[], stop=[], order=[], left_out=0, pad=0, seed=seed, budget=budget, fingerprint="")
    model, config, precision = lora.make_model(base_gguf, trainable, job)
    # Only now: unsloth has to be imported before what it patches.
    from peft import get_peft_model, set_peft_model_state_dict
    from safetensors.torch import load_file

    if config is not None:
        model = get_peft_model(model, config)
    set_peft_model_state_dict(model, load_file(peft / "adapter_model.safetensors"))
    return model, f"{'TRL over PEFT' if config is not None else 'TRL over unsloth'}, {precision}"


def make_trainer(
    model: Any,
    tokens: Any,
    rows: Any,
    *,
    out: Path,
    paying: Paying,
    budget: GrpoBudget,
    seed: int,
    watch: Watch,
) -> Any:
    """TRL's GRPO trainer over prompts that are tokens already."""
    from transformers import TrainerCallback
    from transformers.trainer_callback import PrinterCallback
    from trl import GRPOTrainer

    seen = {name: staticmethod(getattr(watch, name)) for name in ("on_step_end", "on_log", "on_save")}
    trainer = GRPOTrainer(
        model,
        reward_funcs=paying.functions(),
        args=arguments(out, paying.names, budget, seed=seed),
        train_dataset=rows,
        processing_class=tokens,
        callbacks=[type("Watching", (TrainerCallback,), seen)()],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def arguments(out: Path, names: Sequence[str], budget: GrpoBudget, *, seed: int) -> Any:
    """TRL's settings."""
    import torch
    from trl import GRPOConfig

    on_cpu = not (torch.cuda.is_available() or torch.backends.mps.is_available())
    return GRPOConfig(
        output_dir=str(out / "checkpoints"),
        max_steps=budget.steps,
        per_device_train_batch_size=budget.group,
        num_generations=budget.group,
        max_completion_length=budget.completion,
        temperature=budget.temperature,
        beta=budget.beta,
        reward_weights=[WEIGHTS[name] for name in names],
        learning_rate=budget.lr,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=min(10, budget.steps // 10),
        optim="adamw_torch_fused",
        bf16=best_precision() == "bf16",
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        gradient_checkpointing=not on_cpu,
        save_strategy="steps",
        save_steps=max(1, math.ceil(budget.steps / SAVES)),
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,
        seed=seed,
        data_seed=seed,
        disable_tqdm=True,
        report_to="none",
    )


def table(cases: Sequence[Case], texts: Mapping[str, str]) -> Any:
    """Cases as TRL reads them; all but the prompt is handed to the rewards."""
    from datasets import Dataset

    return Dataset.from_list(
        [
            {"prompt": texts[case.question], "question": case.question, "expected": case.answer, "kind": case.kind}
            for case in cases
        ]
    )


def tokens_of(served: Model, known: Mapping[str, list[int]]) -> Any:
    """A tokenizer that knows these prompts, as serving reads them, and writes what serving would write."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    def read(self: Any, text: Sequence[str], **rest: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [known[each] for each in text]}

    def write(self: Any, sequences: Sequence[Sequence[int]], **rest: Any) -> list[str]:
        return [b"".join(map(served.piece, ids)).decode("utf-8", "replace") for ids in sequences]

    kind = type("Served", (PreTrainedTokenizerFast,), {"__call__": read, "batch_decode": write})
    end = served.end_of_turn
    words = WordLevel({"<pad>": 0 if end else 1, "<end>": end}, unk_token="<pad>")  # noqa: S106
    return kind(tokenizer_object=Tokenizer(words), pad_token="<pad>", eos_token="<end>")  # noqa: S106


def append(path: Path, row: Mapping[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The rows of one of our logs; a last line that a kill cut short is none."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def keep_until(path: Path, step: int) -> None:
    """Leave out of a log what a resumed training does again."""
    if path.is_file():
        kept = [row for row in lines_of(path) if row["step"] <= step]
        write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))


def mean(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The mean of the reward and of each part over some steps."""
    names = [name for name in ("reward", *WEIGHTS) if rows and name in rows[0]]
    return {name: round(sum(row[name] for row in rows) / len(rows), 4) for name in names}
