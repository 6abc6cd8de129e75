"""Ten thousand imitations from a server that takes its time: `python -m tests.trainer.ten_thousand [ROWS] [LATENCY_S]`.

Prints how long asking and sifting took, and how much memory the process held after each tenth. The server is a process of
its own. No test: it takes minutes.
"""

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from infra.voice.client import HttpVoice
from memory.messages import Exchange
from tests.memory.making import taught
from tests.people import NOON
from tests.trainer.imitating import in_manner, voiced
from tests.trainer.lecturing import lecturing
from trainer import distil
from trainer.questions import Question
from trainer.teacher import Budget

CONCURRENCY = 64


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def serve(latency_s: float) -> None:
    with lecturing(in_manner(after_s=latency_s)) as lecturer:
        lecturer.kept = False
        say(lecturer.url)
        sys.stdin.read()


def pool(count: int) -> list[Exchange]:
    """So many exchanges about invented things."""
    draw = random.Random(5)
    things = ["".join(draw.choices("abdegiklmnorstu", k=7)) for _ in range(count)]
    return [
        taught(f"How is {each} kept from {each[::-1]}?", voiced(each, draw), days=n) for n, each in enumerate(things)
    ]


def asked(exchanges: list[Exchange]) -> list[Question]:
    """Eight questions about each of them."""
    words = ("heat", "time", "salt", "rest", "water", "cost", "smell", "tools")
    return [
        Question(f"What of {word} with {each.question.split()[2]}?", {"kind": "graph", "exchange": each.id})
        for each in exchanges
        for word in words
    ]


def main(rows: int, latency_s: float) -> None:
    command = [sys.executable, "-m", __spec__.name, "--serve", str(latency_s)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    assert server.stdin is not None
    url = server.stdout.readline().strip()
    try:
        measure(rows, url)
    finally:
        server.stdin.close()
        server.wait()


def measure(rows: int, url: str) -> None:
    began, own = time.monotonic(), psutil.Process()

    def tell(done: int, total: int, text: str) -> None:
        if done % (total // 10) == 0:
            seconds, held = time.monotonic() - began, own.memory_info().rss >> 20
            say(f"{done} of {total} after {seconds:.0f} s, {held} MiB, {text}")

    with tempfile.TemporaryDirectory() as name:
        exchanges = pool(-(-rows // 8))
        job = distil.prepare(
            Path(name) / "job",
            asked(exchanges)[:rows],
            exchanges,
            creator="Ada",
            teacher="lecturer",
            max_length=512,
            forgotten=0,
            created=NOON,
            excluded={},
        )
        say(f"decided after {time.monotonic() - began:.1f} s, {own.memory_info().rss >> 20} MiB")
        voice = HttpVoice(url, model="lecturer")
        found = distil.distil(job, voice, budget=Budget(), per_minute=0, concurrency=CONCURRENCY, on_progress=tell)
        size = sum(path.stat().st_size for path in job.folder.iterdir()) / 1e6
    say(f"done after {time.monotonic() - began:.0f} s, {own.memory_info().rss >> 20} MiB, {size:.1f} MB of files")
    say(str({name: found[name] for name in ("rows", "kept", "excluded", "prompt_tokens", "minutes")}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(float(sys.argv[2]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000, float(sys.argv[2]) if len(sys.argv) > 2 else 0.2)
