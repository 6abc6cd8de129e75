"""How much an answer reads like the creator: a classifier of character n-grams, trained on training rows alone.

Character n-grams carry function words, punctuation and spelling, which is what authorship studies find to be style
(Stamatatos 2009), and need no word boundaries, which Chinese has not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trainer.card import StyleCheck

FOLDS = 5


@dataclass(frozen=True)
class Style:
    """A trained measure. `auc` is its own cross-validated area under the curve: near 0.5 it measures nothing."""

    model: Any
    auc: float

    def score(self, answers: Sequence[str]) -> list[float]:
        """For each answer the probability, 0 to 1, that the creator wrote it rather than the base model."""
        return [float(value) for value in self.model.predict_proba(list(answers))[:, 1]]

    def check(self, creator: Sequence[str], base: Sequence[str]) -> StyleCheck:
        """How well it tells answers that it was not made from: the creator's, and the base's to the same questions."""
        theirs, its = self.score(creator), self.score(base)
        right = sum(each >= 0.5 for each in theirs) / len(theirs), sum(each < 0.5 for each in its) / len(its)
        return StyleCheck(sum(right) / 2, sum(theirs) / len(theirs), sum(its) / len(its))


def learn(creator: Sequence[str], others: Sequence[str], *, seed: int) -> Style:
    """Train on the creator's answers and on what the bare base answered to other questions of the training rows."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(
        TfidfVectorizer(analyzer="char", ngram_range=(2, 4), sublinear_tf=True, min_df=2),
        LogisticRegression(class_weight="balanced", max_iter=1000),
    )
    texts, labels = [*creator, *others], [1] * len(creator) + [0] * len(others)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    auc = float(cross_val_score(model, texts, labels, cv=folds, scoring="roc_auc").mean())
    return Style(model.fit(texts, labels), auc)
