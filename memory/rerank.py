"""A cross-encoder, which reads question and candidate together: a better judge than either search, and a slow one.

It is optional and has a hard budget of time: it is not waited for longer, and the order then stays as it was. Among the
candidates that it reads, its order replaces that of the searches, as in Nogueira and Cho, Passage Re-ranking with BERT
(2019). How sure memory is of a note stays what it was: that is calibrated on cosine and coverage.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra.errors import UserMistake
from infra.files import alone_in
from memory.encode import UNLOADABLE, fingerprint, first_line, kept_folder, location
from memory.messages import Note
from memory.prepared import Prepared, is_prepared, prepare_reranker
from memory.ranking import Candidate, dealt

# Two free cores read about sixty such pairs a second with twelve layers of 384, and most pairs are shorter. Where cores
# are busy or the model is larger, the budget is spent and the order stays as it was.
READ, PAIR_TOKENS = 20, 128
BUDGET_S = 0.25


class Reranker:
    """A cross-encoder as it was prepared. One process needs one; safe to call from several threads."""

    def __init__(self, name: str, models: Path, *, threads: int = 2, budget_s: float = BUDGET_S) -> None:
        """`name` is `package:NAME`, `hub:REPO` or a folder; among `models` it is kept prepared.

        Raises UserMistake when there is no such model, or none that scores pairs.
        """
        self._model = opened(name, kept_folder(name, models, "reranker"), threads)
        self._budget_s = budget_s

    def reordered(self, question: str, candidates: Sequence[Candidate]) -> list[Candidate] | None:
        """The candidates, the best of them in the cross-encoder's order; None when it was not done in time."""
        best = sorted(candidates, key=lambda each: -each.score)
        read, left = best[:READ], best[READ:]
        if not read:
            return []
        marks = self._model.scores(question, [text_of(each.note) for each in read], budget_s=self._budget_s)
        return None if marks is None else dealt(read, marks.tolist()) + left


def text_of(note: Note) -> str:
    """What is read beside the question: the known question with its answer, or the piece of a document."""
    return f"{note.question}\n{note.text}".strip()


def opened(name: str, folder: Path, threads: int) -> Prepared:
    """The cross-encoder as it was prepared; prepared now, at the first time."""
    made_from = fingerprint(name)
    if is_prepared(folder, made_from):
        return Prepared(folder, threads=threads)
    with alone_in(folder.parent):
        if is_prepared(folder, made_from):
            return Prepared(folder, threads=threads)  # by another process meanwhile
        return prepared(name, folder, made_from=made_from, threads=threads)


def prepared(name: str, folder: Path, *, made_from: str, threads: int) -> Prepared:
    """The cross-encoder, prepared now."""
    model = original(name)
    try:
        return prepare_reranker(model, folder, made_from=made_from, threads=threads)
    except Exception as error:  # exporters fail in many ways
        raise UserMistake(f"The reranker {name!r} cannot be prepared for onnxruntime: {first_line(error)}") from error


def original(name: str) -> Any:
    """The cross-encoder as sentence-transformers has it. Raises UserMistake for what is none."""
    from sentence_transformers import CrossEncoder
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    source = location(name)
    try:
        model = CrossEncoder(source, device="cpu", max_length=PAIR_TOKENS)
    except UNLOADABLE as error:
        raise UserMistake(f"The reranker {name!r} cannot be loaded: {first_line(error)}") from error
    kinds = getattr(model.config, "architectures", None) or ["nothing"]
    if not kinds[0].endswith("ForSequenceClassification") or model.num_labels != 1:
        raise UserMistake(f"The reranker {name!r} is no cross-encoder that gives a pair one score: it is {kinds[0]}.")
    return model
