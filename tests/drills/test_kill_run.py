"""The learning path under fire: a real twin, its worker and its training killed on the way, one adapter at the end."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa

from infra.adapters import AdapterStore
from infra.database import connect, writing
from infra.runs import Run, Runs
from infra.settings import child_environment, load_settings
from tests.drills.dying_training import MANIFESTS, POINTS
from tests.infra.running import lend_small, small_settings, understudy

ROWS = 40


# On one layer of the packaged base: what is drilled is dying, and not how long a training takes.
TRAINING = """[training]
least_rows = 15
epochs = 1
heldout = 10
tokens = 1000
validation_share = 0.2
max_length = 192
"""


def community(home: Path) -> None:
    """A creator with a voice and enough answers to learn from, and a training of a few steps."""
    (home / "understudy.toml").write_text(small_settings(TRAINING), encoding="utf-8")
    lend_small(load_settings(home))
    things = [
        "oven",
        "dough",
        "flour",
        "water",
        "salt",
        "starter",
        "rye",
        "crust",
        "basket",
        "razor",
        "stone",
        "butter",
    ]
    rng = random.Random(3)
    rows = [
        {
            "question": f"What do you say about {rng.choice(things)} and {rng.choice(things)} number {n}?",
            "answer": f"Right. {rng.choice(things)} first, {n} minutes, friend. Trust the dough.",
        }
        for n in range(ROWS)
    ]
    (home / "qa.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    understudy(home, "import", str(home / "qa.jsonl"))


def wait_for_stage(runs: Runs, run_id: str, stage: str) -> Run:
    """The run once it has reached `stage`, or is past it."""
    order = ["", "harvest", "dataset", "lora", "gguf", "evals", "gate", "publish", "swap"]
    deadline = time.monotonic() + 500
    while time.monotonic() < deadline:
        run = runs.get(run_id)
        if not run.active or (run.state == "running" and order.index(run.stage) >= order.index(stage)):
            return run
        time.sleep(0.05)
    raise AssertionError(f"the run never reached {stage}")


def process(parent: int, word: str) -> psutil.Process:
    """The descendant of `parent` whose command line has `word`."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for child in psutil.Process(parent).children(recursive=True):
            if child.status() != psutil.STATUS_ZOMBIE and word in " ".join(child.cmdline()):
                return child
        time.sleep(0.05)
    raise AssertionError(f"no process with {word}")


@pytest.mark.timeout(1200)  # three trainings' beginnings on a machine that may be busy
def test_a_run_survives_the_death_of_everything_that_works_on_it(tmp_path: Path) -> None:
    """Kill -9 of the training in one stage and of the worker in the next: it resumes, repeats nothing, still obeys."""
    community(tmp_path)
    log = (tmp_path / "up.log").open("wb")
    command = [sys.executable, "-m", "infra.cli.main", "up", "--home", str(tmp_path), "--port", "0"]
    up = subprocess.Popen(command, stdout=log, stderr=log, env=child_environment())
    try:
        address = tmp_path / "data" / "run" / "api.json"
        while not address.exists():
            assert up.poll() is None, (tmp_path / "up.log").read_text()
            time.sleep(0.1)
        run_id = json.loads(understudy(tmp_path, "retrain", "--json").stdout)["run"]
        assert json.loads(understudy(tmp_path, "retrain", "--json").stdout)["run"] == run_id
        runs = Runs(connect(f"sqlite:///{tmp_path / 'data' / 'journal.db'}"))

        wait_for_stage(runs, run_id, "lora")
        dataset = (tmp_path / "data" / "runs" / run_id / "dataset" / "manifest.json").stat().st_mtime_ns
        os.kill(process(up.pid, "trainer.train").pid, signal.SIGKILL)

        second = wait_for_stage(runs, run_id, "gguf")
        assert second.attempt == 2
        training = process(up.pid, "trainer.train")
        os.kill(process(up.pid, "trainer.app worker").pid, signal.SIGKILL)
        psutil.wait_procs([training], timeout=5)
        assert not training.is_running()

        third = wait_for_stage(runs, run_id, "evals")
        assert third.attempt == 3
        assert (tmp_path / "data" / "runs" / run_id / "dataset" / "manifest.json").stat().st_mtime_ns == dataset
        understudy(tmp_path, "runs", run_id, "--cancel")
        deadline = time.monotonic() + 10
        while runs.get(run_id).active and time.monotonic() < deadline:
            time.sleep(0.05)
        assert runs.get(run_id).state == "cancelled"
        assert AdapterStore(tmp_path / "data" / "adapters").versions() == []
    finally:
        up.send_signal(signal.SIGINT)
        up.wait(30)
        log.close()


def manifests(folder: Path) -> dict[str, int]:
    """When each finished stage of a run was finished, in nanoseconds."""
    found = {stage: folder / stage / "manifest.json" for stage in MANIFESTS}
    return {stage: path.stat().st_mtime_ns for stage, path in found.items() if path.exists()}


@pytest.mark.timeout(1200)  # every stage once, and the start of a training process for each of the 15 deaths
def test_a_run_survives_the_death_of_its_worker_in_every_stage(tmp_path: Path) -> None:
    """Kill -9 at each stage's beginning and right before its end: nothing is done twice, one adapter is published."""
    community(tmp_path)
    engine = connect(f"sqlite:///{tmp_path / 'data' / 'journal.db'}")
    runs, store = Runs(engine), AdapterStore(tmp_path / "data" / "adapters")
    run, _ = runs.create("retrain", "drill", options={}, now=datetime.now(UTC))
    folder = tmp_path / "data" / "runs" / run.id
    done: dict[str, int] = {}

    *deadly, never = POINTS
    for deaths, point in enumerate(deadly):
        # That the third failure ends a run is shown elsewhere; here it has to live through more.
        with writing(engine) as connection:
            connection.execute(sa.text("UPDATE runs SET attempt = 0"))
        assert work(tmp_path, run.id, hours=deaths, point=point) == -signal.SIGKILL, (point, log_of(tmp_path))
        assert runs.get(run.id).state == "running"
        now = manifests(folder)
        assert done.items() <= now.items(), f"{point}: a finished stage was done again"
        done = now
        assert len(store.versions()) == (point in {"swap begins", "swap ends", "finished"}), point

    with writing(engine) as connection:
        connection.execute(sa.text("UPDATE runs SET attempt = 0"))
    assert work(tmp_path, run.id, hours=len(deadly), point=never) == 0, log_of(tmp_path)
    ended = runs.get(run.id)
    assert ended.state == "succeeded", ended
    assert manifests(folder) == done
    assert store.versions() == [store.current()]


def work(home: Path, run_id: str, *, hours: int, point: str) -> int:
    """The exit status of a worker that takes the run up; its training is gone when this returns."""
    command = [sys.executable, "-m", "tests.drills.mortal_worker", str(home), run_id, str(hours), point]
    worker = subprocess.Popen(command, env=child_environment())
    trainings = [process(worker.pid, "--run")]
    status = worker.wait(600)
    gone, alive = psutil.wait_procs(trainings, timeout=5)
    assert gone
    assert not alive, "the training outlived its worker"
    return status


def log_of(home: Path) -> str:
    return (home / "training.log").read_text(encoding="utf-8")[-2000:]
