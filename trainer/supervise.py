"""A worker's side of a run: claim it, start the training process, keep the lease, pass cancellation on.

The worker computes nothing itself, so that a GPU is freed by ending one process. If the worker dies, so does the
training process; the lease runs out and the next worker resumes from the last finished stage.
"""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from infra.processes import GRACE_S, start, stop
from infra.runs import Run, Runs, Superseded

LOOK_S = 0.25
RENEW_S = 5.0
# A training that ends because its worker does may finish its step and write a checkpoint; a cancelled one need not.
SAVING_S = 20.0
# What `trainer.train` exits with when it was told to stop and has saved what it had.
STOPPED = 75


def owner_name() -> str:
    """Who holds a lease: host and process, for people who read the table."""
    return f"{os.uname().nodename}:{os.getpid()}"


def supervise(
    runs: Runs,
    run_id: str,
    *,
    home: Path,
    log: Path,
    stopping: threading.Event,
    clock: Callable[[], datetime],
    command: Sequence[str] = ("-m", "trainer.train"),
) -> Run | None:
    """Work on a run until it ends or the worker is asked to stop; None when somebody else has it.

    `command` is what Python runs, before the arguments that name the run. Returns the run as it was left.
    """
    run = runs.claim(run_id, owner_name(), now=clock())
    if run is None:
        return None
    arguments = [*command, "--run", run.id, "--token", str(run.token), "--home", str(home)]
    process = start(arguments, log=log)
    try:
        watch(runs, run, process, stopping=stopping, clock=clock)
    except Superseded:
        return None
    finally:
        stop(process, SAVING_S if stopping.is_set() else GRACE_S)
    return settle(runs, run, process.returncode, stopping=stopping, clock=clock)


def watch(
    runs: Runs, run: Run, process: subprocess.Popen[bytes], *, stopping: threading.Event, clock: Callable[[], datetime]
) -> None:
    """Wait for the process; leave early when the run is cancelled or the worker stops. Raises Superseded."""
    renewed = 0.0
    while process.poll() is None and not stopping.is_set():
        left = runs.get(run.id)
        if left.cancel_requested:
            return
        # What has ended wants no lease any more: its process is about to end too, and nobody has taken it over.
        if left.active and time.monotonic() - renewed > RENEW_S:
            runs.renew(run, now=clock())
            renewed = time.monotonic()
        stopping.wait(LOOK_S)


def settle(runs: Runs, run: Run, status: int, *, stopping: threading.Event, clock: Callable[[], datetime]) -> Run:
    """Write down how a run was left by a process that is gone."""
    left = runs.get(run.id)
    if left.state != "running" or left.token != run.token:
        return left
    if left.cancel_requested:
        return runs.finish(run, "cancelled", now=clock())
    if stopping.is_set():
        return runs.hand_back(run, now=clock())
    return runs.release(run, error=f"The training process ended with status {status}.", now=clock())
