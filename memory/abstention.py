"""How well memory knows what it does not know, on questions that its confidence was not fitted on.

The bundled community has questions of both kinds, answerable and not. A file of labelled questions, in any of the
shapes that `memory/quality.py` reads, is asked twice: once as it is, and once with what answers a question taken out.

A question is to be refused when no note that would be handed over answers it. Two models of confidence are judged: the
one that is shipped, which was fitted on the bundled questions and has not seen the files, and one fitted anew on four
fifths of a set and judged on the fifth that is left, five times over. The latter takes its threshold from the same
four fifths, by one rule: the highest that refuses at most a tenth of what memory has the answer to.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np

from memory.bench import CREATOR, EMBEDDER
from memory.encode import Encoder, kept_encoder
from memory.importers.records import ImportContext
from memory.importing import import_paths
from memory.index import Index
from memory.journal import Journal
from memory.quality import ROOM, UNDATED, Corpus, corpora_of, searched, spread
from memory.ranking import THRESHOLD
from memory.recall import Recall, Recollection, han_share
from memory.vectors import EdgeStore

# Of a larger file so many questions are asked, evenly spread, each twice.
MOST_QUESTIONS = 400
# The share of answers at hand that may be lost to caution.
MOST_LOST = 0.1
FOLDS = 5
# Keeps a fit on few questions finite.
RIDGE = 0.1
# The bundled community: what is known, and who speaks in it.
KNOWN = ("qa.jsonl", "faq.md", "guide.md", "telegram", "discord")
WREN = frozenset({"telegram:user4201337", "discord:420133742013374201"})


@dataclass(frozen=True)
class Trial:
    """A question as it was asked: whether a right note was handed over, and the confidence with what it is made of."""

    chinese: bool
    right: bool
    confidence: float
    cosine: float
    coverage: float

    @property
    def signals(self) -> tuple[float, float, float]:
        """What a model of confidence reads; the cosine of an English embedder says nothing of Chinese."""
        return 1.0, 0.0 if self.chinese else self.cosine, self.coverage


@dataclass(frozen=True)
class Verdict:
    """Whether a question was refused, and whether a right note was at hand."""

    refused: bool
    right: bool


def abstaining(paths: Sequence[Path], folder: Path, *, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """A row for each set, language and model. Raises UserMistake for a file of no known shape."""
    encoder = kept_encoder(EMBEDDER, folder)
    say("the bundled community")
    rows = rows_of("bundled", list(bundled(folder / "bundled", encoder)))
    for number, path in enumerate(paths):
        trials: list[Trial] = []
        for place, corpus in enumerate(spread(corpora_of(path), MOST_QUESTIONS)):
            say(f"{path.name}: {len(corpus.questions)} questions")
            trials += asked_twice(corpus, folder / f"{number}-{place}", encoder)
        rows += rows_of(path.stem, trials)
    return rows


def bundled(folder: Path, encoder: Encoder) -> Iterator[Trial]:
    """The labelled questions of the bundled community."""
    journal = Journal.open(f"sqlite:///{folder / 'journal.db'}")
    with as_file(files("memory") / "sample") as sample:
        import_paths(journal, [sample / name for name in KNOWN], ImportContext(CREATOR, WREN, UNDATED))
        lines = (sample / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    index = Index(journal, EdgeStore(folder / "index"), encoder)
    index.drain_all()
    recall = Recall(journal, index)
    for asked in map(json.loads, lines):
        found = recall.recall(asked["question"])
        texts = [note.text.casefold() for note in found.notes]
        right = asked["answerable"] and any(asked["expects"][0].casefold() in text for text in texts)
        yield trial(asked["question"], found, right=right)
    index.close()
    journal.close()


def asked_twice(corpus: Corpus, folder: Path, encoder: Encoder) -> Iterator[Trial]:
    """Every question with what answers it in memory, and without."""
    with searched(corpus, folder, encoder) as (_, recall):
        for question in corpus.questions:
            found = recall.recall(question.text, budget_tokens=ROOM)
            yield trial(question.text, found, right=any(note.id in question.gold for note in found.notes))
            without = recall.recall(question.text, budget_tokens=ROOM, excluded=question.gold)
            yield trial(question.text, without, right=False)


def trial(question: str, found: Recollection, *, right: bool) -> Trial:
    """What was found, by the note that memory is surest of."""
    surest = max(found.notes, key=lambda note: note.score, default=None)
    cosine, coverage = (surest.why.cosine, surest.why.coverage) if surest else (0.0, 0.0)
    return Trial(han_share(question) >= 0.5, right, found.confidence, cosine, coverage)


def rows_of(name: str, trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Both models on one set, each language apart."""
    rows = []
    for language, chinese in (("English", False), ("Chinese", True)):
        own = [each for each in trials if each.chinese is chinese]
        if len(own) >= FOLDS:
            head = {"set": name, "language": language}
            rows += [{**head, "model": "shipped", **figures([judged(each) for each in own])}]
            rows += [{**head, "model": "cross-fitted", **figures(cross_fitted(own))}]
    return rows


def judged(trial: Trial) -> Verdict:
    """What the shipped model does."""
    return Verdict(trial.confidence < THRESHOLD, trial.right)


def cross_fitted(trials: Sequence[Trial]) -> list[Verdict]:
    """What a model does with questions that neither its weights nor its threshold have seen."""
    verdicts = []
    for seen, held_out in folds(trials):
        weights = fitted_weights(seen)
        threshold = operating_point(seen, weights)
        verdicts += [Verdict(bool(np.dot(each.signals, weights) < threshold), each.right) for each in held_out]
    return verdicts


def folds(trials: Sequence[Trial]) -> Iterator[tuple[list[Trial], list[Trial]]]:
    """What is seen and what is held out, five times; a question and its second asking are never parted."""
    for fold in range(FOLDS):
        yield (
            [each for at, each in enumerate(trials) if at // 2 % FOLDS != fold],
            [each for at, each in enumerate(trials) if at // 2 % FOLDS == fold],
        )


def fitted_weights(trials: Sequence[Trial]) -> np.ndarray:
    """Logistic regression by Newton's method, with a ridge: what the signals say of a right note, as log odds."""
    signals = np.array([each.signals for each in trials])
    right = np.array([each.right for each in trials], dtype=float)
    weights = np.zeros(signals.shape[1])
    for _ in range(25):
        odds = 1 / (1 + np.exp(-signals @ weights))
        curvature = signals.T @ (signals * (odds * (1 - odds))[:, None]) + RIDGE * np.eye(len(weights))
        weights = weights + np.linalg.solve(curvature, signals.T @ (right - odds) - RIDGE * weights)
    return weights


def operating_point(trials: Sequence[Trial], weights: np.ndarray) -> float:
    """The highest log odds below which at most `MOST_LOST` of the right notes lie."""
    right = sorted(float(np.dot(each.signals, weights)) for each in trials if each.right)
    return right[int(MOST_LOST * len(right))] if right else 0.0


def figures(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Precision and recall of refusing, and what it costs: the share of right notes that were not used."""
    refused = [each for each in verdicts if each.refused]
    silent = [each for each in verdicts if not each.right]
    right = [each for each in verdicts if each.right]
    return {
        "questions": len(verdicts),
        "to refuse": len(silent),
        "refusal precision": share([not each.right for each in refused]),
        "refusal recall": share([each.refused for each in silent]),
        "right notes refused": share([each.refused for each in right]),
    }


def share(marks: Sequence[bool]) -> float | str:
    """The share of true marks; a dash where there are none to judge by."""
    return round(sum(marks) / len(marks), 3) if marks else "-"
