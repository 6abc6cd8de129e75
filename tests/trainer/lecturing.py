"""A teacher's server for tests: OpenAI's stream over loopback, as quick, slow, busy, broken or absurd as it is told."""

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Reply = Callable[["Lecturer", web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]


@dataclass
class Lecturer:
    """Takes its behaviours from `script` one request after the other, and from `reply` when that is empty."""

    reply: Reply
    script: list[Reply] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    kept: bool = True
    asked: int = 0
    at_once: int = 0
    most_at_once: int = 0
    connections: set[Any] = field(default_factory=set)
    url: str = ""

    async def complete(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        self.times.append(time.monotonic())
        self.connections.add(request.transport.get_extra_info("peername") if request.transport else None)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        body = await request.json()
        if self.kept:
            self.bodies.append(body)
        try:
            return await (self.script.pop(0) if self.script else self.reply)(self, request, body)
        finally:
            self.at_once -= 1


@contextmanager
def lecturing(reply: Reply, *script: Reply) -> Iterator[Lecturer]:
    """A server on a loopback port of its own."""
    lecturer, ready = Lecturer(reply, [*script]), threading.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", lecturer.complete)
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        lecturer.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        return runner

    def run() -> None:
        runner = loop.run_until_complete(serve())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    try:
        yield lecturer
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


async def streamed(request: web.Request, pieces: list[str], *, last: str | None = "stop", usage: Any = None) -> Any:
    """A stream in OpenAI's shape; without `last` it breaks off."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    lines = [{"choices": [{"delta": {"content": piece}, "finish_reason": None}]} for piece in pieces]
    lines += [{"choices": [{"delta": {}, "finish_reason": last}]}] if last else []
    lines += [{"choices": [], "usage": usage}] if usage else []
    for line in lines:
        await response.write(f"data: {json.dumps({'model': 'lecturer', **line})}\n\n".encode())
    if last is None:
        assert request.transport is not None
        request.transport.close()
        return response
    await response.write(b"data: [DONE]\n\n")
    return response


def says(
    text: str | Callable[[dict[str, Any]], str], *, read: int = 100, written: int = 10, after_s: float = 0
) -> Reply:
    """Answers with `text`, which may depend on the request, after a while."""

    async def reply(lecturer: Lecturer, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        await asyncio.sleep(after_s)
        said = text(body) if callable(text) else text
        return await streamed(request, [said], usage={"prompt_tokens": read, "completion_tokens": written})

    return reply


def fails(status: int, text: str = "no", **headers: str) -> Reply:
    async def reply(lecturer: Lecturer, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, text=text, headers=named)

    return reply


async def breaks_off(lecturer: Lecturer, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    return await streamed(request, ["Half an", " answer"], last=None)


async def garbage(lecturer: Lecturer, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    return web.Response(text="<html>welcome to the hotel's network</html>", content_type="text/html")


async def odd_stream(lecturer: Lecturer, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    return web.Response(text="data: {never closed\n\n", content_type="text/event-stream")


async def hangs(lecturer: Lecturer, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    await asyncio.sleep(5)
    return await streamed(request, ["late"])
