"""LoRA: a dataset becomes a PEFT adapter for exactly the weights that are served. An owner of trl, like
`grpo.py` and `prefer.py`.

Tokens come from the served GGUF through `infra/voice/llama.py`, so training and serving read the same ids. The loss is
on the answer and its end of turn. The order of all rows is fixed before the first step, so that a killed run goes on
from its last whole checkpoint with the row it would have had next. Runs in a process of its own (`train.py`); imports
torch only inside functions. Judges nothing (`evals.py`) and writes no GGUF (`gguf.py`).

Which trainer runs, and why no faster one, is decided in `gpu.py` and said in the report. What it will take is said
before the first step (`estimate.py`). One of several processes, each with a GPU, runs the same code (`ranks.py`).
"""

import errno
import hashlib
import json
import math
import random
import re
import resource
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from infra.errors import Refused, ServiceTrouble
from infra.files import finish_folder, finished, verify_folder
from infra.voice.llama import Model
from trainer import estimate, gpu, together
from trainer.base import best_precision, halve, load_base
from trainer.dataset import Row, load

Stopped = Literal["finished", "no longer improving", "time", "asked"]
# What a step can end with, the last that any process has counting for all.
REASONS: tuple[Stopped, ...] = ("finished", "time", "asked")

# Evaluations, and with them checkpoints, in one run; and how many may pass without a better one.
LOOKS = 8
PATIENCE = 2
# Steps between checkpoints at most: what a kill can cost a long run on a GPU.
MOST_STEPS_BETWEEN = 200
# Rows that decide when to stop: more would cost time without changing the decision.
STOP_ROWS = 48
# Rows of similar length are picked out of this many batches at a time.
BUCKET = 8
# Going forward and back takes about so many times as long as going forward alone.
FORWARD_SHARE = 3


@dataclass(frozen=True)
class TrainingBudget:
    """What one training may cost and how it learns. 0 means no bound for `max_tokens_trained` and `max_seconds`.

    Tokens are those of whole rows, prompt and answer. The defaults suit the packaged 135M model; LOG.md says
    which of them were measured. `four_bit` and `checkpointing` count on CUDA only. Of the rows a `share` is read, drawn
    by the seed, the smaller inside the larger: what a search tries.
    """

    epochs: int = 2
    max_tokens_trained: int = 0
    max_seconds: float = 0
    lr: float = 1e-3
    rank: int = 16
    alpha: int = 32
    batch: int = 4
    accumulate: int = 1
    max_length: int = 512
    four_bit: bool = False
    checkpointing: bool = True
    trainer: Literal["auto", "trl"] = "auto"
    share: float = 1.0


@dataclass(frozen=True)
class Progress:
    """Where a training is. `loss` is the last batch's, `validation` the last measured; nats per answer token."""

    step: int
    steps: int
    tokens: int
    loss: float
    validation: float | None
    seconds: float


@dataclass(frozen=True)
class TrainReport:
    """What a training did. `peft` is None when it was asked to stop: it can be continued by calling `train` again.

    `validation` holds (step, nats per answer token) in order, step 0 being the bare base; the adapter kept is that of
    `best_step`. Memory in MiB (of the GPU where there is one), time in seconds over all attempts. `means` says which
    trainer ran and why; `expected` is the estimate that was made before the first step.
    """

    peft: Path | None
    stopped: Stopped
    rows: int
    left_out: int
    steps: int
    best_step: int
    tokens: int
    validation: list[tuple[int, float]]
    resumed_from: int
    precision: str
    wall_s: float
    peak_memory_mib: int
    hyperparameters: dict[str, Any]
    means: str = ""
    expected: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Tokens:
    """One row as the model reads it: all ids, and how many of the last ones are learned."""

    ids: list[int]
    learned: int


@dataclass(frozen=True)
class Job:
    """A training, decided before its first step. `order` are indices into `rows`, every epoch written out.

    `ranks` processes take its batches in turn; `batch` and `accumulate` are those of each, so that a step still learns
    from the same rows.
    """

    rows: list[Tokens]
    stop: list[Tokens]
    order: list[int]
    left_out: int
    pad: int
    seed: int
    budget: TrainingBudget
    fingerprint: str
    ranks: int = 1
    looks: int = LOOKS
    start: Path | None = None

    @property
    def batch(self) -> int:
        return gpu.shared_out(self.budget.batch, self.budget.accumulate, self.ranks)[0]

    @property
    def accumulate(self) -> int:
        return gpu.shared_out(self.budget.batch, self.budget.accumulate, self.ranks)[1]

    @property
    def rows_per_step(self) -> int:
        return self.batch * self.accumulate * self.ranks

    @property
    def steps(self) -> int:
        return math.ceil(len(self.order) / self.rows_per_step)


@dataclass
class Watch:
    """The eyes on a running training: it reports, stops, checks and marks checkpoints as whole; a TrainerCallback."""

    job: Job
    on_progress: Callable[[Progress], None]
    should_stop: Callable[[], bool]
    spent_s: float
    began: float = field(default_factory=time.monotonic)
    loss: float = math.nan
    rate: float | None = None
    stopped: Stopped = "finished"
    validation: list[tuple[int, float]] = field(default_factory=list)

    def seconds(self) -> float:
        return self.spent_s + time.monotonic() - self.began

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Look at every milestone and at the last step; end when asked or out of time."""
        budget = self.job.budget
        if self.should_stop():
            self.stopped = "asked"
        elif budget.max_seconds and self.seconds() > budget.max_seconds:
            self.stopped = "time"
        if self.job.ranks > 1:
            # Whoever stops alone leaves the others waiting for its gradient.
            self.stopped = together.agreed(self.stopped, REASONS)
        if self.stopped != "finished":
            control.should_training_stop = True
        # Whoever has to end goes on from this very step later.
        control.should_save = control.should_save or self.stopped == "asked"
        last = state.global_step >= state.max_steps or self.stopped == "time"
        if last or state.global_step % args.eval_steps == 0:
            control.should_evaluate, control.should_save = bool(self.job.stop), True
        self._report(state)

    def on_log(self, args: Any, state: Any, control: Any, *, logs: dict[str, float], **rest: Any) -> None:
        """Raises ServiceTrouble when the loss is no number any more: nothing that follows could be used."""
        for name in ("loss", "grad_norm", "eval_loss"):
            if not math.isfinite(logs.get(name, 0.0)):
                raise ServiceTrouble(
                    f"Training diverged at step {state.global_step}: {name} is {logs[name]}. "
                    f"Lower training.learning_rate ({self.job.budget.lr:g}).",
                    permanent=True,
                )
        self.loss = logs.get("loss", self.loss)

    def on_evaluate(self, args: Any, state: Any, control: Any, *, metrics: dict[str, float], **rest: Any) -> None:
        self.validation.append((state.global_step, round(metrics["eval_loss"], 4)))
        self._report(state)

    def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """A checkpoint without its manifest, because the process was killed while writing it, does not exist."""
        if self.job.ranks > 1:
            # Each process writes the state of its own random numbers into it.
            together.all_here()
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        manifest = {"fingerprint": self.job.fingerprint, "seconds": self.seconds(), "validation": self.validation}
        manifest["rate"] = self.rate
        finish_folder(folder, manifest)

    def _report(self, state: Any) -> None:
        known = self.validation[-1][1] if self.validation else None
        self.on_progress(
            Progress(
                state.global_step,
                self.job.steps,
                tokens_in(self.job, state.global_step),
                self.loss,
                known,
                self.seconds(),
            )
        )


def train(
    dataset_folder: Path,
    out: Path,
    *,
    base_gguf: Path,
    trainable: str = "",
    budget: TrainingBudget,
    seed: int,
    start: Path | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
    on_start: Callable[[str], None] = lambda sentence: None,
    ranks: int = 1,
    main: bool = True,
) -> TrainReport:
    """Train an adapter on a finished dataset into `out`/peft, or go on where a killed attempt left off.

    `base_gguf` is the served file; `trainable` a hub name (`hub:` may stand before it) or folder whose weights are
    trained, empty for the GGUF's own, dequantised. `start` is a PEFT folder of the same rank to go on from; without it
    the adapter is new. Same input, seed and machine: same adapter. Repeating a finished training returns its report.
    `on_start` is told before the first step which trainer runs and what it will take.

    With `ranks` this is one of so many processes on the same folder, and only `main` writes into it; see `ranks.py`.

    Raises Refused when no row fits or memory cannot suffice, ServiceTrouble when the disk is full, memory ran out or
    the loss diverges, UserMistake when `trainable` cannot be loaded.
    """
    done = finished(out)
    if done is not None:
        return report_from(done["report"], out)
    out.mkdir(parents=True, exist_ok=True)
    job = warm(prepare(dataset_folder, base_gguf, trainable, budget=budget, seed=seed, ranks=ranks), start)
    expected = foreseen(job, base_gguf, trainable)
    estimate.refuse_what_cannot_fit(expected)
    checkpoint = last_whole(out / "checkpoints", job.fingerprint)
    with troubles(out):
        report = run(
            job,
            out,
            base_gguf,
            trainable,
            checkpoint=checkpoint,
            expected=expected,
            on_progress=on_progress,
            should_stop=should_stop,
            on_start=on_start,
        )
    if report.peft is not None and main:
        shutil.rmtree(out / "checkpoints")
        finish_folder(out, {"kind": "lora", "report": {**asdict(report), "peft": report.peft.name}})
    return report


def report_from(found: dict[str, Any], out: Path) -> TrainReport:
    """The report that a finished folder's manifest holds."""
    validation = [(int(step), float(nll)) for step, nll in found["validation"]]
    return TrainReport(**{**found, "peft": out / found["peft"], "validation": validation})


def means_for(trainable: str, budget: TrainingBudget) -> gpu.Means:
    """Which trainer runs here, and why."""
    return gpu.means(gpu.Found.here(), trainable=trainable, four_bit=budget.four_bit, plain=budget.trainer == "trl")


def foreseen(job: Job, base_gguf: Path, trainable: str) -> estimate.Estimate:
    """What this training is expected to take on this machine; its rate is measured once the model is there."""
    here = means_for(trainable, job.budget)
    return estimate.foresee(
        estimate.shape_of(base_gguf),
        job,
        device=here.device,
        half=best_precision() == "bf16",
        free_mib=estimate.available(here.device),
    )


def prepare(
    dataset_folder: Path, base_gguf: Path, trainable: str, *, budget: TrainingBudget, seed: int, ranks: int = 1
) -> Job:
    """Tokenise a dataset and fix the order of its rows. Raises Refused when none is short enough."""
    dataset = load(dataset_folder)
    model = Model(base_gguf)
    try:
        rows = [tokens_of(model, row) for row in dataset.rows("train")]
        stop = [tokens_of(model, row) for row in dataset.rows("validation") if row.use == "stop"]
        pad = 0 if model.end_of_turn != 0 else 1
    finally:
        model.free()
    fit = [row for row in rows if len(row.ids) <= budget.max_length]
    if not fit:
        raise Refused(
            f"None of {len(rows)} rows is at most {budget.max_length} tokens long; raise training.max_length."
        )
    left_out = len(rows) - len(fit)
    # A seed's sample of fewer is the beginning of its sample of more.
    fit = random.Random(seed).sample(fit, len(fit))[: math.ceil(budget.share * len(fit))] if budget.share < 1 else fit  # noqa: S311
    watched = sorted((row for row in stop if len(row.ids) <= budget.max_length), key=lambda row: len(row.ids))
    facts = json.dumps([dataset.id, base_gguf.name, base_gguf.stat().st_size, trainable, asdict(budget), seed, ranks])
    job = Job(
        rows=fit,
        stop=sorted(random.Random(seed).sample(watched, min(len(watched), STOP_ROWS)), key=lambda row: len(row.ids)),  # noqa: S311
        order=order([len(row.ids) for row in fit], budget=budget, seed=seed),
        left_out=left_out,
        pad=pad,
        seed=seed,
        budget=budget,
        fingerprint=hashlib.sha256(facts.encode()).hexdigest()[:16],
        ranks=ranks,
    )
    if ranks == 1:
        return job
    # Processes go in step: a last batch that not all of them have would be filled up with rows seen already.
    whole = [len(rows) - len(rows) % (job.batch * ranks) or len(rows) for rows in (job.order, job.stop)]
    return replace(job, order=job.order[: whole[0]], stop=job.stop[: whole[1]])


def warm(job: Job, start: Path | None) -> Job:
    """The job as one that goes on from an adapter; the same where there is none."""
    if start is None:
        return job
    weights = hashlib.sha256((start / "adapter_model.safetensors").read_bytes()).hexdigest()
    return replace(job, start=start, fingerprint=hashlib.sha256((job.fingerprint + weights).encode()).hexdigest()[:16])


def tokens_of(model: Model, row: Row) -> Tokens:
    """A row's ids: the prompt as serving reads it, then the answer as scoring does, then the end of turn."""
    answer = [*model.tokens(row.answer, special="plain"), model.end_of_turn]
    return Tokens([*model.turn_tokens(row.prompt), *answer], len(answer))


def order(lengths: Sequence[int], *, budget: TrainingBudget, seed: int) -> list[int]:
    """Which row comes when: every epoch shuffled, rows of similar length side by side, cut at the token budget.

    Batches of unequal lengths would be mostly padding; sorting within a few batches keeps the shuffle nearly whole.
    """
    rng = random.Random(seed)  # noqa: S311 - a shuffle, not a secret
    chosen: list[int] = []
    for _ in range(budget.epochs):
        rows = rng.sample(range(len(lengths)), len(lengths))
        batches: list[list[int]] = []
        for start in range(0, len(rows), budget.batch * BUCKET):
            near = sorted(rows[start : start + budget.batch * BUCKET], key=lambda row: lengths[row])
            batches += [near[n : n + budget.batch] for n in range(0, len(near), budget.batch)]
        # The one short batch goes last, or every batch after it would straddle two lengths.
        full = [batch for batch in batches if len(batch) == budget.batch]
        rng.shuffle(full)
        chosen += [row for batch in [*full, *(b for b in batches if len(b) < budget.batch)] for row in batch]
    if not budget.max_tokens_trained:
        return chosen
    total, kept = 0, list[int]()
    for row in chosen:
        total += lengths[row]
        if total > budget.max_tokens_trained and kept:
            break
        kept.append(row)
    return kept


def tokens_in(job: Job, steps: int) -> int:
    """Tokens read in the first `steps` steps."""
    return sum(len(job.rows[row].ids) for row in job.order[: steps * job.rows_per_step])


def last_whole(folder: Path, fingerprint: str) -> Path | None:
    """The newest checkpoint that was written to its end and belongs to this very job; all others are removed."""
    best: Path | None = None
    for path in sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1])):
        try:
            whole = verify_folder(path)["fingerprint"] == fingerprint
        except ServiceTrouble:
            whole = False
        if whole:
            best = path
        else:
            shutil.rmtree(path)
    return best


@contextmanager
def troubles(out: Path) -> Iterator[None]:
    """What torch and the file system raise, as ours. Broken writes come as three kinds of errors."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        text = str(error)
        if re.search(r"out of memory|can't allocate memory|not enough memory", text):
            raise ServiceTrouble(
                "Training ran out of memory; lower training.batch or training.max_length, or choose a smaller base."
            ) from error
        full = isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
        if full or re.search(
            r"PytorchStreamWriter|inline_container|I/O error|File too large|No space left|os error", text
        ):
            raise ServiceTrouble(f"Could not write to {str(out)!r} while training: is the disk full?") from error
        raise


def run(
    job: Job,
    out: Path,
    base_gguf: Path,
    trainable: str,
    *,
    checkpoint: Path | None,
    expected: estimate.Estimate,
    on_progress: Callable[[Progress], None],
    should_stop: Callable[[], bool],
    on_start: Callable[[str], None],
) -> TrainReport:
    """Load, train and save. The model is gone when this returns."""
    before = finished(checkpoint) if checkpoint else None
    watch = Watch(job, on_progress, should_stop, spent_s=before["seconds"] if before else 0.0)
    watch.validation += [tuple(look) for look in before["validation"]] if before else []
    model, peft_config, precision = make_model(base_gguf, trainable, job)
    trainer = make_trainer(model, peft_config, job, out, watch=watch, precision=precision)
    if job.ranks > 1:
        together.all_on_one_cpu(trainer)
    here = means_for(trainable, job.budget)
    expected = replace(expected, rate=before["rate"] if before else warmed_up(trainer, job))
    watch.rate = expected.rate
    on_start(f"{here}. {expected}")
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    steps = int(trainer.state.global_step)
    stopped = watch.stopped
    if stopped == "finished" and steps < job.steps:
        stopped = "no longer improving"
    peft = None if stopped == "asked" else out / "peft"
    if peft is not None and trainer.is_world_process_zero():
        save(trainer.model, peft, base_gguf)
    if job.ranks > 1:
        # The first removes the checkpoints next, of which the others may still be loading the best.
        together.all_here()
    return TrainReport(
        peft=peft,
        stopped=stopped,
        rows=len(job.rows),
        left_out=job.left_out,
        steps=steps,
        best_step=int(trainer.state.best_global_step or steps),
        tokens=tokens_in(job, steps),
        validation=watch.validation,
        resumed_from=int(checkpoint.name.split("-")[1]) if checkpoint else 0,
        precision=precision,
        wall_s=round(watch.seconds(), 1),
        peak_memory_mib=peak_memory_mib(),
        hyperparameters={**asdict(job.budget), "seed": job.seed},
        means=str(here),
        expected=expected.document(),
    )


def warmed_up(trainer: Any, job: Job) -> float:
    """Tokens per second of this very training here: its middle batch once to warm up and once against the clock.

    Nothing is learned from it. Looks at what decides when to stop are counted by what going back costs twice as much.
    """
    middle = len(job.order) // 2
    rows = list(range(middle, min(middle + job.batch, len(job.order)))) or [0]
    batch = trainer.data_collator([trainer.train_dataset[row] for row in rows])
    trainer.model.train()
    began = time.monotonic()
    for _ in range(2):
        began = time.monotonic()
        with trainer.accelerator.autocast():
            trainer.compute_loss(trainer.model, trainer._prepare_inputs(dict(batch))).backward()
        trainer.model.zero_grad(set_to_none=True)
    read = sum(len(job.rows[job.order[row]].ids) for row in rows)
    looks = sum(len(row.ids) for row in job.stop) * (min(job.steps, job.looks) + 1) / FORWARD_SHARE
    learned = tokens_in(job, job.steps)
    return round(job.ranks * read / (time.monotonic() - began) * learned / (learned + looks), 1)


def make_model(base_gguf: Path, trainable: str, job: Job) -> tuple[Any, Any, str]:
    """(model, LoRA config or None when the model has its adapter already, precision)."""
    import torch

    precision, budget = best_precision(), job.budget
    here = means_for(trainable, budget)
    # unsloth makes its own new adapter; going on from one is PEFT's affair.
    if here.trainer == "unsloth" and job.start is None:
        model = gpu.unsloth_model(
            trainable,
            max_length=budget.max_length,
            four_bit=here.four_bit,
            rank=budget.rank,
            alpha=budget.alpha,
            seed=job.seed,
            checkpointing=budget.checkpointing,
        )
        return model, None, precision
    from transformers import set_seed

    quiet()
    # TRL makes the adapter before it sets its own seed.
    set_seed(job.seed)
    if here.device == "cuda" and trainable:
        model = gpu.hub_model(trainable, here=here, bf16=precision == "bf16", device=torch.cuda.current_device())
    else:
        model = load_base(base_gguf, trainable)
        if precision == "bf16":
            halve(model)
    if job.start is None:
        return model, lora_config(budget), precision
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(job.start), is_trainable=True), None, precision


def lora_config(budget: TrainingBudget) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=budget.rank, lora_alpha=budget.alpha, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def make_trainer(model: Any, peft_config: Any, job: Job, out: Path, *, watch: Watch, precision: str) -> Any:
    """TRL's trainer over rows that are tokens already."""
    from transformers import EarlyStoppingCallback, TrainerCallback
    from transformers.trainer_callback import PrinterCallback
    from trl import SFTTrainer

    seen = {name: staticmethod(getattr(watch, name)) for name in ("on_step_end", "on_log", "on_evaluate", "on_save")}
    callback = type("Watching", (TrainerCallback,), seen)()
    callbacks = [callback, *([EarlyStoppingCallback(PATIENCE)] if job.stop else [])]
    trainer = SFTTrainer(
        model,
        args=arguments(job, out, precision=precision, resumed=watch.spent_s > 0, apart=laid_apart(model)),
        train_dataset=as_table([job.rows[row] for row in job.order]),
        eval_dataset=as_table(job.stop) if job.stop else None,
        processing_class=padding(job.pad),
        peft_config=peft_config,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def arguments(job: Job, out: Path, *, precision: str, resumed: bool, apart: bool = False) -> Any:
    """TRL's settings. Its head is computed for answer tokens only (`chunked_nll`), which is its default.

    `apart`: rows lie end to end without padding, which only flash attention keeps apart (PyTorch's own does not).
    """
    import torch
    from trl import SFTConfig

    every = min(max(1, math.ceil(job.steps / job.looks)), MOST_STEPS_BETWEEN)
    on_cpu = not (torch.cuda.is_available() or torch.backends.mps.is_available())
    return SFTConfig(
        output_dir=str(out / "checkpoints"),
        max_steps=job.steps,
        per_device_train_batch_size=job.batch,
        gradient_accumulation_steps=job.accumulate,
        per_device_eval_batch_size=job.batch,
        learning_rate=job.budget.lr,
        lr_scheduler_type="linear",
        warmup_steps=min(10, job.steps // 10),
        weight_decay=0.0,
        optim="adamw_torch_fused",
        # The order is ours; TRL must neither shuffle nor cut.
        train_sampling_strategy="sequential",
        max_length=None,
        packing=False,
        padding_free=apart,
        bf16=precision == "bf16",
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        # A fifth slower with it, and memory is not what a small base lacks.
        gradient_checkpointing=job.budget.checkpointing and not on_cpu,
        ddp_find_unused_parameters=False if job.ranks > 1 else None,
        eval_strategy="steps" if job.stop else "no",
        eval_steps=every,
        # What the bare base scores is known when going on.
        eval_on_start=bool(job.stop) and not resumed,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=bool(job.stop),
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        logging_steps=1,
        logging_nan_inf_filter=False,
        seed=job.seed,
        data_seed=job.seed,
        disable_tqdm=True,
        report_to="none",
    )


def laid_apart(model: Any) -> bool:
    """Whether the model's attention keeps rows apart that lie end to end."""
    return getattr(getattr(model, "config", None), "_attn_implementation", "") == "flash_attention_2"


def as_table(rows: Sequence[Tokens]) -> Any:
    """Rows with loss on their last `learned` tokens; -100 is what torch's loss leaves out."""
    from datasets import Dataset

    labels = [[-100] * (len(row.ids) - row.learned) + row.ids[-row.learned :] for row in rows]
    return Dataset.from_dict({"input_ids": [row.ids for row in rows], "labels": labels})


def padding(token: int) -> Any:
    """A tokenizer that only knows how to pad: TRL wants one, and the tokens are made already.

    The padding token is not the end of turn, which must be learned.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    known = Tokenizer(WordLevel({"<pad>": token}, unk_token="<pad>"))  # noqa: S106
    return PreTrainedTokenizerFast(tokenizer_object=known, pad_token="<pad>")  # noqa: S106


def save(model: Any, folder: Path, base_gguf: Path) -> None:
    """The adapter in PEFT's format, naming its base by file name: a path of this machine means nothing elsewhere."""
    for config in model.peft_config.values():
        config.base_model_name_or_path = base_gguf.name
    model.save_pretrained(str(folder))


def quiet() -> None:
    """No progress bars and advice of libraries: `on_progress` reports."""
    import datasets
    from transformers.utils import logging

    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    # PEFT looks beside the base for a config.json, which a GGUF needs none of.
    warnings.filterwarnings("ignore", message="Could not find a config file")


def peak_memory_mib() -> int:
    """The most memory this process has held, in MiB; the GPU's where there is one."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated() >> 20)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak >> 20 if sys.platform == "darwin" else peak >> 10
