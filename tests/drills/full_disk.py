"""A disk of a few megabytes that is nearly full, and what is tried on it: a publication, and a training's checkpoints.

Run in a mount namespace of its own, so that the disk goes with the process: see `on_a_full_disk`. Prints, as one JSON
object, what was said against it, and how it ended when there was room again.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.errors import ServiceTrouble
from infra.settings import child_environment
from tests.drills.publisher import NEW, OLD, prepare, publish

PRIVATELY = ("unshare", "--user", "--map-root-user", "--mount")
MOUNTED = 'mount -t tmpfs -o size=16m none "$0" && exec "$@"'
# As small as a file can be on it, in bytes.
SECTOR = 4096


def on_a_full_disk(disk: Path, what: str, *arguments: str) -> dict[str, Any]:
    """What is printed by the process that has its own disk mounted at `disk`; skips where no disk can be mounted."""
    disk.mkdir(parents=True)
    private = [*PRIVATELY, "sh", "-c", MOUNTED, str(disk)]
    try:
        subprocess.run([*private, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a namespace with a disk of its own cannot be made here")
    command = [*private, sys.executable, "-m", "tests.drills.full_disk", what, str(disk), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=child_environment(), timeout=300)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def fill(disk: Path, room: int) -> Path:
    """Leave so many bytes free; the file that takes the others."""
    ballast, found = disk / ".ballast", os.statvfs(disk)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_frsize - room)
    return ballast


def said_against(work: Callable[[], object]) -> str:
    """The sentence in which the work fails; empty where it does not."""
    try:
        work()
    except ServiceTrouble as trouble:
        return str(trouble)
    return ""


def publishing(disk: Path) -> dict[str, Any]:
    """Publish with four kilobytes more of room each time, until there is enough."""
    store = prepare(disk.parent, size=20_000)
    said: list[str] = []
    while not said or said[-1]:
        ballast = fill(disk, len(said) * SECTOR)
        said.append(said_against(lambda: publish(disk.parent, NEW)))
        ballast.unlink()
        for version in store.versions():
            store.verify(version)
        assert store.current() == (OLD if said[-1] else NEW)
        assert not [left for left in disk.glob(".*") if left.is_dir()], "half an adapter fills the disk"
    return {"said": said, "versions": store.versions()}


def training(disk: Path, dataset: str, served: str, tiny: str) -> dict[str, Any]:
    """Train on a disk that is full from the fifth step on, and again when there is room."""
    from tests.trainer.test_killed_training import BUDGET
    from trainer.lora import Progress, train

    def full_at_five(progress: Progress) -> None:
        if progress.step == 5:
            fill(disk, 3 * SECTOR)

    job: dict[str, Any] = {"base_gguf": Path(served), "trainable": tiny, "budget": BUDGET, "seed": 1}
    said = said_against(lambda: train(Path(dataset), disk / "out", on_progress=full_at_five, **job))
    (disk / ".ballast").unlink()
    report = train(Path(dataset), disk / "out", **job)
    assert report.peft is not None
    weights = (report.peft / "adapter_model.safetensors").read_bytes()
    return {"said": said, "resumed_from": report.resumed_from, "sha256": hashlib.sha256(weights).hexdigest()}


if __name__ == "__main__":
    what, disk, *rest = sys.argv[1:]
    json.dump({"publishing": publishing, "training": training}[what](Path(disk), *rest), sys.stdout)
