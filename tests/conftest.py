"""What every test stands on: no model hub, no settings from the developer's shell, no process left behind."""

import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures.thread import _threads_queues
from pathlib import Path

import psutil
import pytest

from infra.settings import offline, share_cores
from infra.voice.weights import Weights
from memory.encode import Encoder
from tests.databases import ENGINES, emptied, postgresql
from tests.weights import EMBEDDER, SHARED, prepared_base, prepared_embedder

# Before anything loads OpenMP: torch's threads would spin for ever where three processes share two cores.
share_cores()


@pytest.fixture(autouse=True, scope="session")
def _offline() -> None:
    offline()


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nor any that a test's own `.env` has set, for what comes after it."""
    for name in our_variables():
        monkeypatch.delenv(name)
    yield
    for name in our_variables():
        del os.environ[name]


def our_variables() -> list[str]:
    return [name for name in os.environ if name.startswith("UNDERSTUDY_") and "_TEST_" not in name]


@pytest.fixture(autouse=True, scope="session")
def _no_process_left_behind() -> Iterator[None]:
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    yield
    children = [process for process in psutil.Process().children(recursive=True) if process.pid not in before]
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not [process.cmdline() for process in alive if "resource_tracker" not in " ".join(process.cmdline())]


def pytest_unconfigure() -> None:
    """Python waits for every thread when it ends: one that a failed test left running would hold the suite for ever.

    Not so for the threads of a pool, which Python ends by itself.
    """
    left = [each for each in threading.enumerate() if not each.daemon and each not in _threads_queues]
    left.remove(threading.main_thread())
    for each in left:
        each.join(5)
    if forgotten := [each.name for each in left if each.is_alive()]:
        sys.stderr.write(f"Threads were left running: {', '.join(forgotten)}\n")
        sys.stderr.flush()
        os._exit(1)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with the smallest settings: Ada is the creator."""
    (tmp_path / "understudy.toml").write_text('[creator]\nname = "Ada"\nids = ["telegram:1"]\n', encoding="utf-8")
    return tmp_path


@pytest.fixture(autouse=True, scope="session")
def _shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> None:
    own = tmp_path_factory.getbasetemp()
    SHARED.append(own if worker_id == "master" else own.parent)


@pytest.fixture(scope="session")
def weights() -> Weights:
    """The packaged base."""
    return prepared_base()


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    """The packaged embedder, as a running twin has it."""
    return Encoder(EMBEDDER, folder=prepared_embedder())


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real PostgreSQL server that the suite starts and stops."""
    with postgresql(tmp_path_factory.mktemp("postgres")) as url:
        yield url


@pytest.fixture(params=ENGINES)
def journal_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'journal.db'}"
    return emptied(request.getfixturevalue("postgres"))
