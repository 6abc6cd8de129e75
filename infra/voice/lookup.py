"""Guessing an answer's next tokens from what its prompt says: prompt lookup decoding (Saxena 2023).

An answer quotes its notes: where three tokens stand in the prompt, or earlier in the answer, the next are likely those
that followed there. The engine computes guesses together with the token before them and keeps as many as the voice says
anyway, so what is said stays the same and takes fewer steps.
"""

from collections.abc import Iterable

# How many tokens must have been said before in this order; two guess more often and worse.
CONTEXT = 3


class Lookup:
    """The tokens of one prompt and its answer so far, and where each run of `CONTEXT` of them last stood."""

    def __init__(self, prompt: Iterable[int]) -> None:
        self._tokens: list[int] = []
        self._next: dict[tuple[int, ...], int] = {}
        for token in prompt:
            self.add(token)

    def add(self, token: int) -> None:
        """One more token was said."""
        self._next[tuple(self._tokens[-CONTEXT:])] = len(self._tokens)
        self._tokens.append(token)

    def guess(self, most: int) -> list[int]:
        """Up to `most` tokens that may come next; none where these were never said before."""
        at = self._next.get(tuple(self._tokens[-CONTEXT:]))
        return self._tokens[at : at + most] if at is not None else []
