"""The one read: what memory would hand the model for a question, and how sure it is that this answers it."""

import time
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Protocol

from memory.encode import IS_CJK, content_terms, query_weights
from memory.index import Index, dense_text, sparse_text
from memory.journal import Journal
from memory.messages import Exchange, Note, Passage
from memory.ranking import Candidate, Ranked, choose, coverage, cut, mixed, rank, timings
from memory.remember import normalised
from memory.vectors import Scope
from memory.wording import SPEAKER

# What may be shown to anybody in the community.
EVERYBODY = Scope()
# Hits asked of each search, and how many of the best are looked up.
DEPTH, LOOKED_AT = 100, 32
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

    def __init__(self, journal: Journal, index: Index) -> None:
        self._journal, self._index = journal, index

    def recall(
        self,
        question: str,
        *,
        scope: Scope = EVERYBODY,
        limit: int = 2,
        excluded: frozenset[str] = frozenset(),
        least_share: float = LEAST_SHARE,
    ) -> Recollection:
        """Up to `limit` notes for `question`, none of those in `excluded`; none at all when memory is empty.

        Notes are left out whose confidence is below `least_share` of the best.
        """
        began = time.perf_counter()
        depth = DEPTH + len(excluded)
        with self._index.answering() as side:
            vector = side.embed(question)
            encoded = time.perf_counter()
            dense = side.dense(vector, scope, depth)
            sparse = side.sparse(query_weights(question), scope, depth)
        searched = time.perf_counter()
        weights, asked = mixed(han_share(question), by_words=vector is None), content_terms(question)
        ranked = [each for each in rank(dense, sparse, depth=depth, weights=weights) if each.id not in excluded]
        candidates = self._candidates(asked, ranked[:LOOKED_AT])
        scored = cut(choose(candidates, limit=limit, weights=weights, asked=asked), least_share=least_share)
        marks = {
            "embed": encoded - began,
            "search": searched - encoded,
            "rank": time.perf_counter() - searched,
        }
        notes = tuple(noted(candidate.note, sure) for candidate, sure in scored)
        return Recollection(notes, max((note.score for note in notes), default=0.0), timings(marks))

    def _candidates(self, asked: Set[str], ranked: Sequence[Ranked]) -> list[Candidate]:
        """The best of what was found, looked up in the journal; what is gone from there is not found."""
        ids = [each.id for each in ranked]
        known: Iterable[Exchange | Passage] = [*self._journal.exchanges(ids), *self._journal.passages(ids)]
        places = {each.id: each for each in ranked}
        return [candidate(each, places[each.id], asked) for each in known]


def candidate(value: Exchange | Passage, place: Ranked, asked: Set[str]) -> Candidate:
    terms = frozenset(content_terms(sparse_text(value)))
    speaker = SPEAKER.match(value.text) if isinstance(value, Passage) else None
    return Candidate(
        note=note_of(value),
        score=place.score,
        cosine=place.cosine,
        coverage=coverage(asked, terms),
        topic=normalised(dense_text(value)),
        terms=terms,
        speaker=speaker[1] if speaker else "",
    )


def note_of(value: Exchange | Passage) -> Note:
    """A note from what memory knows; its score is set when it is chosen."""
    if isinstance(value, Exchange):
        label = value.title or value.place.name or str(value.source)
        return Note(value.id, "exchange", value.answer, 0.0, label, value.at, question=value.question, url=value.url)
    return Note(value.id, "passage", value.text, 0.0, label_of(value), value.at, url=value.url)


def label_of(passage: Passage) -> str:
    """How a passage is cited: "Handbook: Shaping > Boules, p. 12"."""
    name = passage.title or passage.document
    heading = "" if passage.heading == name else passage.heading.removeprefix(f"{name} > ")
    where = f"{name}: {heading}" if heading else name
    return f"{where}, {passage.mark}" if passage.mark else where


def noted(note: Note, score: float) -> Note:
    return Note(
        note.id, note.kind, note.text, round(score, 4), note.source, note.at, question=note.question, url=note.url
    )


def han_share(question: str) -> float:
    """The share of a question's letters that are Chinese, Japanese or Korean."""
    letters = [character for character in question if character.isalpha()]
    return sum(bool(IS_CJK.match(character)) for character in letters) / len(letters) if letters else 0.0
