"""Which sequence of a context a stream gets, and what is computed there already.

A sequence whose stream has ended stays computed: whoever goes on from the same words gets it, cut back to what both
have in common. Anybody else gets the sequence that was of no use for longest, and the opening that prompts share, the
persona, restored into it from saved bytes. All of it lives in the memory that the context has anyway, and belongs to
one context, so nothing that one voice computed reaches another.

llama.cpp computes streams together only where their sequences count up by one, see `engine.plan`: a stream that begins
gets a sequence beside those that run, and what was kept there changes places. `llama_memory_seq_cp` copies all that a
sequence may ever hold, saved bytes hold what is there: 2 ms instead of 5 for a persona of 64 tokens, though 16 instead
of 4 for 1,000; and to exchange two sequences by copying would need a third one that is spare.

Only the engine's thread may use this, unless said otherwise.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from infra.errors import ServiceTrouble
from infra.voice.llama import Context

# Sharing less than this costs more bookkeeping than it saves.
LEAST_SHARED = 16

Reuse = Literal["nothing", "shared", "continued"]


@dataclass(frozen=True)
class Kept:
    """The tokens that an idle sequence still holds, and when its stream ended."""

    tokens: Sequence[int] = ()
    ended: float = 0.0


@dataclass(frozen=True)
class Taken:
    """A sequence for a stream, how many tokens of its prompt are computed in it, and whose they were."""

    sequence: int
    cached: int
    reuse: Reuse


class Sequences:
    """The sequences of one context: those that run, and those that are idle with what they hold."""

    def __init__(self, context: Context, count: int) -> None:
        self._context = context
        self._idle = {number: Kept() for number in range(count)}
        self._running: set[int] = set()
        # The opening of the last prompts, and what was computed of it.
        self._shared: Sequence[int] = ()
        self._saved = np.empty(0, dtype=np.uint8)

    @property
    def free(self) -> int:
        """How many more streams may begin."""
        return len(self._idle)

    @property
    def kept(self) -> int:
        """How many tokens idle sequences hold; safe to ask from any thread."""
        return sum(len(kept.tokens) for kept in list(self._idle.values()))

    def take(self, prompt: Sequence[int]) -> Taken:
        """A sequence for a stream with this prompt, holding as much of its beginning as anybody has computed."""
        # The last token is always computed: what comes after it is wanted.
        known = prompt[:-1]
        shared = common_prefix(self._shared, known)
        longest = max(self._idle, key=lambda number: common_prefix(self._idle[number].tokens, known))
        common = common_prefix(self._idle[longest].tokens, known)
        # Words that everybody begins with continue no conversation, and are no reason to end somebody's.
        continued = common >= shared + LEAST_SHARED
        wanted = longest if continued else min(self._idle, key=self._usefulness)
        self._cut(wanted, common if continued else 0)
        place = self._beside_running(wanted)
        cached = len(self._idle.pop(place).tokens)
        self._running.add(place)
        if cached:
            return Taken(place, cached, "continued")
        return Taken(place, shared, "shared") if self._restore_shared(place, shared) else Taken(place, 0, "nothing")

    def catch_up(
        self, sequence: int, prompt: Sequence[int], computed: int, running: Mapping[int, Sequence[int]]
    ) -> int:
        """Copy what another sequence has computed of a prompt since its stream began; returns how much is computed now.

        `running` are the tokens that the other running sequences hold.
        """
        held = {**{number: kept.tokens for number, kept in self._idle.items()}, **running}
        common = {number: common_prefix(tokens, prompt[:-1]) for number, tokens in held.items()}
        best = max(common, key=lambda number: common[number], default=sequence)
        if best == sequence or common[best] < computed + LEAST_SHARED:
            return computed
        saved = self._context.saved(best)
        return common[best] if self._restore(sequence, saved, common[best]) else 0

    def learn(self, sequence: int, opening: Sequence[int]) -> None:
        """Keep the opening of a prompt that was just computed, unless it is the one that is kept.

        Raises ServiceTrouble when the sequence's own memory could not be put back.
        """
        if len(opening) < LEAST_SHARED or opening == self._shared:
            return
        whole = self._context.saved(sequence)
        if self._context.forget(sequence, after=len(opening)):
            self._saved, self._shared = self._context.saved(sequence), opening
        self._context.restore(sequence, whole)

    def release(self, sequence: int, tokens: Sequence[int], *, now: float) -> None:
        """The stream ended and leaves `tokens` computed; none where what the sequence holds is in doubt."""
        self._running.remove(sequence)
        self._idle[sequence] = Kept(tokens, now)
        if not tokens:
            self._cut(sequence, 0)

    def forget_idle(self, *, ended_before: float = float("inf")) -> None:
        """Forget what idle sequences hold whose streams ended before a time."""
        for number, kept in list(self._idle.items()):
            if kept.tokens and kept.ended < ended_before:
                self._cut(number, 0)

    def _usefulness(self, number: int) -> tuple[float, int]:
        """Least for the idle sequence to give up first: an empty one beside those that run, else the oldest."""
        return self._idle[number].ended, -self._neighbours(number)

    def _neighbours(self, number: int) -> int:
        """How many running sequences this one is next to."""
        return len({number - 1, number + 1} & self._running)

    def _cut(self, number: int, length: int) -> None:
        """Let an idle sequence hold no more than its first `length` tokens."""
        kept = self._idle[number]
        if not self._context.forget(number, after=length):  # not every model's memory can be cut
            self._context.forget(number)
            length = 0
        self._idle[number] = Kept(kept.tokens[:length], kept.ended if length else 0.0)

    def _beside_running(self, wanted: int) -> int:
        """The idle sequence to begin in, which now holds what `wanted` held."""
        best = max(sorted(self._idle), key=self._neighbours)
        if self._neighbours(wanted) == self._neighbours(best):
            return wanted
        self._exchange(wanted, best)
        return best

    def _exchange(self, one: int, other: int) -> None:
        """Let two idle sequences change places; what cannot be copied is forgotten."""
        moving = [(to, self._idle[of], self._context.saved(of)) for of, to in ((one, other), (other, one))]
        for number in (one, other):
            self._cut(number, 0)
        for to, kept, saved in moving:
            if kept.tokens and self._restored(to, saved):
                self._idle[to] = kept

    def _restore_shared(self, sequence: int, length: int) -> bool:
        """Put so much of the shared opening into an empty sequence; else it is read like any other beginning."""
        return length >= LEAST_SHARED and self._restore(sequence, self._saved, length)

    def _restore(self, sequence: int, saved: np.ndarray, length: int) -> bool:
        """Let a sequence hold the first `length` tokens of what was saved, or nothing."""
        if not self._restored(sequence, saved):
            return False
        if self._context.forget(sequence, after=length):
            return True
        self._context.forget(sequence)
        return False

    def _restored(self, sequence: int, saved: np.ndarray) -> bool:
        with contextlib.suppress(ServiceTrouble):
            self._context.restore(sequence, saved)
            return True
        self._context.forget(sequence)
        return False


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two prompts begin with alike."""
    for index, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return index
    return min(len(left), len(right))
