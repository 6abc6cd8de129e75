"""The engine fails in the middle of its work: nobody waits for ever, and whoever has heard nothing is answered after all."""

import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from fastapi import FastAPI

from infra.adapters import AdapterStore
from infra.desk import server
from infra.errors import ServiceTrouble, UnderstudyError
from infra.settings import load_settings
from infra.voice import engine as engine_module
from infra.voice.api import Voices, routes
from infra.voice.chat import Piece, Sampling, Turn
from infra.voice.engine import Engine, Stream, lot
from infra.voice.llama import Context, lib
from infra.voice.score import Scorer
from infra.voice.weights import Weights
from tests import endless
from tests.infra.running import served
from tests.likeliest import ROUNDING, off
from tests.weights import write_adapter

GREEDY = Sampling(temperature=0, max_tokens=8)
ENDLESS = replace(endless.ENDLESS, max_tokens=220)
When = Callable[[list[Stream]], bool]


@pytest.fixture
def engine(weights: Weights) -> Iterator[Engine]:
    started = Engine(weights.path, base="tiny", base_sha256=weights.sha256, streams=3, waiting=9, context_tokens=256)
    yield started
    started.close()


class Asked:
    """One request, and what was heard of its answer."""

    def __init__(self, engine: Engine, words: str, sampling: Sampling = GREEDY, *, conversation: str = "") -> None:
        self._heard: queue.SimpleQueue[Piece | UnderstudyError] = queue.SimpleQueue()
        turns, self._engine = [Turn("user", words)], engine
        self.stream = engine.submit(turns, sampling, self._heard.put, conversation=conversation)

    def first(self) -> Piece:
        """Wait until it speaks."""
        found = self._heard.get(timeout=20)
        assert isinstance(found, Piece)
        return found

    def whole(self) -> tuple[str, str]:
        """The voice that answered, and all it said, each token once. Raises what it failed with."""
        said = [self._heard.get(timeout=20)]
        while isinstance(said[-1], Piece) and said[-1].finish is None:
            said.append(self._heard.get(timeout=20))
        if not isinstance(said[-1], Piece):
            raise said[-1]
        assert self._heard.empty()
        text = "".join(piece.text for piece in said if isinstance(piece, Piece))
        assert text == b"".join(map(self._engine._model.piece, self.stream.said)).decode("utf-8", "replace")
        return said[-1].voice, text


def failing(monkeypatch: pytest.MonkeyPatch, engine: Engine, when: When, *, times: int = 10**6) -> None:
    """Let computing fail so many times, as a bug would, `when` these are being answered."""
    compute, left = Context.decode, [times]

    def decode(context: Context, rows: Any) -> None:
        running = [stream for speaker in engine._speakers for stream in speaker.running]
        if left[0] and when(running):
            left[0] -= 1
            raise RuntimeError("a bug")
        compute(context, rows)

    monkeypatch.setattr(Context, "decode", decode)


def test_a_crash_ends_answers_that_had_begun_and_no_others(
    engine: Engine, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    speaking = Asked(engine, "Tell me about bread.", ENDLESS)
    speaking.first()
    failing(
        monkeypatch, engine, lambda running: len(running) == 3 and len({each.heard for each in running}) == 2, times=1
    )

    others = [Asked(engine, f"Count to {n}.") for n in range(4)]

    with pytest.raises(ServiceTrouble, match="ask again"):
        speaking.whole()
    assert all(each.whole()[1] for each in others)
    with Scorer(weights.path) as scorer:
        assert max(off(scorer, each.stream) for each in others) < ROUNDING
    started = [each.stream.started for each in others]
    assert started == sorted(started), "in their order"
    assert [each.stream.sampler for each in (speaking, *others)] == [None] * 5
    assert (engine.restarts, engine.broken, engine.load["running"]) == (1, False, 0)


def test_every_loaded_voice_goes_on_after_a_crash(
    engine: Engine, weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The current one and the canary; then one that was swapped out and still speaks, which has to break off."""
    engine.start_canary("v1", write_adapter(weights, tmp_path / "v1.gguf", seed=1), share=0.5)
    ours, tried = (next(str(n) for n in range(99) if (lot("tiny+v1", str(n)) < 0.5) is low) for low in (False, True))
    contexts = [speaker.context for speaker in engine._speakers]

    failing(monkeypatch, engine, lambda running: len(running) == 2, times=1)
    with engine._wake:
        asked = [Asked(engine, "Name a bread.", conversation=each) for each in (ours, tried)]
    assert [each.whole()[0] for each in asked] == ["tiny", "tiny+v1"]
    assert all(not context.pointer for context in contexts), "the old ones are freed"

    leaving = Asked(engine, "Name a bread.", ENDLESS, conversation=ours)
    leaving.first()
    engine.promote("v1", tmp_path / "v1.gguf")
    failing(monkeypatch, engine, lambda running: len(running) == 2, times=1)
    asked.append(Asked(engine, "Name a bread.", conversation=ours))
    assert asked[-1].whole()[0] == "tiny+v1"
    with pytest.raises(ServiceTrouble, match="ask again"):
        leaving.whole()
    assert (engine.restarts, engine.load["voices_loaded"]) == (2, 1)
    with Scorer(weights.path) as base, Scorer(weights.path, tmp_path / "v1.gguf") as tuned:
        for each, own, other in zip(asked, (base, tuned, tuned), (tuned, base, base), strict=True):
            assert off(own, each.stream) < ROUNDING < off(other, each.stream)


def test_a_request_that_always_crashes_fails_alone(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    poison: list[Stream] = []
    failing(monkeypatch, engine, lambda running: bool(poison) and poison[0] in running)
    with engine._wake:  # all of them begin together
        others = [Asked(engine, f"Count to {n}.") for n in range(2)]
        wrong = Asked(engine, "Crash.")
        poison.append(wrong.stream)
        others += [Asked(engine, f"Count from {n}.") for n in range(2)]

    assert all(each.whole()[1] for each in others)
    with pytest.raises(ServiceTrouble, match="ask again"):
        wrong.whole()
    assert engine.restarts == 2


def test_who_fails_again_and_again_says_so_to_everybody_and_ends(
    weights: Weights, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the process that serves it, so that whoever supervises that starts it anew."""
    engine = Engine(weights.path, base="tiny", base_sha256=weights.sha256, streams=1, waiting=9, context_tokens=256)
    app = FastAPI()
    voices = Voices(engine, AdapterStore(home))
    app.include_router(routes(voices))
    failing(monkeypatch, engine, lambda running: True)

    asked = [Asked(engine, f"Count to {n}.") for n in range(5)]

    for each in asked:
        with pytest.raises(ServiceTrouble):
            each.whole()
    with pytest.raises(ServiceTrouble, match="again and again"):
        Asked(engine, "Hello?")
    with pytest.raises(ServiceTrouble, match="again and again"):
        engine.promote("v1", home / "v1.gguf")
    with served(app) as url:
        ready = httpx.get(f"{url}/readyz")
    assert (ready.status_code, ready.json()["status"], ready.json()["restarts"]) == (503, "broken", 3)
    with pytest.raises(ServiceTrouble, match="again and again"):
        server.run(load_settings(home), app, port=0, ready=lambda url: None, over=lambda: voices.broken)
    engine.close()


def test_crashes_leak_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "CRASHES_S", 0)
    due = [False]
    failing(monkeypatch, engine, lambda running: due.pop() if due else False)

    def crash(times: int) -> int:
        for _ in range(times):
            due.append(True)
            Asked(engine, "Count to three.").whole()
        return psutil.Process().memory_info().rss

    before = crash(2)
    assert crash(5) - before < 40_000_000
    assert engine.restarts == 7


def test_a_batch_that_llama_cpp_refuses_once_costs_no_answer(
    engine: Engine, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute, statuses = lib().llama_decode, [1]
    monkeypatch.setattr(lib(), "llama_decode", lambda *given: statuses.pop() if statuses else compute(*given))

    asked = Asked(engine, "Name a bread.")

    assert (bool(asked.whole()[1]), statuses, engine.restarts) == (True, [], 0)
    with Scorer(weights.path) as scorer:
        assert off(scorer, asked.stream) < ROUNDING


def test_what_another_thread_asked_for_fails_for_it_alone(engine: Engine) -> None:
    with pytest.raises(ZeroDivisionError):
        engine._call(lambda: 1 // 0)

    assert (bool(Asked(engine, "Name a bread.").whole()[1]), engine.restarts) == (True, 0)


def test_a_listener_that_fails_hurts_nobody_else(engine: Engine) -> None:
    def fail(piece: object) -> None:
        raise ValueError(piece)

    engine.submit([Turn("user", "Name a bread.")], ENDLESS, fail)

    assert Asked(engine, "Name a bread.").whole()[1]
    deadline = time.monotonic() + 10
    while engine.busy and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (engine.busy, engine.restarts) == (False, 0)
