"""Text to vectors: dense by a sentence-transformers model, sparse by BM25 term weights.

Dense finds the same question in other words; sparse finds names, numbers and Chinese terms that a small English model
blurs. Terms are Snowball stems of words, and single characters and pairs of them for Chinese, Japanese and Korean.
"""

import importlib.util
import logging
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from infra.errors import UserMistake
from memory.messages import name_uuid
from memory.prepared import Prepared, is_prepared, prepare_embedder

log = logging.getLogger(__name__)

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


# What sentence-transformers raises for a model that is none.
UNLOADABLE = (OSError, ValueError, KeyError, RuntimeError)


class Encoder:
    """A dense embedder. One process needs one."""

    def __init__(self, name: str, *, threads: int = 2, folder: Path | None = None) -> None:
        """`name` is `package:NAME`, `hub:REPO` or a folder; in `folder` it is kept prepared, so that it loads quickly.

        Raises UserMistake when there is no such model.
        """
        self.name = name
        self._model = original(name, threads) if folder is None else quick(name, threads, folder)
        self.dimension = self._model.dimension

    def dense(self, texts: list[str]) -> np.ndarray:
        """Unit vectors, float32, (texts, dimension)."""
        return self._model.dense(texts)


def kept_encoder(name: str, models: Path, *, threads: int = 2) -> Encoder:
    """The embedder that all processes of an installation share as it was prepared; `models` holds its models.

    Raises UserMistake when there is no such model.
    """
    return Encoder(name, threads=threads, folder=kept_folder(name, models))


def kept_folder(name: str, models: Path, kind: str = "embedder") -> Path:
    """Where among an installation's models one is kept as it was prepared."""
    return models / f"{kind}-{name_uuid(name)}"


class Original:
    """An embedder as sentence-transformers runs it on torch, which take seconds to load."""

    def __init__(self, source: str, *, threads: int) -> None:
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

        torch.set_num_threads(threads)
        disable_progress_bar()
        self.model = SentenceTransformer(source, device="cpu")
        self.dimension = int(self.model.get_embedding_dimension() or 0)

    def dense(self, texts: list[str]) -> np.ndarray:
        """Unit vectors, float32, (texts, dimension)."""
        found = self.model.encode(texts, batch_size=32, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(found, dtype=np.float32).reshape(len(texts), self.dimension)


def original(name: str, threads: int) -> Original:
    """The embedder itself. Raises UserMistake when it cannot be loaded."""
    source = location(name)
    try:
        return Original(source, threads=threads)
    except UNLOADABLE as error:
        raise UserMistake(f"The embedder {name!r} cannot be loaded: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """What a library says of its trouble, without the essay after it."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def quick(name: str, threads: int, folder: Path) -> Original | Prepared:
    """The embedder as it was prepared; prepared now, at the first time, and the embedder itself where that fails."""
    made_from = fingerprint(name)
    if is_prepared(folder, made_from):
        return Prepared(folder, threads=threads)
    model = original(name, threads)
    try:
        return prepare_embedder(model.model, folder, made_from=made_from, threads=threads)
    except Exception as error:  # noqa: BLE001  exporters fail in many ways, and all of them cost only time
        log.warning("the embedder runs on torch, as it could not be prepared for onnxruntime: %s", error)
        return model


def fingerprint(name: str) -> str:
    """What tells one state of a model's files from another; a hub's model is known by its name alone."""
    source = Path(location(name))
    files = sorted(path for path in source.rglob("*") if path.is_file()) if not name.startswith("hub:") else []
    return "\n".join([name, *(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files)])


def location(name: str) -> str:
    """What sentence-transformers loads for a model's name."""
    kind, _, rest = name.partition(":")
    if kind == "hub":
        return rest
    if kind == "package":
        spec = importlib.util.find_spec(rest)
        if spec is None or not spec.submodule_search_locations:
            raise UserMistake(f"The package {rest!r} is not installed. Run: pip install understudy.")
        return str(Path(spec.submodule_search_locations[0]) / "model")
    if not name or not Path(name).is_dir():
        raise UserMistake(f"There is no model at {name!r}.")
    return name
