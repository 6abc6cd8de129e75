"""The one read: what memory would hand the model for a question, and how sure it is that this answers it."""

import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Protocol

from memory.encode import IS_CJK, content_terms, query_weights, shared_words
from memory.index import Index, dense_text, sparse_text
from memory.journal import Journal
from memory.messages import Authority, Exchange, Note, Passage, Place, Why
from memory.prompt import MOST_TOKENS, fitted
from memory.ranking import Candidate, Ranked, choose, coverage, cut, is_named, mixed, rank, timings
from memory.rerank import Reranker
from memory.standing import Standing, is_creators, normalised, standings
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
    """Notes, best first; the confidence, 0 to 1, that the best one answers; milliseconds by stage.

    A stage `rerank_skipped` says that the cross-encoder was given up after so long.
    """

    notes: tuple[Note, ...]
    confidence: float
    timings_ms: dict[str, float]


class Recaller(Protocol):
    """Whoever can be asked what memory knows: the index of this process, or the process that holds it."""

    def recall(
        self, question: str, *, scope: Scope = EVERYBODY, limit: int = 2, budget_tokens: int = MOST_TOKENS
    ) -> Recollection: ...


class Recall:
    """Reads of L0, with a cross-encoder's second look where there is one. Safe to call from several threads."""

    def __init__(self, journal: Journal, index: Index, reranker: Reranker | None = None) -> None:
        self._journal, self._index, self._reranker = journal, index, reranker

    def recall(
        self,
        question: str,
        *,
        scope: Scope = EVERYBODY,
        limit: int = 2,
        budget_tokens: int = MOST_TOKENS,
        excluded: frozenset[str] = frozenset(),
        least_share: float = LEAST_SHARE,
    ) -> Recollection:
        """Up to `limit` notes for `question`, none of those in `excluded`; none at all when memory is empty.

        Together they take about `budget_tokens` at most; those are left out whose confidence is below `least_share` of
        the best.
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
        candidates = self._candidates(asked, ranked[:LOOKED_AT], scope=scope, excluded=excluded)
        looked_up = time.perf_counter()
        candidates, reread = self._reread(question, candidates)
        chosen_from = time.perf_counter()
        scored = cut(choose(candidates, limit=limit, weights=weights, asked=asked), least_share=least_share)
        marks = {
            "embed": encoded - began,
            "search": searched - encoded,
            **reread,
            "rank": time.perf_counter() - chosen_from + looked_up - searched,
        }
        notes = fitted([noted(candidate, sure, question) for candidate, sure in scored], budget_tokens)
        return Recollection(notes, max((note.score for note in notes), default=0.0), timings(marks))

    def _reread(self, question: str, candidates: list[Candidate]) -> tuple[list[Candidate], dict[str, float]]:
        """The candidates as the reranker orders them, unless there is none or it was too slow; the seconds it took."""
        if self._reranker is None:
            return candidates, {}
        began = time.perf_counter()
        reordered = self._reranker.reordered(question, candidates)
        took = time.perf_counter() - began
        return (candidates, {"rerank_skipped": took}) if reordered is None else (reordered, {"rerank": took})

    def _candidates(
        self, asked: Set[str], ranked: Sequence[Ranked], *, scope: Scope, excluded: frozenset[str]
    ) -> list[Candidate]:
        """The best of what was found, looked up in the journal; what is gone from there is not found.

        Of a question that has several answers the one that stands is the candidate, also where only another was found.
        """
        places = {each.id: each for each in ranked}
        alike = [
            (form, each)
            for form, each in self._journal.alike(list(places))
            if each.id not in excluded and sees(scope, each.place)
        ]
        known: list[Standing | Passage] = [
            *standings(alike, self._journal.waited([form for form, _ in alike])).values()
        ]
        known += self._journal.passages(list(places))
        return [candidate(each, places, asked) for each in known]


def sees(scope: Scope, place: Place) -> bool:
    """Whether what was said in a place may be shown."""
    return place.community == scope.community and place.visibility in scope.visibility


def candidate(value: Standing | Passage, places: Mapping[str, Ranked], asked: Set[str]) -> Candidate:
    """What is known, with the place of the best of it that was found."""
    speaks = value if isinstance(value, Passage) else value.speaks
    found = [places[each.id] for each in answers_of(value) if each.id in places]
    terms = frozenset(content_terms(words_of(value, places)))
    spoken = SPEAKER.match(value.text) if isinstance(value, Passage) else None
    speaker = spoken[1] if spoken else ""
    cosine, covered = max(place.cosine for place in found), coverage(asked, terms)
    why = Why(
        coverage=round(covered, 3),
        cosine=round(cosine, 3),
        authority=authority_of(speaks),
        names=speaker if is_named(speaker, asked) else "",
    )
    if isinstance(value, Standing):
        why = replace(why, answers=value.answers, askers=value.askers, replaced=value.replaced)
    return Candidate(
        note=replace(note_of(speaks), why=why),
        score=max(place.score for place in found),
        cosine=cosine,
        coverage=covered,
        topic=normalised(dense_text(speaks)),
        terms=terms,
        speaker=speaker,
    )


def answers_of(value: Standing | Passage) -> tuple[Exchange | Passage, ...]:
    return (value,) if isinstance(value, Passage) else (value.speaks, *value.others)


def words_of(value: Standing | Passage, places: Mapping[str, Ranked]) -> str:
    """What is said, and asked, also in the words of those askings that were found."""
    if isinstance(value, Passage):
        return sparse_text(value)
    return "\n".join([sparse_text(value.speaks), *(each.question for each in value.others if each.id in places)])


def authority_of(value: Exchange | Passage) -> Authority:
    if isinstance(value, Passage):
        return "document"
    return "creator" if is_creators(value) else "teacher"


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


def noted(chosen: Candidate, score: float, question: str) -> Note:
    why = replace(chosen.note.why, words=shared_words(question, chosen.terms))
    return replace(chosen.note, score=round(score, 4), why=why)


def han_share(question: str) -> float:
    """The share of a question's letters that are Chinese, Japanese or Korean."""
    letters = [character for character in question if character.isalpha()]
    return sum(bool(IS_CJK.match(character)) for character in letters) / len(letters) if letters else 0.0
