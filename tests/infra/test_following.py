"""One answer and one training through all processes, in their logs and as traces: by id, and without a planted word."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.database import connect
from infra.runs import Run, Runs
from infra.settings import child_environment, load_settings
from infra.voice.weights import Weights
from tests.infra.running import lend_weights
from tests.otlp import Receiver, receiver
from tests.redis_server import free_port

ROOT = Path(__file__).parents[2]
# What nobody may find in a log or a trace.
WORDS, NAME, ANSWER = "Plantedquestion warm should dough be?", "Plantedname", "Plantedanswer, 24 degrees."
TOKEN = "plantedtoken-0123456789abcdef"


@dataclass
class Followed:
    """What was logged, line by line, and what arrived as traces, of one answer and one run."""

    answer: str
    run: Run
    lines: list[dict[str, Any]]
    written: str
    traces: Receiver


@contextmanager
def part(log: Path, *command: str, until: str = "") -> Iterator[None]:
    """A process of ours, from when `until` answers to the end of the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], stdout=output, stderr=output, cwd=ROOT, env=child_environment()
        )
    try:
        deadline = time.monotonic() + 90
        while not ready(until):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(30)


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", headers={"Authorization": f"Bearer {TOKEN}"}).is_success
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory, weights: Weights) -> Iterator[Followed]:
    """A voice server, the API, something like a bot, a worker and a training, each a process of its own."""
    folder = tmp_path_factory.mktemp("followed")
    voice, twin, logs = folder / "voice", folder / "twin", folder / "logs"
    with receiver() as traces:
        ports = free_port(), free_port()
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        common = f'[creator]\nname = "Ada"\n[log]\nformat = "json"\n[traces]\nurl = "{traces.url}"\ntoken = "{TOKEN}"\n'
        for home, port, rest in (
            (voice, ports[0], ""),
            (twin, ports[1], f'[voice]\nurls = ["{urls[0]}"]\ntoken = "{TOKEN}"\n'),
        ):
            home.mkdir()
            (home / "understudy.toml").write_text(f'{common}[api]\nport = {port}\ntoken = "{TOKEN}"\n{rest}')
            lend_weights(home, weights)
        logs.mkdir()
        cli = "infra.cli.main"
        with (
            part(logs / "voice", cli, "serve", "--voice", "--home", str(voice), until=urls[0]),
            part(logs / "api", cli, "serve", "--home", str(twin), until=urls[1]),
        ):
            taught = {"question": WORDS, "answer": ANSWER}
            httpx.post(
                f"{urls[1]}/api/teach", json=taught, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60
            ).raise_for_status()
            with (logs / "bot").open("wb") as errors:
                asked = [sys.executable, "-m", "tests.infra.asking", str(twin), WORDS, NAME]
                answer = subprocess.run(
                    asked, stdout=subprocess.PIPE, stderr=errors, cwd=ROOT, env=child_environment(), check=True
                ).stdout.decode()
            runs = Runs(connect(load_settings(twin).journal_url))
            run, _ = runs.create("retrain", "k", options={}, now=datetime.now(UTC))
            with (logs / "worker").open("wb") as errors:
                work = [sys.executable, "-m", "trainer.app", "worker", "--once", "--home", str(twin)]
                subprocess.run(work, stderr=errors, cwd=ROOT, env=child_environment(), check=True)
        written = {path.name: path.read_text() for path in [*logs.iterdir(), twin / "data" / "logs" / "training.log"]}
        lines = [json.loads(line) for text in written.values() for line in text.splitlines()]
        yield Followed(answer, runs.get(run.id), lines, "".join(written.values()), traces)


def test_every_line_is_json_and_says_whose_it_is(followed: Followed) -> None:
    assert {line["part"] for line in followed.lines} == {"voice", "api", "bot", "worker", "training"}
    for line in followed.lines:
        assert set(line) >= {"time", "level", "part", "logger", "event"}
        assert datetime.fromisoformat(line["time"]).tzinfo is not None


def test_an_answer_is_followed_by_its_id(followed: Followed) -> None:
    found = [line for line in followed.lines if line.get("answer") == followed.answer]
    assert {line["part"]: line["event"] for line in found} == {
        "bot": "an answer is delivered", "api": "memory was asked", "voice": "the voice spoke",
    }  # fmt: skip
    [spoken] = [line for line in found if line["part"] == "voice"]
    assert spoken["total_ms"] >= spoken["first_token_ms"] > 0
    [journalled] = [line for line in found if line["event"] == "an answer is journalled"]
    assert journalled["outcome"] == "answered"
    assert journalled["total_ms"] > journalled["recall_ms"] > journalled["recall_search_ms"] > 0


def test_a_run_is_followed_by_its_id(followed: Followed) -> None:
    found = [(line["part"], line["event"]) for line in followed.lines if line.get("run") == followed.run.id]
    assert ("worker", "a worker takes a run") in found
    assert ("worker", "a worker leaves a run") in found
    assert [line["stage"] for line in followed.lines if line["event"] == "a stage ended"] == ["harvest", "dataset"]
    assert set(followed.run.stages) == {"harvest", "dataset"}
    assert followed.run.state == "refused"


def test_an_answer_is_one_trace_through_all_processes(followed: Followed) -> None:
    traces = followed.traces
    [answer] = [span for span in traces.spans if span.name == "answer"]
    assert answer.facts == {"answer": followed.answer}
    assert [
        span.part
        for span in traces.spans
        if span.trace == answer.trace and span.parent not in {each.id for each in traces.spans}
    ] == ["bot"]
    stages = {span.name: span for span in traces.below(answer)}
    assert set(stages) == {"journal", "recall", "speak", "deliver"}
    [memory] = traces.below(stages["recall"])
    assert (memory.part, memory.name) == ("api", "memory")
    assert {(span.part, span.name) for span in traces.below(memory)} == {
        ("api", each) for each in ("embed", "search", "rank", "graph")
    }
    assert {(span.part, span.name) for span in traces.below(stages["speak"])} == {
        ("voice", each) for each in ("queue", "first_token", "other_tokens")
    }
    assert answer.seconds >= sum(span.seconds for span in stages.values()) > 0


def test_a_run_is_one_trace_through_worker_and_training(followed: Followed) -> None:
    traces = followed.traces
    [run] = [span for span in traces.spans if span.name == "run"]
    assert (run.part, run.facts) == ("worker", {"run": followed.run.id, "attempt": 1})
    [training] = traces.below(run)
    assert (training.part, training.name, training.trace) == ("training", "training", run.trace)
    assert [span.name for span in traces.below(training)] == ["harvest", "dataset"]


def test_no_word_no_name_and_no_token_is_in_them(followed: Followed) -> None:
    assert followed.traces.authorizations == {f"Bearer {TOKEN}"}
    for planted in ("lantedquestion", "lantedname", "lantedanswer", "degrees", "lantedtoken"):
        assert planted not in followed.written
        assert planted.encode() not in followed.traces.raw
