"""What a training computes: LoRA, GGUF and evals, from what is frozen. Needs neither journal nor adapter store.

So it can be done on another host (`elsewhere.py`); what comes before and after is `cycle.py`.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra.adapters import GGUF, version_name
from infra.errors import ServiceTrouble, UnderstudyError
from infra.files import finish_folder, finished, fresh_folder
from infra.logs import tell
from infra.runs import Run, Runs, Superseded
from infra.settings import Settings
from infra.traces import passed
from infra.voice.weights import Weights
from memory.encode import Encoder, kept_encoder
from memory.persona import PersonaCard
from trainer import (
    budgets,
    dataset,
    estimate,
    evals,
    gguf,
    judge,
    lora,
    parity,
    prefer,
    preference,
    ranks,
    reasoning,
    tune,
)

log = logging.getLogger(__name__)


class Cancelled(UnderstudyError):
    """The run was asked to stop; what is finished stays and can be taken up again."""


@dataclass(frozen=True)
class Attempt:
    """One attempt at a run: what it works with, and how it tells how far it is."""

    settings: Settings
    runs: Runs
    run: Run
    stopping: threading.Event
    stages: "Stages" = field(default_factory=lambda: Stages(), kw_only=True)

    @property
    def folder(self) -> Path:
        return self.settings.data_folder / "runs" / self.run.id

    def encoder(self) -> Encoder:
        """The installation's embedder."""
        return kept_encoder(self.settings.models.embedder, self.settings.data_folder / "models")

    def stage(self, name: str) -> Path:
        """The folder of a stage. Tells the table, and stops here when asked to. Raises Cancelled, Superseded."""
        self.tell(name, 0, 0)
        return self.folder / name

    def tell(self, stage: str, done: int, total: int, text: str = "") -> None:
        """Report progress; stop here when asked to."""
        if self.stopping.is_set():
            raise Cancelled(f"Run {self.run.id!r} was asked to stop.")
        self.report(stage, {"done": done, "total": total, "text": text})

    def report(self, stage: str, progress: Mapping[str, Any]) -> None:
        """Note how far the run is. A table that cannot be reached stops no work: the token is compared once more later.

        Raises Superseded.
        """
        if stage != self.stages.name:
            self.end_stage()
            self.stages.begin(stage)
        try:
            self.runs.report(self.run, stage, progress=progress)
        except Superseded:
            raise
        except ServiceTrouble as trouble:
            log.warning("%s The run goes on.", trouble)

    def end_stage(self) -> None:
        """Write down what the stage that is worked on took, unless the table cannot be had or the run is not ours."""
        if took := self.stages.end():
            with contextlib.suppress(ServiceTrouble):
                self.runs.took(self.run, *took)


@dataclass
class Stages:
    """The stage that is worked on, in the log and as a span when it ends."""

    name: str = ""
    began: float = 0.0

    def begin(self, name: str) -> None:
        self.name, self.began = name, time.perf_counter()

    def end(self) -> tuple[str, float] | None:
        """The stage that ends and its seconds, where there is one."""
        if not self.name:
            return None
        ended, self.name, seconds = self.name, "", time.perf_counter() - self.began
        tell(log, "a stage ended", stage=ended, seconds=round(seconds, 3))
        passed(ended, seconds)
        return ended, seconds


@dataclass(frozen=True)
class Given:
    """What learning begins with. `learned` is `built`, or that with worked cases among its rows.

    Of the current voice it takes the file to compare with and, for a preference, the PEFT folder to go on from.
    """

    built: dataset.Dataset
    learned: dataset.Dataset
    weights: Weights
    persona: PersonaCard
    current: Path | None
    parent: Path | None


def learn(work: Attempt, given: Given) -> lora.TrainReport:
    """LoRA, GGUF and evals, each in its folder unless it is done already. Raises as `run_cycle`."""
    # LoRA: train against exactly the weights that are served; a preference trains the current voice further
    train = preferred if preferring(work) else trained
    report = train(work, work.stage("lora"), given)
    if reasoning.wanted(work):
        report = reasoning.reasoned(work, work.stage("grpo"), report, given)

    # GGUF: write it for llama.cpp, and prove that both read the same adapter
    adapter = converted(work, work.stage("gguf"), report, given)

    # evals: on held-out exchanges, against base + memory and against the current voice
    evaluated(work, work.stage("evals"), given, adapter=adapter)
    return report


def preferring(work: Attempt) -> bool:
    """Whether the run is about what people made of the twin's own words."""
    return work.run.options.get("stage") == preference.STAGE


def preferred(work: Attempt, folder: Path, given: Given) -> lora.TrainReport:
    """The current voice's adapter, trained further on opinions; goes on from its last checkpoint."""
    settings, method = work.settings, given.built.manifest["method"]
    assert given.parent is not None
    report = prefer.train(
        given.built.folder,
        folder,
        base_gguf=given.weights.path,
        trainable=settings.models.trainable,
        warm=given.parent,
        method=method,
        budget=replace(
            prefer.BUDGET,
            lr=settings.models.learning_rate * prefer.SHARE_OF_RATE,
            max_length=settings.models.max_length,
            max_seconds=settings.training.max_minutes * 60,
            four_bit=settings.models.four_bit,
            checkpointing=settings.models.checkpointing,
        ),
        seed=settings.training.seed,
        on_progress=lambda progress: tell_training(work, progress),
        should_stop=work.stopping.is_set,
    )
    if report.peft is None:
        raise Cancelled(f"Run {work.run.id!r} was asked to stop.")
    return report


def tell_training(work: Attempt, progress: lora.Progress, *, said: str = "") -> None:
    """Report how far a training is; `said` is what was said of it before it began."""
    text = f"loss {progress.loss:.2f}, {budgets.speed(progress)}"
    done = {"done": progress.step, "total": progress.steps, "text": text}
    work.report("lora", {**done, "training": said} if said else done)


def trained(work: Attempt, folder: Path, given: Given) -> lora.TrainReport:
    """The trained adapter; goes on from its last checkpoint. Raises Cancelled when asked to stop."""
    if (done := finished(folder)) is not None:
        return lora.report_from(done["report"], folder)  # before anything that loads torch
    models, training = work.settings.models, work.settings.training
    built, weights = given.learned, given.weights
    budget = budgets.budget_of(work.settings, built, estimate.shape_of(weights.path))
    if count := int(work.run.options.get("tune") or 0):
        budget = searched(work, folder.with_name("tune"), built, budget, weights=weights, count=count)
    said = ""

    def tell_start(sentence: str) -> None:
        nonlocal said
        said = sentence
        work.report("lora", {"done": 0, "total": 0, "text": sentence, "training": said})

    report = ranks.train(
        built.folder,
        folder,
        base_gguf=weights.path,
        trainable=models.trainable,
        budget=budget,
        seed=training.seed,
        on_progress=lambda progress: tell_training(work, progress, said=said),
        should_stop=work.stopping.is_set,
        on_start=tell_start,
        log=work.settings.data_folder / "logs" / "ranks.log",
    )
    if report.peft is None:
        raise Cancelled(f"Run {work.run.id!r} was asked to stop.")
    budgets.keep_rate(work.settings, budget, report)
    return report


def searched(
    work: Attempt, folder: Path, built: dataset.Dataset, budget: lora.TrainingBudget, *, weights: Weights, count: int
) -> lora.TrainingBudget:
    """The best of `count` candidates; goes on from the trials that are finished. Raises Cancelled."""
    work.stage("tune")

    def train(trial: Path, small: lora.TrainingBudget) -> lora.TrainReport:
        report = ranks.train(
            built.folder,
            trial,
            base_gguf=weights.path,
            trainable=work.settings.models.trainable,
            budget=small,
            seed=work.settings.training.seed,
            should_stop=work.stopping.is_set,
            log=work.settings.data_folder / "logs" / "ranks.log",
        )
        if report.peft is None:
            raise Cancelled(f"Run {work.run.id!r} was asked to stop.")
        return report

    best, _ = tune.search(
        folder,
        budget,
        count,
        seed=work.settings.training.seed,
        train=train,
        tell=lambda done, total, text: work.tell("tune", done, total, text),
    )
    return best


def version_of(work: Attempt, built: dataset.Dataset) -> str:
    """The version that this run publishes, the same in every attempt: it carries the run's own hour."""
    created = datetime.strptime(work.run.created, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    return version_name(created, built.id)


def converted(work: Attempt, folder: Path, report: lora.TrainReport, given: Given) -> Path:
    """The adapter as GGUF, after the probe that both runtimes agree on it."""
    path = folder / GGUF
    if finished(folder) is not None:
        return path
    fresh_folder(folder)
    assert report.peft is not None
    metadata = {
        "twin.base_sha256": given.weights.sha256,
        "twin.adapter_version": version_of(work, given.built),
        "twin.dataset_sha256": given.built.id,
    }
    gguf.write_adapter(report.peft, given.weights.path, path, metadata=metadata)
    found = parity.probe(given.weights.path, report.peft, path)
    finish_folder(folder, {"parity": asdict(found)})
    return path


def evaluated(work: Attempt, folder: Path, given: Given, *, adapter: Path) -> None:
    """The eval card of the new adapter, in `folder`."""
    if finished(folder) is not None:
        return
    card = evals.evaluate(
        given.built,
        weights=given.weights,
        adapter=adapter,
        current=given.current,
        persona=given.persona,
        encoder=work.encoder(),
        folder=fresh_folder(folder),
        seed=work.settings.training.seed,
        bench=judge.bench_of(work.settings),
        on_progress=lambda done, total, text: work.tell("evals", done, total, text),
    )
    finish_folder(folder, {"heldout": card.heldout})
