"""The learning path, from journal to a better voice. Read `run_cycle` and you know the trainer.

Each stage writes a folder under `data/runs/<id>/` whose manifest comes last; a stage with a manifest is not done again,
so a run that was killed goes on where it was. Nothing is published before the fencing token is compared.
"""

import json
import shutil
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra.adapters import GGUF, AdapterStore, version_name
from infra.errors import ServiceTrouble, UnderstudyError
from infra.files import finish_folder, finished, fresh_folder, read_json, write_atomic, write_json
from infra.runs import Run, Runs
from infra.settings import Settings
from infra.voice.weights import Weights
from memory.codec import encoded, exchange_from
from memory.encode import Encoder, kept_encoder
from memory.index import Index
from memory.journal import Journal
from memory.messages import Exchange, Note
from memory.persona import PersonaCard
from memory.profile import persona_card
from memory.recall import Recall
from memory.vectors import EdgeStore
from trainer import (
    budgets,
    dataset,
    estimate,
    evals,
    gate,
    gguf,
    identity,
    judge,
    lora,
    oddness,
    parity,
    prefer,
    preference,
    ranks,
    reasoning,
    swap,
    tune,
)
from trainer.card import EvalCard
from trainer.frozen import KEPT, holds_forgotten, learned_forgotten
from trainer.harvest import harvest, kept_from, kept_to, permitted
from trainer.imitations import learned_from, members_of
from trainer.planning import identity_of, limits_of, mixed_in, permissions_of, prepared_weights
from trainer.quarantine import Odd

CODE_VERSION = "0.1.0"


class Cancelled(UnderstudyError):
    """The run was asked to stop; what is finished stays and can be taken up again."""


@dataclass(frozen=True)
class Work:
    """One attempt at a run: what it works with, and how it tells how far it is."""

    settings: Settings
    journal: Journal
    runs: Runs
    run: Run
    stopping: threading.Event

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
        self.runs.report(self.run, stage, progress={"done": done, "total": total, "text": text})


def run_cycle(work: Work) -> dict[str, Any]:
    """Harvest, dataset, LoRA, GGUF, evals, gate, publish, swap; returns the run's result.

    Raises Refused when there is too little to learn from, Cancelled when asked to stop, Superseded when another
    attempt has taken over, ServiceTrouble when something fails. Safe to call again after any of them.
    """
    settings = work.settings
    persona = persona_card(work.journal, settings.creator.name, settings.creator.about, settings.creator.language)
    store = AdapterStore(settings.data_folder / "adapters")
    weights = prepared_weights(settings)

    # 1 harvest: what may train, by provenance and consent
    exchanges, excluded = harvested(work, work.stage("harvest"))

    # 2 dataset: scrub, drop repeats, split by conversation and time, render as answering does
    make = opinions_built if preferring(work) else built_dataset
    built = make(work, work.stage("dataset"), exchanges, excluded=excluded, persona=persona)
    if work.run.options.get("dry_run"):
        return {"dataset": built.id, **built.manifest}

    # 3 LoRA: train against exactly the weights that are served; a preference trains the current voice further
    learned = built
    if reasoning.wanted(work):
        learned = dataset.load(reasoning.cold_start(work, work.stage("worked"), built, persona))
    learn = preferred if preferring(work) else trained
    report = learn(work, work.stage("lora"), learned, weights=weights)
    if reasoning.wanted(work):
        report = reasoning.reasoned(
            work, work.stage("grpo"), report, frozen=learned.folder, built=built, weights=weights, persona=persona
        )

    # 4 GGUF: write it for llama.cpp, and prove that both read the same adapter
    version = version_of(work, built)
    adapter = converted(work, work.stage("gguf"), report, weights=weights, built=built, version=version)

    # 5 evals: on held-out exchanges, against base + memory and against the current voice
    current = store.gguf(current_version) if (current_version := store.current()) else None
    card = evaluated(
        work, work.stage("evals"), built, weights=weights, adapter=adapter, current=current, persona=persona
    )

    # 6 gate: let it speak, or say in words why not
    work.tell("gate", 0, 0)
    verdict = gate.decide(card)

    # 7 publish: one rename, after the fencing token is compared
    work.tell("publish", 0, 0)
    described = manifest(work, built, report, weights=weights, verdict=verdict)
    published(work, store, version, report.peft, adapter=adapter, described=described)
    refuse_forgotten(work, store, version)
    result = {
        "dataset": built.id,
        "adapter": version,
        "verdict": asdict(verdict),
        "card": card.headline(),
        "training": budgets.outcome(report),
    }
    if tuned := finished(work.folder / "tune"):
        result["trials"] = tuned["trials"]
    if not verdict.passed:
        return {**result, "refused": True}

    # 8 swap: the running twin speaks with it, or the next start does
    work.tell("swap", 0, 0)
    work.runs.hold(work.run)
    return {**result, "swap": swap.promote(settings, store, version)}


def harvested(work: Work, folder: Path) -> tuple[list[Exchange], dict[str, int]]:
    """Exchanges that may train, frozen at the run's first attempt, and anew if some were forgotten since."""
    if holds_forgotten(work.folder, work.journal):
        fresh_folder(work.folder)
    if finished(folder) is None:
        forgotten = work.journal.last_forgotten()
        odd = measured(work)
        found = harvest(work.journal, permissions=permissions_of(work.settings), odd=odd)
        fresh_folder(folder)
        write_json(folder / KEPT, {identity: kept_to(each) for identity, each in found.kept.items()})
        lines = (json.dumps(encoded(exchange), ensure_ascii=False) + "\n" for exchange in found.exchanges)
        write_atomic(folder / "exchanges.jsonl", "".join(lines))
        finish_folder(folder, {"seen": found.seen, "excluded": found.excluded, "forgotten": forgotten})
    done = finished(folder)
    assert done is not None
    with (folder / "exchanges.jsonl").open(encoding="utf-8") as file:
        return [exchange_from(json.loads(line)) for line in file], done["excluded"]


def measured(work: Work) -> Odd:
    """How odd each exchange is that may train; what was measured before is not measured again."""
    found, _, _ = permitted(
        work.journal.exchanges(), consent=work.journal.consent, permissions=permissions_of(work.settings)
    )
    return oddness.measure(
        found,
        work.settings.data_folder,
        journal=work.journal,
        encoder=work.encoder,
        weights=lambda: prepared_weights(work.settings),
        tell=work.tell,
    )


def built_dataset(
    work: Work, folder: Path, exchanges: Sequence[Exchange], *, excluded: dict[str, int], persona: PersonaCard
) -> dataset.Dataset:
    """The frozen dataset; its notes come from an index of its own, so that what is held out can be left out of it."""
    if finished(folder) is not None:
        return dataset.load(folder)
    settings = work.settings
    harvested = work.folder / "harvest" / KEPT
    known = {each: kept_from(value) for each, value in read_json(harvested).items()} if harvested.is_file() else {}
    said = identity_of(settings, work.journal, exchanges)
    index = Index(work.journal, EdgeStore(fresh_folder(work.folder / "index")), work.encoder())
    recall = Recall(work.journal, index)

    def recall_for(question: str, hidden: frozenset[str]) -> Sequence[Note]:
        return recall.recall(question, limit=settings.recall.limit, excluded=hidden).notes

    try:
        return dataset.build(
            exchanges,
            persona=persona,
            folder=fresh_folder(folder),
            recall_for=recall_for,
            seed=settings.training.seed,
            max_tokens=settings.models.max_length,
            excluded=excluded,
            kept=known,
            identity=lambda train: identity.rows(said, persona, train=train),
            mixed=mixed_in(settings, work.journal),
            **limits_of(settings),
        )
    finally:
        index.close()
        shutil.rmtree(work.folder / "index")


def preferring(work: Work) -> bool:
    """Whether the run is about what people made of the twin's own words."""
    return work.run.options.get("stage") == preference.STAGE


def opinions_built(
    work: Work, folder: Path, exchanges: Sequence[Exchange], *, excluded: dict[str, int], persona: PersonaCard
) -> dataset.Dataset:
    """The frozen opinions, beside the rows of the voice that they are learned on."""
    if finished(folder) is not None:
        return dataset.load(folder)
    settings = work.settings
    store = AdapterStore(settings.data_folder / "adapters")
    return preference.build(
        fresh_folder(folder),
        preference.gather(work.journal, exchanges, settings=settings, store=store),
        parent=preference.parent_of(
            store, settings.data_folder / "runs", base_sha256=prepared_weights(settings).sha256
        ),
        rows=[each.id for each in exchanges],
        persona=persona,
        settings=settings,
    )


def preferred(work: Work, folder: Path, built: dataset.Dataset, *, weights: Weights) -> lora.TrainReport:
    """The current voice's adapter, trained further on opinions; goes on from its last checkpoint."""
    settings, method = work.settings, built.manifest["method"]
    report = prefer.train(
        built.folder,
        folder,
        base_gguf=weights.path,
        trainable=settings.models.trainable,
        warm=settings.data_folder / "adapters" / built.manifest["parent"] / "peft",
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


def tell_training(work: Work, progress: lora.Progress, *, said: str = "") -> None:
    """Report how far a training is; `said` is what was said of it before it began."""
    text = f"loss {progress.loss:.2f}, {budgets.speed(progress)}"
    done = {"done": progress.step, "total": progress.steps, "text": text}
    work.runs.report(work.run, "lora", progress={**done, "training": said} if said else done)


def trained(work: Work, folder: Path, built: dataset.Dataset, *, weights: Weights) -> lora.TrainReport:
    """The trained adapter; goes on from its last checkpoint. Raises Cancelled when asked to stop."""
    models, training = work.settings.models, work.settings.training
    budget = budgets.budget_of(work.settings, built, estimate.shape_of(weights.path))
    if count := int(work.run.options.get("tune") or 0):
        budget = searched(work, folder.with_name("tune"), built, budget, weights=weights, count=count)
    said = ""

    def tell_start(sentence: str) -> None:
        nonlocal said
        said = sentence
        work.runs.report(work.run, "lora", progress={"done": 0, "total": 0, "text": sentence, "training": said})

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
    work: Work, folder: Path, built: dataset.Dataset, budget: lora.TrainingBudget, *, weights: Weights, count: int
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


def version_of(work: Work, built: dataset.Dataset) -> str:
    """The version that this run publishes, the same in every attempt: it carries the run's own hour."""
    created = datetime.strptime(work.run.created, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    return version_name(created, built.id)


def converted(
    work: Work, folder: Path, report: lora.TrainReport, *, weights: Weights, built: dataset.Dataset, version: str
) -> Path:
    """The adapter as GGUF, after the probe that both runtimes agree on it."""
    path = folder / GGUF
    if finished(folder) is not None:
        return path
    fresh_folder(folder)
    assert report.peft is not None
    metadata = {
        "twin.base_sha256": weights.sha256,
        "twin.adapter_version": version,
        "twin.dataset_sha256": built.id,
    }
    gguf.write_adapter(report.peft, weights.path, path, metadata=metadata)
    found = parity.probe(weights.path, report.peft, path)
    finish_folder(folder, {"parity": asdict(found)})
    return path


def evaluated(
    work: Work,
    folder: Path,
    built: dataset.Dataset,
    *,
    weights: Weights,
    adapter: Path,
    current: Path | None,
    persona: PersonaCard,
) -> EvalCard:
    """The eval card of the new adapter."""
    if finished(folder) is not None:
        return evals.load_card(folder)
    card = evals.evaluate(
        built,
        weights=weights,
        adapter=adapter,
        current=current,
        persona=persona,
        encoder=work.encoder(),
        folder=fresh_folder(folder),
        seed=work.settings.training.seed,
        bench=judge.bench_of(work.settings),
        on_progress=lambda done, total, text: work.tell("evals", done, total, text),
    )
    finish_folder(folder, {"heldout": card.heldout})
    return card


def manifest(
    work: Work, built: dataset.Dataset, report: lora.TrainReport, *, weights: Weights, verdict: gate.Verdict
) -> dict[str, Any]:
    """What an adapter's folder says of itself."""
    learned = [row.provenance for row in built.rows("train")]
    examples = set().union(*(learned_from(each) | set(each.get("context", ())) for each in learned))
    harvested = finished(work.folder / "harvest")
    assert harvested is not None
    return {
        "base": work.settings.models.base,
        "base_sha256": weights.sha256,
        "dataset": built.id,
        # A preference has also learned all that its parent has, since when that was harvested.
        "examples": sorted(examples | set(built.manifest.get("learned", ()))),
        "synthetic": sum(dataset.is_synthetic(each) for each in learned),
        "questions": [
            *built.manifest.get("questions", ()),
            *(dict(asked) for each in learned for asked in members_of(each)),
        ],
        "forgotten": built.manifest.get("forgotten", harvested["forgotten"]),
        "hyperparameters": report.hyperparameters,
        "precision": report.precision,
        "code_version": CODE_VERSION,
        "seed": work.settings.training.seed,
        "wall_s": report.wall_s,
        "peak_memory_mib": report.peak_memory_mib,
        "trainer": report.means,
        "expected": report.expected,
        "run": work.run.id,
        "verdict": asdict(verdict),
    }


def published(
    work: Work, store: AdapterStore, version: str, peft: Path | None, *, adapter: Path, described: dict[str, Any]
) -> None:
    """Make the version visible, once, while this attempt still holds the run."""
    if version in store.versions():
        return
    staged = store.stage(version)
    assert peft is not None
    shutil.copytree(peft, staged / "peft")
    shutil.copy2(adapter, staged / GGUF)
    for name in ("evalcard.json", "evalcard.html"):
        shutil.copy2(work.folder / "evals" / name, staged / name)
    work.runs.hold(work.run)
    store.publish(version, described)
    # The evals have let it speak on these weights, in this process, which is not the one that serves.
    store.remember_tried(version, described["base_sha256"])


def refuse_forgotten(work: Work, store: AdapterStore, version: str) -> None:
    """Taint an adapter that learned what was forgotten while it was made. Raises ServiceTrouble: the run begins anew.

    After publishing, never before: whoever forgets changes the journal first and looks for adapters then, so that one
    of the two always sees the other.
    """
    if learned_forgotten(store, version, work.journal):
        store.taint(version, "it learned what was forgotten while it was made")
        raise ServiceTrouble("Something that it learned from was forgotten meanwhile; the next try begins without it.")
