"""The learning path, from journal to a better voice. Read `run_cycle` and you know the trainer.

Each stage writes a folder under `data/runs/<id>/` whose manifest comes last; a stage with a manifest is not done again,
so a run that was killed goes on where it was. Nothing is published before the fencing token is compared.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infra.adapters import CARD, GGUF, PAGE, AdapterStore
from infra.errors import ServiceTrouble, UserMistake
from infra.files import finish_folder, finished, fresh_folder, read_json, write_atomic, write_json
from infra.voice.weights import Weights
from memory.codec import encoded, exchange_from
from memory.index import Index
from memory.journal import Journal
from memory.messages import Exchange, Note
from memory.persona import PersonaCard
from memory.profile import persona_card
from memory.recall import Recall
from memory.vectors import EdgeStore
from trainer import budgets, dataset, elsewhere, evals, gate, identity, lora, oddness, preference, reasoning, swap
from trainer.frozen import KEPT, holds_forgotten, learned_forgotten
from trainer.harvest import harvest, kept_from, kept_to, permitted
from trainer.imitations import learned_from, members_of
from trainer.learning import Attempt, Given, learn, preferring, version_of
from trainer.planning import identity_of, limits_of, mixed_in, permissions_of, prepared_weights
from trainer.quarantine import Odd

CODE_VERSION = "0.1.0"


@dataclass(frozen=True)
class Work(Attempt):
    """An attempt where the journal is."""

    journal: Journal


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

    # 3 to 5 LoRA, GGUF, evals: here, or on another host that is sent what is frozen
    given = given_to(work, store, built, weights=weights, persona=persona)
    if settings.artifacts.url:
        elsewhere.fetch_learned(work, given)
    report = learn(work, given)

    # 6 gate: let it speak, or say in words why not
    work.tell("gate", 0, 0)
    card = evals.load_card(work.folder / "evals")
    verdict = gate.decide(card)

    # 7 publish: one rename, after the fencing token is compared
    work.tell("publish", 0, 0)
    version = version_of(work, built)
    described = manifest(work, built, report, weights=weights, verdict=verdict)
    published(work, store, version, report.peft, described=described)
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


def given_to(
    work: Work, store: AdapterStore, built: dataset.Dataset, *, weights: Weights, persona: PersonaCard
) -> Given:
    """What learning begins with, frozen."""
    learned = built
    if reasoning.wanted(work):
        learned = dataset.load(reasoning.cold_start(work, work.stage("worked"), built, persona))
    current, parent = store.current(), built.manifest.get("parent")
    return Given(
        built,
        learned,
        weights,
        persona,
        current=store.gguf(current) if current else None,
        parent=store.folder(parent) / "peft" if parent else None,
    )


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


def published(work: Work, store: AdapterStore, version: str, peft: Path | None, *, described: dict[str, Any]) -> None:
    """Make the version visible, once, while this attempt still holds the run."""
    if version in store.versions():
        return
    assert peft is not None
    try:
        fill(store.stage(version), peft, made=work.folder)
        work.runs.hold(work.run)
        store.publish(version, described)
    except UserMistake:
        # Two attempts were here at once, of which one was frozen and thawed: what the other made is the same.
        if version not in store.versions():
            raise
    finally:
        store.discard(version)
    # The evals have let it speak on these weights, in a process that does not serve; on another host proves nothing.
    if not work.run.artifact:
        store.remember_tried(version, described["base_sha256"])


def fill(staged: Path, peft: Path, *, made: Path) -> None:
    """Copy what makes a version out of the run's folder into its own. Raises ServiceTrouble."""
    try:
        shutil.copytree(peft, staged / "peft")
        shutil.copy2(made / "gguf" / GGUF, staged / GGUF)
        for name in (CARD, PAGE):
            shutil.copy2(made / "evals" / name, staged / name)
    except OSError as error:
        raise ServiceTrouble(f"Could not copy the adapter into {str(staged.parent)!r}: is the disk full?") from error


def refuse_forgotten(work: Work, store: AdapterStore, version: str) -> None:
    """Taint an adapter that learned what was forgotten while it was made. Raises ServiceTrouble: the run begins anew.

    After publishing, never before: whoever forgets changes the journal first and looks for adapters then, so that one
    of the two always sees the other.
    """
    if learned_forgotten(store, version, work.journal):
        store.taint(version, "it learned what was forgotten while it was made")
        raise ServiceTrouble("Something that it learned from was forgotten meanwhile; the next try begins without it.")
