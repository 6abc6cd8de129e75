"""From two lists of hits to the few notes worth handing over, and how sure we are that they answer. Pure."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import astuple, dataclass, replace
from datetime import timedelta
from functools import cached_property
from typing import NamedTuple
from uuid import UUID

from memory.messages import Authority, Note
from memory.terms import content_terms


class Hit(NamedTuple):
    """An id and its score, cosine for dense and BM25 with IDF for sparse, and its place in a document if it has one.

    The id is kept as a number, and is only of the few that get so far made the text that it is elsewhere.
    """

    key: int
    score: float
    section: str = ""
    position: int = 0

    @property
    def id(self) -> str:
        return str(UUID(int=self.key))


class Ranked(NamedTuple):
    """What either search found: its score among the others, and its cosine, 0 when the dense search did not find it."""

    key: int
    score: float
    cosine: float

    @property
    def id(self) -> str:
        return str(UUID(int=self.key))


@dataclass(frozen=True)
class Candidate:
    """A note with what its place among the others and its confidence are made of.

    `cosine` is between the asked and the known question (or passage), 0 to 1, and 0 when the dense search did not bring
    it up. `topic` is the same for notes of which one is enough, and `words` is all that one says, its question with it.
    `speaker` is who says a line of a transcript, empty elsewhere.
    """

    note: Note
    score: float
    cosine: float
    topic: str
    words: str = ""
    speaker: str = ""

    @cached_property
    def terms(self) -> frozenset[str]:
        """What the note is about: worked out for the few candidates that get so far."""
        return frozenset(content_terms(self.words))


@dataclass(frozen=True)
class Weights:
    """What the signals say in one language.

    `dense` is what a cosine counts beside the best BM25 score when notes are ranked. The rest is a logistic model of
    "this note answers": bias + cosine * x + coverage * y.
    """

    dense: float
    bias: float
    cosine: float
    coverage: float


# `dense` is where softmax regression on half of a public set ranks the other half best (docs/benchmarks.md); the model
# was fitted by logistic regression on the labelled questions of the bundled community, which
# `tests/memory/test_recall.py` asks again. The embedder is an English one: on Chinese its cosine says next to nothing.
LATIN = Weights(dense=2.4, bias=-6.5, cosine=8.1, coverage=4.6)
HAN = Weights(dense=0.25, bias=-2.9, cosine=0.0, coverage=9.0)
# Where no vectors can be searched: fitted on the same questions as LATIN, without the cosine.
WORDS = Weights(dense=0.0, bias=-4.1, cosine=0.0, coverage=6.5)

# A piece of a document or a line of a conversation is lifted by the two on either side of it and by the best of its
# section: what is said about a matter stands together. Fitted like `dense`.
NEXT, SECOND, SECTION = 0.3, 0.2, 1.1
# A line by somebody whom the question names, against one by somebody else.
SPEAKER = 0.6
# What whose word it is counts: a document may be older than what the creator says now, and a teacher is another person.
AUTHORITY: Mapping[Authority, float] = {"creator": 1.0, "document": 0.97, "teacher": 0.9}
# What newness adds, halved with every year, as in time-based language models (Li and Croft 2003), whose prior decays
# exponentially too. Both terms are gentle: they decide between notes that fit about as well, and no more.
NEWNESS, HALF_LIFE = 0.05, timedelta(days=365)
# Maximal marginal relevance (Carbonell and Goldstein 1998): how much a note's fit counts against its being new.
RELEVANCE = 0.9

# The least confidence at which the twin answers; see docs/benchmarks.md for what it lets through and holds back.
THRESHOLD = 0.5


def rank(dense: Sequence[Hit], sparse: Sequence[Hit], *, depth: int, weights: Weights) -> list[Ranked]:
    """What two searches to `depth` found, best first.

    A hit's strength is its share of the best BM25 score, and by how much its cosine is above what any question has with
    anything, which is that of the last of a full list. Scores say more than ranks do: reciprocal rank fusion lets the
    weaker search spoil the better one.
    """
    own: defaultdict[int, float] = defaultdict(float)
    floor = dense[-1].score if len(dense) >= depth else 0.0
    for hit in dense:
        own[hit.key] += weights.dense * max(0.0, hit.score - floor)
    for hit in sparse:
        own[hit.key] += hit.score / sparse[0].score
    cosines = {hit.key: max(0.0, hit.score) for hit in dense}
    lifted = in_company({hit.key: hit for hit in (*dense, *sparse)}, own)
    return [Ranked(each, lifted[each], cosines.get(each, 0.0)) for each in sorted(own, key=lambda one: -lifted[one])]


def in_company(hits: Mapping[int, Hit], own: Mapping[int, float]) -> Mapping[int, float]:
    """Strengths with what the neighbours and the section of each add; what stands alone is its own best."""
    best: defaultdict[str, float] = defaultdict(float)
    at: dict[tuple[str, int], float] = {}
    for each, hit in hits.items():
        if hit.section:
            best[hit.section] = max(best[hit.section], own[each])
            at[hit.section, hit.position] = own[each]
    if not best:
        return own  # nothing has a neighbour, and all would be lifted alike

    def beside(hit: Hit, distance: int) -> float:
        return at.get((hit.section, hit.position - distance), 0.0) + at.get((hit.section, hit.position + distance), 0.0)

    return {
        each: own[each]
        + (SECTION * best[hit.section] + NEXT * beside(hit, 1) + SECOND * beside(hit, 2) if hit.section else own[each])
        for each, hit in hits.items()
    }


def coverage(asked: Set[str], known: Set[str]) -> float:
    """The share of the asked terms that are known, longer terms counting more: pairs of characters over single ones."""
    whole = sum(weight(term) for term in asked)
    return sum(weight(term) for term in asked & known) / whole if whole else 0.0


def weight(term: str) -> float:
    return math.sqrt(len(term))


def confidence(candidate: Candidate, asked: Set[str], weights: Weights) -> float:
    """The probability, 0 to 1, that this note answers a question of these terms."""
    covered = coverage(asked, candidate.terms)
    return 1 / (1 + math.exp(-(weights.bias + weights.cosine * candidate.cosine + weights.coverage * covered)))


def choose(candidates: Iterable[Candidate], *, limit: int, asked: Set[str] = frozenset()) -> list[Candidate]:
    """The best `limit` candidates: of the same topic the newest, and nothing said twice.

    `asked` are the terms of the question, which may name who spoke.
    """
    newest: dict[str, Candidate] = {}
    for each in candidates:
        other = newest.get(each.topic)
        if other is None or each.note.at > other.note.at:
            newest[each.topic] = each
    left = sorted(strengths(list(newest.values()), asked), key=lambda pair: -pair[0])
    chosen: list[Candidate] = []
    while left and len(chosen) < limit:
        best = most_telling(left, chosen)
        chosen.append(best[1])
        left.remove(best)
    return chosen


def most_telling(left: Sequence[tuple[float, Candidate]], chosen: Sequence[Candidate]) -> tuple[float, Candidate]:
    """The pair of `left`, which is sorted by strength, that adds most to what is chosen."""
    strongest = abs(left[0][0]) or 1.0
    best, most = left[0], -math.inf
    for pair in left:
        relevance = RELEVANCE * pair[0] / strongest
        if relevance <= most:
            break  # those after it are no stronger, and whatever repeats something has less
        mark = relevance - (1 - RELEVANCE) * repeats(pair[1], chosen)
        best, most = (pair, mark) if mark > most else (best, most)
    return best


def dealt(candidates: Sequence[Candidate], marks: Sequence[float]) -> list[Candidate]:
    """The candidates in the order of their marks, best first, with the scores that they have dealt out in that order.

    So marks of any scale may come, and what else counts for a note, such as its newness, counts as much as before.
    """
    order = sorted(range(len(candidates)), key=lambda at: -marks[at])
    scores = sorted((each.score for each in candidates), reverse=True)
    return [replace(candidates[at], score=score) for at, score in zip(order, scores, strict=True)]


def strengths(candidates: Sequence[Candidate], asked: Set[str]) -> list[tuple[float, Candidate]]:
    """How well each candidate fits, by how much whose word it is, how new it is and who speaks count beside that.

    Age is counted from the newest of them: what is old in a community that fell silent is as good as it ever was.
    """
    newest = max((each.note.at for each in candidates), default=None)
    named = {each.speaker for each in candidates if is_named(each.speaker, asked)}

    def strength(each: Candidate) -> float:
        assert newest is not None
        halvings: float = (newest - each.note.at) / HALF_LIFE
        esteem = AUTHORITY[each.note.why.authority] * (1 + NEWNESS * math.pow(0.5, halvings))
        lift = (SPEAKER if each.speaker in named else -SPEAKER) if named and each.speaker else 0.0
        return each.score * esteem + lift

    return [(strength(each), each) for each in candidates]


def is_named(speaker: str, asked: Set[str]) -> bool:
    return bool(asked & set(speaker.casefold().split()))


def repeats(candidate: Candidate, chosen: Iterable[Candidate]) -> float:
    """How much of a candidate is said by one that is chosen already: the share of terms of both that both have."""
    shares = (len(candidate.terms & each.terms) / (len(candidate.terms | each.terms) or 1) for each in chosen)
    return max(shares, default=0.0)


def mixed(han_share: float, *, by_words: bool = False) -> Weights:
    """The weights for a question of which this share of letters is Han; `by_words` where only BM25 has searched."""
    latin, han = astuple(WORDS if by_words else LATIN), astuple(HAN)
    return Weights(*(one + (other - one) * han_share for one, other in zip(latin, han, strict=True)))


def cut(scored: Sequence[tuple[Candidate, float]], *, least_share: float) -> list[tuple[Candidate, float]]:
    """Without the notes that fit far worse than the best: a needless note costs time and misleads a small model."""
    best = max((sure for _, sure in scored), default=0.0)
    return [pair for pair in scored if pair[1] >= best * least_share]


def timings(marks: Mapping[str, float]) -> dict[str, float]:
    """Milliseconds by stage, rounded."""
    return {name: round(seconds * 1000, 2) for name, seconds in marks.items()}
