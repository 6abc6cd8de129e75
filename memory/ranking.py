"""From two lists of hits to the few notes worth handing over, and how sure we are that they answer. Pure."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import astuple, dataclass, replace
from datetime import timedelta

from memory.messages import Authority, Note


@dataclass(frozen=True)
class Hit:
    """An id and its score, cosine for dense and BM25 with IDF for sparse, and its place in a document if it has one."""

    id: str
    score: float
    section: str = ""
    position: int = 0


@dataclass(frozen=True)
class Ranked:
    """What either search found: its score among the others, and its cosine, 0 when the dense search did not find it."""

    id: str
    score: float
    cosine: float


@dataclass(frozen=True)
class Candidate:
    """A note with what its place among the others and its confidence are made of.

    `cosine` is between the asked and the known question (or passage), 0 when the dense search did not bring it up;
    `coverage` is the share of what the asked question is about that the note mentions, both 0 to 1. `topic` is the same
    for answers to the same question. `speaker` is who says a line of a transcript, empty elsewhere.
    """

    note: Note
    score: float
    cosine: float
    coverage: float
    topic: str
    terms: frozenset[str] = frozenset()
    speaker: str = ""


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
    own: defaultdict[str, float] = defaultdict(float)
    floor = dense[-1].score if len(dense) >= depth else 0.0
    for hit in dense:
        own[hit.id] += weights.dense * max(0.0, hit.score - floor)
    for hit in sparse:
        own[hit.id] += hit.score / sparse[0].score
    cosines = {hit.id: max(0.0, hit.score) for hit in dense}
    lifted = in_company({hit.id: hit for hit in (*dense, *sparse)}, own)
    return [Ranked(each, lifted[each], cosines.get(each, 0.0)) for each in sorted(own, key=lambda one: -lifted[one])]


def in_company(hits: Mapping[str, Hit], own: Mapping[str, float]) -> dict[str, float]:
    """Strengths with what the neighbours and the section of each add; what stands alone is its own best."""
    best: defaultdict[str, float] = defaultdict(float)
    at: dict[tuple[str, int], float] = {}
    for each, hit in hits.items():
        if hit.section:
            best[hit.section] = max(best[hit.section], own[each])
            at[hit.section, hit.position] = own[each]

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


def confidence(candidate: Candidate, weights: Weights) -> float:
    """The probability, 0 to 1, that this note answers what was asked."""
    score = weights.bias + weights.cosine * candidate.cosine + weights.coverage * candidate.coverage
    return 1 / (1 + math.exp(-score))


def choose(
    candidates: Iterable[Candidate], *, limit: int, weights: Weights, asked: Set[str] = frozenset()
) -> list[tuple[Candidate, float]]:
    """The best `limit` candidates with their confidence: of the same question the newest answer, nothing said twice.

    `asked` are the terms of the question, which may name who spoke.
    """
    newest: dict[str, Candidate] = {}
    for each in candidates:
        other = newest.get(each.topic)
        if other is None or each.note.at > other.note.at:
            newest[each.topic] = each
    left = by_speaker(esteemed(list(newest.values())), asked)
    chosen: list[Candidate] = []
    while left and len(chosen) < limit:
        least = max(each.score for each in left) or 1.0
        best = max(left, key=lambda each: RELEVANCE * each.score / least - (1 - RELEVANCE) * repeats(each, chosen))
        chosen.append(best)
        left.remove(best)
    return [(each, confidence(each, weights)) for each in chosen]


def dealt(candidates: Sequence[Candidate], marks: Sequence[float]) -> list[Candidate]:
    """The candidates in the order of their marks, best first, with the scores that they have dealt out in that order.

    So marks of any scale may come, and what else counts for a note, such as its newness, counts as much as before.
    """
    order = sorted(range(len(candidates)), key=lambda at: -marks[at])
    scores = sorted((each.score for each in candidates), reverse=True)
    return [replace(candidates[at], score=score) for at, score in zip(order, scores, strict=True)]


def esteemed(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates, each by how much whose word it is and how new it is count beside how well it fits.

    Age is counted from the newest of them: what is old in a community that fell silent is as good as it ever was.
    """
    newest = max((each.note.at for each in candidates), default=None)

    def esteem(note: Note) -> float:
        assert newest is not None
        halvings: float = (newest - note.at) / HALF_LIFE
        return AUTHORITY[note.why.authority] * (1 + NEWNESS * math.pow(0.5, halvings))

    return [replace(each, score=each.score * esteem(each.note)) for each in candidates]


def by_speaker(candidates: Sequence[Candidate], asked: Set[str]) -> list[Candidate]:
    """The candidates, those first that somebody said whom the question names."""
    named = {each.speaker for each in candidates if is_named(each.speaker, asked)}
    if not named:
        return list(candidates)

    def lifted(each: Candidate) -> float:
        return (SPEAKER if each.speaker in named else -SPEAKER) if each.speaker else 0.0

    return [replace(each, score=each.score + lifted(each)) for each in candidates]


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
