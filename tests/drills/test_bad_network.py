"""Databases and brokers behind a network that is slow, cut and half-open: nothing is lost, and all go on when it is well.

A half-open connection takes whatever is sent and answers nothing, for ever: only a limit of one's own ends that wait.
"""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import FastAPI

from infra import postgresql, queue
from infra.adapters import AdapterStore
from infra.database import connect, reading, writing
from infra.errors import ServiceTrouble, UnderstudyError
from infra.queue import ring
from infra.remote import Remote
from infra.runs import Run, Runs
from infra.settings import Settings, load_settings
from memory import elsewhere
from memory.journal import Journal
from memory.remember import remember
from tests.databases import emptied
from tests.drills.hasty_worker import SILENCE_S, hasty
from tests.drills.test_kill_remember import STORY, assert_index_can_follow, known, undisturbed
from tests.fault_proxy import FaultProxy, Faults, fault_proxy
from tests.infra.running import eventually, lives, served
from tests.people import CREATOR
from tests.redis_server import PASSWORD, redis_server
from trainer.app import queue_app

__all__ = ["undisturbed"]  # a fixture

# How many bytes of a direction pass before it is cut: in a login, in a statement, in the answer to a commit.
CUTS = (1, 40, 300, 700, 1500, 2600, 5000, 9000)


@pytest.fixture
def database(postgres: str) -> Iterator[FaultProxy]:
    """The suite's PostgreSQL, emptied, behind a network to spoil."""
    folder = Path(emptied(postgres).partition("?host=")[2])
    with fault_proxy(folder / ".s.PGSQL.5432") as proxy:
        yield proxy


def through(proxy: FaultProxy) -> str:
    return f"postgresql://postgres:@127.0.0.1:{proxy.port}/postgres"


def silence(proxy: FaultProxy) -> None:
    proxy.up, proxy.down = Faults(swallows=True), Faults(swallows=True)


class Writer:
    """Remembers the story; what was refused in a sentence may or may not have been kept, so it is said again."""

    def __init__(self, journal: Journal) -> None:
        self._journal, self._over = journal, threading.Event()
        self.done, self.refused = 0, list[str]()
        self.thread = threading.Thread(target=self._write)
        self.thread.start()

    def _write(self) -> None:
        for portion in STORY:
            while not self._over.is_set():
                try:
                    remember(self._journal, portion, creator=CREATOR)
                    self.done += 1
                    break
                except UnderstudyError as error:
                    self.refused.append(str(error))
                    time.sleep(0.02)

    def until(self, done: int, within_s: float = 30) -> float:
        """Wait until so many portions are acknowledged; the seconds that it took."""
        began = time.monotonic()
        while self.done < done:
            assert self.thread.is_alive()
            assert time.monotonic() - began < within_s, "the writer does not go on"
            time.sleep(0.005)
        return time.monotonic() - began

    def end(self) -> None:
        self._over.set()
        self.thread.join(60)


@contextmanager
def writer(journal: Journal) -> Iterator[Writer]:
    found = Writer(journal)
    try:
        yield found
    finally:
        found.end()


def test_a_database_behind_a_bad_network_loses_and_doubles_nothing(
    database: FaultProxy, undisturbed: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow, cut at changing bytes of either direction, and half-open in one direction, the other and both."""
    monkeypatch.setattr(postgresql, "SILENCE_S", 0.5)
    with closing(Journal.open(through(database))) as journal, writer(journal) as at_work:
        database.up, database.down = Faults(delay_s=0.01, bytes_per_s=100_000), Faults(delay_s=0.01)
        at_work.until(2)
        for number in range(2 * len(CUTS)):
            faults = Faults(cut_after=CUTS[number // 2])
            database.up, database.down = (faults, Faults()) if number % 2 else (Faults(), faults)
            while faults.cut_after is not None:
                time.sleep(0.002)
            at_work.until(at_work.done + 1)
        for up, down in ((True, False), (False, True), (True, True)):
            refused = len(at_work.refused)
            database.up, database.down = Faults(swallows=up), Faults(swallows=down)
            while len(at_work.refused) == refused:
                time.sleep(0.01)
            database.heal()
            at_work.until(at_work.done + 1)
        at_work.until(len(STORY))
        assert any("the server has been silent for 0.5 s." in sentence for sentence in at_work.refused)
        assert known(journal) == known(undisturbed)
        assert_index_can_follow(journal)


def test_a_writer_that_the_network_has_lost_holds_no_lock(
    database: FaultProxy, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server does not hear that it is gone: nothing closes the connection."""
    monkeypatch.setattr(postgresql, "SILENCE_S", 1.0)
    near, far = connect(postgres), connect(through(database))
    change = sa.text("UPDATE things SET name = :name")
    with writing(near) as connection:
        connection.execute(sa.text("CREATE TABLE things (name TEXT)"))
        connection.execute(sa.text("INSERT INTO things VALUES ('made')"))

    def be_lost() -> None:
        with writing(far) as connection:
            connection.execute(change, {"name": "lost"})
            silence(database)
            with writing(near) as another:
                another.execute(change, {"name": "kept"})

    with pytest.raises(ServiceTrouble, match="silent for 1 s"):
        be_lost()

    monkeypatch.setitem(postgresql.PATIENCE, "connect_timeout", 2)
    with pytest.raises(ServiceTrouble, match="connection timeout expired"), reading(far):
        pass
    with reading(near) as connection:
        assert connection.execute(sa.text("SELECT name FROM things")).scalar() == "kept"
    near.dispose()
    far.dispose()


def test_a_bot_behind_a_bad_network_is_told_what_the_twin_remembers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut and half-open, the twin is asked again for as long as it may take to start."""
    monkeypatch.setattr(elsewhere, "ANSWER_S", 0.5)
    app, asked = FastAPI(), list[str]()

    @app.get("/api/recall")
    def recall(question: str) -> dict[str, Any]:
        asked.append(question)
        if len(asked) == 2:
            proxy.sever()
        return {"notes": [], "confidence": 0.9, "timings_ms": {}}

    with served(app) as url, fault_proxy(("127.0.0.1", int(url.rpartition(":")[2]))) as proxy:
        memory = elsewhere.RecallElsewhere(lambda: Remote(f"http://127.0.0.1:{proxy.port}", None))
        memory.recall("well")
        assert memory.recall("cut").confidence == 0.9
        silence(proxy)
        healing = threading.Timer(1.2, proxy.heal)
        healing.start()
        assert memory.recall("silent").confidence == 0.9
        healing.join()
    assert asked == ["well", "cut", "cut", "silent"]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[FaultProxy]:
    """A Redis behind a network to spoil."""
    with redis_server(tmp_path / "redis") as server, fault_proxy(("127.0.0.1", server.port)) as proxy:
        yield proxy


@pytest.fixture
def settings(home: Path, database: FaultProxy, broker: FaultProxy) -> Settings:
    """An installation that reaches both through it."""
    secret = home / "redis-password"
    secret.write_text(PASSWORD)
    config = home / "understudy.toml"
    config.write_text(
        f'{config.read_text()}[journal]\nurl = "{through(database)}"\n[schedule]\ncron = ""\n'
        f'[queue]\nurl = "redis://127.0.0.1:{broker.port}/0"\n'
    )
    (home / ".env").write_text(f"UNDERSTUDY_QUEUE__PASSWORD_FILE={secret}\n")
    found = load_settings(home)
    Journal.open(found.journal_url).close()
    return found


class Trainings:
    """Runs of the installation, seen past the bad network; `ended` is how many have."""

    def __init__(self, home: Path, url: str) -> None:
        self._engine, self._home = connect(url), home
        self.runs, self.ended = Runs(self._engine), 0

    def asked(self, key: str) -> Run:
        """A run that nobody is rung for: the reconcile task finds it within a second."""
        run, made = self.runs.create("retrain", key, options={}, now=datetime.now(UTC))
        assert made
        return run

    async def learns(self, run: Run) -> None:
        """Wait until the run's training is at work."""
        await eventually(lambda: self.runs.get(run.id).stage == "lora", self._home)

    async def succeeded(self, run: Run) -> None:
        await eventually(lambda: not self.runs.get(run.id).active, self._home, timeout_s=60)
        self.ended += 1
        found = self.runs.get(run.id)
        assert found.state == "succeeded", found

    def close(self) -> None:
        self._engine.dispose()


@pytest.fixture
def trainings(home: Path, settings: Settings, postgres: str) -> Iterator[Trainings]:
    with closing(Trainings(home, postgres)) as found:
        yield found


@pytest.mark.timeout(300)
async def test_a_worker_behind_a_bad_network_says_a_sentence_and_goes_on(
    settings: Settings,
    database: FaultProxy,
    broker: FaultProxy,
    trainings: Trainings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Three trainings, each under another trouble; the worker and the scheduler are the same processes all the time."""
    monkeypatch.setattr(queue, "ANSWER_S", 1)
    async with hasty(settings.home, "worker", "beat") as processes:
        for proxy in (database, broker):
            proxy.up = proxy.down = Faults(delay_s=0.02, bytes_per_s=200_000)
        run = trainings.asked("slow, and cut")
        await eventually(lambda: trainings.runs.get(run.id).state == "running", settings.home)
        for _ in range(5):
            await asyncio.sleep(0.3)
            database.sever()
            broker.sever()
        for proxy in (database, broker):
            proxy.heal()
        await trainings.succeeded(run)

        silence(broker)
        run = trainings.asked("broker silent")
        await asyncio.to_thread(ring, queue_app(settings), run)
        assert "the queue does not answer" in caplog.text
        await asyncio.sleep(2 * SILENCE_S)
        assert trainings.runs.get(run.id).state == "queued"
        broker.heal()
        await trainings.succeeded(run)

        run = trainings.asked("database silent")
        await trainings.learns(run)
        silence(database)
        await asyncio.sleep(3 * SILENCE_S)
        database.heal()
        await trainings.succeeded(run)

        assert all(map(lives, processes))
    said = (settings.home / "out.log").read_text()
    assert "Its run is kept" in said
    assert "Traceback" not in said + (settings.data_folder / "logs" / "training.log").read_text()
    assert len(AdapterStore(settings.data_folder / "adapters").versions()) == trainings.ended == 3
