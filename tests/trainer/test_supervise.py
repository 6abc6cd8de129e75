"""A worker's side of a run, with real processes: death is noticed, cancellation passed on, nothing orphaned."""

import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from infra.database import connect
from infra.runs import Run, Runs
from trainer import supervise as supervising
from trainer.supervise import supervise

# A training process: writes its process id, then does what its test wants.
TRAINING = "import os, sys, time; open(sys.argv[1], 'a').write(f'{os.getpid()}\\n'); "


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(connect(f"sqlite:///{tmp_path / 'runs.db'}"))


class Supervised:
    """`supervise` in a thread, over a training process that runs `body`."""

    def __init__(self, runs: Runs, folder: Path, body: str) -> None:
        self.runs, self.stopping, self.pids = runs, threading.Event(), folder / "pids"
        self.run = runs.create("retrain", body, options={}, now=now())[0]
        self.left: Run | None = None
        command = ["-c", TRAINING + body, str(self.pids)]

        def work() -> None:
            self.left = supervise(
                runs, self.run.id, home=folder, log=folder / "log", stopping=self.stopping, clock=now, command=command
            )

        self.thread = threading.Thread(target=work)
        self.thread.start()

    def pid(self) -> int:
        deadline = time.monotonic() + 20
        while not (self.pids.exists() and self.pids.read_text().endswith("\n")) and time.monotonic() < deadline:
            time.sleep(0.02)
        return int(self.pids.read_text().split()[-1])

    def state(self) -> str:
        self.thread.join(20)
        return self.runs.get(self.run.id).state


def test_a_killed_training_is_put_back_for_the_next_attempt(runs: Runs, tmp_path: Path) -> None:
    supervised = Supervised(runs, tmp_path, "time.sleep(60)")

    os.kill(supervised.pid(), signal.SIGKILL)

    assert supervised.state() == "queued"
    assert "ended with status -9" in runs.get(supervised.run.id).error


def test_a_training_that_has_ended_its_run_is_not_taken_for_superseded(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process may live for some seconds more, in which a lease would be renewed."""
    monkeypatch.setattr(supervising, "RENEW_S", 0.0)
    supervised = Supervised(runs, tmp_path, "time.sleep(2)")
    supervised.pid()

    runs.finish(runs.get(supervised.run.id), "succeeded", now=now())

    assert supervised.state() == "succeeded"
    assert supervised.left is not None


def test_cancelling_ends_the_process_within_three_seconds(runs: Runs, tmp_path: Path) -> None:
    supervised = Supervised(runs, tmp_path, "time.sleep(60)")
    pid = supervised.pid()
    began = time.monotonic()

    runs.cancel(supervised.run.id, now=now())

    assert supervised.state() == "cancelled"
    assert time.monotonic() - began < 3
    assert not psutil.pid_exists(pid)


def test_a_process_that_ignores_the_signal_is_ended_all_the_same(runs: Runs, tmp_path: Path) -> None:
    supervised = Supervised(
        runs, tmp_path, "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    )
    pid = supervised.pid()
    time.sleep(0.3)
    began = time.monotonic()

    runs.cancel(supervised.run.id, now=now())

    assert supervised.state() == "cancelled"
    assert time.monotonic() - began < 3
    assert not psutil.pid_exists(pid)


def test_stopping_the_worker_hands_the_run_back(runs: Runs, tmp_path: Path) -> None:
    supervised = Supervised(runs, tmp_path, "time.sleep(60)")
    supervised.pid()

    supervised.stopping.set()

    assert supervised.state() == "queued"
    assert runs.get(supervised.run.id).attempt == 0


def test_the_second_of_two_workers_leaves_a_run_alone(runs: Runs, tmp_path: Path) -> None:
    supervised = Supervised(runs, tmp_path, "time.sleep(60)")
    supervised.pid()

    other = supervise(
        runs, supervised.run.id, home=tmp_path, log=tmp_path / "log", stopping=threading.Event(), clock=now
    )

    assert other is None
    assert len(supervised.pids.read_text().split()) == 1
    supervised.stopping.set()
    supervised.thread.join()


def test_a_killed_worker_leaves_no_training_behind(tmp_path: Path) -> None:
    program = f"""
import threading; from pathlib import Path; from datetime import UTC, datetime
from infra.database import connect; from infra.runs import Runs; from trainer import supervise as supervising
from trainer.supervise import supervise
runs = Runs(connect("sqlite:///{tmp_path}/runs.db"))
run, _ = runs.create("retrain", "k", options={{}}, now=datetime.now(UTC))
command = ["-c", "import sys; sys.argv = ['x']; from infra.processes import die_with_parent; import os, time\\n"
           "die_with_parent(os.getppid()); open('{tmp_path}/pids', 'a').write(str(os.getpid()) + chr(10)); time.sleep(60)"]
supervise(runs, run.id, home=Path("."), log=Path("{tmp_path}/log"), stopping=threading.Event(), clock=lambda: datetime.now(UTC), command=command)
"""
    worker = subprocess.Popen([sys.executable, "-c", program])
    pids = tmp_path / "pids"
    while not (pids.exists() and pids.read_text().endswith("\n")):
        assert worker.poll() is None
        time.sleep(0.05)

    worker.kill()
    worker.wait()

    deadline = time.monotonic() + 5
    while psutil.pid_exists(int(pids.read_text())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(int(pids.read_text()))
