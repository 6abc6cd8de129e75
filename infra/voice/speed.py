"""How fast llama.cpp does here what a twin's voice does: read a prompt, speak to one, speak to eight.

Whatever is compared takes turns, lap by lap, because others share the machine.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

from infra.voice.llama import Context, Model
from infra.voice.score import HELDOUT
from infra.voice.tuning import Speed, Tuning

Entrant = TypeVar("Entrant")
STREAMS = 8
# Who takes so many times as long as the first in one lap need not run another.
HOPELESS = 1.25


@dataclass(frozen=True)
class Effort:
    """How much one measurement computes: `laps`, and in each the tokens to read and to say."""

    laps: int = 3
    read: int = 512
    said: int = 12


SHORT = Effort()


def race(
    run: Callable[[Entrant], Speed], entrants: Sequence[Entrant], *, laps: int
) -> Mapping[Entrant, Sequence[Speed]]:
    """The speeds of every entrant, lap by lap in turning order; fewer than `laps` for those without hope."""
    times: dict[Entrant, list[Speed]] = {entrant: [] for entrant in entrants}
    running = list(entrants)
    for lap in range(laps):
        for entrant in running if lap % 2 == 0 else reversed(running):
            times[entrant].append(run(entrant))
        limit = times[entrants[0]][-1].turn_s * HOPELESS
        running = [entrant for entrant in running if times[entrant][-1].turn_s <= limit]
    return times


def middle(speeds: Sequence[Speed]) -> Speed:
    """The median of each figure."""
    return Speed(
        median(each.prompt_tps for each in speeds),
        median(each.alone_tps for each in speeds),
        median(each.eight_tps for each in speeds),
    )


def speed_of(model: Model, tuning: Tuning, *, threads: int, effort: Effort) -> Speed:
    """One lap: read a prompt at once, then speak after it, eight times over and alone."""
    tokens = model.tokens(HELDOUT.read_text(encoding="utf-8"), special="plain")[: effort.read]
    room = len(tokens) + effort.said
    context = Context(model, tokens=room, sequences=STREAMS, batch=len(tokens), threads=threads, tuning=tuning)
    try:
        context.decode([(tokens[0], 0, 0, True)])  # the first batch also fetches its memory
        context.forget(0)
        prompt = [(token, n, 0, n == len(tokens) - 1) for n, token in enumerate(tokens)]
        read = clock(lambda: context.decode(prompt))
        computed = context.saved(0)
        for sequence in range(1, STREAMS):
            context.restore(sequence, computed)
        eight = clock(lambda: speak(context, tokens, streams=STREAMS, said=effort.said))
        context.forget(0, after=len(tokens))
        alone = clock(lambda: speak(context, tokens, streams=1, said=effort.said))
    finally:
        context.free()
    return Speed(len(tokens) / read, effort.said / alone, STREAMS * effort.said / eight)


def speak(context: Context, tokens: Sequence[int], *, streams: int, said: int) -> None:
    """Compute as generation does: a token of every stream in each step; which tokens does not matter."""
    for step in range(said):
        context.decode([(tokens[step], len(tokens) + step, stream, True) for stream in range(streams)])


def clock(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
