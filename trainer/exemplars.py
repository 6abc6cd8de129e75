"""Which real exchanges a teacher is shown for a new question: the nearest in topic that do not give the answer away.

Nearness is that of `dataset.closeness`: cosine of TF-IDF weighted character n-grams of the questions, which needs no
words and no model. What is nearer than `NEARLY` asks the same, so it is not shown; nor is, for a question that was made
of a real one, that exchange or any whose answer nearly repeats its answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from memory.messages import Exchange
from trainer.dataset import NEARLY, folded, grams

SHOWN = 3
# Questions at a time: 256 rows against 10,000 exchanges are 20 MB.
SLICE = 256


@dataclass(frozen=True)
class Likeness:
    """How near texts are to those of a pool."""

    vectorizer: Any
    against: Any

    @classmethod
    def to(cls, texts: Sequence[str]) -> "Likeness":
        vectorizer = grams()
        return cls(vectorizer, vectorizer.fit_transform(map(folded, texts)).T.tocsc())

    def of(self, texts: Sequence[str]) -> np.ndarray:
        """For each text its cosine to each of the pool."""
        found = self.vectorizer.transform(map(folded, texts)) @ self.against
        return np.asarray(found.toarray(), dtype=np.float32)


@dataclass(frozen=True)
class Exemplars:
    """A pool of real exchanges that may be shown."""

    pool: Sequence[Exchange]
    questions: Likeness
    answers: Likeness

    @classmethod
    def of(cls, pool: Sequence[Exchange]) -> "Exemplars":
        return cls(pool, Likeness.to([each.question for each in pool]), Likeness.to([each.answer for each in pool]))

    def near(
        self, questions: Sequence[str], origins: Sequence[Exchange | None], *, count: int = SHOWN
    ) -> list[tuple[str, ...]]:
        """For each question the ids of the exchanges to show, nearest first; fewer than `count` where more would tell.

        `origins` are the exchanges that questions were made of.
        """
        found: list[tuple[str, ...]] = []
        for start in range(0, len(questions), SLICE):
            part = slice(start, start + SLICE)
            found += self._near(questions[part], origins[part], count)
        return found

    def _near(self, questions: Sequence[str], origins: Sequence[Exchange | None], count: int) -> list[tuple[str, ...]]:
        nearness = self.questions.of(questions)
        tells = nearness >= NEARLY
        made_of = [(row, origin) for row, origin in enumerate(origins) if origin is not None]
        if made_of:
            rows = [row for row, _ in made_of]
            tells[rows] |= self.questions.of([origin.question for _, origin in made_of]) >= NEARLY
            tells[rows] |= self.answers.of([origin.answer for _, origin in made_of]) >= NEARLY
            ids = np.array([each.id for each in self.pool])
            for row, origin in made_of:
                tells[row] |= ids == origin.id
        nearness[tells] = -1
        order = np.argsort(-nearness, axis=1, kind="stable")
        return [self._first(order[row], nearness[row], count) for row in range(len(questions))]

    def _first(self, order: np.ndarray, nearness: np.ndarray, count: int) -> tuple[str, ...]:
        """The first `count` that say different things."""
        chosen: dict[str, str] = {}
        for at in order:
            if nearness[at] < 0 or len(chosen) == count:
                break
            chosen.setdefault(folded(self.pool[at].answer), self.pool[at].id)
        return tuple(chosen.values())
