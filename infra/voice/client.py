"""Two ways to speak: through the engine of this process, or through any OpenAI-compatible server."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import httpx

from infra.errors import Busy, ServiceTrouble, UnderstudyError, UserMistake
from infra.remote import Remote
from infra.voice.chat import Finish, Piece, Sampling, Turn, Voice
from infra.voice.engine import Engine

# A server that says nothing for this long is taken for gone.
SILENCE_S = 60.0


class LocalVoice:
    """The engine of this process, for asyncio."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def stream(
        self, turns: Sequence[Turn], sampling: Sampling, *, conversation: str = ""
    ) -> AsyncGenerator[Piece, None]:
        """See `chat.Voice`."""
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[Piece | UnderstudyError] = asyncio.Queue()

        def emit(piece: Piece | UnderstudyError) -> None:
            # The loop may be gone while the engine still winds a stream down.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(pieces.put_nowait, piece)

        running = self._engine.submit(turns, sampling, emit, conversation=conversation)
        try:
            while True:
                piece = await pieces.get()
                if isinstance(piece, UnderstudyError):
                    raise piece
                yield piece
                if piece.finish is not None:
                    return
        finally:
            self._engine.cancel(running)


class HttpVoice:
    """An OpenAI-compatible server. What other servers do not tell, such as time in the queue, is zero."""

    def __init__(self, url: str, *, model: str, token: str | None = None) -> None:
        self._url, self._model = url.rstrip("/"), model
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def stream(
        self, turns: Sequence[Turn], sampling: Sampling, *, conversation: str = ""
    ) -> AsyncGenerator[Piece, None]:
        """See `chat.Voice`."""
        body = request_body(turns, sampling, model=self._model, conversation=conversation)
        loop = asyncio.get_running_loop()
        began, first = loop.time(), 0.0
        chunks: list[dict[str, Any]] = []
        try:
            async with (
                httpx.AsyncClient(timeout=SILENCE_S, headers=self._headers) as client,
                client.stream("POST", f"{self._url}/v1/chat/completions", json=body) as response,
            ):
                await refuse_failure(response)
                async for line in response.aiter_lines():
                    if not line.startswith("data: ") or line == "data: [DONE]":
                        continue
                    chunks.append(chunk_of(line))
                    if text := text_of(chunks[-1]):
                        first = first or loop.time()
                        yield Piece(text)
        except httpx.HTTPError as error:
            raise ServiceTrouble(f"The voice at {self._url} broke off ({type(error).__name__}).") from error
        yield Piece("", finish_of(chunks, first=(first - began) * 1000, total=(loop.time() - began) * 1000))


class MovingVoice:
    """The server that `find` names at the moment: one that restarts may come back at another address."""

    def __init__(self, find: Callable[[], Remote | None], *, model: str) -> None:
        self._find, self._model = find, model

    async def stream(
        self, turns: Sequence[Turn], sampling: Sampling, *, conversation: str = ""
    ) -> AsyncGenerator[Piece, None]:
        """See `chat.Voice`."""
        remote = await asyncio.to_thread(self._find)
        if remote is None:
            raise ServiceTrouble('The twin\'s voice cannot be reached: start it with "understudy up".')
        voice = HttpVoice(remote.url, model=self._model, token=remote.token)
        pieces = voice.stream(turns, sampling, conversation=conversation)
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


def request_body(turns: Sequence[Turn], sampling: Sampling, *, model: str, conversation: str = "") -> dict[str, object]:
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
    if conversation:
        body["user"] = conversation
    return body


async def refuse_failure(response: httpx.Response) -> None:
    """Raise what a failed response stands for."""
    if response.is_success:
        return
    await response.aread()
    try:
        message = str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = f"The voice answered with HTTP status {response.status_code}."
    if response.status_code == 429:
        wait = response.headers.get("Retry-After", "")  # which may be a date, too
        raise Busy(message, retry_after_s=int(wait) if wait.isdigit() else 2)
    if response.status_code == 400:
        raise UserMistake(message)
    raise ServiceTrouble(message)


def chunk_of(line: str) -> dict[str, Any]:
    """One event of a stream. Raises ServiceTrouble for an error, and for what is no event of OpenAI's."""
    try:
        chunk = json.loads(line.removeprefix("data: "))
        if chunk.get("error"):
            raise ServiceTrouble(str(chunk["error"]["message"]))
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
        prompt_tokens=int(usage.get("prompt_tokens", 0)),
        completion_tokens=int(usage.get("completion_tokens", 0)),
        cached_tokens=int((usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)),
        queue_ms=0.0,
        first_token_ms=round(first, 2),
        total_ms=round(total, 2),
    )
