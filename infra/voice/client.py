"""Two ways to speak: through the engine of this process, or through any OpenAI-compatible server."""

import asyncio
import contextlib
import json
import logging
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from infra.errors import Busy, ServiceTrouble, UnderstudyError, UserMistake
from infra.logs import tell
from infra.remote import BACK_S, LOOK_S, Gone, Remote, certificates
from infra.traces import parts, passed_on
from infra.voice.chat import EVERYBODY, Audience, Finish, Piece, Sampling, Turn, Voice
from infra.voice.engine import Engine

# A server that says nothing for this long is taken for gone.
SILENCE_S = 60.0

log = logging.getLogger(__name__)


class LocalVoice:
    """The engine of this process, for asyncio."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def stream(
        self, turns: Sequence[Turn], sampling: Sampling, *, conversation: str = "", audience: Audience = EVERYBODY
    ) -> AsyncGenerator[Piece, None]:
        """See `chat.Voice`."""
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[Piece | UnderstudyError] = asyncio.Queue()

        def emit(piece: Piece | UnderstudyError) -> None:
            # The loop may be gone while the engine still winds a stream down.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(pieces.put_nowait, piece)

        running = self._engine.submit(turns, sampling, emit, conversation=conversation, audience=audience)
        try:
            while True:
                piece = await pieces.get()
                if isinstance(piece, UnderstudyError):
                    raise piece
                if piece.finish is not None:
                    spoken(piece.finish)
                yield piece
                if piece.finish is not None:
                    return
        finally:
            self._engine.cancel(running)


def spoken(finish: Finish) -> None:
    """Log what an answer took the engine, and its stages as spans."""
    took = {"queue_ms": finish.queue_ms, "first_token_ms": finish.first_token_ms, "total_ms": finish.total_ms}
    counts = {"prompt_tokens": finish.prompt_tokens, "completion_tokens": finish.completion_tokens}
    tell(log, "the voice spoke", voice=finish.voice, **took, **counts)
    first = finish.first_token_ms - finish.queue_ms
    parts({"queue": finish.queue_ms, "first_token": first, "other_tokens": finish.total_ms - finish.first_token_ms})


class HttpVoice:
    """An OpenAI-compatible server. What other servers do not tell, such as time in the queue, is zero.

    Only a running twin, `ours`, is told for whom it speaks: others need not know, and OpenAI's own server takes
    `metadata` only with what it is to store. Within `kept_open` the requests of one event loop share connections.
    """

    def __init__(self, url: str, *, model: str, token: str | None = None, ours: bool = False) -> None:
        self._url, self._model, self._ours = url.rstrip("/"), model, ours
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._kept: httpx.AsyncClient | None = None

    @contextlib.asynccontextmanager
    async def kept_open(self, connections: int) -> AsyncIterator[None]:
        """Keep up to so many connections for thousands of requests: over TLS each would cost round trips."""
        async with self._made(connections) as self._kept:
            try:
                yield
            finally:
                self._kept = None

    def _made(self, connections: int = 1) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        return httpx.AsyncClient(timeout=SILENCE_S, headers=self._headers, verify=certificates(), limits=limits)

    async def stream(
        self, turns: Sequence[Turn], sampling: Sampling, *, conversation: str = "", audience: Audience = EVERYBODY
    ) -> AsyncGenerator[Piece, None]:
        """See `chat.Voice`."""
        told = audience if self._ours else EVERYBODY
        body = request_body(turns, sampling, model=self._model, conversation=conversation, audience=told)
        loop = asyncio.get_running_loop()
        began, first = loop.time(), 0.0
        chunks: list[dict[str, Any]] = []
        try:
            async with (
                contextlib.nullcontext(self._kept) if self._kept else self._made() as client,
                client.stream("POST", f"{self._url}/v1/chat/completions", json=body, headers=passed_on()) as response,
            ):
                await refuse_failure(response)
                async for line in response.aiter_lines():
                    if not line.startswith("data: ") or line == "data: [DONE]":
                        continue
                    chunks.append(chunk_of(line))
                    if text := text_of(chunks[-1]):
                        first = first or loop.time()
                        yield Piece(text, voice=str(chunks[0].get("model") or ""))
        except httpx.HTTPError as error:
            raise Gone(f"The voice at {self._url} broke off ({type(error).__name__}).") from error
        yield Piece("", finish_of(chunks, first=(first - began) * 1000, total=(loop.time() - began) * 1000))


class MovingVoice:
    """The server that `find` names at the moment: one that restarts may come back at another address."""

    def __init__(self, find: Callable[[], Remote | None], *, model: str) -> None:
        self._find, self._model = find, model

    async def stream(
        self, turns: Sequence[Turn], sampling: Sampling, *, conversation: str = "", audience: Audience = EVERYBODY
    ) -> AsyncGenerator[Piece, None]:
        """See `chat.Voice`. One that goes before its first word is asked again where it comes back, if it does soon."""
        loop = asyncio.get_running_loop()
        began, heard = loop.time(), False
        while True:
            try:
                async with contextlib.aclosing(self._asked(turns, sampling, conversation, audience)) as pieces:
                    async for piece in pieces:
                        heard = True
                        yield piece
                return
            except Gone:
                if heard or loop.time() - began > BACK_S:
                    raise
            await asyncio.sleep(LOOK_S)

    async def _asked(
        self, turns: Sequence[Turn], sampling: Sampling, conversation: str, audience: Audience
    ) -> AsyncGenerator[Piece, None]:
        """The answer of the server as it is now. Raises Gone where there is none."""
        remote = await asyncio.to_thread(self._find)
        if remote is None:
            raise Gone('The twin\'s voice cannot be reached: start it with "understudy up".')
        voice = HttpVoice(remote.url, model=self._model, token=remote.token, ours=True)
        pieces = voice.stream(turns, sampling, conversation=conversation, audience=audience)
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                yield piece


def said_whole(voice: Voice, turns: Sequence[Turn], sampling: Sampling) -> str:
    """A whole answer, for a thread that may wait for it. A server that cannot keep to a schema is asked without it.

    Raises as `chat.Voice` does.
    """

    async def said() -> str:
        return "".join([piece.text async for piece in voice.stream(turns, sampling)])

    try:
        return asyncio.run(said())
    except UserMistake:
        if not sampling.schema:
            raise
        return said_whole(voice, turns, replace(sampling, schema=""))


def request_body(
    turns: Sequence[Turn], sampling: Sampling, *, model: str, conversation: str = "", audience: Audience = EVERYBODY
) -> dict[str, object]:
    """A streaming request in OpenAI's shape."""
    body: dict[str, object] = {
        "model": model,
        "messages": [asdict(turn) for turn in turns],
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.schema:
        form = {"name": "answer", "strict": True, "schema": json.loads(sampling.schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": form}
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.timeout_s is not None:
        body["timeout"] = sampling.timeout_s
    if conversation:
        body["user"] = conversation
    if audience != EVERYBODY:
        body["metadata"] = {name: value for name, value in asdict(audience).items() if value}
    return body


async def refuse_failure(response: httpx.Response) -> None:
    """Raise what a failed response stands for."""
    if response.is_success:
        return
    await response.aread()
    try:
        error = response.json()["error"]
        message, voice = str(error["message"]), str(error.get("voice", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        message, voice = f"The voice answered with HTTP status {response.status_code}.", ""
    if response.status_code == 429:
        raise Busy(message, retry_after_s=seconds_of(response.headers.get("Retry-After", "")))
    if response.status_code == 400:
        raise UserMistake(message)
    # A wrong token, address or model stays wrong.
    raise ServiceTrouble(message, permanent=response.status_code in {401, 403, 404}, voice=voice)


def seconds_of(retry_after: str) -> int:
    """How long `Retry-After` says to wait: seconds, or an HTTP date (RFC 9110, 10.2.3); 2 where it says neither."""
    if retry_after.strip().isdigit():
        return int(retry_after)
    try:
        when = parsedate_to_datetime(retry_after)
    except ValueError:
        return 2
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0, math.ceil((when - datetime.now(UTC)).total_seconds()))


def chunk_of(line: str) -> dict[str, Any]:
    """One event of a stream. Raises ServiceTrouble for an error, and for what is no event of OpenAI's."""
    try:
        chunk = json.loads(line.removeprefix("data: "))
        if chunk.get("error"):
            raise ServiceTrouble(str(chunk["error"]["message"]), voice=str(chunk["error"].get("voice", "")))
        text_of(chunk)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ServiceTrouble("The voice answered with something that is no stream of OpenAI's shape.") from error
    return dict(chunk)


def text_of(chunk: dict[str, Any]) -> str:
    choices = chunk.get("choices")
    return str((choices[0].get("delta") or {}).get("content") or "") if choices else ""


def finish_of(chunks: Sequence[dict[str, Any]], *, first: float, total: float) -> Finish:
    """How a stream ended. Raises ServiceTrouble when it ended without saying how."""
    reasons = [c["choices"][0].get("finish_reason") for c in chunks if c.get("choices")]
    if not reasons or reasons[-1] is None:
        raise ServiceTrouble("The voice broke off in the middle of an answer.")
    usage = chunks[-1].get("usage") or {}
    return Finish(
        reason="length" if reasons[-1] == "length" else "stop",
        voice=str(chunks[0].get("model", "")),
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        completion_tokens=int(usage.get("completion_tokens") or 0),
        cached_tokens=int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0),
        queue_ms=0.0,
        first_token_ms=round(first, 2),
        total_ms=round(total, 2),
    )
