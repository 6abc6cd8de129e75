"""The index follows the journal: it applies the outbox, and can be made again from nothing.

One process owns the index. Rows of the outbox are forgotten only after the vectors are durable; applying one twice is
harmless, since a point's id is that of what it stands for.

After a change of embedder the collection of the one before answers on, with its own embedder's vectors, or by words
alone where that is gone. A thread fills the new collection meanwhile, and both learn. When it is complete it takes
over; one that a kill left half filled is filled on, and answers nothing before.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain, islice

import numpy as np

from infra.errors import ServiceTrouble, UserMistake
from memory.encode import Encoder
from memory.journal import Derived, Journal, OutboxItem
from memory.messages import Exchange, Passage, name_uuid
from memory.ranking import Hit
from memory.terms import EXCHANGE_TERMS, PASSAGE_TERMS, Sparse, document_weights
from memory.vectors import Collection, Current, Scope, Store, Vector, collection_name

log = logging.getLogger(__name__)

# Embedding 64 short texts takes about a second on two cores: the longest that a new answer waits behind an import.
BATCH = 64
# So many questions take three megabytes with the packaged embedder.
QUESTIONS = 2_000
# How long filling waits where the journal or the disk is briefly not to be had.
RETRY_S = 5.0


@dataclass(eq=False)
class Side:
    """A collection with the embedder of its vectors; with none it learns and is searched by words alone."""

    collection: Collection
    encoder: Encoder | None
    readers: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._embedded = lru_cache(maxsize=QUESTIONS)(self._embed)

    def add(self, values: Sequence[Exchange | Passage]) -> None:
        if values:
            self.collection.upsert(self.vectors(values))

    def vectors(self, values: Sequence[Exchange | Passage]) -> list[Vector]:
        texts = [dense_text(each) for each in values]
        dense = [None] * len(texts) if self.encoder is None else list(self.encoder.dense(texts))
        return [vector_of(each, vector) for each, vector in zip(values, dense, strict=True)]

    def embed(self, question: str) -> np.ndarray | None:
        """The question as this side's vectors are made; the last ones asked are remembered, by their exact words."""
        return None if self.encoder is None else self._embedded(question)

    def _embed(self, question: str) -> np.ndarray:
        assert self.encoder is not None
        vector: np.ndarray = self.encoder.dense([question])[0]
        vector.flags.writeable = False  # everybody who asks the same gets this one
        return vector

    def dense(self, vector: np.ndarray | None, scope: Scope, limit: int) -> list[Hit]:
        return [] if vector is None else self.collection.dense(vector, scope, limit)

    def sparse(self, query: Sparse, scope: Scope, limit: int) -> list[Hit]:
        return self.collection.sparse(query, scope, limit)


@dataclass(frozen=True)
class Filling:
    """How far the collection is that takes over when it is complete."""

    done: int
    total: int


class Index:
    """L0 of memory: exchanges and passages as vectors. Safe to call from several threads of the owning process."""

    def __init__(
        self, journal: Journal, store: Store, encoder: Encoder, *, load: Callable[[str], Encoder] = Encoder
    ) -> None:
        """Open the collection of this embedder; one that is new is filled, at once where no other could answer.

        `load` gives the embedder of the collection before. Raises ServiceTrouble when another process owns the index.
        """
        self._journal, self._store, self._encoder = journal, store, encoder
        # Who writes to a collection holds the first; the second is held for moments, where the answering side changes.
        self._writing, self._turn = threading.Lock(), threading.Condition()
        self._closing = threading.Event()
        self._filler: threading.Thread | None = None
        self._name = collection_name(encoder.name, encoder.dimension)
        current = store.current()
        self._next: Side | None = Side(store.open(self._name, encoder.dimension), encoder)
        self._answers = self._next
        if current is not None and current.name == self._name:
            self._next.collection.settle()
            self._next = None
            store.sweep(self._name)
        elif current is not None and current.readable:
            self._answers = self._former(current, load)
            store.sweep(self._name, current.name)
            self._filler = threading.Thread(target=self._fill_on, name="index", daemon=True)
            self._filler.start()
        else:
            store.sweep(self._name)
            self._fill_first(self._next)

    @property
    def collection(self) -> Collection:
        """The collection that answers."""
        return self._answers.collection

    @property
    def filling(self) -> Filling | None:
        """How far the collection of a new embedder is; None when the one that answers is that."""
        if (side := self._next) is None:
            return None
        counts = self._journal.counts()
        return Filling(side.collection.count(), counts["exchanges"] + counts["passages"])

    @contextlib.contextmanager
    def answering(self) -> Iterator[Side]:
        """The side to ask; it stays open until the block is left, also where the other takes over meanwhile."""
        with self._turn:
            side = self._answers
            side.readers += 1
        try:
            yield side
        finally:
            with self._turn:
                side.readers -= 1
                self._turn.notify_all()

    def drain(self) -> int:
        """Apply what waits in the outbox, up to a batch; returns how many rows that was."""
        with self._writing:
            waiting = self._journal.outbox(BATCH)
            if not waiting:
                return 0
            self._apply(waiting)
            self._journal.outbox_done(waiting[-1].seq)
            return len(waiting)

    def drain_all(self) -> int:
        """Apply the whole outbox; returns how many rows that was."""
        total = 0
        while done := self.drain():
            total += done
        return total

    def close(self) -> None:
        """Filling stops after its batch, and goes on when the index is opened again.

        After much was added this takes seconds, which the next start is spared.
        """
        self._closing.set()
        if self._filler is not None:
            self._filler.join()
        with self._writing:
            for side in self._sides():
                side.collection.settle()
                side.collection.close()

    def _former(self, current: Current, load: Callable[[str], Encoder]) -> Side:
        """The collection that answers until the new one is complete."""
        collection = self._store.open(current.name, current.dimension)
        if current.embedder == self._encoder.name:
            return Side(collection, self._encoder)
        try:
            encoder = load(current.embedder)
        except UserMistake as error:
            log.warning("the embedder before cannot be loaded, so memory is searched by words for now: %s", error)
            return Side(collection, None)
        return Side(collection, encoder if encoder.dimension == current.dimension else None)

    def _sides(self) -> list[Side]:
        """Those that learn: the one that answers, and the one that will."""
        return [each for each in dict.fromkeys((self._answers, self._next)) if each is not None]

    def _fill_on(self) -> None:
        """Fill the new collection for as long as it takes, through troubles that pass."""
        while self._next is not None and not self._closing.is_set():
            try:
                self._fill(self._next)
            except Exception as trouble:  # noqa: BLE001  whatever it is, the old collection answers on
                # Only our own sentences are known to quote nobody.
                said = trouble if isinstance(trouble, ServiceTrouble) else type(trouble).__name__
                log.warning("the index of the new embedder waits: %s", said)
                self._closing.wait(RETRY_S)

    def _fill_first(self, side: Side) -> None:
        """Fill the only collection. What waits in the outbox for one that was empty is in the journal that it reads."""
        read = self._journal.outbox_last() if side.collection.count() == 0 else 0
        self._fill(side)
        self._journal.outbox_done(read)
        side.collection.settle()

    def _fill(self, side: Side) -> None:
        """Add what the journal knows and the collection does not, then let it answer."""
        everything: Iterator[Exchange | Passage] = chain(self._journal.exchanges(), self._journal.passages())
        while batch := list(islice(everything, BATCH)):
            if self._closing.is_set():
                return
            known = side.collection.known([each.id for each in batch])
            self._add_unchanged(side, [each for each in batch if each.id not in known])
        self._take_over(side)

    def _add_unchanged(self, side: Side, values: Sequence[Exchange | Passage]) -> None:
        """Add `values`, but for those that changed while vectors were made: a row of the outbox sees to them."""
        vectors = side.vectors(values)
        with self._writing:
            now = {each.id: each for each in self._known([each.id for each in values])}
            same = [vector for each, vector in zip(values, vectors, strict=True) if now.get(each.id) == each]
            if same:
                side.collection.upsert(same)

    def _take_over(self, side: Side) -> None:
        """Let `side` answer, and remove the other as soon as nobody reads it."""
        with self._writing:
            side.collection.flush()
            self._store.switch(self._name, self._encoder.name)
            with self._turn:
                old, self._answers, self._next = self._answers, side, None
                self._turn.wait_for(lambda: old is side or not old.readers)
            if old is not side:
                old.collection.close()
            self._store.sweep(self._name)

    def _apply(self, waiting: list[OutboxItem]) -> None:
        last = {(item.kind, item.id): item.op for item in waiting}
        wanted: dict[Derived, list[str]] = {"exchange": [], "passage": []}
        for (kind, identity), op in last.items():
            if op == "upsert":
                wanted[kind].append(identity)
        found: list[Exchange | Passage] = list(self._journal.exchanges(wanted["exchange"]))
        found += self._journal.passages(wanted["passage"])
        # What was to be added but is gone from the journal by now is deleted too: its own row may come much later.
        gone = [identity for _, identity in last if identity not in {each.id for each in found}]
        for side in self._sides():
            side.add(found)
            if gone:
                side.collection.delete(gone)
            side.collection.flush()

    def _known(self, ids: Sequence[str]) -> Iterator[Exchange | Passage]:
        yield from self._journal.exchanges(ids)
        yield from self._journal.passages(ids)


def vector_of(value: Exchange | Passage, dense: np.ndarray | None) -> Vector:
    return Vector(
        id=value.id,
        kind="exchange" if isinstance(value, Exchange) else "passage",
        community=value.place.community,
        visibility=value.place.visibility,
        dense=dense,
        sparse=document_weights(sparse_text(value), average=average_terms(value)),
        section=section_of(value),
        position=value.position if isinstance(value, Passage) else 0,
    )


def average_terms(value: Exchange | Passage) -> float:
    """How many terms others of its kind have."""
    return EXCHANGE_TERMS if isinstance(value, Exchange) else PASSAGE_TERMS


def section_of(value: Exchange | Passage) -> str:
    """What a passage's neighbours share with it."""
    return name_uuid("section", value.document, value.heading) if isinstance(value, Passage) else ""


def dense_text(value: Exchange | Passage) -> str:
    """What the embedder reads: a question is found by questions like it, a passage by what it says."""
    return value.question if isinstance(value, Exchange) else f"{value.heading}\n{value.text}".strip()


def sparse_text(value: Exchange | Passage) -> str:
    """What BM25 reads: the words of both halves."""
    return f"{value.question}\n{value.answer}" if isinstance(value, Exchange) else f"{value.heading}\n{value.text}"
