"""Does a teacher help? Adapters of real rows, of imitations, and of both, with the same tokens, judged the same.

`understudy bench distil FILE` reads real exchanges, has the packaged model imitate their author, trains three adapters
and measures them and the base on the same held-out exchanges. It says what this teacher is worth, which is a small one;
a strong teacher is measured by naming its server. Everything stays in one folder, and what is there is not done again.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra.errors import UserMistake
from infra.files import finish_folder, finished, fresh_folder, write_atomic
from infra.voice.client import HttpVoice, LocalVoice
from infra.voice.engine import Engine
from infra.voice.score import Scorer
from infra.voice.weights import Weights
from memory.encode import Encoder
from memory.graph_store import GraphStore
from memory.index import Index
from memory.journal import Journal
from memory.messages import Exchange, Person, Place, Source, pair_id
from memory.persona import PersonaCard
from memory.provenance import Permissions
from memory.recall import Recall
from memory.remember import exchange_event, remember
from memory.vectors import EdgeStore
from trainer import dataset, distil, evals, gguf, imitations, lora, metrics
from trainer.ability import probe
from trainer.card import Interval, System
from trainer.dataset import Dataset, is_synthetic
from trainer.questions import mixed, of_graph, paraphrases
from trainer.style import learn
from trainer.teacher import Budget

CREATOR = Person("own", "creator", "the creator", role="creator")
CARD = PersonaCard("the creator")
ARMS = ("direct", "distilled", "mixed")
SHOWN = ("nll", "rouge_l", "similarity", "style", "groundedness", "verbatim", "unhealthy")
# Of the exchanges set aside so many judge.
HELDOUT, SEED = 48, 20
STREAMS, CONTEXT = 8, 2048

Say = Callable[[str], None]


def comparing(
    file: Path,
    folder: Path,
    *,
    weights: Weights,
    encoder: Encoder,
    newest: int,
    rows: int,
    tokens: int,
    url: str = "",
    model: str = "",
    say: Say,
) -> list[dict[str, Any]]:
    """The figures of base, direct, distilled and mixed. Raises UserMistake for a file without enough exchanges."""
    exchanges = read(file, newest)
    plan = dataset.plan(exchanges, heldout=HELDOUT)
    journal = Journal.open(f"sqlite:///{folder / 'journal.db'}")
    remember(journal, [exchange_event(each) for each in exchanges], creator=frozenset({CREATOR.key}))
    try:
        made = imitated(plan, journal, folder, weights, rows=rows, url=url, model=model, say=say)
        say(f"{made['kept']} of {made['rows']} imitations were kept: {made['excluded']}")
        built = {name: built_for(name, exchanges, journal, folder, encoder) for name in ARMS}
    finally:
        journal.close()
    adapters = {name: trained(built[name], folder / name, weights, tokens=tokens, say=say) for name in ARMS}
    paths: dict[str, Path | None] = {"base": None, **{name: path for name, (path, _) in adapters.items()}}
    systems = judged(built["direct"], paths, weights=weights, encoder=encoder, say=say)
    return [figures(systems["base"], None, 0)] + [
        figures(systems[name], systems["base"] if name == "direct" else systems["direct"], adapters[name][1])
        | {"rows": built[name].manifest["train"], "synthetic": built[name].manifest["synthetic"]}
        for name in ARMS
    ]


def read(file: Path, newest: int) -> list[Exchange]:
    """The newest exchanges, since talk changes, of a jsonl file: `question`, `answer`, `time` (ISO or seconds)."""
    found = [exchange_of(row) for row in evals.question_rows(file) if row.get("answer")]
    if len(found) < 100:
        raise UserMistake(f"{str(file)!r} holds {len(found)} exchanges; a comparison needs 100 at the least.")
    return sorted(found, key=dataset.by_time)[-newest:]


def exchange_of(row: dict[str, object]) -> Exchange:
    question, answer, time = str(row["question"]), str(row["answer"]), row.get("time", 0)
    at = datetime.fromtimestamp(time, UTC) if isinstance(time, int | float) else datetime.fromisoformat(str(time))
    place = Place("own", str(row.get("channel", "archive")))
    identity = pair_id(question, answer, at)
    return Exchange(identity, question, answer, CREATOR, place, at, Source.CREATOR_QA, Source.CREATOR_QA)


def imitated(
    plan: dataset.Plan,
    journal: Journal,
    folder: Path,
    weights: Weights,
    *,
    rows: int,
    url: str,
    model: str,
    say: Say,
) -> dict[str, Any]:
    """A finished job over the exchanges that are trained on; its manifest."""
    target, eligible = folder / imitations.FOLDER / "bench", {each.id: each for each in plan.train}
    if (done := finished(target)) is not None:
        return done
    if (target / distil.JOB).is_file():
        job = distil.load(target, eligible)
    else:
        graph = GraphStore(journal)
        graph.drain_all()
        kinds = [of_graph(graph.graph, graph.topics(), eligible), paraphrases(plan.train)]
        job = distil.prepare(
            target,
            mixed(kinds, rows),
            plan.train,
            creator=CARD.name,
            teacher=f"{model} at {url}" if url else weights.path.name,
            max_length=512,
            forgotten=journal.last_forgotten(),
            created=datetime.now(UTC),
            excluded={},
        )
        estimate = distil.estimated(job, Budget(), per_minute=0, concurrency=STREAMS)
        job = distil.promised(job, estimate)

    def tell(done: int, total: int, text: str) -> None:
        if done % max(1, total // 20) == 0:
            say(f"asked {done} of {total}")

    if url:
        voice = HttpVoice(url, model=model)
        return distil.distil(job, voice, budget=Budget(), per_minute=0, concurrency=STREAMS, on_progress=tell)
    engine = engine_of(weights)
    try:
        return distil.distil(
            job, LocalVoice(engine), budget=Budget(), per_minute=0, concurrency=STREAMS, on_progress=tell
        )
    finally:
        engine.close()


def engine_of(weights: Weights) -> Engine:
    return Engine(
        weights.path,
        base="base",
        base_sha256=weights.sha256,
        streams=STREAMS,
        waiting=4096,
        context_tokens=CONTEXT,
    )


def built_for(name: str, exchanges: Sequence[Exchange], journal: Journal, folder: Path, encoder: Encoder) -> Dataset:
    """The dataset of one arm: the same rows stop and judge in all three."""
    target = folder / name / "dataset"
    if finished(target) is not None:
        return dataset.load(target)
    index = Index(journal, EdgeStore(fresh_folder(folder / "index")), encoder)
    recall = Recall(journal, index)
    share = {"direct": 0.0, "distilled": 0.9, "mixed": 0.5}[name]
    mixing = imitations.mixing(folder, journal, share=share, permissions=Permissions(), seed=SEED)
    try:
        index.drain_all()
        built = dataset.build(
            exchanges,
            persona=CARD,
            folder=fresh_folder(target),
            recall_for=lambda question, hidden: recall.recall(question, limit=2, excluded=hidden).notes,
            seed=SEED,
            heldout=HELDOUT,
            mixed=mixing if share else None,
        )
    finally:
        index.close()
    return without_real(built) if name == "distilled" else built


def without_real(built: Dataset) -> Dataset:
    """The dataset with nothing but imitations to train on."""
    rows = [row for row in built.rows("train") if is_synthetic(row.provenance)]
    write_atomic(built.folder / "train.jsonl", dataset.as_lines(dataset.row_to(row) for row in rows))
    facts = {name: value for name, value in built.manifest.items() if name != "files"}
    finish_folder(built.folder, {**facts, "id": f"{built.id}-synthetic", "train": len(rows), "synthetic": len(rows)})
    return dataset.load(built.folder)


def trained(built: Dataset, folder: Path, weights: Weights, *, tokens: int, say: Say) -> tuple[Path, int]:
    """The adapter of one arm, and how many tokens it read."""
    say(f"training {folder.name} on {built.manifest['train']} rows")
    budget = lora.TrainingBudget(epochs=20, max_tokens_trained=tokens)
    report = lora.train(built.folder, folder / "lora", base_gguf=weights.path, budget=budget, seed=SEED)
    assert report.peft is not None
    path = folder / "adapter.gguf"
    if not path.exists():
        gguf.write_adapter(report.peft, weights.path, path, metadata={"twin.base_sha256": weights.sha256})
    say(f"{folder.name}: {report.tokens} tokens, {report.wall_s:.0f} s, {report.stopped}, {report.validation}")
    return path, report.tokens


def judged(
    built: Dataset, adapters: dict[str, Path | None], *, weights: Weights, encoder: Encoder, say: Say
) -> dict[str, System]:
    """Every system on the held-out exchanges of `built`, as `evals.evaluate` measures two."""
    heldout, learned = built.heldout(), built.rows("train")
    prompts = [evals.prompt(CARD, each) for each in heldout]
    spoken: dict[str, list[evals.Spoken]] = {}
    abilities: dict[str, float] = {}
    engine = engine_of(weights)
    try:
        others = evals.speak(engine, evals.drawn(learned), evals.ANSWERING)
        style = learn([row.answer for row in learned], [each.text for each in others], seed=SEED)
        for name, path in adapters.items():
            say(f"asking {name} {len(prompts)} held-out questions and {len(probe())} of the ability probe")
            engine.promote(name if path else None, path)
            spoken[name], abilities[name] = (
                evals.speak(engine, prompts, evals.ANSWERING),
                evals.ability_of(engine, CARD),
            )
    finally:
        engine.close()
    ruler = evals.Ruler(heldout, style, encoder, [row.answer for row in learned])
    found = {}
    for name, path in adapters.items():
        with Scorer(weights.path, path) as scorer:
            scored = [scorer.answer(turns, each.exchange.answer) for turns, each in zip(prompts, heldout, strict=True)]
        nll = [each.per_token for each in scored]
        found[name] = System(name, ruler.items(spoken[name], nll), abilities[name])
    say(f"the style measure tells the creator from the base with an AUC of {style.auc:.2f}")
    return found


def figures(system: System, other: System | None, tokens: int) -> dict[str, Any]:
    """One line of the table; with `other`, how much less likely the creator's answers are, and how style differs."""
    means: dict[str, Any] = {name: round(system.mean(name), 3) for name in SHOWN}
    found = {"trained on": system.name, "tokens": tokens, **means, "ability": round(system.ability, 3)}
    if other is None:
        return found
    for name in ("nll", "style"):
        found[f"{name} minus {other.name}"] = told(difference(system, other, name))
    return found


def difference(system: System, other: System, measure: str) -> Interval:
    new, old = ([item.measures[measure] for item in each.items] for each in (system, other))
    return metrics.paired_bootstrap(new, old, seed=SEED)


def told(interval: Interval) -> str:
    return f"{interval.mean:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"
