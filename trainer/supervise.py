"""A worker's side of a run: claim it, start the training process, keep the lease, pass cancellation on.

The worker computes nothing itself, so that a GPU is freed by ending one process. If the worker dies, so does the
training process; the lease runs out and the next worker resumes from the last finished stage.
"""

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from infra.errors import ServiceTrouble
from infra.logs import about, tell
from infra.processes import signal_group, start, stop
from infra.runs import TRAINING, Run, Runs, Superseded
from infra.traces import passed_on, span

LOOK_S = 0.25
RENEW_S = 5.0
# A training that ends because its worker does may finish its step and write a checkpoint, and one of another host's
# data set send that back; a cancelled one need not.
SAVING_S = 20.0
SENDING_S = 90.0
# What `trainer.train` exits with when it was told to stop and has saved what it had.
STOPPED = 75

lines = logging.getLogger(__name__)


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
    queues: Sequence[str] = (TRAINING,),
) -> Run | None:
    """Work on a run until it ends, goes to another queue or the worker is asked to stop; None if it is somebody else's.

    `queues` are the worker's, `command` is what Python runs, before the arguments that name the run. Returns the run as
    it was left. A run table that cannot be reached meanwhile is waited for; raises ServiceTrouble where it cannot be at
    the beginning, and where the worker is asked to stop before it can be again.
    """
    run = runs.claim(run_id, owner_name(), now=clock(), queues=queues)
    if run is None:
        return None
    arguments = [*command, "--run", run.id, "--token", str(run.token), "--home", str(home)]
    with about(run=run.id), span("run", run=run.id, attempt=run.attempt):
        tell(lines, "a worker takes a run", attempt=run.attempt)
        if parent := passed_on().get("traceparent"):
            arguments += ["--traceparent", parent]
        process = start(arguments, log=log)
        try:
            try:
                watch(runs, run, process, stopping=stopping, clock=clock)
            finally:
                stop(process)
            left = settle_in_time(runs, run, process.returncode, stopping=stopping, clock=clock)
        except Superseded:
            return None
        tell(lines, "a worker leaves a run", state=left.state, stage=left.stage, status=process.returncode)
        return left


def settle_in_time(
    runs: Runs, run: Run, status: int, *, stopping: threading.Event, clock: Callable[[], datetime]
) -> Run:
    """`settle`, as soon as the table can be reached. Raises Superseded, and ServiceTrouble as `supervise` says."""
    said = False
    while True:
        try:
            return settle(runs, run, status, stopping=stopping, clock=clock)
        except Superseded:
            raise
        except ServiceTrouble as trouble:
            if stopping.is_set():
                raise
            said = said or warn(trouble)
        stopping.wait(LOOK_S)


def warn(trouble: ServiceTrouble) -> bool:
    """Say once, in the worker's log, what it waits for."""
    lines.warning("%s Its run is kept, and told of when it can be reached.", trouble)
    return True


def watch(
    runs: Runs, run: Run, process: subprocess.Popen[bytes], *, stopping: threading.Event, clock: Callable[[], datetime]
) -> None:
    """Wait for the process; leave early when the run is cancelled. Raises Superseded.

    When the worker stops, the process is told to, and has its time to save; the lease is kept meanwhile.
    """
    renewed, said, ends = 0.0, False, float("inf")
    while process.poll() is None and time.monotonic() < ends:
        try:
            left = runs.get(run.id)
            if left.cancel_requested:
                return
            # What has ended or went on to another queue wants no lease: its process is about to end too.
            if left.state == "running" and time.monotonic() - renewed > RENEW_S:
                keep_lease(runs, run, now=clock())
                renewed = time.monotonic()
            said = False
        except Superseded:
            raise
        except ServiceTrouble as trouble:
            # It may be back before the lease runs out; else whoever takes the run over has a newer token.
            said = said or warn(trouble)
        if ends < float("inf"):
            time.sleep(LOOK_S)
        elif stopping.wait(LOOK_S):
            signal_group(process, signal.SIGTERM)
            ends = time.monotonic() + (SENDING_S if run.artifact else SAVING_S)


def keep_lease(runs: Runs, run: Run, *, now: datetime) -> None:
    """Renew it. Raises Superseded where somebody else has the run, and not where it has just ended."""
    try:
        runs.renew(run, now=now)
    except Superseded:
        if runs.get(run.id).token != run.token:
            raise


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
