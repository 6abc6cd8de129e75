"""The clock of whole processes jumps by an hour forward and a day back, while others' goes right: one run, nobody robbed."""

import asyncio
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path

import pytest

from infra.adapters import AdapterStore
from infra.database import connect
from infra.runs import Run, Runs
from infra.settings import Settings, child_environment, load_settings
from memory.journal import Journal
from tests.databases import emptied
from tests.drills.hasty_worker import LEASE_S, hasty
from tests.infra.running import eventually

RIGHT, HOUR_FORWARD, DAY_BACK = "+0", "+3600", "-86400"


class Clock:
    """The time of day of every process that is started with its environment; how long things take stays true."""

    def __init__(self, folder: Path) -> None:
        found = find_spec("libfaketime")
        assert found is not None
        assert found.submodule_search_locations
        library = Path(found.submodule_search_locations[0]) / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"
        self._file = folder / "clock"
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self, shift: str) -> None:
        """Let it go wrong by so many seconds."""
        part = self._file.with_suffix(".part")
        part.write_text(shift)
        part.replace(self._file)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    found = Clock(tmp_path)
    found.jump(HOUR_FORWARD)
    program = [sys.executable, "-c", "import time; print(time.time())"]
    done = subprocess.run(program, capture_output=True, text=True, env=child_environment(**found.environment))
    if float(done.stdout) < datetime.now(UTC).timestamp() + 3000:
        pytest.skip(f"the library that bends clocks does not work here: {done.stderr.strip()[:200]}")
    found.jump(RIGHT)
    return found


@pytest.fixture
def settings(home: Path, postgres: str) -> Settings:
    """A training is due every hour, but not in the half hour of the test."""
    due = (datetime.now(UTC) + timedelta(minutes=30)).minute
    config = home / "understudy.toml"
    schedule = f'[schedule]\ncron = "{due} * * * *"\nleast_new = 0\n'
    config.write_text(f'{config.read_text()}[journal]\nurl = "{emptied(postgres)}"\n{schedule}')
    found = load_settings(home)
    Journal.open(found.journal_url).close()
    return found


@pytest.mark.timeout(240)
async def test_clocks_that_jump_end_no_lease_and_begin_nothing_twice(settings: Settings, clock: Clock) -> None:
    """Of two workers and a scheduler, the worker that has the run and the scheduler are wrong."""
    home, engine = settings.home, connect(settings.journal_url)
    runs = Runs(engine)

    async def succeeded(run: Run) -> Run:
        await eventually(lambda: not runs.get(run.id).active, home, timeout_s=60)
        assert runs.get(run.id).state == "succeeded", runs.get(run.id)
        return runs.get(run.id)

    def scheduled() -> list[Run]:
        return [run for run in runs.recent() if run.key.startswith("scheduled:")]

    held = home / "wait-1-learning"
    held.touch()
    async with hasty(home, "worker", "beat", environment=clock.environment) as (wrong, _):
        first, _ = runs.create("retrain", "held through two jumps", options={}, now=datetime.now(UTC))
        await eventually(lambda: runs.get(first.id).stage == "lora", home)
        async with hasty(home, "worker"):
            for shift in (HOUR_FORWARD, DAY_BACK):
                clock.jump(shift)
                await asyncio.sleep(2 * LEASE_S)
            held.unlink()
            ended = await succeeded(first)
            assert (ended.attempt, ended.owner.partition(":")[2]) == (1, str(wrong.pid)), "it was taken from its worker"

            # Nobody is rung for this one: a scheduler whose clock was put back must go on.
            second, _ = runs.create("retrain", "found by a scheduler in the past", options={}, now=datetime.now(UTC))
            await succeeded(second)

            for shift in (HOUR_FORWARD, DAY_BACK, HOUR_FORWARD, RIGHT):
                clock.jump(shift)
                await eventually(lambda: bool(scheduled()), home)
                await succeeded(scheduled()[0])
                await asyncio.sleep(2)
            assert len(scheduled()) == 1
    assert len(AdapterStore(settings.data_folder / "adapters").versions()) == 3
    engine.dispose()
