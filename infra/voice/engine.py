"""The engine: many answers at once from one set of weights, in a thread of its own.

Every step of the thread computes one batch for each voice in use: the next token of every running stream, then pieces
of the prompts that wait, bounded so that no running stream stalls behind a long prompt (continuous batching with
chunked prefill). The beginning that prompts share, the persona, is computed once and shared between sequences.

A swap loads the adapter between two steps (milliseconds), makes a second context beside the running one, lets it say a
few words to itself between more steps, and then points new requests at it; running streams finish where they began, and
the old context is freed after the last of them. KV memory belongs to a context, so no answer can read what another
voice computed.

A canary is a second voice that answers a share of the conversations beside the current one, with a context of its own.

Only the engine's thread computes; another one only allocates the memory of the next context.
"""

import codecs
import contextlib
import hashlib
import heapq
import os
import queue
import random
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from infra.errors import Busy, ServiceTrouble, UnderstudyError, UserMistake
from infra.voice.chat import Finish, FinishReason, Piece, Sampling, Turn
from infra.voice.llama import Adapter, Context, Model, Sampler

# Rows of one batch. llama.cpp computes a prompt fastest in hundreds of rows.
BATCH = 512
# While somebody is being answered, a step reads prompts for about this long, less what the voices before have taken of
# it, and for one voice only: so the gap between two tokens stays well under a quarter of a second.
PROMPT_S = 0.1
LEAST_PIECE, MOST_PIECE = 16, 256
# Sharing less than this costs more bookkeeping than it saves.
LEAST_SHARED = 16

PROBE = (Turn("user", "Say hello."),)
PROBE_TOKENS = 8
# A swap waits about as long for the answers that the swap before it has left to the voice before: every voice loaded
# costs memory, and each step computes all of them.
DRAINED_S = 20.0

Emit = Callable[[Piece | UnderstudyError], None]
# Token, position, sequence, and whether its logits are wanted.
Row = tuple[int, int, int, bool]


@dataclass
class Stream:
    """One request on its way. Times are `time.perf_counter` seconds; `conversation` decides which voice answers it."""

    prompt: list[int]
    sampling: Sampling
    emit: Emit
    accepted: float
    conversation: str = ""
    sequence: int = -1
    computed: int = 0
    cached: int = 0
    said: list[int] = field(default_factory=list)
    sampler: Sampler | None = None
    text: "TextOut | None" = None
    started: float = 0.0
    first: float = 0.0
    cancelled: bool = False

    @property
    def prefilled(self) -> bool:
        return self.computed >= len(self.prompt)


class TextOut:
    """Tokens in, whole characters out; ends before a stop text, also one that comes in pieces."""

    def __init__(self, stop: tuple[str, ...]) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = [text for text in stop if text]
        self._held = ""
        self.stopped = False

    def push(self, raw: bytes) -> str:
        """What may be shown after these bytes."""
        self._held += self._decoder.decode(raw)
        for text in self._stop:
            at = self._held.find(text)
            if at >= 0:
                self.stopped = True
                self._held = self._held[:at]
        return self._release(0 if self.stopped else self._begun())

    def rest(self) -> str:
        """What was held back, at the end."""
        if not self.stopped:
            self._held += self._decoder.decode(b"", final=True)
        return self._release(0)

    def _begun(self) -> int:
        """How many of the last characters may be the beginning of a stop text."""
        longest = 0
        for text in self._stop:
            for size in range(min(len(text) - 1, len(self._held)), longest, -1):
                if self._held.endswith(text[:size]):
                    longest = size
                    break
        return longest

    def _release(self, keep: int) -> str:
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown


class Pace:
    """How much prompt fits into a step, learned from the batches that this machine computes."""

    def __init__(self) -> None:
        self._row_s = PROMPT_S / LEAST_PIECE

    def learn(self, rows: int, seconds: float) -> None:
        """Note what a batch took; small ones say little of prompts."""
        if rows >= LEAST_PIECE:
            self._row_s += 0.3 * (seconds / rows - self._row_s)

    def piece(self, seconds: float) -> int:
        """Rows of prompt that take about this long beside running streams."""
        return max(LEAST_PIECE, min(MOST_PIECE, int(seconds / self._row_s)))


class Speaker:
    """One voice being served: a context, its adapter if it has one, and the streams it answers."""

    def __init__(
        self, name: str, version: str | None, *, context: Context, adapter: Adapter | None, streams: int
    ) -> None:
        self.name, self.version, self.context, self.adapter = name, version, context, adapter
        self.running: list[Stream] = []
        self._free = list(range(streams))
        # The beginning that the last prompts had in common, and what was computed of it.
        self._shared: list[int] = []
        self._computed = np.empty(0, dtype=np.uint8)
        self._last: list[int] = []

    @property
    def places(self) -> int:
        """How many more streams may begin."""
        return len(self._free)

    @property
    def reading(self) -> bool:
        """Whether any of its streams has prompt left to compute."""
        return any(not stream.prefilled for stream in self.running)

    def begin(self, stream: Stream) -> None:
        """Give a stream its sequence, and the shared beginning that is computed already."""
        # The lowest: llama.cpp computes streams together only where their numbers follow each other, see `plan`.
        stream.sequence = heapq.heappop(self._free)
        stream.started = time.perf_counter()
        common = common_prefix(self._shared, stream.prompt[:-1])
        if common >= LEAST_SHARED:
            with contextlib.suppress(ServiceTrouble):  # then it is read like any other beginning
                self.context.restore(stream.sequence, self._computed)
                self.context.forget(stream.sequence, after=common)
                stream.computed = stream.cached = common
        self.running.append(stream)

    def prefilled(self, stream: Stream) -> None:
        """Keep what this prompt has in common with the one before it, when that is not what is kept now.

        Raises ServiceTrouble when the stream's own memory could not be put back.
        """
        common = common_prefix(self._last, stream.prompt[:-1])
        self._last = stream.prompt
        if common >= LEAST_SHARED and common != len(self._shared):
            whole = self.context.saved(stream.sequence)
            self.context.forget(stream.sequence, after=common)
            self._computed, self._shared = self.context.saved(stream.sequence), stream.prompt[:common]
            self.context.restore(stream.sequence, whole)

    def end(self, stream: Stream) -> None:
        """Take the sequence back."""
        self.context.forget(stream.sequence)
        heapq.heappush(self._free, stream.sequence)
        self.running.remove(stream)
        if stream.sampler is not None:
            stream.sampler.free()

    def free(self) -> None:
        self.context.free()
        if self.adapter is not None:
            self.adapter.free()


class Engine:
    """Serves one base model to new requests, with at most one adapter and at most one canary beside it.

    Safe to call from any thread.
    """

    def __init__(
        self,
        weights: Path,
        *,
        base: str,
        base_sha256: str,
        streams: int = 8,
        waiting: int = 32,
        context_tokens: int = 2048,
        threads: int = 2,
    ) -> None:
        """Load the weights and start serving the bare base.

        `base` names it in voices; `base_sha256` is what an adapter's metadata must name. At most `waiting` requests
        queue behind `streams` running ones, each of up to `context_tokens` of prompt and answer together.
        """
        self.base, self.base_sha256 = base, base_sha256
        self._streams, self._waiting_most, self._context_tokens, self._threads = (
            streams,
            waiting,
            context_tokens,
            threads,
        )
        self._model = Model(weights)
        self._current = self._speaker(None, None)
        self._canary: Speaker | None = None
        self._share = 0.0
        self._draining: list[Speaker] = []
        self._waiting: deque[Stream] = deque()
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._wake = threading.Condition()
        self._swapping = threading.Lock()
        self._pace = Pace()
        # Tokenising reads the model from callers' threads: it may not be freed meanwhile.
        self._freeing = threading.Lock()
        self._closing = self._closed = False
        self._turn = 0
        self._thread = threading.Thread(target=self._serve, name="voice", daemon=True)
        self._thread.start()

    @property
    def voice(self) -> str:
        """The name of the voice that new requests get."""
        return self._current.name

    @property
    def version(self) -> str | None:
        """The adapter version that new requests get; None is the bare base."""
        return self._current.version

    @property
    def canary(self) -> str | None:
        """The adapter version of the canary, if there is one."""
        canary = self._canary
        return canary.version if canary is not None else None

    @property
    def load(self) -> dict[str, int]:
        """How many streams run and how many wait."""
        speakers = self._speakers
        running = sum(len(speaker.running) for speaker in speakers)
        return {"running": running, "waiting": len(self._waiting), "voices_loaded": len(speakers)}

    @property
    def busy(self) -> bool:
        """Whether anybody is being answered, or waits for it."""
        load = self.load
        return bool(load["running"] or load["waiting"])

    def submit(self, turns: Sequence[Turn], sampling: Sampling, emit: Emit, *, conversation: str = "") -> Stream:
        """Queue one request; `emit` is called from the engine's thread with every piece, or once with an error.

        While there is a canary, requests of the same `conversation` are answered by the same voice; one without a
        conversation stands for itself. Raises UserMistake when prompt and answer cannot fit or the schema is none, Busy
        when the queue is full, ServiceTrouble when closed.
        """
        with self._freeing:
            if self._closed:
                raise ServiceTrouble("The voice is shutting down.")
            prompt = self._model.turn_tokens(turns)
            if sampling.schema:
                self._model.check_schema(sampling.schema)
        conversation = conversation or uuid.uuid4().hex
        stream = Stream(prompt, sampling, emit, time.perf_counter(), conversation)
        if len(prompt) + sampling.max_tokens > self._context_tokens:
            raise UserMistake(
                f"The prompt has {len(prompt)} tokens; with max_tokens {sampling.max_tokens} it exceeds the context of "
                f"{self._context_tokens}."
            )
        with self._wake:
            if self._closed:
                raise ServiceTrouble("The voice is shutting down.")
            # Those who wait for places that are free right now are not the queue.
            if len(self._waiting) >= self._waiting_most + self._answering(stream).places:
                raise Busy(f"The voice is busy: {len(self._waiting)} requests are waiting already.", retry_after_s=2)
            self._waiting.append(stream)
            self._wake.notify()
        return stream

    def cancel(self, stream: Stream) -> None:
        """Stop answering; the stream's place is free before the next step."""
        with self._wake:
            stream.cancelled = True
            self._wake.notify()

    def promote(self, version: str | None, adapter: Path | None) -> float:
        """Let new requests be answered by `adapter`, or by the bare base; returns the seconds it took.

        A canary ends with it; where it is the promoted version, it takes over as it is loaded. Raises ServiceTrouble
        when the adapter cannot be loaded, belongs to another base or fails its probe; the voices before then stay,
        untouched.
        """
        with self._swapping:
            began = time.perf_counter()
            speaker = self._loaded(version, adapter)
            self._call(lambda: self._point(speaker))
            return time.perf_counter() - began

    def start_canary(self, version: str, adapter: Path, *, share: float) -> float:
        """Let a share of the conversations be answered by `adapter`, in place of any other canary; returns the seconds.

        Raises ServiceTrouble as `promote` does; the voices before then stay, untouched.
        """
        with self._swapping:
            began = time.perf_counter()
            speaker = self._loaded(version, adapter)
            self._call(lambda: self._try_out(speaker, share))
            return time.perf_counter() - began

    def stop_canary(self) -> None:
        """Let the current voice answer everybody again; what the canary has begun it finishes."""
        with self._swapping:
            self._call(lambda: self._try_out(None, 0.0))

    def close(self) -> None:
        """End every stream with an error, stop the thread and free the weights."""
        self._closing = True
        # A context that is being made reads the weights.
        with self._swapping, self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _check_base(self, adapter: Adapter | None, path: Path | None) -> None:
        if adapter is None:
            return
        trained_on = adapter.metadata("twin.base_sha256")
        if trained_on != self.base_sha256:
            raise ServiceTrouble(
                f"{str(path)!r} was trained on base {trained_on[:12] or 'unknown'!r}, served is "
                f"{self.base_sha256[:12]!r}: retrain it.",
                permanent=True,
            )

    def _loaded(self, version: str | None, adapter: Path | None) -> Speaker:
        """A voice that may speak: the canary where it is this version, else a new one. Raises as `promote`."""
        canary = self._canary
        if canary is not None and canary.version == version:
            return canary
        # `llama_adapter_lora_init` changes the model's list of adapters, which decoding reads: between two steps.
        loaded = self._call(lambda: Adapter(self._model, adapter)) if adapter is not None else None
        try:
            self._check_base(loaded, adapter)
            self._wait_for_drained()
            with ThreadPoolExecutor(1, initializer=give_way) as background:
                speaker = background.submit(self._speaker, version, loaded).result()
        except UnderstudyError:
            if loaded is not None:
                self._call(loaded.free)
            raise
        try:
            probe(speaker.context, self._call)
        except UnderstudyError:
            self._call(speaker.free)
            raise
        return speaker

    def _wait_for_drained(self) -> None:
        """Let the swap before this one come to its end. Raises ServiceTrouble when the engine closes meanwhile."""
        deadline = time.monotonic() + DRAINED_S
        while self._draining and time.monotonic() < deadline:
            if self._closing:
                raise ServiceTrouble("The voice is shutting down.")
            time.sleep(0.01)

    def _speaker(self, version: str | None, adapter: Adapter | None) -> Speaker:
        """A context of its own for one voice."""
        context = Context(
            self._model,
            tokens=self._context_tokens,
            sequences=self._streams,
            batch=BATCH,
            threads=self._threads,
            adapter=adapter,
        )
        name = f"{self.base}+{version}" if version else self.base
        return Speaker(name, version, context=context, adapter=adapter, streams=self._streams)

    def _point(self, speaker: Speaker) -> None:
        """New requests go to `speaker` alone; what runs finishes where it began."""
        self._draining.append(self._current)
        self._current = speaker
        if self._canary is speaker:
            self._canary = None
        self._try_out(None, 0.0)

    def _try_out(self, speaker: Speaker | None, share: float) -> None:
        """A share of new requests goes to `speaker`, or none; what the canary before has begun it finishes."""
        if self._canary is not None and self._canary is not speaker:
            self._draining.append(self._canary)
        self._canary, self._share = speaker, share

    def _answering(self, stream: Stream) -> Speaker:
        """Whose turn a new request is."""
        canary = self._canary
        if canary is not None and lot(canary.name, stream.conversation) < self._share:
            return canary
        return self._current

    @property
    def _speakers(self) -> tuple[Speaker, ...]:
        """Every voice that is loaded."""
        canary = self._canary
        return (*self._draining, *([canary] if canary is not None else []), self._current)

    def _call(self, work: Callable[[], Any]) -> Any:
        """Run `work` in the engine's thread between two steps."""
        done: Future[Any] = Future()
        with self._wake:
            if self._closed:
                raise ServiceTrouble("The voice is shutting down.")
            self._calls.put((work, done))
            self._wake.notify()
        return done.result()

    def _serve(self) -> None:
        """The thread: wait for work, do a step, until closed."""
        while True:
            with self._wake:
                while not (self._closed or self._waiting or not self._calls.empty() or self._busy()):
                    self._wake.wait()
                if self._closed:
                    break
            self._step()
        self._shut_down()

    def _busy(self) -> bool:
        return bool(self._draining or any(speaker.running for speaker in self._speakers))

    def _step(self) -> None:
        called = self._run_calls()
        self._admit()
        # Not both in one step: what others asked for may take as long as a piece of a prompt.
        reader = None if called and self._speaking() else self._next_reader()
        began = time.perf_counter()
        # Who reads comes last, with what time is left.
        for speaker in sorted(self._speakers, key=lambda each: each is reader):
            self._drop_cancelled(speaker)
            if speaker.running:
                left = PROMPT_S - (time.perf_counter() - began)
                self._advance(speaker, room=self._room(left) if speaker is reader else 0)
        for speaker in [each for each in self._draining if not each.running]:
            # In this order: who sees that it drains no more may count on its memory being free.
            speaker.free()
            self._draining.remove(speaker)

    def _run_calls(self) -> bool:
        """Do what other threads asked for until now; what they ask for next waits. Returns whether there was any."""
        calls = self._calls.qsize()
        for _ in range(calls):
            work, done = self._calls.get()
            try:
                done.set_result(work())
            except UnderstudyError as error:
                done.set_exception(error)
        return calls > 0

    def _admit(self) -> None:
        """Begin as many waiting requests as fit, for each voice in the order they came."""
        with self._wake:
            waiting: deque[Stream] = deque()
            for stream in self._waiting:
                if stream.cancelled:
                    continue
                speaker = self._answering(stream)
                if not speaker.places:
                    waiting.append(stream)
                    continue
                seed = stream.sampling.seed if stream.sampling.seed is not None else random.getrandbits(32)
                stream.sampler = Sampler(self._model, stream.sampling, seed)
                stream.text = TextOut(stream.sampling.stop)
                speaker.begin(stream)
            self._waiting = waiting

    def _drop_cancelled(self, speaker: Speaker) -> None:
        for stream in [each for each in speaker.running if each.cancelled]:
            speaker.end(stream)

    def _advance(self, speaker: Speaker, *, room: int) -> None:
        """One batch for one voice: a token of every running stream, then up to `room` rows of prompts."""
        rows, asked = plan(speaker.running, room=room)
        if not rows:
            return
        began = time.perf_counter()
        try:
            speaker.context.decode(rows)
            took = time.perf_counter() - began
            for stream, _ in asked:
                if not stream.said:
                    speaker.prefilled(stream)
        except ServiceTrouble as trouble:
            # Whatever the memory holds now is in doubt: every stream of this voice ends, with the reason.
            for stream in list(speaker.running):
                stream.emit(trouble)
                speaker.end(stream)
            return
        self._pace.learn(len(rows), took)
        for stream, row in asked:
            assert stream.sampler is not None
            self._say(speaker, stream, stream.sampler.sample(speaker.context, row))

    def _speaking(self) -> bool:
        """Whether anybody hears words right now, of whichever voice: all of them wait for each batch."""
        return any(stream.prefilled for speaker in self._speakers for stream in speaker.running)

    def _next_reader(self) -> Speaker | None:
        """The voice whose prompts are read in this step; those that have any take turns."""
        reading = [speaker for speaker in self._speakers if speaker.reading]
        self._turn += 1
        return reading[self._turn % len(reading)] if reading else None

    def _room(self, seconds: float) -> int:
        """How many rows of prompts may be read in a step that has so much time left for it."""
        return self._pace.piece(seconds) if self._speaking() else BATCH

    def _say(self, speaker: Speaker, stream: Stream, token: int) -> None:
        """One new token of a stream: show what it completes, or end."""
        assert stream.text is not None
        stream.first = stream.first or time.perf_counter()
        if self._model.ends(token):
            self._end(speaker, stream, "stop", stream.text.rest())
            return
        stream.said.append(token)
        shown = stream.text.push(self._model.piece(token))
        if stream.text.stopped:
            self._end(speaker, stream, "stop", shown)
        elif len(stream.said) >= stream.sampling.max_tokens:
            self._end(speaker, stream, "length", shown + stream.text.rest())
        elif shown:
            stream.emit(Piece(shown, voice=speaker.name))

    def _end(self, speaker: Speaker, stream: Stream, reason: FinishReason, shown: str) -> None:
        now = time.perf_counter()
        finish = Finish(
            reason=reason,
            voice=speaker.name,
            prompt_tokens=len(stream.prompt),
            completion_tokens=len(stream.said),
            cached_tokens=stream.cached,
            queue_ms=round((stream.started - stream.accepted) * 1000, 2),
            first_token_ms=round((stream.first - stream.accepted) * 1000, 2),
            total_ms=round((now - stream.accepted) * 1000, 2),
        )
        speaker.end(stream)
        stream.emit(Piece(shown, finish, speaker.name))

    def _shut_down(self) -> None:
        gone = ServiceTrouble("The voice is shutting down.")
        for speaker in self._speakers:
            for stream in list(speaker.running):
                stream.emit(gone)
                speaker.end(stream)
            speaker.free()
        for stream in self._waiting:
            stream.emit(gone)
        while not self._calls.empty():
            self._calls.get()[1].set_exception(gone)
        with self._freeing:
            self._model.free()


def plan(running: Sequence[Stream], *, room: int) -> tuple[list[Row], list[tuple[Stream, int]]]:
    """The rows of one batch and which stream asked for the logits of which row.

    Streams that speak come first, in the order of their sequences: with memory of its own for each, llama.cpp computes
    only rows together whose sequences count up by one, and the rest one by one, at twice the time for eight. Then comes
    as much of the oldest prompts as there is `room` for, in rows.
    """
    rows: list[Row] = []
    asked: list[tuple[Stream, int]] = []
    for stream in sorted(running, key=lambda each: each.sequence):
        if stream.prefilled:
            asked.append((stream, len(rows)))
            rows.append((stream.said[-1], len(stream.prompt) + len(stream.said) - 1, stream.sequence, True))
    # First come, first served: finishing one prompt serves its reader sooner than advancing all of them a little.
    for stream in [each for each in running if not each.prefilled]:
        if room <= 0:
            break
        upto = min(len(stream.prompt), stream.computed + room)
        for position in range(stream.computed, upto):
            last = position == len(stream.prompt) - 1
            if last:
                asked.append((stream, len(rows)))
            rows.append((stream.prompt[position], position, stream.sequence, last))
        room -= upto - stream.computed
        stream.computed = upto
    return rows, asked


def lot(voice: str, conversation: str) -> float:
    """A number from 0 to below 1 that is always the same for a conversation, and another one for every canary."""
    drawn = hashlib.sha256(f"{voice}\n{conversation}".encode(errors="backslashreplace")).digest()
    return int.from_bytes(drawn[:6]) / 2**48


def give_way() -> None:
    """Let this thread run when the threads that speak have nothing to do, or next to nothing else."""
    if sys.platform == "linux":
        # Not the class for idle time: beside a training it would never come to its end, and whoever waits for
        # Python's lock while this thread has it would wait as long.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two prompts begin with alike."""
    for index, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return index
    return min(len(left), len(right))


def pieces_of(rows: Sequence[Row]) -> list[Sequence[Row]]:
    """Rows in batches so small that nobody who is being answered notices one."""
    return [rows[start : start + LEAST_PIECE] for start in range(0, len(rows), LEAST_PIECE)]


def probe(context: Context, between_steps: Callable[[Callable[[], None]], None]) -> None:
    """Let a new context say a few words before anybody hears it; leaves its memory empty.

    Computes one small batch at a time, each `between_steps` of those who are being answered. Raises ServiceTrouble when
    its numbers are not finite or it has nothing to say.
    """
    model = context.model
    tokens = model.turn_tokens(PROBE)
    *pieces, rows = pieces_of([(token, n, 0, n == len(tokens) - 1) for n, token in enumerate(tokens)])
    for piece in pieces:
        between_steps(partial(context.decode, piece))
    said = b""
    for _ in range(PROBE_TOKENS):
        between_steps(partial(context.decode, rows))
        logits = context.logits(len(rows) - 1)
        if not np.isfinite(logits).all():
            raise ServiceTrouble("The new voice fails its probe: its numbers are not finite.", permanent=True)
        token = int(logits.argmax())
        if model.ends(token):
            break
        said += model.piece(token)
        rows = [(token, rows[-1][1] + 1, 0, True)]
    context.forget(0)
    if not said.strip():
        raise ServiceTrouble("The new voice fails its probe: it has nothing to say.", permanent=True)
