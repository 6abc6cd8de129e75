"""How well memory finds, on labelled questions: ours beside each search alone and a plain fusion of both, in one run.

Every side reads the same collection, so what differs is the ranking alone. A file of labelled questions is one of:

- `.jsonl` with `question` and `answer`: the answer is to be found among all answers by the question
- SQuAD's shape (CMRC, DRCD): the paragraph is to be found
- LoCoMo's shape: the turns that are evidence are to be found, in the conversation that the question is about

Beside each other side stands by how much recall is ahead of it, with the 95 % interval of a paired bootstrap over the
questions (Efron and Tibshirani 1993, as Sakai 2006 has it for retrieval): "ahead" is said where all of that is above 0.
"""

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from infra.errors import UserMistake
from memory.bench import CREATOR, EMBEDDER, PLACE
from memory.encode import Encoder, kept_encoder
from memory.index import Index
from memory.journal import Journal
from memory.messages import Passage, Source, name_uuid
from memory.recall import DEPTH, Recall
from memory.remember import passage_event, remember
from memory.terms import query_weights
from memory.vectors import EdgeCollection, EdgeStore, Scope

# Of a larger file so many questions are asked, evenly spread.
MOST_QUESTIONS = 2_000
# What has no date of its own.
UNDATED = datetime(2026, 1, 1, tzinfo=UTC)
# How LoCoMo dates a session.
SESSION_TIME = "%I:%M %p on %d %B, %Y"
# Whole paragraphs are compared, ten to a question.
ROOM = 100_000
# LoCoMo's questions about what was never said have no evidence to find.
ADVERSARIAL = 5
# The side that the others are compared with, by which of its figures, and how often questions are drawn again for it.
OURS, COMPARED, DRAWS = "ours", ("recall@10", "nDCG@10"), 2_000

# What was found for a question, best first, and what is right.
Found = tuple[list[str], frozenset[str]]


@dataclass(frozen=True)
class Question:
    """What is asked, and the ids of the passages that hold the answer."""

    text: str
    gold: frozenset[str]


@dataclass
class Corpus:
    """What is searched as one, and what is asked of it."""

    passages: list[Passage] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)

    def add(self, document: str, position: int, text: str, *, at: datetime = UNDATED) -> str:
        """Add a passage; returns its id."""
        identity = name_uuid("quality", document, str(position))
        source = Source.CREATOR_DOCUMENT
        self.passages.append(Passage(identity, document, position, "", text, CREATOR, PLACE, at, source))
        return identity


def finding(files: Sequence[Path], folder: Path, *, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """For each file a row per side with its figures. Raises UserMistake for a file of no known shape."""
    encoder = kept_encoder(EMBEDDER, folder)
    rows = []
    for number, path in enumerate(files):
        corpora = spread(corpora_of(path))
        ranks: defaultdict[str, list[Found]] = defaultdict(list)
        for place, corpus in enumerate(corpora):
            say(f"{path.name}: {len(corpus.passages)} passages, {len(corpus.questions)} questions")
            for side, found in asked(corpus, folder / f"{number}-{place}", encoder):
                ranks[side].append(found)
        rows += [
            {"set": path.stem, "ranking": side, **figures(found), **lead(ranks[OURS], found)}
            for side, found in ranks.items()
        ]
    return rows


@contextmanager
def searched(corpus: Corpus, folder: Path, encoder: Encoder) -> Iterator[tuple[EdgeCollection, Recall]]:
    """What finds in a corpus: each search by itself, and recall."""
    journal = Journal.open(f"sqlite:///{folder / 'journal.db'}")
    remember(journal, [passage_event(each) for each in corpus.passages], creator=frozenset({CREATOR.key}))
    index = Index(journal, EdgeStore(folder / "index"), encoder)
    index.drain_all()
    assert isinstance(index.collection, EdgeCollection)
    yield index.collection, Recall(journal, index)
    index.close()
    journal.close()


def asked(corpus: Corpus, folder: Path, encoder: Encoder) -> Iterator[tuple[str, Found]]:
    """Every question of a corpus on every side."""
    with searched(corpus, folder, encoder) as (collection, recall):
        for question in corpus.questions:
            yield from on_each_side(question, collection, recall, encoder)


def on_each_side(
    question: Question, collection: EdgeCollection, recall: Recall, encoder: Encoder
) -> Iterator[tuple[str, Found]]:
    """One question: the side, and the ids it ranks first beside the right ones."""
    vector, words = encoder.dense([question.text])[0], query_weights(question.text)
    dense = [hit.id for hit in collection.dense(vector, Scope(), DEPTH)]
    sparse = [hit.id for hit in collection.sparse(words, Scope(), DEPTH)]
    hybrid = collection.fused(vector, words, Scope(), depth=DEPTH, limit=10)
    ours = [note.id for note in recall.recall(question.text, limit=10, budget_tokens=ROOM, least_share=0.0).notes]
    sides = {"dense": dense, "bm25": sparse, "plain hybrid": hybrid, OURS: ours}
    for side, found in sides.items():
        yield side, (found[:10], question.gold)


def figures(found: Sequence[Found]) -> dict[str, float]:
    """Means over all questions; where several passages are right, recall is the share of them that was found."""
    return {"questions": len(found)} | {
        name: round(statistics.fmean(measure(ids, gold) for ids, gold in found), 3)
        for name, measure in MEASURES.items()
    }


def lead(ours: Sequence[Found], other: Sequence[Found]) -> dict[str, str]:
    """By how much ours is ahead of another side on the same questions, with its 95 % interval."""
    return {f"ours ahead, {name}": "" if ours is other else interval(name, ours, other) for name in COMPARED}


def interval(name: str, ours: Sequence[Found], other: Sequence[Found]) -> str:
    """The mean difference of a measure, and in which range it lies when questions are drawn again from these."""
    measure = MEASURES[name]
    gaps = np.array([measure(*one) - measure(*two) for one, two in zip(ours, other, strict=True)])
    rng = np.random.default_rng(0)
    means = [float(gaps[rng.integers(len(gaps), size=len(gaps))].mean()) for _ in range(DRAWS)]
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{gaps.mean():+.3f} ({low:+.3f} to {high:+.3f})"


def gain(ids: Sequence[str], gold: frozenset[str]) -> float:
    """Normalised discounted cumulative gain of the first ten (Järvelin and Kekäläinen 2002), all golds worth 1."""
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(10, len(gold)) + 1))
    return sum(1 / math.log2(rank + 1) for rank, each in enumerate(ids, 1) if each in gold) / ideal


MEASURES: Mapping[str, Callable[[list[str], frozenset[str]], float]] = {
    "hit@1": lambda ids, gold: float(ids[0] in gold) if ids else 0.0,
    "recall@5": lambda ids, gold: len(gold & set(ids[:5])) / len(gold),
    "recall@10": lambda ids, gold: len(gold & set(ids)) / len(gold),
    "MRR@10": lambda ids, gold: next((1 / rank for rank, each in enumerate(ids, 1) if each in gold), 0.0),
    "nDCG@10": gain,
}


def spread(corpora: Sequence[Corpus], most: int = MOST_QUESTIONS) -> Sequence[Corpus]:
    """The corpora with no more than `most` questions together."""
    step = math.ceil(sum(len(corpus.questions) for corpus in corpora) / most) or 1
    return [Corpus(corpus.passages, corpus.questions[::step]) for corpus in corpora]


def corpora_of(path: Path) -> list[Corpus]:
    """What a file asks. Raises UserMistake when it is none of the shapes."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            return [pairs(json.loads(line) for line in text.splitlines() if line.strip())]
        value = json.loads(text)
        return [squad(value["data"])] if isinstance(value, dict) else [conversation(each) for each in value]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserMistake(f"{str(path)!r} is no file of labelled questions: {type(error).__name__} {error}.") from error


def pairs(rows: Iterator[Mapping[str, Any]]) -> Corpus:
    """Questions and answers, each answer a document of its own."""
    corpus = Corpus()
    for number, row in enumerate(rows):
        identity = corpus.add(f"answer {number}", 0, row["answer"], at=moment(row.get("time")))
        corpus.questions.append(Question(row["question"], frozenset({identity})))
    return corpus


def moment(time: float | str | None) -> datetime:
    """When a row says that it was written, in seconds or as ISO text."""
    if isinstance(time, str):
        return datetime.fromisoformat(time)
    return UNDATED if time is None else datetime.fromtimestamp(time, UTC)


def squad(articles: Sequence[Mapping[str, Any]]) -> Corpus:
    """Paragraphs, each a document of its own, as they are told apart by what they say."""
    corpus = Corpus()
    for article in articles:
        for paragraph in article["paragraphs"]:
            identity = corpus.add(f"paragraph {len(corpus.passages)}", 0, paragraph["context"])
            corpus.questions += [Question(qa["question"], frozenset({identity})) for qa in paragraph["qas"]]
    return corpus


def conversation(value: Mapping[str, Any]) -> Corpus:
    """A conversation's turns, each session a document; questions with no evidence are left out."""
    corpus = Corpus()
    ids: dict[str, str] = {}
    for session in value["sessions"]:
        at = datetime.strptime(session["time"], SESSION_TIME).replace(tzinfo=UTC)
        for position, turn in enumerate(session["turns"]):
            ids[turn["id"]] = corpus.add(
                f"session {session['session']}", position, f"{turn['speaker']}: {turn['text']}", at=at
            )
    for qa in value["qa"]:
        named = " ".join(qa.get("evidence") or ()).replace(";", " ").split()
        gold = frozenset(ids[each] for each in named if each in ids)
        if gold and qa["category"] != ADVERSARIAL:
            corpus.questions.append(Question(qa["question"], gold))
    return corpus
