"""The one read: what memory would hand the model for a question, and how sure it is that this answers it."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from memory.encode import IS_CJK, Encoder, content_terms, query_weights
from memory.index import Index, dense_text, sparse_text
from memory.journal import Journal
from memory.messages import Exchange, Note, Passage
from memory.ranking import Candidate, choose, coverage, cut, fuse, mixed, timings
from memory.remember import normalised
from memory.vectors import Hit, Scope

# What may be shown to anybody in the community.
EVERYBODY = Scope()
# Candidates asked of each search: enough that fusion can lift one that neither list has near its top.
DEPTH = 12
# A second note is worth its tokens only when it fits about as well as the first.
LEAST_SHARE = 0.6


@dataclass(frozen=True)
class Recollection:
    """Notes, best first; the confidence, 0 to 1, that the best one answers; milliseconds by stage."""

    notes: tuple[Note, ...]
    confidence: float
    timings_ms: dict[str, float]


class Recaller(Protocol):
    """Whoever can be asked what memory knows: the index of this process, or the process that holds it."""

    def recall(self, question: str, *, scope: Scope = EVERYBODY, limit: int = 2) -> Recollection: ...


class Recall:
    """Reads of L0. Safe to call from several threads."""

    def __init__(self, journal: Journal, index: Index, encoder: Encoder) -> None:
        self._journal, self._index, self._encoder = journal, index, encoder

    def recall(
        self, question: str, *, scope: Scope = EVERYBODY, limit: int = 2, excluded: frozenset[str] = frozenset()
    ) -> Recollection:
        """Up to `limit` notes for `question`, none of those in `excluded`; none at all when memory is empty."""
        began = time.perf_counter()
        vector = self._encoder.dense([question])[0]
        encoded = time.perf_counter()
        dense = self._index.collection.dense(vector, scope, DEPTH + len(excluded))
        sparse = self._index.collection.sparse(query_weights(question), scope, DEPTH + len(excluded))
        searched = time.perf_counter()
        candidates = self._candidates(question, dense, sparse, excluded=excluded)
        scored = choose(candidates, limit=limit, weights=mixed(han_share(question)))
        scored = cut(scored, least_share=LEAST_SHARE) if scored else []
        marks = {
            "embed": encoded - began,
            "search": searched - encoded,
            "rank": time.perf_counter() - searched,
        }
        notes = tuple(noted(candidate.note, sure) for candidate, sure in scored)
        return Recollection(notes, scored[0][1] if scored else 0.0, timings(marks))

    def _candidates(
        self, question: str, dense: list[Hit], sparse: list[Hit], *, excluded: frozenset[str]
    ) -> list[Candidate]:
        """What the searches found, looked up in the journal; what is gone from there is not found."""
        fused = fuse([hit.id for hit in dense], [hit.id for hit in sparse])
        ids = [identity for identity in fused if identity not in excluded]
        cosines = {hit.id: hit.score for hit in dense}
        asked = content_terms(question)
        known: Iterable[Exchange | Passage] = [*self._journal.exchanges(ids), *self._journal.passages(ids)]
        return [
            Candidate(
                note=note_of(each),
                fused=fused[each.id],
                cosine=max(0.0, cosines.get(each.id, 0.0)),
                coverage=coverage(asked, content_terms(sparse_text(each))),
                topic=normalised(dense_text(each)),
            )
            for each in known
        ]


def note_of(value: Exchange | Passage) -> Note:
    """A note from what memory knows; its score is set when it is chosen."""
    if isinstance(value, Exchange):
        label = value.title or value.place.name or str(value.source)
        return Note(value.id, "exchange", value.answer, 0.0, label, value.at, question=value.question, url=value.url)
    label = f"{value.document}: {value.heading}" if value.heading else value.document
    return Note(value.id, "passage", value.text, 0.0, label, value.at, url=value.url)


def noted(note: Note, score: float) -> Note:
    return Note(
        note.id, note.kind, note.text, round(score, 4), note.source, note.at, question=note.question, url=note.url
    )


def han_share(question: str) -> float:
    """The share of a question's letters that are Chinese, Japanese or Korean."""
    letters = [character for character in question if character.isalpha()]
    return sum(bool(IS_CJK.match(character)) for character in letters) / len(letters) if letters else 0.0
