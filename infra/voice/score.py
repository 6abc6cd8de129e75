"""How likely a voice finds given words: the measure that evals, weights and the parity probe share."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from infra.voice.chat import Turn
from infra.voice.llama import Adapter, Context, Model

BATCH = 512


@dataclass(frozen=True)
class Likelihood:
    """Negative log-likelihood of an answer in nats, summed over its tokens and its end of turn."""

    nll: float
    tokens: int


class Scorer:
    """A base with at most one adapter, for scoring only. A context manager: weights are freed at its end."""

    def __init__(
        self, weights: Path, adapter: Path | None = None, *, context_tokens: int = 2048, threads: int = 2
    ) -> None:
        """Raises ServiceTrouble when the weights or the adapter cannot be loaded."""
        self._model = Model(weights)
        self._adapter = Adapter(self._model, adapter) if adapter else None
        self._context = Context(
            self._model, tokens=context_tokens, sequences=1, batch=BATCH, threads=threads, adapter=self._adapter
        )

    def __enter__(self) -> "Scorer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.free()
        if self._adapter is not None:
            self._adapter.free()
        self._model.free()

    def answer(self, turns: Sequence[Turn], answer: str) -> Likelihood:
        """The likelihood of `answer`, ended by its end of turn, after `turns`."""
        prompt = self._model.turn_tokens(turns)
        return self.tokens(prompt, [*self._model.tokens(answer, special="plain"), self._model.end_of_turn])

    def tokens(self, prompt: Sequence[int], target: Sequence[int]) -> Likelihood:
        """The likelihood of the tokens `target` after the tokens `prompt`, which is not empty."""
        rows = self.logits([*prompt, *target], wanted=range(len(prompt) - 1, len(prompt) + len(target) - 1))
        peak = rows.max(axis=1, keepdims=True)
        log_sum = np.log(np.exp(rows - peak).sum(axis=1)) + peak[:, 0]
        return Likelihood(float((log_sum - rows[np.arange(len(target)), list(target)]).sum()), len(target))

    def logits(self, tokens: Sequence[int], *, wanted: Sequence[int]) -> np.ndarray:
        """The logits after each position in `wanted`: float32, (positions, vocabulary)."""
        asked, found = set(wanted), []
        for start in range(0, len(tokens), BATCH):
            rows = [(t, n, 0, n in asked) for n, t in enumerate(tokens[start : start + BATCH], start)]
            self._context.decode(rows)
            found += [self._context.logits(row) for row, (_, _, _, wants) in enumerate(rows) if wants]
        self._context.forget(0)
        return np.stack(found)

    def one_by_one(self, tokens: Sequence[int]) -> None:
        """Compute tokens as generation does, each in a step of its own."""
        for position, token in enumerate(tokens):
            self._context.decode([(token, position, 0, True)])
        self._context.forget(0)

    def plain_tokens(self, text: str) -> list[int]:
        """Token ids of mere text."""
        return self._model.tokens(text, special="plain")

    def prompt_tokens(self, turns: Sequence[Turn]) -> list[int]:
        """Token ids of a prompt as the engine would compute it."""
        return self._model.turn_tokens(turns)
