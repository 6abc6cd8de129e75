"""Whether the voice lasts: thousands of requests of every shape, hundreds of swaps, and what they leave in memory.

What glibc keeps for later is given back before memory is measured, so that what grows is what nobody freed.
"""

import asyncio
import contextlib
import ctypes
import itertools
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import psutil

from infra.errors import UnderstudyError, UserMistake
from infra.voice.bench import random_adapter
from infra.voice.chat import Sampling, Turn, Voice
from infra.voice.client import HttpVoice, LocalVoice
from infra.voice.engine import Engine
from infra.voice.serve_bench import CONTEXT_TOKENS, SLOTS, engine_of, messages, over_http
from infra.voice.weights import Weights

REQUESTS, SWAPS = 10_000, 500
# At a time: more than there are places, so that some always wait.
VISITORS = 12
# Rounds that are not counted: until every buffer has its size.
WARM_ROUNDS = 5
PARTS = 10
BREAD = {
    "type": "object",
    "properties": {"bread": {"type": "string", "maxLength": 12}, "hours": {"type": "integer"}},
    "required": ["bread", "hours"],
    "additionalProperties": False,
}

Kind = Literal["short", "notes", "long", "schema", "leaves", "too long"]
Outcome = Literal["answered", "left", "refused", "failed"]
# How often each kind comes, of a hundred.
KINDS: dict[Kind, int] = {"short": 40, "notes": 15, "long": 10, "schema": 10, "leaves": 20, "too long": 5}
OVER_HTTP = 0.1


@dataclass(frozen=True)
class Visit:
    """One request; whoever made it leaves after `stays_s` seconds."""

    kind: Kind
    turns: Sequence[Turn]
    sampling: Sampling
    stays_s: float | None = None


def drawn(rng: random.Random, number: int) -> Visit:
    """The next visit, by lot."""
    kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
    notes = [Turn(each["role"], each["content"]) for each in messages(number)]  # type: ignore[arg-type]
    short = [Turn("user", f"Name a bread for day {number}.")]
    if kind == "notes":
        return Visit(kind, notes, Sampling(max_tokens=16))
    if kind == "long":
        return Visit(kind, [Turn("user", "word " * rng.randint(200, 900))], Sampling(max_tokens=8))
    if kind == "schema":
        return Visit(kind, short, Sampling(max_tokens=24, schema=json.dumps(BREAD)))
    if kind == "leaves":
        return Visit(kind, rng.choice([notes, short]), Sampling(max_tokens=200), stays_s=rng.uniform(0, 0.6))
    if kind == "too long":
        return Visit(kind, [Turn("user", "word " * 2 * CONTEXT_TOKENS)], Sampling(max_tokens=8))
    return Visit(kind, short, Sampling(max_tokens=rng.randint(1, 16)))


async def outcome(visit: Visit, voice: Voice) -> Outcome:
    """What became of one visit; what did not become what it should has failed."""
    finished = False
    try:
        async with (
            asyncio.timeout(visit.stays_s),
            contextlib.aclosing(voice.stream(visit.turns, visit.sampling)) as pieces,
        ):
            async for piece in pieces:
                finished = piece.finish is not None
    except TimeoutError:
        return "left"
    except UserMistake:
        return "refused" if visit.kind == "too long" else "failed"
    except UnderstudyError:
        return "failed"
    return "answered" if finished and visit.kind != "too long" else "failed"


class Soak:
    """An engine, whoever visits it, and the adapters that it swaps."""

    def __init__(self, engine: Engine, url: str, adapters: Sequence[Path]) -> None:
        self._engine, self._adapters = engine, itertools.cycle(enumerate(adapters))
        self._here, self._elsewhere = LocalVoice(engine), HttpVoice(url, model="bench")
        self._rng, self._numbers = random.Random(1), itertools.count()  # noqa: S311  no secret is drawn
        self.outcomes: Counter[str] = Counter()

    async def round(self, requests: int) -> None:
        """So many visits, and one swap in their midst; ends when all of them have."""
        places = asyncio.Semaphore(VISITORS)
        await asyncio.gather(self._swap(), *(self._visit(places) for _ in range(requests)))
        while self._engine.busy or self._engine.load["voices_loaded"] > 1:
            await asyncio.sleep(0.005)

    async def _visit(self, places: asyncio.Semaphore) -> None:
        visit = drawn(self._rng, next(self._numbers))
        voice = self._elsewhere if self._rng.random() < OVER_HTTP else self._here
        async with places:
            self.outcomes[await outcome(visit, voice)] += 1

    async def _swap(self) -> None:
        number, path = next(self._adapters)
        await asyncio.to_thread(self._engine.promote, f"v{number}", path)
        self.outcomes["swaps"] += 1


class Memory(NamedTuple):
    """What this process holds, in MiB: as the system counts it, and less what is only kept for later."""

    resident: float
    held: float

    @classmethod
    def now(cls) -> "Memory":
        process = psutil.Process()
        resident = process.memory_info().rss
        if sys.platform == "linux":
            with contextlib.suppress(AttributeError):  # a C library other than glibc
                ctypes.CDLL(None).malloc_trim(0)
        return cls(resident / 2**20, process.memory_info().rss / 2**20)


def check(requests: int, swaps: int) -> None:
    """Raises UserMistake for numbers that make no rounds."""
    if swaps < PARTS or requests < swaps:
        raise UserMistake(f"Soak with at least {PARTS} swaps, and at least as many requests as swaps.")


def soaking(
    weights: Weights, folder: Path, *, requests: int, swaps: int, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Memory, failures and free places after each tenth of so many requests, with so many swaps in between."""
    adapters = [random_adapter(weights, folder / f"{seed}.gguf", seed) for seed in (1, 2)]
    engine = engine_of(weights, streams=SLOTS, context_tokens=CONTEXT_TOKENS)
    try:
        with over_http(engine, folder) as url:
            return asyncio.run(tenths(Soak(engine, url, adapters), engine, requests // swaps, swaps, say))
    finally:
        engine.close()


async def tenths(
    soak: Soak, engine: Engine, visits: int, swaps: int, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Figures after each tenth of the rounds, of so many visits and one swap each; growth is since the warm-up."""
    for _ in range(WARM_ROUNDS):
        await soak.round(visits)
    soak.outcomes.clear()
    before, rows = Memory.now(), []
    for part in range(PARTS):
        began = time.perf_counter()
        for _ in range(swaps * part // PARTS, swaps * (part + 1) // PARTS):
            await soak.round(visits)
        after = Memory.now()
        rows.append(
            {
                "requests": soak.outcomes.total() - soak.outcomes["swaps"],
                **{name: soak.outcomes[name] for name in ("swaps", "answered", "left", "refused", "failed")},
                "seconds": round(time.perf_counter() - began, 1),
                "RSS MiB": round(after.resident, 1),
                "held MiB": round(after.held, 1),
                "grown MiB": round(after.held - before.held, 1),
                "places free": f"{engine.places} of {SLOTS}",
                "restarts": engine.restarts,
            }
        )
        say(", ".join(f"{name} {value}" for name, value in rows[-1].items()))
    return rows
