"""What a text is about, as terms: Snowball stems of words, and of Chinese, Japanese and Korean single characters and
pairs. BM25's weights are made of them, and most of what compares two texts by their words. Pure.
"""

import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

# Okapi BM25 (Robertson and Zaragoza 2009), the values Lucene and Qdrant take too. The average lengths are fixed, as a
# collection that grows would otherwise need every weight again. In words, or characters of Chinese, 40 is what the
# exchanges we measured have, and 150 about what pieces of documents are cut to.
K1, B = 1.2, 0.75
EXCHANGE_TERMS, PASSAGE_TERMS = 40.0, 150.0

CJK = "\u2e80-\u30ff\u3130-\u318f\u31f0-\u31ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
RUNS = re.compile(f"[{CJK}]+|[^\\W{CJK}]+(?:['’][^\\W{CJK}]+)?")
IS_CJK = re.compile(f"[{CJK}]")

# Words that say nothing about what a question is about.
STOP = frozenset(
    """a an and any are as at be been but by can could did do does for from get has have he her his how i if in is it
    its just let me my no not of on or our out please she should so some than that the their them then there these
    they this to too up us was we were what when where which while who why will with would you your about into also am
    的 了 吗 呢 啊 吧 是 在 我 你 他 她 它 们 这 那 有 和 就 都 也 很 到 说 要 会 着 没 看 好 上 下 么 怎 什 为 请 问
    可 以 能 不 办 样 一 像 多 少 久 几 如 何 样""".split()  # noqa: SIM905  a list of 130 quoted words is harder to read
)


@dataclass(frozen=True)
class Sparse:
    """Term numbers, ascending and each once, and their weights."""

    indices: tuple[int, ...]
    values: tuple[float, ...]


def terms(text: str) -> list[str]:
    """The terms of `text` in order: stems, and for CJK every character and every pair of neighbours."""
    found: list[str] = []
    for run in RUNS.findall(unicodedata.normalize("NFKC", text).casefold()):
        if IS_CJK.match(run):
            found += run
            found += [run[at : at + 2] for at in range(len(run) - 1)]
        else:
            found.append(stem(run))
    return found


def content_terms(text: str) -> set[str]:
    """The terms that say what `text` is about."""
    stops = stop_terms()
    return {term for term in terms(text) if term not in stops and not (IS_CJK.match(term) and set(term) <= stops)}


def shared_words(question: str, known: Set[str]) -> tuple[str, ...]:
    """The words of a question that are among `known` terms, as they were asked; of Chinese the longest stretches."""
    runs = RUNS.findall(unicodedata.normalize("NFKC", question))
    words = [word for run in runs for word in (stretches(run, known) if IS_CJK.match(run) else [run])]
    return tuple(dict.fromkeys(word for word in words if content_terms(word) & known))


def stretches(run: str, known: Set[str]) -> list[str]:
    """Parts of a run of CJK in which every pair of neighbours is known."""
    joined = "".join(one + ("" if one + other in known else " ") for one, other in pairwise(f"{run} "))
    return [part for part in joined.split() if len(part) > 1 or part in known]


@cache
def stop_terms() -> frozenset[str]:
    return frozenset({*STOP, *(stem(word) for word in STOP)})


@cache
def stem(word: str) -> str:
    return str(stemmer().stemWord(word.replace("’", "'").removesuffix("'s")))


@cache
def stemmer() -> Any:
    import snowballstemmer

    return snowballstemmer.stemmer("english")


def document_weights(text: str, *, average: float = EXCHANGE_TERMS) -> Sparse:
    """BM25 weights of a document's terms, without IDF: the index knows how rare a term is.

    `average` is how long documents of its kind are.
    """
    counts = Counter(terms(text))
    length = K1 * (1 - B + B * length_of(counts) / average)
    return sparse({term: count * (K1 + 1) / (count + length) for term, count in counts.items()})


def length_of(counts: Mapping[str, int]) -> int:
    """How long a text of these terms is: a pair of CJK characters is made of two that count already."""
    return sum(count for term, count in counts.items() if len(term) != 2 or not IS_CJK.match(term))


def query_weights(text: str) -> Sparse:
    """A query's terms, each counting once; a query of stop words alone keeps them."""
    return sparse(dict.fromkeys(content_terms(text) or set(terms(text)), 1.0))


def sparse(weights: dict[str, float]) -> Sparse:
    """Terms as numbers. Two terms that share a number, one pair in four billion, add up."""
    numbered: dict[int, float] = {}
    for term, weight in weights.items():
        number = zlib.crc32(term.encode())
        numbered[number] = numbered.get(number, 0.0) + weight
    indices = tuple(sorted(numbered))
    return Sparse(indices, tuple(numbered[index] for index in indices))
