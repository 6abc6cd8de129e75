"""The one read: what memory would hand the model for a question, and how sure it is that this answers it."""

import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol

from infra.traces import parts
from memory.index import Index, sparse_text
from memory.journal import Journal
from memory.messages import Authority, Exchange, Note, Passage, Place, Why
from memory.prompt import MOST_TOKENS, fitted
from memory.ranking import Candidate, Ranked, choose, confidence, coverage, cut, is_named, mixed, rank, timings
from memory.rerank import READ, Reranker
from memory.standing import Standing, is_creators, normalised, standings
from memory.terms import IS_CJK, content_terms, query_weights, shared_words
from memory.vectors import Scope
from memory.wording import SPEAKER

# What may be shown to anybody in the community.
EVERYBODY = Scope()
# Hits asked of each search, and how many of the best are looked up beside those that are wanted. More were measured to
# find nothing more, and each takes its time.
DEPTH, SPARE = 100, 10
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
        ranked = rank(dense, sparse, depth=depth, weights=weights)
        looked_at = limit + (READ if self._reranker else SPARE)
        best = list(islice((each for each in ranked if each.id not in excluded), looked_at))
        candidates = self._candidates(asked, best, scope=scope, excluded=excluded)
        looked_up = time.perf_counter()
        candidates, reread = self._reread(question, candidates)
        chosen_from = time.perf_counter()
        chosen = choose(candidates, limit=limit, asked=asked)
        scored = cut([(each, confidence(each, asked, weights)) for each in chosen], least_share=least_share)
        marks = {
            "embed": encoded - began,
            "search": searched - encoded,
            **reread,
            "rank": time.perf_counter() - chosen_from + looked_up - searched,
        }
        took = timings(marks)
        parts(took)
        notes = fitted([noted(candidate, sure, question, asked) for candidate, sure in scored], budget_tokens)
        return Recollection(notes, max((note.score for note in notes), default=0.0), took)

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
        found = self._journal.found(list(places))
        alike = [(form, each) for form, each in found.alike if each.id not in excluded and sees(scope, each.place)]
        # What was found may no longer be seen, when the index has yet to learn of it.
        forms = {form for form, each in alike if each.id in places}
        standing = standings([(form, each) for form, each in alike if form in forms], found.waited)
        return [
            *(each for form, value in standing.items() for each in exchange_candidates(form, value, places)),
            *(
                passage_candidate(value, places[value.id], asked)
                for value in found.passages
                if sees(scope, value.place)
            ),
        ]


def sees(scope: Scope, place: Place) -> bool:
    """Whether what was said in a place may be shown."""
    return place.community == scope.community and place.visibility in scope.visibility


def exchange_candidates(form: str, value: Standing, places: Mapping[str, Ranked]) -> list[Candidate]:
    """What stands of a question; each part of an answer in several is a note of its own, and no weaker one."""
    whole = exchange_candidate(form, value, places)
    others = [(each, note_of(each, whole.note.why)) for each in value.parts]
    return [whole, *(replace(whole, note=note, topic=each.id, words=sparse_text(each)) for each, note in others)]


def exchange_candidate(form: str, value: Standing, places: Mapping[str, Ranked]) -> Candidate:
    """What stands of a question, with the place of the best of its answers that was found."""
    found = [each for each in (value.speaks, *value.others) if each.id in places]
    score = max(places[each.id].score for each in found)
    cosine = max(places[each.id].cosine for each in found)
    why = Why(
        cosine=round(cosine, 3),
        authority=authority_of(value.speaks),
        answers=value.answers,
        askers=value.askers,
        replaced=value.replaced,
    )
    # Also in the words of those askings that were found.
    words = "\n".join([sparse_text(value.speaks), *(each.question for each in found if each != value.speaks)])
    return Candidate(note_of(value.speaks, why), score, cosine, topic=form, words=words)


def passage_candidate(value: Passage, place: Ranked, asked: Set[str]) -> Candidate:
    """A piece of a document, or a line of a conversation whose speaker the question may name."""
    spoken, words = SPEAKER.match(value.text), sparse_text(value)
    speaker = spoken[1] if spoken else ""
    names = speaker if is_named(speaker, asked) else ""
    why = Why(cosine=round(place.cosine, 3), authority=authority_of(value), names=names)
    return Candidate(note_of(value, why), place.score, place.cosine, normalised(words), words, speaker)


def authority_of(value: Exchange | Passage) -> Authority:
    if isinstance(value, Passage):
        return "document"
    return "creator" if is_creators(value) else "teacher"


def note_of(value: Exchange | Passage, why: Why) -> Note:
    """A note from what memory knows; its score is set when it is chosen."""
    if isinstance(value, Exchange):
        label = value.title or value.place.name or str(value.source)
        return Note(value.id, "exchange", value.answer, 0.0, label, value.at, value.question, value.url, why)
    return Note(value.id, "passage", value.text, 0.0, label_of(value), value.at, "", value.url, why)


def label_of(passage: Passage) -> str:
    """How a passage is cited: "Handbook: Shaping > Boules, p. 12"."""
    name = passage.title or passage.document
    heading = "" if passage.heading == name else passage.heading.removeprefix(f"{name} > ")
    where = f"{name}: {heading}" if heading else name
    return f"{where}, {passage.mark}" if passage.mark else where


def noted(chosen: Candidate, score: float, question: str, asked: Set[str]) -> Note:
    """The note of one that was chosen, with how sure memory is of it and the words that speak for it."""
    covered = round(coverage(asked, chosen.terms), 3)
    why = replace(chosen.note.why, words=shared_words(question, chosen.terms), coverage=covered)
    return replace(chosen.note, score=round(score, 4), why=why)


def han_share(question: str) -> float:
    """The share of a question's letters that are Chinese, Japanese or Korean."""
    letters = [character for character in question if character.isalpha()]
    return sum(bool(IS_CJK.match(character)) for character in letters) / len(letters) if letters else 0.0
