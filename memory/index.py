"""The index follows the journal: it applies the outbox, and can be made again from nothing.

One process owns the index. Rows of the outbox are forgotten only after the vectors are durable; applying one twice is
harmless, since a point's id is that of what it stands for.
"""

import threading
from collections.abc import Iterable, Iterator
from itertools import islice

from memory.encode import EXCHANGE_TERMS, PASSAGE_TERMS, Encoder, document_weights
from memory.journal import Derived, Journal, OutboxItem
from memory.messages import Exchange, Passage, name_uuid
from memory.vectors import Collection, Store, Vector, collection_name

# Embedding 64 short texts takes about a second on two cores: the longest that a new answer waits behind an import.
BATCH = 64


class Index:
    """L0 of memory: exchanges and passages as vectors. Safe to call from several threads of the owning process."""

    def __init__(self, journal: Journal, store: Store, encoder: Encoder) -> None:
        """Open the collection of this embedder; one that is new is filled first and then switched to.

        Raises ServiceTrouble when another process owns the index.
        """
        self._journal, self._store, self._encoder = journal, store, encoder
        self._lock = threading.Lock()
        self._name = collection_name(encoder.name, encoder.dimension)
        self.collection: Collection = store.open(self._name, encoder.dimension)
        if store.current() == self._name:
            self.collection.settle()
        else:
            self.rebuild()

    def rebuild(self) -> None:
        """Fill the collection with everything the journal knows, then let it answer. Until then the one before does."""
        with self._lock:
            everything: Iterator[Exchange | Passage] = iter([*self._journal.exchanges(), *self._journal.passages()])
            while batch := list(islice(everything, BATCH)):
                self.collection.upsert(self._vectors(batch))
            self.collection.settle()
            self.collection.flush()
            self._store.switch(self._name)

    def drain(self) -> int:
        """Apply what waits in the outbox, up to a batch; returns how many rows that was."""
        with self._lock:
            waiting = self._journal.outbox(BATCH)
            if not waiting:
                return 0
            self._apply(waiting)
            self.collection.flush()
            self._journal.outbox_done(waiting[-1].seq)
            return len(waiting)

    def drain_all(self) -> int:
        """Apply the whole outbox; returns how many rows that was."""
        total = 0
        while done := self.drain():
            total += done
        return total

    def close(self) -> None:
        with self._lock:
            self.collection.close()

    def _apply(self, waiting: list[OutboxItem]) -> None:
        last = {(item.kind, item.id): item.op for item in waiting}
        wanted: dict[Derived, list[str]] = {"exchange": [], "passage": []}
        for (kind, identity), op in last.items():
            if op == "upsert":
                wanted[kind].append(identity)
        found: list[Exchange | Passage] = list(self._journal.exchanges(wanted["exchange"]))
        found += self._journal.passages(wanted["passage"])
        if found:
            self.collection.upsert(self._vectors(found))
        # What was to be added but is gone from the journal by now is deleted too: its own row may come much later.
        gone = [identity for _, identity in last if identity not in {each.id for each in found}]
        if gone:
            self.collection.delete(gone)

    def _vectors(self, values: Iterable[Exchange | Passage]) -> list[Vector]:
        known = list(values)
        dense = self._encoder.dense([dense_text(each) for each in known])
        return [
            Vector(
                id=each.id,
                kind="exchange" if isinstance(each, Exchange) else "passage",
                community=each.place.community,
                visibility=each.place.visibility,
                dense=vector,
                sparse=document_weights(sparse_text(each), average=average_terms(each)),
                section=section_of(each),
                position=each.position if isinstance(each, Passage) else 0,
            )
            for each, vector in zip(known, dense, strict=True)
        ]


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
