"""Measures of answers, each a number for one answer; and intervals for their differences. Pure.

Words are the units for most languages, characters for Chinese, Japanese and Korean, told by the reference.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence, Set

import numpy as np

from memory.terms import IS_CJK, content_terms
from trainer.card import Interval

WORD = re.compile(r"\w+", re.UNICODE)
NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
# Resamples of the bootstrap: the 2.5 % quantile of 2000 moves by under a tenth of the interval's width.
RESAMPLES = 2000
# Shorter shared runs are idiom: "the crumb never lies" is meant to come back.
IDIOM_UNITS = 8


def units(text: str) -> list[str]:
    """The units that overlap is counted in: casefolded words, and every CJK character by itself."""
    found: list[str] = []
    for word in WORD.findall(unicodedata.normalize("NFKC", text).casefold()):
        if IS_CJK.search(word):
            found += re.findall(f"{IS_CJK.pattern}|[^\\W{IS_CJK.pattern[1:-1]}]+", word)
        else:
            found.append(word)
    return found


def rouge_n(answer: str, reference: str, n: int) -> float:
    """ROUGE-N F1 (Lin 2004): overlap of n-grams."""
    said, wanted = Counter(ngrams(units(answer), n)), Counter(ngrams(units(reference), n))
    return f1(sum((said & wanted).values()), sum(said.values()), sum(wanted.values()))


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L F1 (Lin 2004): the longest common subsequence."""
    said, wanted = units(answer), units(reference)
    lengths = [0] * (len(wanted) + 1)
    for one in said:
        diagonal = 0
        for at, other in enumerate(wanted, 1):
            diagonal, lengths[at] = lengths[at], diagonal + 1 if one == other else max(lengths[at], lengths[at - 1])
    return f1(lengths[-1], len(said), len(wanted))


def f1(common: int, said: int, wanted: int) -> float:
    return 2 * common / (said + wanted) if said + wanted else 0.0


def ngrams(found: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(found[at : at + n]) for at in range(len(found) - n + 1)]


def unhealthy(answer: str, *, finished: bool) -> float:
    """1 for an answer that is empty, loops, or ran into its limit; 0 for a healthy one.

    It loops when some four units come three times, or when under half of its runs of three are different ones.
    """
    found = units(answer)
    if len(found) < 2 or not finished:
        return 1.0
    fours, threes = Counter(ngrams(found, 4)), ngrams(found, 3)
    loops = max(fours.values(), default=0) >= 3 or (len(threes) > 8 and len(set(threes)) * 2 < len(threes))
    return 1.0 if loops else 0.0


def verbatim(answer: str, learned: Set[tuple[str, ...]], allowed: str) -> float:
    """The share of an answer's runs of eight units that stand in a training answer and not in what it was given."""
    said, given = ngrams(units(answer), IDIOM_UNITS), set(ngrams(units(allowed), IDIOM_UNITS))
    copied = [run for run in said if run in learned and run not in given]
    return len(copied) / len(said) if said else 0.0


def learned_runs(answers: Sequence[str]) -> set[tuple[str, ...]]:
    """All runs of eight units in training answers."""
    return {run for answer in answers for run in ngrams(units(answer), IDIOM_UNITS)}


def groundedness(answer: str, given: str) -> float:
    """The share of an answer's numbers and content terms that stand in its notes or question; 1 when it has none."""
    said = {*NUMBER.findall(answer), *content_terms(answer)}
    known = {*NUMBER.findall(given), *content_terms(given)}
    return len(said & known) / len(said) if said else 1.0


def paired_bootstrap(new: Sequence[float], old: Sequence[float], *, seed: int) -> Interval:
    """Mean of new minus old over the same items, with its 95 % interval by resampling items (Efron 1979)."""
    differences = np.asarray(new, dtype=np.float64) - np.asarray(old, dtype=np.float64)
    rng = np.random.default_rng(seed)
    picked = rng.integers(0, len(differences), size=(RESAMPLES, len(differences)))
    low, high = np.quantile(differences[picked].mean(axis=1), [0.025, 0.975])
    return Interval(float(differences.mean()), float(low), float(high))
