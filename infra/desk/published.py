"""The twin for others, in OpenAI's shapes: chat completions and models, for keys of `infra/published.py` alone.

A key opens nothing else here: no memory, no teaching, no page, no voices. Every answer says that it is an AI's, in a
header and in its body; keys and words are in no log.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from bot.published import Outside, Prepared
from infra.errors import ServiceTrouble, UnderstudyError
from infra.published import PREFIX, Key, Published, Spent, Taken, Unknown, audience_of, until_tomorrow
from infra.settings import Settings
from infra.voice.api import Completion, Streamed, anext_while_connected, install
from infra.voice.chat import Finish, Piece, Sampling, Voice
from memory.messages import name_uuid
from memory.prompt import estimate_tokens

MODEL = "understudy"
MARK = {"X-AI-Generated": "true"}
OPENS = "A published key opens /v1/chat/completions and /v1/models, and nothing else."


@dataclass(frozen=True)
class Door:
    """What the routes work with."""

    outside: Outside
    voice: Voice
    keys: Published
    clock: Callable[[], datetime]

    async def key(self, request: Request) -> Key:
        """Whose key a request shows. Raises Unknown."""
        return await asyncio.to_thread(
            self.keys.opened, given(request.headers.get("authorization", "")), now=self.clock()
        )

    async def take(self, key: Key, asked: Completion, sampling: Sampling) -> Taken:
        """Room for the longest prompt and answer that this may become. Raises Spent."""
        turns = [message.turn() for message in asked.messages]
        wanted = self.outside.at_most(turns) + sampling.max_tokens
        return await asyncio.to_thread(self.keys.take, key, least=1, wanted=wanted, now=self.clock())

    async def give_back(self, taken: Taken) -> None:
        await asyncio.to_thread(self.keys.settle, taken, tokens=0, requests=0)

    def pieces(
        self, prepared: Prepared, sampling: Sampling, key: Key, taken: Taken, *, conversation: str
    ) -> AsyncGenerator[Piece, None]:
        """The answer as it comes, which settles what it took. Raises Spent where the prompt leaves no room."""
        if prepared.text:
            return self.counted(standing(prepared.text), prepared, taken)
        if (room := taken.room - prepared.tokens) < 1:
            raise Spent("tokens", key.quota.tokens, retry_after_s=until_tomorrow(self.clock()))
        spoken = self.voice.stream(
            prepared.turns,
            replace(sampling, max_tokens=min(sampling.max_tokens, room)),
            conversation=name_uuid("published", key.id, conversation),
            audience=audience_of(key.name, prepared.language),
        )
        return self.counted(spoken, prepared, taken)

    async def counted(
        self, pieces: AsyncGenerator[Piece, None], prepared: Prepared, taken: Taken
    ) -> AsyncGenerator[Piece, None]:
        """The same pieces; what was used is written before the last one, or when whoever reads has gone.

        An answer that broke off does not say what it cost: its prompt and its words are estimated then. One that never
        began costs nothing.
        """
        said, settled = "", False
        settle = partial(self.keys.settle, taken)
        try:
            async for piece in pieces:
                said += piece.text
                if piece.finish is not None:
                    settled = True
                    await asyncio.to_thread(settle, tokens=cost(piece.finish, prepared, said))
                yield piece
        except UnderstudyError:
            if not said and not settled:
                settled = True
                await asyncio.to_thread(settle, tokens=0, requests=0)
            raise
        finally:
            if not settled:
                # Nobody may be waiting any more: a thread finishes it, whatever is cancelled here.
                guessed = partial(settle, tokens=prepared.tokens + estimate_tokens(said))
                asyncio.get_running_loop().run_in_executor(None, guessed)
            await pieces.aclose()


def cost(finish: Finish, prepared: Prepared, said: str) -> int:
    """What an answer used, as the voice says; of one that does not say, about what it must be."""
    if prepared.text:
        return 0
    return finish.prompt_tokens + finish.completion_tokens or prepared.tokens + estimate_tokens(said)


async def standing(text: str) -> AsyncGenerator[Piece, None]:
    """A text that no voice has to say."""
    yield Piece(text, Finish("stop", MODEL, 0, 0, 0, 0.0, 0.0, 0.0), voice=MODEL)


def published_app(door: Door) -> FastAPI:
    """The application that keys open."""
    app = FastAPI(title="Understudy, published", docs_url=None, redoc_url=None, openapi_url=None)
    install(app, token=None)
    shown = Depends(door.key)

    @app.exception_handler(Unknown)
    async def unknown(request: Request, error: Unknown) -> JSONResponse:
        return refusal(str(error), 401, "invalid_request_error", "invalid_api_key", {"WWW-Authenticate": "Bearer"})

    @app.exception_handler(Spent)
    async def spent(request: Request, error: Spent) -> JSONResponse:
        after = {"Retry-After": str(error.retry_after_s)}
        return refusal(str(error), 429, "insufficient_quota", "insufficient_quota", after)

    @app.post("/v1/chat/completions")
    async def complete(request: Request, asked: Completion, key: Key = shown) -> Response:
        sampling = sampling_of(asked, door.outside.manner.sampling)
        taken = await door.take(key, asked, sampling)
        try:
            turns = [message.turn() for message in asked.messages]
            prepared = await asyncio.to_thread(door.outside.prepared, turns)
            pieces = door.pieces(prepared, sampling, key, taken, conversation=asked.user or "")
        except UnderstudyError:
            await door.give_back(taken)
            raise
        first = await anext_while_connected(pieces, request)
        answer = Streamed(first.voice or MODEL, asked.stream_options.include_usage, marks(door.outside, prepared))
        if asked.stream:
            return StreamingResponse(answer.events(first, pieces), media_type="text/event-stream", headers=MARK)
        return JSONResponse(await answer.whole(first, pieces, request), headers=MARK)

    @app.get("/v1/models")
    def models(key: Key = shown) -> dict[str, Any]:
        about = {"id": MODEL, "object": "model", "owned_by": MODEL, "ai_generated": True, "label": door.outside.label}
        return {"object": "list", "data": [about]}

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    def elsewhere(path: str, key: Key = shown) -> JSONResponse:
        return refusal(OPENS, 403, "permission_error", None, {})

    return app


def sampling_of(asked: Completion, usual: Sampling) -> Sampling:
    """As the request says; where it does not, as the twin speaks elsewhere. No answer is longer than there."""
    found, said = asked.sampling(), asked.model_fields_set
    return replace(
        found,
        temperature=found.temperature if "temperature" in said else usual.temperature,
        top_p=found.top_p if "top_p" in said else usual.top_p,
        max_tokens=min(asked.max_completion_tokens or asked.max_tokens or usual.max_tokens, usual.max_tokens),
    )


def marks(outside: Outside, prepared: Prepared) -> dict[str, Any]:
    """What every answer and every piece of one says of itself."""
    cited = [{"number": n, "source": note.source, "url": note.url} for n, note in enumerate(prepared.notes, 1)]
    return {
        "ai_generated": True,
        "label": outside.label,
        "abstained": prepared.abstained,
        "citations": cited,
    }


def refusal(message: str, status: int, kind: str, code: str | None, headers: dict[str, str]) -> JSONResponse:
    """An error as OpenAI's own client reads it."""
    error = {"message": message, "type": kind, "param": None, "code": code}
    return JSONResponse({"error": error}, status_code=status, headers=headers)


def given(authorization: str) -> str:
    """The key that a header shows; empty for none."""
    scheme, _, key = authorization.partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


class KeysApart:
    """Sends whoever shows a published key to the published app, before our own token is asked for, and nobody else."""

    def __init__(self, app: ASGIApp, published: ASGIApp) -> None:
        self._app, self._published = app, published

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        shown = ""
        if scope["type"] == "http":
            shown = given(dict(scope["headers"]).get(b"authorization", b"").decode("latin-1"))
        await (self._published if shown.startswith(PREFIX) else self._app)(scope, receive, send)


class Beside(uvicorn.Server):
    """A server in the loop of another one, which looks after the signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bound(settings: Settings) -> socket.socket | None:
    """Where the published app listens by itself; None where nowhere. Raises ServiceTrouble when it cannot."""
    host, port = settings.publish.host, settings.publish.port
    if not port:
        return None
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ServiceTrouble(f"Could not listen on {host}:{port} for published keys: {error.strerror}.") from error


async def listen(app: FastAPI, door: socket.socket) -> None:
    """Serve the published app on an address of its own, until cancelled."""
    config = uvicorn.Config(app, log_config=None, log_level="warning", timeout_graceful_shutdown=3)
    await Beside(config).serve(sockets=[door])
