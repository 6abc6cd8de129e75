"""From two lists of hits to the few notes worth handing over, and how sure we are that they answer. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from memory.messages import Note

# Reciprocal rank fusion (Cormack, Clarke and Buettcher 2009), with the constant of the paper.
RRF_K = 60


@dataclass(frozen=True)
class Candidate:
    """A note with what its confidence is made of.

    `cosine` is between the asked and the known question (or passage), 0 when the dense search did not bring it up;
    `coverage` is the share of what the asked question is about that the note mentions, both 0 to 1.
    """

    note: Note
    fused: float
    cosine: float
    coverage: float
    topic: str


@dataclass(frozen=True)
class Weights:
    """A logistic model of "this note answers": bias + cosine * x + coverage * y."""

    bias: float
    cosine: float
    coverage: float


# Fitted by logistic regression on the labelled questions of the bundled community, which `tests/memory/test_recall.py`
# asks again. The embedder is an English one: on Chinese its cosine says nothing, and the words carry the weight.
LATIN = Weights(bias=-6.5, cosine=8.1, coverage=4.6)
HAN = Weights(bias=-2.9, cosine=0.0, coverage=9.0)

# The least confidence at which the twin answers; see docs/benchmarks.md for what it lets through and holds back.
THRESHOLD = 0.5


def fuse(*lists: Sequence[str]) -> dict[str, float]:
    """Reciprocal rank fusion of ranked ids: the sum of 1 / (60 + rank), best first."""
    scores: dict[str, float] = {}
    for ranked in lists:
        for rank, identity in enumerate(ranked, 1):
            scores[identity] = scores.get(identity, 0.0) + 1 / (RRF_K + rank)
    return dict(sorted(scores.items(), key=lambda each: -each[1]))


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


def choose(candidates: Iterable[Candidate], *, limit: int, weights: Weights) -> list[tuple[Candidate, float]]:
    """The best `limit` candidates by confidence, each topic once: of the same question the newest answer stands."""
    newest: dict[str, Candidate] = {}
    for each in candidates:
        other = newest.get(each.topic)
        if other is None or each.note.at > other.note.at:
            newest[each.topic] = each
    scored = [(each, confidence(each, weights)) for each in newest.values()]
    scored.sort(key=lambda pair: (-pair[1], -pair[0].fused))
    return scored[:limit]


def mixed(han_share: float) -> Weights:
    """The weights for a question of which this share of letters is Han."""

    def between(latin: float, han: float) -> float:
        return latin + (han - latin) * han_share

    return Weights(
        between(LATIN.bias, HAN.bias), between(LATIN.cosine, HAN.cosine), between(LATIN.coverage, HAN.coverage)
    )


def cut(scored: Sequence[tuple[Candidate, float]], *, least_share: float) -> list[tuple[Candidate, float]]:
    """Without the notes that fit far worse than the best: a needless note costs time and misleads a small model."""
    return [pair for pair in scored if pair[1] >= scored[0][1] * least_share]


def timings(marks: Mapping[str, float]) -> dict[str, float]:
    """Milliseconds by stage, rounded."""
    return {name: round(seconds * 1000, 2) for name, seconds in marks.items()}
