"""Whether greedy words are the voice's own, whatever else its batches held.

A batch of another size rounds otherwise, and where two tokens are as likely, another one wins: two greedy answers may
differ and both be right. So a test that computes in other batches does not compare texts, it asks the model itself.
"""

from collections.abc import Sequence

from infra.voice.engine import Stream
from infra.voice.score import Scorer

# How far below the likeliest token a greedy one may lie: rounding in batches of other sizes stays well under it, and
# the words of another voice do not.
ROUNDING = 0.5


def worst_choice(scorer: Scorer, prompt: Sequence[int], said: Sequence[int]) -> float:
    """By how many logits the least likely token of a greedy answer lies below the likeliest one."""
    rows = scorer.logits([*prompt, *said], wanted=range(len(prompt) - 1, len(prompt) + len(said) - 1))
    return max(float(row.max() - row[token]) for row, token in zip(rows, said, strict=True))


def off(scorer: Scorer, stream: Stream) -> float:
    """The same of a stream that has ended, with the end of its turn if it came to one."""
    ended = len(stream.said) < stream.sampling.max_tokens
    return worst_choice(scorer, stream.prompt, [*stream.said, *([scorer.end_of_turn] if ended else [])])
