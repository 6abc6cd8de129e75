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
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol
from urllib.parse import urlsplit

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from infra.adapters import BASE, SHARE, AdapterStore, Aim, version_of, voice_name
from infra.errors import Busy, Refused, ServiceTrouble, UnderstudyError, UserMistake
from infra.settings import LOOPBACK
from infra.traces import taken_up
from infra.voice.chat import Audience, Finish, Piece, Sampling, Turn, Voice
from infra.voice.client import LocalVoice
from infra.voice.engine import Engine
from infra.voice.trial import try_out


def whole(text: str) -> str:
    """JSON can write halves of a character, which are no text anywhere else. Raises ValueError for one."""
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("this holds half of a character; send UTF-8")
    return text


Words = Annotated[str, AfterValidator(whole)]


class Text(BaseModel):
    type: Literal["text"]
    text: Words


class ChatMessage(BaseModel):
    role: Literal["system", "user", "assistant", "developer"]
    content: Words | list[Text]

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


StopText = Annotated[Words, Field(min_length=1, max_length=1024)]
Metadata = dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]]


class Completion(BaseModel):
    """A request; what OpenAI allows and this server cannot do is refused rather than ignored.

    `user` names the conversation: while a canary answers some, requests with the same name get the same voice; of those
    that wait, the name with the fewest running answers is next. Of `metadata`, "community" and "language" say for whom
    the answer is: either may have a voice of its own. After `timeout` seconds in the queue it is refused as busy.
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
    stop: StopText | Annotated[list[StopText], Field(max_length=4)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    user: Annotated[str, Field(max_length=256)] | None = None
    metadata: Annotated[Metadata, Field(max_length=16)] | None = None
    timeout: Annotated[float, Field(gt=0)] | None = None
    n: Literal[1] = 1
    logprobs: Literal[False] | None = None
    tools: None = None
    response_format: ResponseFormat | None = None

    def audience(self) -> Audience:
        """For whom the answer is, as far as the request says."""
        told = self.metadata or {}
        return Audience(told.get("community", ""), told.get("language", ""))

    def sampling(self) -> Sampling:
        """The same as the engine knows it."""
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        most = self.max_completion_tokens or self.max_tokens or 256
        schema = self.response_format.schema_text() if self.response_format else ""
        return Sampling(self.temperature, self.top_p, most, self.seed, stop, schema=schema, timeout_s=self.timeout)


class Promotion(BaseModel):
    version: str


class Trial(BaseModel):
    version: str
    share: float = SHARE


class Ending(BaseModel):
    """`version` guards against ending another canary than the one that was seen; empty ends whichever there is."""

    version: str = ""


class ForWhom(BaseModel):
    """An audience; see `infra.adapters.check_audience`."""

    community: str = ""
    language: str = ""

    def audience(self) -> Audience:
        return Audience(self.community, self.language)


class Pin(ForWhom):
    version: str


class Speakers(Protocol):
    """What the routes act on: the engine of this process, as `Voices`, or other servers, as a `Fleet`."""

    @property
    def store(self) -> AdapterStore: ...

    @property
    def base(self) -> str: ...

    @property
    def voice(self) -> str: ...

    @property
    def busy(self) -> bool: ...

    @property
    def broken(self) -> bool:
        """Whether it has failed for good, and only a new process helps."""

    def speaker(self) -> Voice: ...

    def ready(self) -> dict[str, Any]: ...

    def listing(self) -> dict[str, Any]: ...

    def promote(self, version: str | None) -> float: ...

    def rollback(self) -> float: ...

    def start_canary(self, version: str, share: float, *, now: datetime) -> float: ...

    def stop_canary(self, version: str = "") -> str: ...

    def promote_canary(self, version: str) -> float: ...

    def pin(self, version: str | None, audience: Audience) -> float: ...

    def unpin(self, audience: Audience) -> str | None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Voices:
    """The running voice and the store behind it: what the admin routes and start-up act on."""

    engine: Engine
    store: AdapterStore
    # Engine and store change together: of two admins at once, the later one decides both.
    _changing: threading.RLock = field(default_factory=threading.RLock)

    @property
    def base(self) -> str:
        return self.engine.base

    @property
    def voice(self) -> str:
        """The name of the voice that new requests get."""
        return self.engine.voice

    @property
    def busy(self) -> bool:
        return self.engine.busy

    @property
    def broken(self) -> bool:
        return self.engine.broken

    @property
    def aim(self) -> Aim:
        """What speaks right now; a version that was only prepared is a canary without a share."""
        canary = self.engine.canary
        return Aim(self.engine.version, canary, self.engine.share) if canary else Aim(self.engine.version)

    def speaker(self) -> Voice:
        return LocalVoice(self.engine)

    def ready(self) -> dict[str, Any]:
        """What speaks, for how many, and what that saved."""
        engine, status = self.engine, "broken" if self.broken else "ready"
        head = {"status": status, "voice": self.voice, "aim": asdict(self.aim), **engine.load}
        counts = {"restarts": engine.restarts, "memory": engine.memory, "reuse": engine.reuse, "lookup": engine.lookup}
        return {**head, **counts}

    def close(self) -> None:
        self.engine.close()

    def prepare(self, version: str) -> None:
        """Check, load and probe a version that answers nobody until `follow` points at it. Raises as `promote`.

        It takes the place of a canary until then: `follow` brings that back where the order is abandoned.
        """
        with self._changing:
            if version not in {self.engine.version, self.engine.canary}:
                self.store.may_speak(version)
                self.engine.start_canary(version, self._tried(version), share=0.0)

    def follow(self, aim: Aim) -> None:
        """Speak as `aim` says, now and after a restart; what else was prepared is dropped. Raises as `promote`."""
        with self._changing:
            if self.engine.version != aim.version:
                self.promote(aim.version)
            elif self.store.current() != aim.version:
                self.store.point(aim.version)
            if aim.canary and (self.aim != aim or self.store.aim() != aim):
                self.start_canary(aim.canary, aim.share, now=datetime.now(UTC))
            elif not aim.canary:
                self.engine.stop_canary()
                if self.store.canary() is not None:
                    self.store.end_canary()

    def promote(self, version: str | None) -> float:
        """Check, load, probe, point, then make it the one a restart begins with; returns seconds. A canary ends.

        Raises what the store and the engine raise; the voices before then stay, in memory and on disk.
        """
        with self._changing:
            if version is not None:
                self.store.may_speak(version)
            seconds = self.engine.promote(version, self._file(version))
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
            before, seconds = self.store.canary(), self._load_canary(version, share)
            try:
                self.store.try_out(version, share, now=now)
            except UnderstudyError:
                self.engine.stop_canary()
                if before is not None:
                    self._load_canary(before.version, before.share)
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

    def pin(self, version: str | None, audience: Audience) -> float:
        """Check, load and probe a voice for one audience, let it answer that, also after a restart; returns seconds.

        Raises what the store and the engine raise; the voices before then stay, in memory and on disk.
        """
        with self._changing:
            before, seconds = self.store.pins(), self._load_pinned(version, audience)
            try:
                self.store.pin(version, audience)
            except UnderstudyError:
                self.engine.unpin(audience)
                if audience in before:
                    self._load_pinned(before[audience], audience)
                raise
            return seconds

    def unpin(self, audience: Audience) -> str | None:
        """Answer an audience like others again; returns the version that it had. Raises as `store.pinned_to`."""
        with self._changing:
            ended = self.store.unpin(audience)
            self.engine.unpin(audience)
            return ended

    def _load_pinned(self, version: str | None, audience: Audience) -> float:
        self.store.may_pin(version, audience)
        return self.engine.pin(version, self._file(version), audience)

    def _load_canary(self, version: str, share: float) -> float:
        self.store.may_try(version, share, beside=self.engine.version)
        return self.engine.start_canary(version, self._tried(version), share=share)

    def _file(self, version: str | None) -> Path | None:
        """As `_tried`; the bare base has none."""
        return self._tried(version) if version is not None else None

    def _tried(self, version: str) -> Path:
        """The file of a version that may be loaded here: unchanged, and tried once where it can do no harm.

        Raises ServiceTrouble for what is changed or did not stand its trial, and Refused for what is of another base.
        """
        self.store.verify(version)
        path, base = self.store.gguf(version), self.engine.base_sha256
        self.store.may_load(version, base=self.engine.base, base_sha256=base)
        if not self.store.tried(version, base):
            try_out(self.engine.weights, path, base_sha256=base)
            self.store.remember_tried(version, base)
        return path

    def resume(self) -> list[str]:
        """Speak with the stored voices after a start; falls back to the one before, then to the base.

        Of those that answer some, one that cannot be loaded is left out, and the voice for all answers them too.
        Returns a sentence for each voice that could not be taken.
        """
        problems: list[str] = []
        for version in (self.store.current(), self.store.previous()):
            if version is None:
                break
            try:
                self.store.may_speak(version)
                self.engine.promote(version, self._tried(version))
            except UnderstudyError as error:
                problems.append(f"Adapter {version!r} is not used: {error}")
            else:
                break
        for audience, pinned in self.store.pins().items():
            try:
                self._load_pinned(pinned, audience)
            except UnderstudyError as error:
                problems.append(f"Pinned voice {pinned or BASE!r} does not speak to {str(audience)!r}: {error}")
        if (canary := self.store.canary()) is not None:
            try:
                self._load_canary(canary.version, canary.share)
            except UnderstudyError as error:
                problems.append(f"Canary {canary.version!r} answers nobody: {error}")
        return problems

    def listing(self) -> dict[str, Any]:
        """What speaks, what spoke before, what is on trial, and what there is."""
        head = {"voice": self.voice, "previous": self.store.previous(), "canary": self._canary()}
        return {**head, "pinned": self._pinned(), "adapters": self.store.listing(self.engine.version)}

    def _pinned(self) -> list[dict[str, Any]]:
        """Who has a voice of its own, and whether that speaks: after a start it may not have been loaded."""
        loaded = self.engine.pinned.items()
        return [
            {**asdict(audience), "version": version or BASE, "speaks": (audience, version) in loaded}
            for audience, version in self.store.pins().items()
        ]

    def _canary(self) -> dict[str, Any] | None:
        """The canary, its name as a voice, and whether it speaks: after a start it may not have been loaded."""
        found = self.store.canary()
        if found is None:
            return None
        speaks = found.version == self.engine.canary
        return {**asdict(found), "voice": voice_name(self.engine.base, found.version), "speaks": speaks}


def routes(voices: Speakers) -> APIRouter:
    """All routes of the voice."""
    router = APIRouter()
    voice = voices.speaker()

    @router.post("/v1/chat/completions")
    async def complete(request: Request, asked: Completion) -> Response:
        turns = [message.turn() for message in asked.messages]
        sampling, audience = asked.sampling(), asked.audience()
        pieces = voice.stream(turns, sampling, conversation=asked.user or "", audience=audience)
        # The first piece decides between an answer and an error status, so it is waited for before the status goes out.
        first = await anext_while_connected(pieces, request)
        answer = Streamed(first.voice, asked.stream_options.include_usage)
        if asked.stream:
            return StreamingResponse(answer.events(first, pieces), media_type="text/event-stream")
        return JSONResponse(await answer.whole(first, pieces, request))

    @router.get("/v1/models")
    def models() -> dict[str, Any]:
        known = [voice_name(voices.base, version) for version in (None, *voices.store.versions())]
        return {"object": "list", "data": [{"id": n, "object": "model", "owned_by": "understudy"} for n in known]}

    @router.get("/healthz")
    def alive() -> dict[str, str]:
        return {"status": "alive"}

    @router.get("/readyz")
    def ready() -> JSONResponse:
        found = voices.ready()
        return JSONResponse(found, status_code=200 if found["status"] == "ready" else 503)

    @router.get("/admin/voices")
    def listing() -> dict[str, Any]:
        return voices.listing()

    @router.get("/admin/voices/{version}/card")
    def card(version: str) -> dict[str, Any]:
        return voices.store.card(version)

    @router.post("/admin/voices/promote")
    def promote(asked: Promotion) -> dict[str, Any]:
        seconds = voices.promote(version_of(asked.version))
        return {"voice": voices.voice, "seconds": round(seconds, 4)}

    @router.post("/admin/voices/rollback")
    def rollback() -> dict[str, Any]:
        seconds = voices.rollback()
        return {"voice": voices.voice, "seconds": round(seconds, 4)}

    @router.post("/admin/voices/canary")
    def start_canary(asked: Trial) -> dict[str, Any]:
        seconds = voices.start_canary(asked.version, asked.share, now=datetime.now(UTC))
        return {"voice": voices.voice, "canary": asked.version, "share": asked.share, "seconds": round(seconds, 4)}

    @router.post("/admin/voices/canary/stop")
    def stop_canary(asked: Ending) -> dict[str, Any]:
        return {"stopped": voices.stop_canary(asked.version), "voice": voices.voice}

    @router.post("/admin/voices/pin")
    def pin(asked: Pin) -> dict[str, Any]:
        seconds = voices.pin(version_of(asked.version), asked.audience())
        return {"pinned": asked.version, "to": str(asked.audience()), "seconds": round(seconds, 4)}

    @router.post("/admin/voices/unpin")
    def unpin(asked: ForWhom) -> dict[str, Any]:
        return {"unpinned": voices.unpin(asked.audience()) or BASE, "voice": voices.voice}

    @router.post("/admin/voices/canary/promote")
    def promote_canary(asked: Promotion) -> dict[str, Any]:
        seconds = voices.promote_canary(asked.version)
        return {"voice": voices.voice, "seconds": round(seconds, 4)}

    return router


class Streamed:
    """One answer in OpenAI's shape, as events or whole; `marks` are fields that each document carries beside."""

    def __init__(self, voice: str, include_usage: bool, marks: dict[str, Any] | None = None) -> None:
        self._id, self._created = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())
        self._voice, self._usage, self._marks = voice, include_usage, marks or {}

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
        return {"id": self._id, "object": kind, "created": self._created, "model": self._voice, **self._marks}


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
    """An error in OpenAI's shape; `voice`, which is ours, is there where one voice failed."""
    voice = error.voice if isinstance(error, ServiceTrouble) else ""
    found = {"message": str(error), "type": status_of(error)[1], "param": None, "code": None}
    return {"error": {**found, **({"voice": voice} if voice else {})}}


def install(
    app: FastAPI, *, token: str | None, open_paths: tuple[str, ...] = ("/healthz",), here_only: bool = False
) -> None:
    """Give an app our errors' shapes and, where a token is set, ask every request for it.

    Without one, an address that is `here_only` is for this machine's programs and its own page, and for no other page.
    """

    @app.exception_handler(UnderstudyError)
    async def ours(request: Request, error: UnderstudyError) -> JSONResponse:
        headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, Busy) else {}
        return JSONResponse(error_body(error), status_code=status_of(error)[0], headers=headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        return JSONResponse(error_body(UserMistake(f"{where}: {first['msg']}".removeprefix(": "))), status_code=400)

    @app.exception_handler(HTTPException)
    async def elsewhere(request: Request, error: HTTPException) -> JSONResponse:
        """Bodies that are no JSON, and addresses that there are not."""
        return JSONResponse(error_body(UserMistake(error.detail)), status_code=error.status_code, headers=error.headers)

    if token is not None:
        app.middleware("http")(bearer(token, open_paths))
    elif here_only:
        app.middleware("http")(own_page)
    app.add_middleware(TakenUp)


class TakenUp:
    """Middleware that goes on with the answer that a request of another process is part of, in logs and traces."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope.get("headers", ())}
        with taken_up(headers):
            await self._app(scope, receive, send)


async def own_page(request: Request, go_on: Callable[[Request], Any]) -> Response:
    """Middleware that keeps other web pages out: any of them can post to loopback, and have a name that leads there."""
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    if host_of(host) in LOOPBACK and origin in {None, f"http://{host}"}:
        response: Response = await go_on(request)
        return response
    body = {"error": {"message": "Only this machine's own page may ask here.", "type": "forbidden", "param": None}}
    return JSONResponse(body, status_code=403)


def host_of(header: str) -> str | None:
    """The name in a Host header, without its port; None in what is none."""
    try:
        return urlsplit(f"//{header}").hostname
    except ValueError:
        return None


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
