"""The voice over HTTP, in OpenAI's shapes: chat completions, models, health, and the operator's voices.

Bearer tokens are asked for unless the server is bound to loopback. A client that goes away frees its place at once.
"""

import asyncio
import hmac
import json
import threading
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from infra.adapters import BASE, SHARE, AdapterStore
from infra.errors import Busy, Refused, ServiceTrouble, UnderstudyError, UserMistake
from infra.voice.chat import Finish, Piece, Sampling, Turn
from infra.voice.client import LocalVoice
from infra.voice.engine import Engine


class Text(BaseModel):
    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    role: Literal["system", "user", "assistant", "developer"]
    content: str | list[Text]

    def turn(self) -> Turn:
        """The same as a chat template knows it."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Turn("system" if self.role == "developer" else self.role, content)


class StreamOptions(BaseModel):
    include_usage: bool = False


class Schema(BaseModel):
    """Named by OpenAI; `schema` is a JSON schema. What it does not forbid is allowed, also without `strict`."""

    model_config = ConfigDict(extra="ignore")

    document: Annotated[dict[str, Any], Field(alias="schema")]


class ResponseFormat(BaseModel):
    """What the answer is to be: words, any JSON object, or JSON that fits a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: Schema | None = None

    def schema_text(self) -> str:
        """The same as the engine knows it. Raises UserMistake where the schema is missing."""
        if self.type == "text":
            return ""
        if self.type == "json_object":
            return json.dumps({"type": "object"})
        if self.json_schema is None:
            raise UserMistake("response_format json_schema needs a json_schema.")
        return json.dumps(self.json_schema.document)


class Completion(BaseModel):
    """A request; what OpenAI allows and this server cannot do is refused rather than ignored.

    `user` names the conversation: while a canary answers some, requests with the same name get the same voice.
    """

    model_config = ConfigDict(extra="ignore")

    model: str = ""
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=200)]
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9
    max_tokens: Annotated[int, Field(ge=1, le=8192)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=8192)] | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    seed: int | None = None
    user: Annotated[str, Field(max_length=256)] | None = None
    n: Literal[1] = 1
    logprobs: Literal[False] | None = None
    tools: None = None
    response_format: ResponseFormat | None = None

    def sampling(self) -> Sampling:
        """The same as the engine knows it."""
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        most = self.max_completion_tokens or self.max_tokens or 256
        schema = self.response_format.schema_text() if self.response_format else ""
        return Sampling(self.temperature, self.top_p, most, self.seed, stop, schema=schema)


class Promotion(BaseModel):
    version: str


class Trial(BaseModel):
    version: str
    share: float = SHARE


class Ending(BaseModel):
    """`version` guards against ending another canary than the one that was seen; empty ends whichever there is."""

    version: str = ""


@dataclass(frozen=True)
class Voices:
    """The running voice and the store behind it: what the admin routes and start-up act on."""

    engine: Engine
    store: AdapterStore
    # Engine and store change together: of two admins at once, the later one decides both.
    _changing: threading.RLock = field(default_factory=threading.RLock)

    def promote(self, version: str | None) -> float:
        """Check, load, probe, point, then make it the one a restart begins with; returns seconds. A canary ends.

        Raises what the store and the engine raise; the voices before then stay, in memory and on disk.
        """
        with self._changing:
            if version is None:
                seconds = self.engine.promote(None, None)
            else:
                self.store.may_speak(version)
                self.store.verify(version)
                seconds = self.engine.promote(version, self.store.gguf(version))
            self.store.point(version)
            return seconds

    def rollback(self) -> float:
        """Back to the voice before."""
        with self._changing:
            return self.promote(self.store.previous())

    def start_canary(self, version: str, share: float, *, now: datetime) -> float:
        """Check, load and probe a second voice, let it answer its share, also after a restart; returns seconds.

        Raises what the store and the engine raise; the voices before then stay, in memory and on disk.
        """
        with self._changing:
            seconds = self._load_canary(version, share)
            try:
                self.store.try_out(version, share, now=now)
            except UnderstudyError:
                self.engine.stop_canary()
                raise
            return seconds

    def stop_canary(self, version: str = "") -> str:
        """Let the voice answer everybody again; returns the version that was on trial. Raises as `store.on_trial`."""
        with self._changing:
            ended = self.store.end_canary(version)
            self.engine.stop_canary()
            return ended.version

    def promote_canary(self, version: str) -> float:
        """As `promote`, only while `version` is the canary; else raises UserMistake."""
        with self._changing:
            return self.promote(self.store.on_trial(version).version)

    def _load_canary(self, version: str, share: float) -> float:
        self.store.may_try(version, share, beside=self.engine.version)
        self.store.verify(version)
        return self.engine.start_canary(version, self.store.gguf(version), share=share)

    def resume(self) -> list[str]:
        """Speak with the stored voices after a start; falls back to the one before, then to the base, and no canary.

        Returns a sentence for each voice that could not be taken.
        """
        problems: list[str] = []
        for version in (self.store.current(), self.store.previous()):
            if version is None:
                break
            try:
                self.store.may_speak(version)
                self.store.verify(version)
                self.engine.promote(version, self.store.gguf(version))
            except UnderstudyError as error:
                problems.append(f"Adapter {version!r} is not used: {error}")
            else:
                break
        if (canary := self.store.canary()) is not None:
            try:
                self._load_canary(canary.version, canary.share)
            except UnderstudyError as error:
                problems.append(f"Canary {canary.version!r} answers nobody: {error}")
        return problems

    def listing(self) -> dict[str, Any]:
        """What speaks, what spoke before, what is on trial, and what there is."""
        versions = [
            {
                "version": version,
                "speaks": version == self.engine.version,
                "verdict": self.store.manifest(version).get("verdict"),
                "tainted": self.store.tainted(version),
            }
            for version in self.store.versions()
        ]
        return {
            "voice": self.engine.voice,
            "previous": self.store.previous(),
            "canary": self._canary(),
            "adapters": versions,
        }

    def _canary(self) -> dict[str, Any] | None:
        """The canary, its name as a voice, and whether it speaks: after a start it may not have been loaded."""
        found = self.store.canary()
        if found is None:
            return None
        speaks = found.version == self.engine.canary
        return {**asdict(found), "voice": f"{self.engine.base}+{found.version}", "speaks": speaks}


def routes(voices: Voices) -> APIRouter:
    """All routes of the voice."""
    router = APIRouter()
    engine, voice = voices.engine, LocalVoice(voices.engine)

    @router.post("/v1/chat/completions")
    async def complete(request: Request, asked: Completion) -> Response:
        turns = [message.turn() for message in asked.messages]
        pieces = voice.stream(turns, asked.sampling(), conversation=asked.user or "")
        # The first piece decides between an answer and an error status, so it is waited for before the status goes out.
        first = await anext_while_connected(pieces, request)
        answer = Streamed(first.voice, asked.stream_options.include_usage)
        if asked.stream:
            return StreamingResponse(answer.events(first, pieces), media_type="text/event-stream")
        return JSONResponse(await answer.whole(first, pieces, request))

    @router.get("/v1/models")
    def models() -> dict[str, Any]:
        known = [engine.base, *(f"{engine.base}+{version}" for version in voices.store.versions())]
        return {"object": "list", "data": [{"id": n, "object": "model", "owned_by": "understudy"} for n in known]}

    @router.get("/healthz")
    def alive() -> dict[str, str]:
        return {"status": "alive"}

    @router.get("/readyz")
    def ready() -> dict[str, Any]:
        return {"status": "ready", "voice": engine.voice, **engine.load}

    @router.get("/admin/voices")
    def listing() -> dict[str, Any]:
        return voices.listing()

    @router.get("/admin/voices/{version}/card")
    def card(version: str) -> dict[str, Any]:
        return voices.store.card(version)

    @router.post("/admin/voices/promote")
    def promote(asked: Promotion) -> dict[str, Any]:
        seconds = voices.promote(None if asked.version == BASE else asked.version)
        return {"voice": engine.voice, "seconds": round(seconds, 4)}

    @router.post("/admin/voices/rollback")
    def rollback() -> dict[str, Any]:
        seconds = voices.rollback()
        return {"voice": engine.voice, "seconds": round(seconds, 4)}

    @router.post("/admin/voices/canary")
    def start_canary(asked: Trial) -> dict[str, Any]:
        seconds = voices.start_canary(asked.version, asked.share, now=datetime.now(UTC))
        return {"voice": engine.voice, "canary": asked.version, "share": asked.share, "seconds": round(seconds, 4)}

    @router.post("/admin/voices/canary/stop")
    def stop_canary(asked: Ending) -> dict[str, Any]:
        return {"stopped": voices.stop_canary(asked.version), "voice": engine.voice}

    @router.post("/admin/voices/canary/promote")
    def promote_canary(asked: Promotion) -> dict[str, Any]:
        seconds = voices.promote_canary(asked.version)
        return {"voice": engine.voice, "seconds": round(seconds, 4)}

    return router


class Streamed:
    """One answer in OpenAI's shape, as events or whole."""

    def __init__(self, voice: str, include_usage: bool) -> None:
        self._id, self._created = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())
        self._voice, self._usage = voice, include_usage

    async def events(self, first: Piece, rest: AsyncGenerator[Piece, None]) -> AsyncIterator[str]:
        """Server-sent events, ending with [DONE]; an error in the middle is an event of its own."""
        finish: Finish | None = None
        try:
            yield self._event({"role": "assistant", "content": ""})
            async for piece in chain(first, rest):
                finish = piece.finish or finish
                if piece.text:
                    yield self._event({"content": piece.text})
            assert finish is not None
            yield self._event({}, reason=finish.reason)
            if self._usage:
                yield line({**self._head("chat.completion.chunk"), "choices": [], "usage": usage(finish)})
            yield "data: [DONE]\n\n"
        except UnderstudyError as error:
            yield line(error_body(error))
        finally:
            await rest.aclose()

    async def whole(self, first: Piece, rest: AsyncGenerator[Piece, None], request: Request) -> dict[str, Any]:
        """The answer in one document."""
        said, finish = first.text, first.finish
        while finish is None:
            piece = await anext_while_connected(rest, request)
            said, finish = said + piece.text, piece.finish
        message = {"role": "assistant", "content": said}
        choice = {"index": 0, "message": message, "finish_reason": finish.reason, "logprobs": None}
        return {**self._head("chat.completion"), "choices": [choice], "usage": usage(finish)}

    def _event(self, delta: dict[str, str], reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        return line({**self._head("chat.completion.chunk"), "choices": [choice]})

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._voice}


async def chain(first: Piece, rest: AsyncGenerator[Piece, None]) -> AsyncIterator[Piece]:
    yield first
    async for piece in rest:
        yield piece


async def anext_while_connected(pieces: AsyncGenerator[Piece, None], request: Request) -> Piece:
    """The next piece; a client that leaves while it waits cancels the answer."""
    waiting = asyncio.ensure_future(anext(pieces))
    while not (await asyncio.wait({waiting}, timeout=0.25))[0]:
        if await request.is_disconnected():
            waiting.cancel()
            await asyncio.wait({waiting})
            raise ServiceTrouble("The client went away.")
    return waiting.result()


def line(document: dict[str, Any]) -> str:
    return f"data: {json.dumps(document, ensure_ascii=False)}\n\n"


def usage(finish: Finish) -> dict[str, Any]:
    return {
        "prompt_tokens": finish.prompt_tokens,
        "completion_tokens": finish.completion_tokens,
        "total_tokens": finish.prompt_tokens + finish.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": finish.cached_tokens},
    }


def status_of(error: UnderstudyError) -> tuple[int, str]:
    """The HTTP status and OpenAI error type of one of our errors."""
    if isinstance(error, Busy):
        return 429, "rate_limit_error"
    if isinstance(error, UserMistake):
        return 400, "invalid_request_error"
    if isinstance(error, Refused):
        return 403, "permission_error"
    return 503, "server_error"


def error_body(error: UnderstudyError) -> dict[str, Any]:
    return {"error": {"message": str(error), "type": status_of(error)[1], "param": None, "code": None}}


def install(app: FastAPI, *, token: str | None, open_paths: tuple[str, ...] = ("/healthz",)) -> None:
    """Give an app our errors' shapes and, where a token is set, ask every request for it."""

    @app.exception_handler(UnderstudyError)
    async def ours(request: Request, error: UnderstudyError) -> JSONResponse:
        headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, Busy) else {}
        return JSONResponse(error_body(error), status_code=status_of(error)[0], headers=headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        return JSONResponse(error_body(UserMistake(f"{where}: {first['msg']}".removeprefix(": "))), status_code=400)

    if token is not None:
        app.middleware("http")(bearer(token, open_paths))


def bearer(token: str, open_paths: tuple[str, ...]) -> Callable[..., Any]:
    """Middleware that lets only requests with the token through."""
    expected = f"Bearer {token}".encode()

    async def check(request: Request, go_on: Callable[[Request], Any]) -> Response:
        given = request.headers.get("authorization", "").encode()
        if request.url.path in open_paths or hmac.compare_digest(given, expected):
            response: Response = await go_on(request)
            return response
        body = {"error": {"message": "A bearer token is required.", "type": "authentication_error", "param": None}}
        return JSONResponse(body, status_code=401, headers={"WWW-Authenticate": "Bearer"})

    return check
