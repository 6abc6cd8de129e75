"""The double's HTTP side: which route a request is for, whether it may pass, and what the answer looks like.

Routes are synchronous functions from a `Call` to something JSON can say (or nothing, which is a 204), so each of them
happens at one instant. Around them stand authorization, rate limits, refusals and failures that a test ordered. A
route nobody wrote is a 404 and a violation.
"""

import json
import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import BodyPartReader, web

from tests.fakes.discord_limits import Json, Refusal
from tests.fakes.discord_world import World

PREFIX = "/api/v10"
INVALID = (401, 403, 429)
INVALID_WINDOW_S = 600.0
SERVER_ERRORS = (500, 502, 503, 504)


@dataclass
class Request:
    """One request as it came in, and the status it got."""

    method: str
    path: str
    time: float
    body: Any = None
    query: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    status: int = 0


@dataclass(frozen=True)
class Call:
    """What a route is given: the ids in its path, and the request."""

    path: dict[str, str]
    request: Request

    def id(self, name: str) -> int:
        text = self.path[name]
        if not text.isdigit():
            raise Refusal(400, 50035, "Invalid Form Body")
        return int(text)

    @property
    def body(self) -> Json:
        return self.request.body if isinstance(self.request.body, dict) else {}


@dataclass(frozen=True)
class Limit:
    requests: int
    seconds: float


class Route:
    """A method, a path with `{names}` in it, the function behind it, and the bucket it draws from."""

    def __init__(
        self,
        method: str,
        path: str,
        act: Callable[[Call], Any],
        *,
        bucket: str | None = None,
        major: str = "channel",
        open_to_all: bool = False,
    ) -> None:
        self.method = method
        self.pattern = re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", path))
        self.act = act
        self.bucket = bucket
        self.major = major
        # Interaction callbacks and webhooks carry their own token; they do not count for the global limit either.
        self.open_to_all = open_to_all


@dataclass
class Bucket:
    """A fixed window that opens with its first request."""

    limit: Limit
    opened: float = float("-inf")
    used: int = 0

    def take(self, now: float) -> bool:
        if now >= self.opened + self.limit.seconds:
            self.opened, self.used = now, 0
        if self.used >= self.limit.requests:
            return False
        self.used += 1
        return True

    def wait_s(self, now: float) -> float:
        """Rounded up, so that nobody who waits exactly so long comes too early."""
        return math.ceil(max(0.0, self.opened + self.limit.seconds - now) * 1000) / 1000


@dataclass
class Failure:
    """A failure somebody ordered; `after` lets the work happen and loses only the answer."""

    method: str
    path: re.Pattern[str]
    status: int
    retry_after: float | None
    times: int
    shared: bool
    via: bool
    after: bool

    def fits(self, request: Request) -> bool:
        return self.times > 0 and self.method == request.method and bool(self.path.search(request.path))


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


class LostAnswer(Exception):
    """The connection is cut instead of an answer."""


class Server:
    """Every request goes through here."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.routes: list[Route] = []
        self.requests: list[Request] = []
        self.failures: list[Failure] = []
        self.invalid: list[float] = []
        self.most_invalid = 10_000
        self.everything = Bucket(Limit(50, 1.0))
        self.limits = {
            "messages": Limit(5, 5.0),
            "deletes": Limit(5, 1.0),
            "reactions": Limit(1, 0.25),
            "typing": Limit(5, 5.0),
            "webhooks": Limit(5, 2.0),
        }
        self.error_rate = 0.0
        self.seed = seed
        self.random = random.Random(seed)
        self._buckets: dict[tuple[str, str], Bucket] = {}

    async def handle(self, request: web.Request) -> web.Response:
        """Read one request, answer it, and keep a record of both."""
        seen = Request(request.method, request.path.removeprefix(PREFIX), self.world.clock.now())
        seen.query = dict(request.query)
        self.requests.append(seen)
        try:
            await _read(request, seen)
            answer = self._answer(seen, request.headers.get("Authorization"))
        except LostAnswer:
            _cut(request)
            answer = Answer(0)
        except Refusal as refusal:
            answer = Answer(refusal.status, refusal.body())
        seen.status = answer.status
        self._count_invalid(answer)
        return _response(answer)

    def _answer(self, seen: Request, authorization: str | None) -> Answer:
        failure = next((one for one in self.failures if one.fits(seen)), None)
        if failure is not None:
            failure.times -= 1
            if not failure.after:
                return self._failed(failure)
        answer = self._allowed(seen, authorization)
        return answer if failure is None else self._failed(failure)

    def _failed(self, failure: Failure) -> Answer:
        if failure.status == 0:
            raise LostAnswer
        if failure.status == 429:
            return _limited(failure.retry_after or 1.0, "shared" if failure.shared else "user", via=failure.via)
        return Answer(failure.status, {"message": f"{failure.status}: ordered by the test", "code": 0})

    def _allowed(self, seen: Request, authorization: str | None) -> Answer:
        """Everything that stands between a request and its route."""
        if len(self._recent_invalid()) >= self.most_invalid:
            return Answer(429, "error code: 1015")
        route, call = self._routed(seen)
        if not route.open_to_all and authorization != f"Bot {self.world.token}":
            raise Refusal(401, 0, "401: Unauthorized")
        if self.random.random() < self.error_rate:
            return Answer(self.random.choice(SERVER_ERRORS), {"message": "a server error by chance", "code": 0})
        if not route.open_to_all and not self.everything.take(seen.time):
            return _limited(self.everything.wait_s(seen.time), "global")
        return self._in_bucket(route, call)

    def _routed(self, seen: Request) -> tuple[Route, Call]:
        for route in self.routes:
            match = route.pattern.fullmatch(seen.path) if route.method == seen.method else None
            if match:
                return route, Call(match.groupdict(), seen)
        self.world.violations.append(f"unknown route: {seen.method} {seen.path}")
        raise Refusal(404, 0, "404: Not Found")

    def _in_bucket(self, route: Route, call: Call) -> Answer:
        if route.bucket is None:
            return _done(route.act(call))
        limit = self.limits[route.bucket]
        bucket = self._buckets.setdefault((route.bucket, call.path[route.major]), Bucket(limit))
        bucket.limit = limit
        now = call.request.time
        taken = bucket.take(now)
        answer = self._acted(route, call) if taken else _limited(bucket.wait_s(now), "user")
        return Answer(answer.status, answer.body, {**answer.headers, **self._bucket_headers(route.bucket, bucket, now)})

    def _acted(self, route: Route, call: Call) -> Answer:
        """A refusal inside a bucket carries the bucket's headers like any answer."""
        try:
            return _done(route.act(call))
        except Refusal as refusal:
            return Answer(refusal.status, refusal.body())

    def _bucket_headers(self, name: str, bucket: Bucket, now: float) -> dict[str, str]:
        wait = bucket.wait_s(now)
        return {
            "X-RateLimit-Limit": str(bucket.limit.requests),
            "X-RateLimit-Remaining": str(bucket.limit.requests - bucket.used),
            "X-RateLimit-Reset": f"{self.world.clock.wall() + wait:.3f}",
            "X-RateLimit-Reset-After": f"{wait:.3f}",
            "X-RateLimit-Bucket": name,
        }

    def _recent_invalid(self) -> list[float]:
        now = self.world.clock.now()
        self.invalid = [when for when in self.invalid if now - when < INVALID_WINDOW_S]
        return self.invalid

    def _count_invalid(self, answer: Answer) -> None:
        """Too many of them within ten minutes get the address banned; shared limits are nobody's fault."""
        if answer.status not in INVALID or answer.headers.get("X-RateLimit-Scope") == "shared":
            return
        self.invalid.append(self.world.clock.now())
        if len(self.invalid) == self.most_invalid:
            self.world.violations.append(f"banned: {self.most_invalid} invalid requests within ten minutes")


def _done(result: Any) -> Answer:
    if isinstance(result, Answer):
        return result
    return Answer(204) if result is None else Answer(200, result)


def _limited(retry_after: float, scope: str, *, via: bool = True) -> Answer:
    """Without `Via` it is not Discord that answers but the ban in front of it."""
    headers = {"Retry-After": str(int(retry_after) + 1), "X-RateLimit-Scope": scope}
    if via:
        headers["Via"] = "1.1 google"
    if scope == "global":
        headers["X-RateLimit-Global"] = "true"
    body = {"message": "You are being rate limited.", "retry_after": retry_after, "global": scope == "global"}
    return Answer(429, body, headers)


def _cut(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.close()


def _response(answer: Answer) -> web.Response:
    """The client library reads a body as JSON only if the content type is exactly this."""
    if answer.body is None:
        return web.Response(status=answer.status or 500, headers=answer.headers)
    if isinstance(answer.body, str):
        return web.Response(status=answer.status, text=answer.body)
    return web.Response(
        status=answer.status,
        body=json.dumps(answer.body).encode(),
        headers={**answer.headers, "Content-Type": "application/json"},
    )


async def _read(request: web.Request, seen: Request) -> None:
    if request.content_type.startswith("multipart/"):
        await _read_parts(request, seen)
        return
    data = await request.read()
    if data:
        seen.body = _parsed(data)


async def _read_parts(request: web.Request, seen: Request) -> None:
    """`payload_json`, and the files in the order of their numbers."""
    async for part in await request.multipart():
        assert isinstance(part, BodyPartReader)
        data = bytes(await part.read())
        if part.name == "payload_json":
            seen.body = _parsed(data)
        else:
            seen.files[part.filename or part.name or "file"] = data


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        raise Refusal(400, 50109, "The request body contains invalid JSON.") from None


def attachment(world: World, path: Sequence[str]) -> web.Response:
    """The bytes of a file, as the content delivery network would give them."""
    channel, message, name = path
    found = world.messages.get(int(message))
    files = [one.data for one in found.attachments if one.name == name] if found else []
    if not files or found is None or str(found.channel) != channel:
        return web.Response(status=404)
    return web.Response(body=files[0], content_type="application/octet-stream")
