"""Publishing is killed before each of its steps, and runs into a full disk: the voice before stays whole, the next try works."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.adapters import AdapterStore
from infra.settings import child_environment
from tests.drills.full_disk import on_a_full_disk
from tests.drills.publisher import NEW, OLD, prepare


@contextmanager
def publishers() -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "tests.drills.publisher"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=child_environment()
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=60) == 0


def status(process: "subprocess.Popen[str]", home: Path, fatal: int) -> int:
    """The exit code of a publisher that dies before step `fatal`."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{home} {fatal}\n")
    process.stdin.flush()
    return int(process.stdout.readline())


def assert_whole(store: AdapterStore) -> None:
    """Every version that is to be seen has all its bytes, and one of them speaks."""
    assert store.current() in store.versions()
    for version in store.versions():
        assert len(store.verify(version)["files"]) == 5


def test_a_publisher_killed_before_any_step_leaves_a_whole_voice_and_the_next_one_succeeds(tmp_path: Path) -> None:
    prepare(tmp_path / "0", size=1000)
    deaths = 0
    with publishers() as process:
        while True:
            home = shutil.copytree(tmp_path / "0", tmp_path / str(deaths + 1))
            store = AdapterStore(home / "adapters")
            code = status(process, home, deaths + 1)
            assert_whole(store)
            if code == 0:
                break
            deaths += 1
            assert code == -signal.SIGKILL, deaths
            assert OLD in store.versions()

            assert status(process, home, 0) == 0

            assert_whole(store)
            assert (store.versions(), store.current(), store.previous()) == ([OLD, NEW], NEW, OLD)
            assert not [left for left in (home / "adapters").glob(".*") if left.is_dir()]
    assert deaths > 30


def test_a_disk_that_is_full_while_publishing_leaves_the_voice_and_no_rest(tmp_path: Path) -> None:
    """A real disk, with four kilobytes more of room each time."""
    found = on_a_full_disk(tmp_path / "adapters", "publishing")

    *refused, last = found["said"]
    assert last == ""
    assert found["versions"] == [OLD, NEW]
    assert len(refused) > 10
    assert all("is the disk full?" in each or "Free some space" in each for each in refused)
