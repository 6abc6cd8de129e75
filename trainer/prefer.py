"""DPO and KTO: pairs and labels move the current voice's adapter, held near itself. Beside `lora.py` an owner of TRL.

The adapter of supervised tuning is trained further, and is the reference that TRL measures rewards against; its
likelihoods are computed once, before the first step, and then it leaves the memory. Tokens come from the served GGUF as
in `lora.py`, whose checkpoints, watch and limits these trainings share. What is held out decides which checkpoint is
kept, and is reported; it cannot say whether members like the voice better.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from infra.errors import Refused
from infra.files import finish_folder, finished
from infra.voice.llama import Model
from trainer import estimate, lora
from trainer.dataset import load
from trainer.preference import Method, Row, labels_of_rows, rows_of

# Rafailov et al. 2023 (arXiv 2305.18290).
BETA = 0.1
# A share of likelihood of the chosen text beside DPO's loss (Pang et al. 2024, arXiv 2404.19733): DPO alone lowers that
# of both texts, and what the creator wrote must not become less likely.
SFT = 1.0
BUDGET = lora.TrainingBudget(epochs=2, lr=5e-5, batch=2, accumulate=4)
# Of the rate that the voice was tuned at. On the packaged base, at 1e-3, this gains on held-out answers, and TRL's 5e-6
# for LoRA moves nothing (docs/training.md).
SHARE_OF_RATE = 1 / 20
# What of TRL's settings for supervised tuning holds here too.
SHARED = (
    "output_dir",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "per_device_eval_batch_size",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "optim",
    "train_sampling_strategy",
    "max_length",
    "bf16",
    "use_cpu",
    "dataloader_pin_memory",
    "gradient_checkpointing",
    "eval_strategy",
    "eval_steps",
    "eval_on_start",
    "save_strategy",
    "save_steps",
    "save_total_limit",
    "load_best_model_at_end",
    "metric_for_best_model",
    "greater_is_better",
    "logging_steps",
    "logging_nan_inf_filter",
    "seed",
    "data_seed",
    "disable_tqdm",
    "report_to",
)


@dataclass(frozen=True)
class Choice:
    """A row as the model reads it: a prompt, and a text that is to become likelier, less likely, or one of either."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]

    @property
    def length(self) -> int:
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))


@dataclass(frozen=True)
class Plan:
    """A training, decided before its first step; `job` is what the watch of supervised tuning knows of it."""

    method: Method
    train: list[Choice]
    judge: list[Choice]
    job: lora.Job
    beta: float
    sft: float
    weights: tuple[float, float]


def train(
    dataset_folder: Path,
    out: Path,
    *,
    base_gguf: Path,
    trainable: str = "",
    warm: Path,
    method: Method,
    budget: lora.TrainingBudget = BUDGET,
    beta: float = BETA,
    sft: float = SFT,
    seed: int,
    on_progress: Callable[[lora.Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> lora.TrainReport:
    """Train the adapter in `warm` on a finished dataset of opinions into `out`/peft, or go on with a killed attempt.

    The report's `validation` is the loss on what is held out; its hyperparameters say how often the chosen text won
    there, and by how much, before and after. Raises as `lora.train`.
    """
    done = finished(out)
    if done is not None:
        return lora.report_from(done["report"], out)
    out.mkdir(parents=True, exist_ok=True)
    plan = planned(
        dataset_folder, base_gguf, trainable, warm=warm, method=method, budget=budget, beta=beta, sft=sft, seed=seed
    )
    estimate.refuse_what_cannot_fit(lora.foreseen(plan.job, base_gguf, trainable))
    checkpoint = lora.last_whole(out / "checkpoints", plan.job.fingerprint)
    with lora.troubles(out):
        report = run(
            plan, out, base_gguf, trainable, warm=warm, checkpoint=checkpoint, watching=(on_progress, should_stop)
        )
    if report.peft is not None:
        shutil.rmtree(out / "checkpoints")
        finish_folder(out, {"kind": "preference", "report": {**asdict(report), "peft": report.peft.name}})
    return report


def planned(
    dataset_folder: Path,
    base_gguf: Path,
    trainable: str,
    *,
    warm: Path,
    method: Method,
    budget: lora.TrainingBudget,
    beta: float,
    sft: float,
    seed: int,
) -> Plan:
    """Tokenise the opinions and fix their order. Raises Refused when none is short enough."""
    built, rows = load(dataset_folder), rows_of(dataset_folder)
    model = Model(base_gguf)
    try:
        parts = {use: choices_of(model, [row for row in rows if row.use == use], method) for use in ("train", "judge")}
        pad = 0 if model.end_of_turn != 0 else 1
    finally:
        model.free()
    fit = [each for each in parts["train"] if each.length <= budget.max_length]
    judge = [each for each in parts["judge"] if each.length <= budget.max_length]
    if len(fit) < budget.batch:
        raise Refused(f"{len(fit)} opinions are at most {budget.max_length} tokens long; raise training.max_length.")
    order = lora.order([each.length for each in fit], budget=budget, seed=seed)
    # KTO compares the texts of a batch with each other: a batch of one has nothing to compare with.
    order = order[: len(order) - len(order) % budget.batch]
    tokens = [lora.Tokens([*e.prompt, *e.chosen, *([*e.prompt, *e.rejected] if e.rejected else [])], 1) for e in fit]
    facts = [built.id, warm.parent.name, base_gguf.name, trainable, asdict(budget), method, beta, sft, seed]
    job = lora.Job(
        rows=tokens,
        stop=[lora.Tokens(each.prompt, 1) for each in judge],
        order=order,
        left_out=len(rows) - len(fit) - len(judge),
        pad=pad,
        seed=seed,
        budget=budget,
        fingerprint=hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16],
    )
    return Plan(method, fit, judge, job, beta, sft, weights_for(*labels_of_rows(rows)))


def choices_of(model: Model, rows: Sequence[Row], method: Method) -> list[Choice]:
    """Rows as ids, with the end of turn after each text; for KTO a pair is one of either."""
    found = [
        Choice(model.turn_tokens(row.prompt), ended(model, row.chosen), ended(model, row.rejected)) for row in rows
    ]
    if method == "dpo":
        return [each for each in found if each.chosen and each.rejected]
    singles = ((replace(each, rejected=[]), replace(each, chosen=[])) for each in found)
    return [single for pair in singles for single in pair if single.chosen or single.rejected]


def ended(model: Model, text: str) -> list[int]:
    return [*model.tokens(text, special="plain"), model.end_of_turn] if text else []


def weights_for(good: int, bad: int) -> tuple[float, float]:
    """KTO's weights of either kind, so that together they weigh the same (equation 8 of its paper allows 1 to 4/3)."""
    return (bad / good, 1.0) if good < bad else (1.0, good / bad) if bad else (1.0, 1.0)


def run(
    plan: Plan,
    out: Path,
    base_gguf: Path,
    trainable: str,
    *,
    warm: Path,
    checkpoint: Path | None,
    watching: tuple[Callable[[lora.Progress], None], Callable[[], bool]],
) -> lora.TrainReport:
    """Load, train and save. The model is gone when this returns."""
    before = finished(checkpoint) if checkpoint else None
    watch = lora.Watch(plan.job, *watching, spent_s=before["seconds"] if before else 0.0)
    watch.validation += [tuple(look) for look in before["validation"]] if before else []
    model, _, precision = lora.make_model(base_gguf, trainable, replace(plan.job, start=warm))
    trainer = make_trainer(model, plan, out, watch=watch, precision=precision)
    first = trainer.evaluate() if plan.judge and checkpoint is None else {}
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    steps = int(trainer.state.global_step)
    stopped = "no longer improving" if watch.stopped == "finished" and steps < plan.job.steps else watch.stopped
    peft = None if stopped == "asked" else out / "peft"
    looks = list(watch.validation)
    last = trainer.evaluate() if plan.judge and peft else {}
    if peft is not None:
        lora.save(trainer.model, peft, base_gguf)
    return lora.TrainReport(
        peft=peft,
        stopped=stopped,
        rows=len(plan.train),
        left_out=plan.job.left_out,
        steps=steps,
        best_step=int(trainer.state.best_global_step or steps),
        tokens=lora.tokens_in(plan.job, steps),
        validation=looks,
        resumed_from=int(checkpoint.name.split("-")[1]) if checkpoint else 0,
        precision=precision,
        wall_s=round(watch.seconds(), 1),
        peak_memory_mib=lora.peak_memory_mib(),
        hyperparameters=described(plan, first, last),
    )


def described(plan: Plan, first: dict[str, float], last: dict[str, float]) -> dict[str, Any]:
    """What a manifest says of a preference: how it was learned, and what came of it on what was held out."""
    names = {"accuracy": "eval_rewards/accuracies", "margin": "eval_rewards/margins"}
    names |= {"chosen": "eval_rewards/chosen", "rejected": "eval_rewards/rejected"}
    found = {name: round(last[key], 4) for name, key in names.items() if key in last}
    return {
        **asdict(plan.job.budget),
        "seed": plan.job.seed,
        "method": plan.method,
        "beta": plan.beta,
        "sft": plan.sft if plan.method == "dpo" else 0.0,
        "held_out": {"rows": len(plan.judge), "loss_before": first.get("eval_loss"), **found},
    }


def make_trainer(model: Any, plan: Plan, out: Path, *, watch: lora.Watch, precision: str) -> Any:
    """TRL's trainer over rows that are tokens already."""
    from transformers import EarlyStoppingCallback, TrainerCallback
    from transformers.trainer_callback import PrinterCallback
    from trl import DPOTrainer, KTOTrainer

    seen = {name: staticmethod(getattr(watch, name)) for name in ("on_step_end", "on_log", "on_evaluate", "on_save")}
    callback = type("Watching", (TrainerCallback,), seen)()
    kind: Any = DPOTrainer if plan.method == "dpo" else KTOTrainer
    # It would make tokens of texts, with a tokenizer that is not the served one.
    prepared = {"_prepare_dataset": lambda self, dataset, *rest: dataset}
    trainer = type(f"Prepared{kind.__name__}", (kind,), prepared)(
        model,
        args=arguments(plan, out, precision=precision, resumed=watch.spent_s > 0),
        train_dataset=as_table([plan.train[row] for row in plan.job.order], plan),
        eval_dataset=as_table(plan.judge, plan) if plan.judge else None,
        processing_class=lora.padding(plan.job.pad),
        callbacks=[callback, *([EarlyStoppingCallback(lora.PATIENCE)] if plan.judge else [])],
    )
    trainer.remove_callback(PrinterCallback)
    compare_with_start(trainer, plan.job.budget.batch)
    # Its likelihoods are known, and a checkpoint would hold it once more.
    model.delete_adapter("ref")
    return trainer


def compare_with_start(trainer: Any, batch: int) -> None:
    """Let the head be computed for the texts alone, and the reference's likelihoods be known before the first step.

    TRL has both, and offers the first only where liger is installed, of which it uses nothing here: a third of the time
    and of the memory where prompts are twice as long as texts.
    """
    trainer.use_liger_kernel = True
    for name in ("train", "eval"):
        if (rows := getattr(trainer, f"{name}_dataset")) is not None:
            setattr(trainer, f"{name}_dataset", trainer._precompute_ref_logps(rows, name, batch))
    trainer.precompute_ref_logps = True


def arguments(plan: Plan, out: Path, *, precision: str, resumed: bool) -> Any:
    """TRL's settings: those of supervised tuning, with what is a preference's own."""
    from trl import DPOConfig, KTOConfig

    tuning = lora.arguments(plan.job, out, precision=precision, resumed=resumed)
    shared = {name: getattr(tuning, name) for name in SHARED}
    shared |= {"beta": plan.beta, "eval_on_start": False}
    if plan.method == "kto":
        good, bad = plan.weights
        return KTOConfig(**shared, desirable_weight=good, undesirable_weight=bad)
    loss = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, plan.sft]} if plan.sft else {}
    return DPOConfig(**shared, **loss)


def as_table(rows: Sequence[Choice], plan: Plan) -> Any:
    """Rows in the columns that TRL's collators read."""
    from datasets import Dataset

    if plan.method == "dpo":
        pairs = {"prompt_ids": [e.prompt for e in rows], "chosen_ids": [e.chosen for e in rows]}
        return Dataset.from_dict({**pairs, "rejected_ids": [e.rejected for e in rows]})
    texts = [each.chosen or each.rejected for each in rows]
    size = plan.job.budget.batch
    # KTO's term for how far the voice has moved: in each batch every prompt with another's text.
    batches = (texts[start : start + size] for start in range(0, len(texts), size))
    turned = [text for batch in batches for text in (batch[-1:] + batch[:-1])]
    return Dataset.from_dict(
        {
            "prompt_ids": [each.prompt for each in rows],
            "completion_ids": texts,
            "KL_completion_ids": turned,
            "label": [bool(each.chosen) for each in rows],
        }
    )
