"""The engine: many answers at once from one set of weights, in a thread of its own.

Every step of the thread computes one batch for each voice in use: the next token of every running stream, then pieces
of the prompts that wait, bounded so that no running stream stalls behind a long prompt (continuous batching with
chunked prefill). What an earlier answer has computed of a prompt is not computed again: `sequences.py` keeps it. An
answer that is the only one at the time says several tokens in a step where it quotes: `lookup.py` guesses them.

Of those that wait, whoever has the fewest answers running begins first, so that nobody's many questions hold back
somebody's one. Who has waited longer than they said they would is told so instead of being answered.

A swap loads the adapter between two steps (milliseconds), makes a second context beside the running one, lets it say a
few words to itself between more steps, and then points new requests at it; running streams finish where they began, and
the old context is freed after the last of them. KV memory belongs to a context, so no answer can read what another
voice computed.

A canary is a second voice that answers a share of the conversations beside the current one, with a context of its own.
A pinned voice is one that always answers a community, a language, or both. A version that speaks in several of these
roles is loaded once; what has no role any more drains. No context is made that `budget.py` says is too much.

A step that fails unexpectedly ends nobody's wait: whoever has heard nothing yet is queued again, once, the others are
told, and every voice gets a new context. Where that does not help the engine ends, and says so to everybody.

Only the engine's thread computes; another one only allocates the memory of the next context.
"""

import hashlib
import logging
import os
import queue
import random
import sys
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from infra.adapters import voice_name
from infra.errors import Busy, ServiceTrouble, UnderstudyError, UserMistake
from infra.voice.budget import budget_of, mib
from infra.voice.chat import EVERYBODY, Audience, Finish, FinishReason, Piece, Sampling, Turn
from infra.voice.llama import Adapter, Context, Model, Sampler
from infra.voice.lookup import Lookup
from infra.voice.sequences import LEAST_SHARED, Reuse, Sequences, common_prefix
from infra.voice.text import TextOut
from infra.voice.tuning import DEFAULT, Tuning

# Rows of one batch. llama.cpp computes a prompt fastest in hundreds of rows.
BATCH = 512
# While somebody is being answered and prompts wait, a step takes about this long: the next token of all who speak, then
# as much of one voice's prompts as there is time for. Four or five words a second is as fast as people read. Longer
# steps read more in pieces that llama.cpp computes well, and pay for tokens of several streams at once.
STEP_S = 0.19
LEAST_PIECE, MOST_PIECE = 8, 256
# Of two prompts in memory the one with fewer tokens left is read first, unless the other came so many seconds a token
# earlier: a follow-up does not wait behind pages of notes, and no page waits for ever.
HASTE_S = 0.02
# How many tokens of an answer are guessed at a time. Eight measured faster than four even where arithmetic takes
# the time, and a wrong guess costs most (docs/benchmarks.md).
GUESSED = 8
# What was said stays computed for this long after an answer, for whoever goes on from it.
KEPT_S = 600.0

# No text that means anything has so many characters for each of its tokens.
TOKEN_CHARACTERS = 32

PROBE = (Turn("user", "Say hello."),)
# Each token and each piece costs a swap one more step of those who are being answered, who notice no larger ones.
PROBE_TOKENS, PROBE_PIECE = 4, 16
# A swap waits about as long for the answers that the swap before it has left to the voice before: every voice loaded
# costs memory, and each step computes all of them.
DRAINED_S = 20.0

# So many unexpected failures within so many seconds are no accident.
MOST_CRASHES, CRASHES_S = 3, 60.0
CLOSING = "The voice is shutting down."
BROKE_OFF = "The voice broke off and has started again; ask again."
BROKEN = "The voice has failed again and again, and has ended."

log = logging.getLogger(__name__)

Emit = Callable[[Piece | UnderstudyError], None]
# Token, position, sequence, and whether its logits are wanted.
Row = tuple[int, int, int, bool]
# Who asked for the logits of a row and of those after it, which hold the guesses.
Asked = tuple["Stream", int, Sequence[int]]


@dataclass(eq=False)
class Stream:
    """One request on its way. Times are `time.perf_counter` seconds.

    `opening` is how many tokens stand before anybody's words. `audience` and `conversation` decide which voice answers
    it, and the conversation when. `computed` counts what its sequence holds of prompt and answer. `heard` and `again`
    say whether anything of the answer was shown, and whether it is begun for the second time; `suspect` that the engine
    failed the first time.
    """

    prompt: list[int]
    sampling: Sampling
    emit: Emit
    accepted: float
    opening: int = 0
    conversation: str = ""
    audience: Audience = EVERYBODY
    sequence: int = -1
    computed: int = 0
    cached: int = 0
    said: list[int] = field(default_factory=list)
    sampler: Sampler | None = None
    text: TextOut | None = None
    lookup: Lookup | None = None
    started: float = 0.0
    first: float = 0.0
    cancelled: bool = False
    caught_up: bool = False
    heard: bool = False
    again: bool = False
    suspect: bool = False

    @property
    def prefilled(self) -> bool:
        return self.computed >= len(self.prompt)

    @property
    def held(self) -> list[int]:
        """The tokens that are computed in its sequence."""
        return [*self.prompt, *self.said][: self.computed]

    def place(self) -> float:
        """Whose prompt is read before whose: the lower, the sooner."""
        return self.accepted + HASTE_S * (len(self.prompt) - self.computed)

    def guesses(self) -> list[int]:
        """Tokens that may come next; only as many as it may still say after the one that is sure."""
        room = self.sampling.max_tokens - len(self.said) - 1
        return self.lookup.guess(min(GUESSED, room)) if self.lookup is not None and room > 0 else []

    def overdue(self, now: float) -> bool:
        """Whether it has waited longer than whoever asks wants to."""
        return self.sampling.timeout_s is not None and now - self.accepted > self.sampling.timeout_s

    def tell(self, what: Piece | UnderstudyError) -> None:
        """Let whoever asked hear it; a listener that fails hears no more, and hurts nobody else."""
        self.heard = True
        try:
            self.emit(what)
        except Exception:
            log.exception("A listener of the voice failed.")
            self.cancelled = True

    def rewind(self) -> None:
        """Back to where it was when it was queued."""
        self.sequence, self.computed, self.cached, self.said = -1, 0, 0, []
        self.text, self.started, self.first, self.caught_up, self.again = None, 0.0, 0.0, False, True

    def let_go(self) -> None:
        """Free what choosing its words takes."""
        if self.sampler is not None:
            self.sampler.free()
            self.sampler = None


class Pace:
    """How much prompt fits into a step, learned from the batches that this machine computes."""

    def __init__(self) -> None:
        self._speak_s, self._read_s = 0.01, STEP_S / LEAST_PIECE

    def learn(self, *, speaking: int, reading: int, seconds: float) -> None:
        """Note what a batch took: so many rows that speak, so many that read."""
        if reading >= LEAST_PIECE:
            each = max(seconds / 2, seconds - speaking * self._speak_s) / reading
            self._read_s += 0.3 * (each - self._read_s)
        elif speaking and not reading:
            self._speak_s += 0.3 * (seconds / speaking - self._speak_s)

    def piece(self, seconds: float, *, speaking: int) -> int:
        """Rows of prompt that take about this long together with so many rows that speak."""
        left = seconds - speaking * self._speak_s
        return max(LEAST_PIECE, min(MOST_PIECE, int(left / self._read_s)))


class Speaker:
    """One voice being served: a context, its adapter if it has one, and the streams it answers."""

    def __init__(
        self, name: str, version: str | None, *, context: Context, adapter: Adapter | None, streams: int
    ) -> None:
        self.name, self.version, self.context, self.adapter = name, version, context, adapter
        self.running: list[Stream] = []
        self.sequences, self._streams = Sequences(context, streams), streams

    @property
    def places(self) -> int:
        """How many more streams may begin."""
        return self.sequences.free

    @property
    def adapter_bytes(self) -> int:
        return self.adapter.size if self.adapter is not None else 0

    @property
    def reading(self) -> bool:
        """Whether any of its streams has prompt left to compute."""
        return any(not stream.prefilled for stream in self.running)

    def begin(self, stream: Stream) -> Reuse:
        """Give a stream its sequence, with what is computed of its prompt already; returns whose that was."""
        self.running.append(stream)  # first of all: whoever fails in the middle of this is not lost
        taken = self.sequences.take(stream.prompt)
        stream.sequence, stream.computed, stream.cached = taken.sequence, taken.cached, taken.cached
        stream.started = time.perf_counter()
        return taken.reuse

    def catch_up(self) -> int:
        """Copy what others have computed of the prompt that is read next; returns how many tokens that saves.

        Once for each stream, when it is its turn: those before it have been read by then.
        """
        stream = min((each for each in self.running if not each.prefilled), key=Stream.place, default=None)
        if stream is None or stream.caught_up:
            return 0
        running = {each.sequence: each.held for each in self.running if each is not stream}
        before, stream.caught_up = stream.computed, True
        stream.computed = self.sequences.catch_up(stream.sequence, stream.prompt, computed=before, running=running)
        saved = stream.computed - before
        stream.cached = max(0, stream.cached + saved)
        return max(0, saved)

    def prefilled(self, stream: Stream) -> None:
        """Keep the prompt's opening for others. Raises ServiceTrouble as `Sequences.learn`."""
        self.sequences.learn(stream.sequence, stream.prompt[: stream.opening])

    def end(self, stream: Stream) -> None:
        """Take the sequence back, as far as it is computed."""
        self._end(stream, stream.held)

    def give_up(self) -> list[Stream]:
        """Trust nothing that the memory holds; returns whom it was answering."""
        given = list(self.running)
        for stream in given:
            self._end(stream, [])
        self.sequences.forget_idle()
        return given

    def abandon(self) -> list[Stream]:
        """Whom it was answering, without touching the context, of which nothing is known any more."""
        given, self.running = self.running, []
        for stream in given:
            stream.let_go()
        return given

    def renew(self, make: Callable[[Adapter | None], Context]) -> None:
        """Go on in a new context, with nobody being answered. Raises ServiceTrouble when there is no memory for one."""
        self.context.free()
        self.context = make(self.adapter)
        self.sequences = Sequences(self.context, self._streams)

    def _end(self, stream: Stream, computed: list[int]) -> None:
        self.sequences.release(stream.sequence, computed, now=time.perf_counter())
        self.running.remove(stream)
        stream.let_go()

    def free(self) -> None:
        self.context.free()
        if self.adapter is not None:
            self.adapter.free()


class Engine:
    """Serves one base model to new requests, with at most one adapter; beside it at most one canary, and pinned voices.

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
        tuning: Tuning = DEFAULT,
        kept_s: float = KEPT_S,
        memory_mib: int = 0,
    ) -> None:
        """Load the weights and start serving the bare base.

        `base` names it in voices; `base_sha256` is what an adapter's metadata must name. At most `waiting` requests
        queue behind `streams` running ones, each of up to `context_tokens` of prompt and answer together. What a
        conversation has computed is forgotten when it is of no use for `kept_s` seconds. All voices together may take
        about `memory_mib`, or of 0 a share of this machine's memory. Raises ServiceTrouble where the base is too large.
        """
        self.weights, self.base, self.base_sha256 = weights, base, base_sha256
        self._streams, self._waiting_most, self._context_tokens, self._threads = (
            streams,
            waiting,
            context_tokens,
            threads,
        )
        self._tuning, self._kept_s = tuning, kept_s
        self._budget = budget_of(
            weights, tokens=context_tokens, sequences=streams, batch=BATCH, memory_mib=memory_mib, tuning=tuning
        )
        self._budget.check(base)
        self._model = Model(weights, gpu_layers=tuning.gpu_layers)
        self._current = self._speaker(None, None)
        self._canary: Speaker | None = None
        self._share = 0.0
        # Replaced as a whole, so that other threads may read it.
        self._pinned: Mapping[Audience, Speaker] = {}
        self._draining: list[Speaker] = []
        self._waiting: list[Stream] = []
        self._reused: Counter[str] = Counter()
        self._guessed: Counter[str] = Counter()
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._wake = threading.Condition()
        self._swapping = threading.Lock()
        self._pace = Pace()
        # Tokenising reads the model from callers' threads: it may not be freed meanwhile.
        self._freeing = threading.Lock()
        self._closing = False
        # Why nothing is answered any more.
        self._gone = ""
        self.restarts = 0
        self._crashed: deque[float] = deque(maxlen=MOST_CRASHES)
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
    def pinned(self) -> dict[Audience, str | None]:
        """The adapter version of every pinned voice; None is the bare base."""
        return {audience: speaker.version for audience, speaker in self._pinned.items()}

    @property
    def memory(self) -> dict[str, Any]:
        """About how many MiB all voices may take, and the weights and each voice that is loaded take."""
        budget = self._budget
        voices = [{"voice": name, "mib": mib(size)} for name, size in self._sizes]
        return {"allowed_mib": mib(budget.allowed), "weights_mib": mib(budget.weights), "voices": voices}

    @property
    def share(self) -> float:
        """What part of the conversations the canary answers."""
        return self._share

    @property
    def load(self) -> dict[str, int]:
        """How many streams run and how many wait."""
        speakers = self._speakers
        running = sum(len(speaker.running) for speaker in speakers)
        return {"running": running, "waiting": len(self._waiting), "voices_loaded": len(speakers)}

    @property
    def places(self) -> int:
        """How many more answers the current voice could begin now."""
        return self._current.places

    @property
    def reuse(self) -> dict[str, int]:
        """Since the start: the prompts begun, their tokens, and how many went on from what was computed already.

        "shared" is the opening that prompts have in common, "continued" a conversation that went on; `kept_tokens` are
        held for one right now.
        """
        names = ("prompts", "prompt_tokens", "shared_hits", "shared_tokens", "continued_hits", "continued_tokens")
        kept = sum(speaker.sequences.kept for speaker in self._speakers)
        return {**{name: self._reused[name] for name in names}, "kept_tokens": kept}

    @property
    def lookup(self) -> dict[str, int]:
        """Since the start: the tokens guessed from prompts, and how many of them were said."""
        return {name: self._guessed[name] for name in ("guessed", "right")}

    @property
    def broken(self) -> bool:
        """Whether it has ended by itself, because it failed again and again: only a new process helps."""
        return self._gone == BROKEN

    @property
    def busy(self) -> bool:
        """Whether anybody is being answered, or waits for it."""
        load = self.load
        return bool(load["running"] or load["waiting"])

    def submit(
        self,
        turns: Sequence[Turn],
        sampling: Sampling,
        emit: Emit,
        *,
        conversation: str = "",
        audience: Audience = EVERYBODY,
    ) -> Stream:
        """Queue one request; `emit` is called from the engine's thread with every piece, or once with an error.

        The most specific voice that is pinned to its `audience` answers it, if any. While there is a canary, others of
        the same `conversation` are answered by the same voice. Of those that wait, the conversation with the fewest
        running answers is next; a request without one stands for itself. Raises UserMistake when prompt and answer
        cannot fit or the schema is none, Busy when the queue is full, ServiceTrouble when closed or broken.
        """
        self._check_length(turns)
        with self._freeing:
            self._refuse_when_gone()
            prompt = self._model.turn_tokens(turns)
            opening = common_prefix(prompt, self._model.turn_tokens(opening_of(turns)))
            if sampling.schema:
                self._model.check_schema(sampling.schema)
        conversation = conversation or uuid.uuid4().hex
        stream = Stream(prompt, sampling, emit, time.perf_counter(), opening, conversation, audience)
        if len(prompt) + sampling.max_tokens > self._context_tokens:
            raise UserMistake(
                f"The prompt has {len(prompt)} tokens; with max_tokens {sampling.max_tokens} it exceeds the context of "
                f"{self._context_tokens}."
            )
        with self._wake:
            self._refuse_when_gone()
            # Those who wait for places that are free right now are not the queue.
            if len(self._waiting) >= self._waiting_most + self._answering(stream).places:
                raise Busy(f"The voice is busy: {len(self._waiting)} requests are waiting already.", retry_after_s=2)
            self._waiting.append(stream)
            self._wake.notify()
        return stream

    def _refuse_when_gone(self) -> None:
        if self._gone:
            raise ServiceTrouble(self._gone)

    def _check_length(self, turns: Sequence[Turn]) -> None:
        """Raise UserMistake for what is far too long, before the seconds that counting its tokens takes."""
        characters = sum(len(turn.content) for turn in turns)
        if characters > self._context_tokens * TOKEN_CHARACTERS:
            raise UserMistake(
                f"The prompt has {characters} characters; it exceeds the context of {self._context_tokens} tokens."
            )

    def cancel(self, stream: Stream) -> None:
        """Stop answering; the stream's place is free before the next step."""
        with self._wake:
            stream.cancelled = True
            self._wake.notify()

    def promote(self, version: str | None, adapter: Path | None) -> float:
        """Let new requests be answered by `adapter`, or by the bare base; returns the seconds it took.

        A canary ends with it, pinned voices do not; a version that is loaded already takes over as it is. Raises
        ServiceTrouble when the adapter cannot be loaded, belongs to another base, fails its probe or is too much for
        the memory; the voices before then stay, untouched.
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

    def pin(self, version: str | None, adapter: Path | None, audience: Audience) -> float:
        """Let `adapter`, or the bare base, answer an audience whatever speaks to others; returns the seconds.

        Raises ServiceTrouble as `promote` does; the voices before then stay, untouched.
        """
        with self._swapping:
            began = time.perf_counter()
            speaker = self._loaded(version, adapter)
            self._call(lambda: self._pin(audience, speaker))
            return time.perf_counter() - began

    def unpin(self, audience: Audience) -> None:
        """Let an audience be answered like others again; what its voice has begun it finishes."""
        with self._swapping:
            self._call(lambda: self._pin(audience, None))

    def close(self) -> None:
        """End every stream with an error, stop the thread and free the weights."""
        self._closing = True
        # A context that is being made reads the weights.
        with self._swapping, self._wake:
            self._gone = self._gone or CLOSING
            self._wake.notify()
        self._thread.join()
        for speaker in self._speakers:
            speaker.free()
        with self._freeing:
            self._model.free()

    def _loaded(self, version: str | None, adapter: Path | None) -> Speaker:
        """A voice that may speak: the one that does where it is this version, else a new one. Raises as `promote`."""
        for speaker in self._serving:
            if speaker.version == version:
                return speaker
        # `llama_adapter_lora_init` changes the model's list of adapters, which decoding reads: between two steps.
        loaded = self._call(partial(self._adapter, adapter)) if adapter is not None else None
        try:
            self._wait_for_drained()
            self._budget.check(self._name(version), adapter=loaded.size if loaded else 0, loaded=self._sizes)
            with ThreadPoolExecutor(1, initializer=give_way) as background:
                speaker = background.submit(self._speaker, version, loaded).result()
        except Exception:
            if loaded is not None:
                self._call(loaded.free)
            raise
        try:
            probe(speaker.context, self._call)
        except Exception:
            self._call(speaker.free)
            raise
        return speaker

    def _adapter(self, path: Path) -> Adapter:
        return Adapter(self._model, path, base_sha256=self.base_sha256)

    def _wait_for_drained(self) -> None:
        """Let the swap before this one come to its end. Raises ServiceTrouble when the engine closes meanwhile."""
        deadline = time.monotonic() + DRAINED_S
        while self._draining and time.monotonic() < deadline:
            if self._closing or self._gone:
                raise ServiceTrouble(self._gone or CLOSING)
            time.sleep(0.01)

    def _speaker(self, version: str | None, adapter: Adapter | None) -> Speaker:
        """A context of its own for one voice."""
        return Speaker(
            self._name(version), version, context=self._context(adapter), adapter=adapter, streams=self._streams
        )

    def _name(self, version: str | None) -> str:
        return voice_name(self.base, version)

    def _context(self, adapter: Adapter | None) -> Context:
        return Context(
            self._model,
            tokens=self._context_tokens,
            sequences=self._streams,
            batch=BATCH,
            threads=self._threads,
            adapter=adapter,
            tuning=self._tuning,
        )

    def _point(self, speaker: Speaker) -> None:
        """New requests go to `speaker`, except those of pinned voices; there is no canary any more."""
        before = self._serving
        self._current, self._canary, self._share = speaker, None, 0.0
        self._drain(before)

    def _try_out(self, speaker: Speaker | None, share: float) -> None:
        """A share of new requests goes to `speaker`, or none."""
        before = self._serving
        self._canary, self._share = speaker, share
        self._drain(before)

    def _pin(self, audience: Audience, speaker: Speaker | None) -> None:
        """New requests of an audience go to `speaker`, or where others go."""
        before = self._serving
        others = {each: pinned for each, pinned in self._pinned.items() if each != audience}
        self._pinned = {**others, audience: speaker} if speaker is not None else others
        self._drain(before)

    def _drain(self, before: Sequence[Speaker]) -> None:
        """Let those of `before` that no new request goes to finish what they have begun."""
        self._draining += [speaker for speaker in before if speaker not in self._serving]

    def _answering(self, stream: Stream) -> Speaker:
        """Whose turn a new request is."""
        canary, pinned = self._canary, self._pinned
        for audience in stream.audience.wider if pinned else ():
            if audience in pinned:
                return pinned[audience]
        if canary is not None and lot(canary.name, stream.conversation) < self._share:
            return canary
        return self._current

    @property
    def _serving(self) -> tuple[Speaker, ...]:
        """Every voice that new requests may go to, once."""
        canary = self._canary
        roles = (*([canary] if canary is not None else []), *self._pinned.values(), self._current)
        return tuple(dict.fromkeys(roles))

    @property
    def _speakers(self) -> tuple[Speaker, ...]:
        """Every voice that is loaded."""
        return (*self._draining, *self._serving)

    @property
    def _sizes(self) -> list[tuple[str, int]]:
        """The name of every voice that is loaded, and about how many bytes it takes."""
        return [(speaker.name, self._budget.voice(speaker.adapter_bytes)) for speaker in self._speakers]

    def _call(self, work: Callable[[], Any]) -> Any:
        """Run `work` in the engine's thread between two steps."""
        done: Future[Any] = Future()
        with self._wake:
            self._refuse_when_gone()
            self._calls.put((work, done))
            self._wake.notify()
        return done.result()

    def _serve(self) -> None:
        """The thread: wait for work, do a step, until closed or broken."""
        while self._work_comes():
            try:
                self._step()
            except Exception:
                log.exception("The voice's engine failed; it starts again.")
                self._start_again()
        self._dismiss()

    def _work_comes(self) -> bool:
        """Wait until there is anything to do, or long enough to forget something; False when all is over."""
        with self._wake:
            while not (self._gone or self._waiting or not self._calls.empty() or self._busy()):
                if not self._wake.wait(self._kept_s / 10):
                    break
            return not self._gone

    def _start_again(self) -> None:
        """Queue anew whoever has heard nothing, in new contexts; or end, where that has not helped."""
        self.restarts += 1
        self._crashed.append(time.monotonic())
        given = self._abandoned()
        for stream in given:
            stream.suspect = True
        self._once_more(given, ServiceTrouble(BROKE_OFF))
        often = len(self._crashed) == MOST_CRASHES and self._crashed[-1] - self._crashed[0] < CRASHES_S
        if often or not self._renewed():
            with self._wake:
                self._gone = self._gone or BROKEN

    def _abandoned(self) -> list[Stream]:
        """Everybody who was being answered, by whichever voice."""
        return [stream for speaker in self._speakers for stream in speaker.abandon()]

    def _once_more(self, given: Sequence[Stream], trouble: ServiceTrouble) -> None:
        """Let those wait again, before the others, who have heard nothing and did not before; tell the rest."""
        fresh = [stream for stream in given if not (stream.heard or stream.again)]
        for stream in fresh:
            stream.rewind()
        with self._wake:
            self._waiting[:0] = sorted(fresh, key=lambda stream: stream.accepted)
        for stream in given:
            if stream not in fresh:
                stream.tell(trouble)

    def _renewed(self) -> bool:
        """Whether every voice got a new context."""
        try:
            for speaker in self._speakers:
                speaker.renew(self._context)
        except Exception:
            log.exception("The voice's engine could not start again.")
            return False
        return True

    def _busy(self) -> bool:
        return bool(self._draining or any(speaker.running for speaker in self._speakers))

    def _step(self) -> None:
        called = self._run_calls()
        self._refuse_overdue()
        self._admit()
        # Not both in one step: what others asked for may take as long as a piece of a prompt.
        reader = None if called and self._speaking() else self._next_reader()
        began = time.perf_counter()
        # Who reads comes last, with what time is left.
        for speaker in sorted(self._speakers, key=lambda each: each is reader):
            self._drop_cancelled(speaker)
            if speaker.running:
                left = STEP_S - (time.perf_counter() - began)
                self._advance(speaker, room=self._room(speaker, left) if speaker is reader else 0)
        for speaker in [each for each in self._draining if not each.running]:
            # In this order: who sees that it drains no more may count on its memory being free.
            speaker.free()
            self._draining.remove(speaker)
        for speaker in self._speakers:
            speaker.sequences.forget_idle(ended_before=began - self._kept_s)

    def _run_calls(self) -> bool:
        """Do what other threads asked for until now; what they ask for next waits. Returns whether there was any."""
        calls = self._calls.qsize()
        for _ in range(calls):
            work, done = self._calls.get()
            try:
                done.set_result(work())
            except Exception as error:  # noqa: BLE001  whatever it is, whoever asked for it is told
                done.set_exception(error)
        return calls > 0

    def _refuse_overdue(self) -> None:
        """Tell those who have waited too long, and compute nothing for them."""
        now = time.perf_counter()
        with self._wake:
            overdue = [stream for stream in self._waiting if stream.overdue(now)]
            self._waiting = [stream for stream in self._waiting if stream not in overdue]
        for stream in overdue:
            waited = f"{stream.sampling.timeout_s:g} seconds"
            stream.tell(Busy(f"The voice is busy: nobody could answer within {waited}.", retry_after_s=2))

    def _admit(self) -> None:
        """Begin as many waiting requests as fit, for each voice in the order that is fair."""
        with self._wake:
            self._waiting = [stream for stream in self._waiting if not stream.cancelled]
            while ready := self._ready():
                stream = fairest(ready, [each for speaker in self._speakers for each in speaker.running])
                self._waiting.remove(stream)
                self._begin(stream)

    def _ready(self) -> list[Stream]:
        """Who may begin.

        Those in whose time the engine failed come first, one by one, the last alone until it speaks: any of them may be
        the cause, and fails nobody else again.
        """
        running = [each for speaker in self._speakers for each in speaker.running]
        suspects = [stream for stream in self._waiting if stream.suspect]
        if (running and suspects) or any(each.suspect and not each.heard for each in running):
            return []
        return [stream for stream in suspects[:1] or self._waiting if self._answering(stream).places]

    def _begin(self, stream: Stream) -> None:
        reuse = self._answering(stream).begin(stream)
        seed = stream.sampling.seed if stream.sampling.seed is not None else random.getrandbits(32)
        stream.sampler = Sampler(self._model, stream.sampling, seed)
        stream.text = TextOut(stream.sampling.stop)
        if self._model.can_cut:
            stream.lookup = Lookup(stream.prompt)
        self._reused.update({"prompts": 1, "prompt_tokens": len(stream.prompt)})
        if reuse != "nothing":
            self._reused.update({f"{reuse}_hits": 1, f"{reuse}_tokens": stream.cached})

    def _drop_cancelled(self, speaker: Speaker) -> None:
        for stream in [each for each in speaker.running if each.cancelled]:
            speaker.end(stream)

    def _advance(self, speaker: Speaker, *, room: int) -> None:
        """One batch for one voice: a token of every running stream, then up to `room` rows of prompts."""
        if room and (saved := speaker.catch_up()):
            self._reused.update({"shared_hits": 1, "shared_tokens": saved})
        speaking = sum(stream.prefilled for stream in speaker.running)
        rows, asked = plan(speaker.running, room=room)
        if not rows:
            return
        began = time.perf_counter()
        try:
            speaker.context.decode(rows)
            took = time.perf_counter() - began
            for stream, _, _ in asked:
                if not stream.said:
                    speaker.prefilled(stream)
        except ServiceTrouble as trouble:
            self._once_more(speaker.give_up(), ServiceTrouble(str(trouble), voice=speaker.name))
            return
        if len(speaker.running) > 1 or not speaking:  # who speaks alone is guessed at, in more rows than one
            self._pace.learn(speaking=speaking, reading=len(rows) - speaking, seconds=took)
        for stream, row, guesses in asked:
            for token in self._chosen(speaker, stream, row, guesses):
                if not self._say(speaker, stream, token):
                    break

    def _chosen(self, speaker: Speaker, stream: Stream, row: int, guesses: Sequence[int]) -> list[int]:
        """The token after a row, and after each guess that was right; wrong ones leave the stream's sequence."""
        assert stream.sampler is not None
        tokens = [stream.sampler.sample(speaker.context, row)]
        for number, guess in enumerate(guesses, 1):
            if tokens[-1] != guess or self._model.ends(guess):
                break
            tokens.append(stream.sampler.sample(speaker.context, row + number))
        if guesses:
            right = len(tokens) - 1
            stream.computed += right
            speaker.context.forget(stream.sequence, after=stream.computed)
            self._guessed.update({"guessed": len(guesses), "right": right})
        return tokens

    def _speaking(self) -> bool:
        """Whether anybody hears words right now, of whichever voice: all of them wait for each batch."""
        return any(stream.prefilled for speaker in self._speakers for stream in speaker.running)

    def _next_reader(self) -> Speaker | None:
        """The voice whose prompts are read in this step; those that have any take turns."""
        reading = [speaker for speaker in self._speakers if speaker.reading]
        self._turn += 1
        return reading[self._turn % len(reading)] if reading else None

    def _room(self, speaker: Speaker, seconds: float) -> int:
        """How many rows of its prompts a voice may read in a step that has so much time left."""
        speaking = sum(stream.prefilled for stream in speaker.running)
        return self._pace.piece(seconds, speaking=speaking) if self._speaking() else BATCH

    def _say(self, speaker: Speaker, stream: Stream, token: int) -> bool:
        """One new token of a stream: show what it completes, or end. Returns whether the stream goes on."""
        assert stream.text is not None
        stream.first = stream.first or time.perf_counter()
        if self._model.ends(token):
            self._end(speaker, stream, "stop", stream.text.rest())
            return False
        stream.said.append(token)
        if stream.lookup is not None:
            stream.lookup.add(token)
        shown = stream.text.push(self._model.piece(token))
        if stream.text.stopped:
            self._end(speaker, stream, "stop", shown)
            return False
        if len(stream.said) >= stream.sampling.max_tokens:
            self._end(speaker, stream, "length", shown + stream.text.rest())
            return False
        if shown:
            stream.tell(Piece(shown, voice=speaker.name))
        return True

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
        stream.tell(Piece(shown, finish, speaker.name))

    def _dismiss(self) -> None:
        """Tell everybody who waits for anything that it will not come."""
        gone = ServiceTrouble(self._gone)
        with self._wake:
            waiting, self._waiting = self._waiting, []
        for stream in [*self._abandoned(), *waiting]:
            stream.tell(gone)
        while not self._calls.empty():
            self._calls.get()[1].set_exception(gone)


def plan(running: Sequence[Stream], *, room: int) -> tuple[list[Row], list[Asked]]:
    """The rows of one batch and which stream asked for the logits of which row.

    Streams that speak come first, in the order of their sequences: with memory of its own for each, llama.cpp computes
    only rows together whose sequences count up by one, and the rest one by one, at twice the time for eight. For the
    same reason only one that is alone is guessed at. Then comes as much of the prompts as there is `room` for, in
    rows: one after the other, for finishing one serves its reader sooner than advancing all of them a little.
    """
    rows: list[Row] = []
    asked: list[Asked] = []
    speaking = sorted((each for each in running if each.prefilled), key=lambda each: each.sequence)
    for stream in speaking:
        guesses = stream.guesses() if len(running) == 1 else []
        asked.append((stream, len(rows), guesses))
        for distance, token in enumerate([stream.said[-1], *guesses]):
            rows.append((token, stream.computed + distance, stream.sequence, True))
        stream.computed += 1
    read: list[Stream] = []
    for stream in sorted((each for each in running if not each.prefilled), key=Stream.place):
        if room <= 0:
            break
        if any(common_prefix(stream.prompt, each.prompt) >= stream.computed + LEAST_SHARED for each in read):
            continue  # it can copy that after this batch
        read.append(stream)
        upto = min(len(stream.prompt), stream.computed + room)
        for position in range(stream.computed, upto):
            last = position == len(stream.prompt) - 1
            if last:
                asked.append((stream, len(rows), ()))
            rows.append((stream.prompt[position], position, stream.sequence, last))
        room -= upto - stream.computed
        stream.computed = upto
    return rows, asked


def fairest(waiting: Sequence[Stream], running: Sequence[Stream]) -> Stream:
    """Whose turn it is: of the conversation with the fewest running answers, the one that came first."""
    answers = Counter(stream.conversation for stream in running)
    return min(waiting, key=lambda stream: answers[stream.conversation])


def opening_of(turns: Sequence[Turn]) -> list[Turn]:
    """What a prompt says before anybody's words: its system turn, and that a user speaks."""
    return [*(turn for turn in turns[:1] if turn.role == "system"), Turn("user", "")]


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


def pieces_of(rows: Sequence[Row]) -> list[Sequence[Row]]:
    """Rows in batches so small that nobody who is being answered notices one."""
    return [rows[start : start + PROBE_PIECE] for start in range(0, len(rows), PROBE_PIECE)]


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
