"""The broker rings, the run table decides: over a real Redis that dies, and beside whatever else is in its queues."""

import asyncio
import base64
import json
import pickle
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from redis.exceptions import NoPermissionError

from infra.database import connect
from infra.queue import ring
from infra.runs import Run, Runs
from infra.settings import Settings, child_environment, load_settings
from infra.voice.weights import Weights
from memory.journal import Journal
from tests.infra.running import eventually, lend_weights, running, understudy
from tests.redis_server import PASSWORD, RedisServer, redis_server
from trainer.app import queue_app

ROOT = Path(__file__).parents[2]


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def settings(home: Path, redis: RedisServer, weights: Weights) -> Settings:
    """An installation whose broker is that server; there is nothing to learn, so every training refuses in seconds."""
    secret = home / "redis-password"
    secret.write_text(PASSWORD)
    config = home / "understudy.toml"
    config.write_text(f'{config.read_text()}[queue]\nurl = "{redis.url}"\n[schedule]\ncron = ""\n')
    (home / ".env").write_text(f"UNDERSTUDY_QUEUE__PASSWORD_FILE={secret}\n")
    settings = load_settings(home)
    lend_weights(home, weights)
    Journal.open(settings.journal_url).close()
    return settings


@asynccontextmanager
async def working(settings: Settings, *queues: str):
    """A worker of these queues, with its supervisor, as a deployment starts it."""
    chosen = ["--queue", ",".join(queues)] if queues else []
    async with running(settings.home, child_environment(), "worker", *chosen) as process:
        yield process


def celery_of(process) -> psutil.Process | None:
    """The worker that a supervisor has started."""
    found = psutil.Process(process.pid).children()
    return next((each for each in found if "trainer.app" in each.cmdline()), None)


def asked_for(settings: Settings, key: str) -> Run:
    """A run, and its doorbell."""
    run = Runs(connect(settings.journal_url)).create("retrain", key, options={}, now=now())[0]
    ring(queue_app(settings), run)
    return run


async def ended(settings: Settings, run: Run, within_s: float = 60) -> Run:
    runs = Runs(connect(settings.journal_url))
    await eventually(lambda: not runs.get(run.id).active, settings.home, timeout_s=within_s)
    return runs.get(run.id)


async def test_a_redis_that_is_killed_and_comes_back_costs_nothing(settings: Settings, redis: RedisServer) -> None:
    """One run rung for before, one while it is dead, one after; the worker is the same process all the time."""
    async with working(settings) as process:
        assert (await ended(settings, asked_for(settings, "before"))).state == "refused"
        worker = celery_of(process)
        redis.kill()
        began = time.monotonic()
        meanwhile = await asyncio.to_thread(asked_for, settings, "meanwhile")
        assert time.monotonic() - began < 20
        redis.start()
        ring(queue_app(settings), meanwhile)  # as the reconcile task does within half a minute

        assert (await ended(settings, meanwhile)).state == "refused"
        assert (await ended(settings, asked_for(settings, "after"))).state == "refused"
        assert celery_of(process) == worker
    assert {key.decode().partition(":")[0] for key in redis.client.scan_iter()} == {"understudy"}


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("/tmp/understudy-bomb"),))


def message(body: bytes, task: str, content_type: str) -> str:
    """An entry of a queue in kombu's format."""
    properties = {
        "delivery_tag": "x",
        "delivery_info": {"exchange": "", "routing_key": "gpu"},
        "body_encoding": "base64",
    }
    headers = {"task": task, "id": "0b5c", "lang": "py", "argsrepr": "", "kwargsrepr": ""}
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-encoding": "binary" if "python" in content_type else "utf-8",
            "content-type": content_type,
            "headers": headers,
            "properties": {**properties, "correlation_id": "0b5c", "delivery_mode": 2},
        }
    )


def call(*arguments: object, **named: object) -> bytes:
    return json.dumps([arguments, named, {}]).encode()


HOSTILE = {
    "not json": "{",
    "not utf-8": b"\xff\xfe\x00",
    "not an object": "[1, 2]",
    "an object of nothing": "{}",
    "pickle": message(pickle.dumps([(Bomb(),), {}, {}]), "trainer.run", "application/x-python-serialize"),
    "no such task": message(call("x"), "os.system", "application/json"),
    "no such run": message(call(run_id="../../etc/passwd"), "trainer.run", "application/json"),
    "wrong arguments": message(call(1, 2, 3, run=[]), "trainer.run", "application/json"),
    "a run that is a list": message(call(run_id=["x"]), "trainer.run", "application/json"),
    "five megabytes": message(call(run_id="x" * 5_000_000), "trainer.run", "application/json"),
}


async def test_nothing_that_is_in_a_queue_harms_the_worker(settings: Settings, redis: RedisServer) -> None:
    """Behind all of that a training is begun, and what the pickle would have done is not."""
    Path("/tmp/understudy-bomb").unlink(missing_ok=True)
    for entry in HOSTILE.values():
        redis.client.lpush("understudy:gpu", entry)
    run = Runs(connect(settings.journal_url)).create("retrain", "behind", options={}, now=now())[0]
    async with working(settings):
        # Some end the worker, which is started again; a doorbell that it had in its hands then is rung again.
        while redis.client.llen("understudy:gpu"):
            await asyncio.sleep(0.2)
        ring(queue_app(settings), run)

        assert (await ended(settings, run)).state == "refused"
    assert not Path("/tmp/understudy-bomb").exists()


async def test_a_redis_user_with_few_rights_suffices(settings: Settings, redis: RedisServer) -> None:
    """The user of docs/security.md: a queue needs no right over the server, nor over other people's keys."""
    rule = next(line for line in (ROOT / "docs" / "security.md").read_text().splitlines() if "ACL SETUSER" in line)
    assert redis.client.execute_command(*rule.replace("PASSWORD", PASSWORD).split())
    redis.client.set("another", "program's")
    config = settings.home / "understudy.toml"
    config.write_text(config.read_text().replace("redis://", "redis://understudy@"))
    limited = load_settings(settings.home)

    async with working(limited):
        assert (await ended(limited, asked_for(limited, "limited"))).state == "refused"

    redis.client.execute_command("AUTH", "understudy", PASSWORD)
    for command in (["GET", "another"], ["FLUSHALL"], ["CONFIG", "GET", "*"], ["SHUTDOWN"]):
        with pytest.raises(NoPermissionError):
            redis.client.execute_command(*command)


async def test_a_worker_for_small_tasks_begins_no_training(settings: Settings) -> None:
    async with working(settings, "default"):
        run = asked_for(settings, "waits")
        await asyncio.sleep(6)
        assert Runs(connect(settings.journal_url)).get(run.id).state == "queued"
        async with working(settings, "gpu"):
            assert (await ended(settings, run)).state == "refused"


def test_a_broker_that_is_down_delays_a_run_and_says_so(settings: Settings, redis: RedisServer, caplog) -> None:
    run = Runs(connect(settings.journal_url)).create("retrain", "key", options={}, now=now())[0]
    redis.kill()
    began = time.monotonic()

    ring(queue_app(settings), run)

    assert time.monotonic() - began < 15
    assert "the queue does not answer" in caplog.text
    assert PASSWORD not in caplog.text


def test_a_machine_that_is_there_for_a_while_works_on_what_waits_and_ends(home: Path, weights: Weights) -> None:
    lend_weights(home, weights)
    settings = load_settings(home)
    with closing(Journal.open(settings.journal_url)) as journal:
        runs = Runs(journal.engine)
        run = runs.create("retrain", "one", options={}, now=now())[0]

        worked = understudy(home, "worker", "--queue", "gpu", "--once")

        assert "Trainings worked on: 1." in worked.stderr
        assert runs.get(run.id).state == "refused"
        assert "Trainings worked on: 0." in understudy(home, "worker", "--queue", "gpu", "--once").stderr


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--queue", "celery"], "There is no queue 'celery'; there are default and gpu."),
        (["--once"], "say --queue gpu --once"),
    ],
)
def test_a_worker_of_no_queue_is_a_mistake(home: Path, options: list[str], sentence: str) -> None:
    assert sentence in " ".join(understudy(home, "worker", *options, code=1).stderr.split())
