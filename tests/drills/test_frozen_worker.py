"""Two workers and one run on PostgreSQL: the one that has it is frozen past its lease, and thawed when it is too late.

Each time exactly one adapter is published, by the one that took over; the thawed one's training ends by itself, and the
worker goes on.
"""

import signal
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from infra.adapters import CARD, GGUF, PAGE, AdapterStore
from infra.database import connect
from infra.queue import ring
from infra.runs import Run, Runs
from infra.settings import Settings, load_settings
from memory.journal import Journal
from tests.databases import emptied
from tests.drills.hasty_worker import hasty
from tests.infra.running import eventually, lives
from trainer.app import queue_app

# Where the first attempt is frozen; whether its training is, beside its worker; and where the second is when it thaws.
FROZEN = {
    "the worker alone, while it learns": ("learning", False, ""),
    "both, after the token was compared": ("held", True, ""),
    "both, and thawed while the next one copies": ("held", True, "copying"),
}
WHOLE = {GGUF, CARD, PAGE, "peft/adapter_model.safetensors"}


@pytest.fixture
def settings(home: Path, postgres: str) -> Settings:
    config = home / "understudy.toml"
    config.write_text(f'{config.read_text()}[journal]\nurl = "{emptied(postgres)}"\n[schedule]\ncron = ""\n')
    found = load_settings(home)
    Journal.open(found.journal_url).close()
    return found


@dataclass
class Contest:
    """Two workers and what they fight for."""

    settings: Settings
    workers: dict[int, psutil.Process]
    runs: Runs

    async def until(self, point: str, token: int) -> Path:
        """Wait until an attempt is at a point; what holds it there."""
        await eventually((self.settings.home / f"at-{token}-{point}").exists, self.settings.home, timeout_s=40)
        return self.settings.home / f"wait-{token}-{point}"

    def owner(self, run: Run) -> psutil.Process:
        return self.workers[int(self.runs.get(run.id).owner.partition(":")[2])]

    async def fought(self, name: str) -> Run:
        """One run, as FROZEN says; returns how it ended."""
        home, (point, both, meanwhile) = self.settings.home, FROZEN[name]
        for left in [*home.glob("at-*"), *home.glob("wait-*")]:
            left.unlink()
        (home / f"wait-1-{point}").touch()
        if meanwhile:
            (home / f"wait-2-{meanwhile}").touch()
        run, made = self.runs.create("retrain", name, options={}, now=datetime.now(UTC))
        assert made
        ring(queue_app(self.settings), run)
        await self.until(point, 1)
        first = self.owner(run)
        (training,) = first.children()
        for each in [first, training][: 1 + both]:
            each.send_signal(signal.SIGSTOP)
        await eventually(lambda: self.runs.get(run.id).token == 2, home, timeout_s=40)
        (home / f"wait-1-{point}").unlink()
        if meanwhile:
            held = await self.until(meanwhile, 2)
            thaw([training, first])
            await eventually(lambda: not lives(training), home, timeout_s=40)
            held.unlink()
        await eventually(lambda: not self.runs.get(run.id).active, home, timeout_s=40)
        thaw([training, first])
        await eventually(lambda: not lives(training), home, timeout_s=40)
        assert self.owner(run) != first
        return self.runs.get(run.id)


def thaw(processes: Iterable[psutil.Process]) -> None:
    for each in processes:
        if lives(each):
            each.send_signal(signal.SIGCONT)


@asynccontextmanager
async def contest(settings: Settings) -> AsyncIterator[Contest]:
    engine = connect(settings.journal_url)
    async with hasty(settings.home, "worker", "worker", "beat") as (first, second, _):
        try:
            yield Contest(settings, {first.pid: first, second.pid: second}, Runs(engine))
        finally:
            thaw([first, second])
            engine.dispose()


@pytest.mark.timeout(180)
async def test_a_worker_frozen_past_its_lease_publishes_nothing(settings: Settings) -> None:
    store, known = AdapterStore(settings.data_folder / "adapters"), list[str]()
    async with contest(settings) as at:
        for name in FROZEN:
            run = await at.fought(name)
            assert (run.state, run.attempt) == ("succeeded", 2), (name, run)
            (version,) = set(store.versions()) - set(known)
            known.append(version)
            assert store.current() == version == run.result["adapter"]
            assert set(store.verify(version)["files"]) == WHOLE, name
        assert all(map(lives, at.workers.values()))
    assert not list((settings.data_folder / "adapters").glob(".*")), "something half-published is left"
