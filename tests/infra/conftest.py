"""A twin that was set up, and started, by the commands themselves."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infra.settings import child_environment
from infra.voice import calibrate, speed, tuning
from infra.voice import weights as weights_module
from infra.voice.speed import Effort
from infra.voice.weights import Weights
from tests.infra.running import QA, lend_weights, understudy
from tests.weights import small_base

TEXT = "面包出炉以后不要马上切开。The oven was older than the house, and every Thursday she lit it before dawn."
HASTE = Effort(laps=1, read=32, said=2)


@pytest.fixture(scope="session")
def twin(tmp_path_factory: pytest.TempPathFactory, weights: Weights) -> Path:
    """A home that was set up by the commands themselves."""
    home = tmp_path_factory.mktemp("twin")
    understudy(home, "init", "--yes", "--creator", "Ada", "--creator-id", "telegram:1")
    lend_weights(home, weights)
    (home / "qa.csv").write_text(QA, encoding="utf-8")
    understudy(home, "import", str(home / "qa.csv"))
    return home


@pytest.fixture(scope="session")
def up(twin: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`understudy up` as a user starts it, with its address."""
    log = (twin / "up.log").open("wb")
    command = [sys.executable, "-m", "infra.cli.main", "up", "--home", str(twin), "--port", "0"]
    process = subprocess.Popen(command, stdout=log, stderr=log, env=child_environment())
    address = twin / "data" / "run" / "api.json"
    deadline = time.monotonic() + 150
    while not address.exists() and time.monotonic() < deadline:
        assert process.poll() is None, (twin / "up.log").read_text()
        time.sleep(0.1)
    yield json.loads(address.read_text())["url"], process
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    process.wait(30)
    log.close()
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert not address.exists()


@pytest.fixture(scope="session")
def small() -> Path:
    """One layer of the packaged base, in a file of its own."""
    return small_base()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Everything is measured on a few words; the last format that is tried is the fastest, so that tests can choose."""
    (tmp_path / "short.txt").write_text(TEXT, encoding="utf-8")
    for module in (weights_module, calibrate):
        monkeypatch.setattr(module, "HELDOUT", tmp_path / "short.txt")
        monkeypatch.setattr(module, "MOST_LOSS", 1e9)
    monkeypatch.setattr(weights_module, "EFFORT", HASTE)
    monkeypatch.setattr(speed, "SHORT", HASTE)
    monkeypatch.setattr(tuning, "MOST_OTHERS", 1e9)
    monkeypatch.setattr(weights_module, "LEAST_GAIN", -1e9)
    monkeypatch.setattr(weights_module, "CANDIDATES", ("Q8_0",))
    return monkeypatch
