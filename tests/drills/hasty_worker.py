"""The worker and beat of `trainer.app`, with times of seconds and brief trainings: `python -m tests.drills.hasty_worker`."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import psutil

import infra.postgresql
import infra.queue
import infra.runs
import trainer.app
import trainer.supervise
from infra.settings import child_environment
from tests.infra.running import eventually, lives

LEASE_S = 2.0
# How long this worker, a database and a broker are waited for.
SILENCE_S = 2


@asynccontextmanager
async def hasty(
    home: Path, *roles: str, environment: Mapping[str, str] | None = None
) -> AsyncIterator[list[psutil.Process]]:
    """Workers and beats as processes; asked to end with the block, each does, and leaves nothing."""
    children = []
    with (home / "out.log").open("ab") as output:
        for role in roles:
            command = [sys.executable, "-m", "tests.drills.hasty_worker", role, "--home", str(home)]
            options = {
                "stdout": output,
                "stderr": output,
                "env": child_environment(**(environment or {})),
                "start_new_session": True,
            }
            children.append(subprocess.Popen(command, **options))
    found = [psutil.Process(child.pid) for child in children]
    try:
        yield found
        family = [each for process in found for each in process.children(recursive=True)]
        for child in children:
            child.terminate()
        assert [await asyncio.to_thread(child.wait, 30) for child in children] == [0] * len(children)
        await eventually(lambda: not any(map(lives, family)), home, timeout_s=10)
    finally:
        for child in children:
            child.kill()
            child.wait()


if __name__ == "__main__":
    infra.runs.LEASE = timedelta(seconds=LEASE_S)
    infra.runs.UNHEARD = timedelta(seconds=1)
    infra.queue.RECONCILE_S = 1.0
    trainer.app.SCHEDULED["scheduled"]["schedule"] = 1.0
    infra.queue.HEALTH_S = infra.queue.ANSWER_S = SILENCE_S
    infra.postgresql.SILENCE_S = infra.postgresql.PATIENCE["connect_timeout"] = SILENCE_S
    trainer.supervise.RENEW_S = 0.4
    named = trainer.supervise.supervise.__kwdefaults__
    named["command"] = ("-m", "tests.drills.brief_training")
    trainer.app.main()
