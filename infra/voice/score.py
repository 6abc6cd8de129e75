"""How likely a voice finds given words: the measure that evals, weights and the parity probe share."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from infra.voice.chat import Turn
from infra.voice.llama import Adapter, Context, Model
from infra.voice.tuning import DEFAULT, Tuning

BATCH = 512
# Prose and answers of the kind that a twin reads and gives; ours, in the two languages that matter most here, and in no
# training set.
HELDOUT = Path(__file__).with_name("heldout.txt")
WINDOW = 512
# What is faster may cost this much perplexity and still be chosen. It is 0.02 nats a token; a training gains about 0.6
# (docs/benchmarks.md), so nobody hears it, while the next worse format measured loses 0.19.
MOST_LOSS = 0.02


@dataclass(frozen=True)
class Likelihood:
    """Negative log-likelihood of an answer in nats, summed over its tokens and its end of turn."""

    nll: float
    tokens: int

    @property
    def per_token(self) -> float:
        """Nats per token."""
        return self.nll / self.tokens


@dataclass(frozen=True)
class Recited:
    """An answer token by token: its bytes, its nats, and whether it is what the voice would have said there, greedily.

    What stands before a token is the answer's own: so a run of tokens that it would have said is one that it gives back
    when it is handed all that stands before.
    """

    pieces: tuple[bytes, ...]
    nats: tuple[float, ...]
    said: tuple[bool, ...]


class Scorer:
    """A base with at most one adapter, for scoring only. A context manager: weights are freed at its end."""

    def __init__(
        self,
        weights: Path,
        adapter: Path | None = None,
        *,
        context_tokens: int = 2048,
        threads: int = 2,
        tuning: Tuning = DEFAULT,
    ) -> None:
        """Raises ServiceTrouble when the weights or the adapter cannot be loaded."""
        self._model = Model(weights, gpu_layers=tuning.gpu_layers)
        self._adapter = Adapter(self._model, adapter) if adapter else None
        self._context = Context(
            self._model,
            tokens=context_tokens,
            sequences=1,
            batch=BATCH,
            threads=threads,
            adapter=self._adapter,
            tuning=tuning,
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
        return Likelihood(float(nats_of(rows, target).sum()), len(target))

    def recited(self, turns: Sequence[Turn], answer: str) -> Recited:
        """Which tokens of `answer`, without its end of turn, the voice would say by itself after `turns`."""
        prompt, target = self._model.turn_tokens(turns), self._model.tokens(answer, special="plain")
        rows = self.logits([*prompt, *target], wanted=range(len(prompt) - 1, len(prompt) + len(target) - 1))
        said = rows.argmax(axis=1) == np.asarray(target)
        pieces = tuple(self._model.piece(token) for token in target)
        return Recited(pieces, tuple(map(float, nats_of(rows, target))), tuple(map(bool, said)))

    def logits(self, tokens: Sequence[int], *, wanted: Sequence[int]) -> np.ndarray:
        """The logits after each position in `wanted`: float32, (positions, vocabulary)."""
        asked, found = set(wanted), []
        for start in range(0, len(tokens), BATCH):
            rows = [(t, n, 0, n in asked) for n, t in enumerate(tokens[start : start + BATCH], start)]
            self._context.decode(rows)
            found += [self._context.logits(row) for row, (_, _, _, wants) in enumerate(rows) if wants]
        self._context.forget(0)
        return np.stack(found)

    def perplexity(self, text: str) -> float:
        """Of mere text, read in windows: how many tokens the voice wavers between, on the geometric mean."""
        tokens = self._model.tokens(text, special="plain")
        windows = [tokens[start : start + WINDOW] for start in range(0, len(tokens), WINDOW)]
        found = [self.tokens(window[:1], window[1:]) for window in windows if len(window) > 1]
        return math.exp(sum(each.nll for each in found) / sum(each.tokens for each in found))

    @property
    def end_of_turn(self) -> int:
        """The token that ends an answer."""
        return self._model.end_of_turn

    def prompt_tokens(self, turns: Sequence[Turn]) -> list[int]:
        """Token ids of a prompt as the engine would compute it."""
        return self._model.turn_tokens(turns)


def nats_of(logits: np.ndarray, target: Sequence[int]) -> np.ndarray:
    """How unlikely each token of `target` is under the row of logits before it, in nats."""
    peak = logits.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(logits - peak).sum(axis=1)) + peak[:, 0]
    found: np.ndarray = log_sum - logits[np.arange(len(target)), list(target)]
    return found
