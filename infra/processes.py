"""Child processes that cannot be orphaned: they die with their parent, and their parent can stop them.

On Linux the kernel sends the signal when the parent dies; everywhere else a thread in the child notices that its
parent changed. Both are armed by the child itself, through `die_with_parent`.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from infra.settings import child_environment

# Linux' prctl(2): PR_SET_PDEATHSIG.
PARENT_DEATH_SIGNAL = 1
# How long a child may take to end by itself before it is killed, in seconds.
GRACE_S = 2.0
# A child that dies at once is started again after 1, 2, 4 ... seconds, at most this.
MOST_BACKOFF_S = 30.0


def die_with_parent(parent: int) -> None:
    """Make this process end, abruptly, when process `parent` does. Called by the child at its start."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)
    threading.Thread(target=watch_parent, args=(parent,), name="parent watch", daemon=True).start()


def watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


def start(arguments: Sequence[str], *, log: Path | None) -> subprocess.Popen[bytes]:
    """Start a Python module of ours in a process group of its own; what it prints goes to `log`, or where ours goes."""
    with opened(log) as output:
        return subprocess.Popen(
            [sys.executable, *arguments, "--parent", str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=child_environment(),
            start_new_session=True,
        )


def opened(log: Path | None) -> AbstractContextManager[IO[bytes] | None]:
    """A log to write on at its end, with the folder it is in; None stays None."""
    if log is None:
        return contextlib.nullcontext()
    log.parent.mkdir(parents=True, exist_ok=True)
    return log.open("ab")


def stop(process: subprocess.Popen[bytes], grace_s: float = GRACE_S) -> None:
    """End a process and everything in its group: politely, then not."""
    signal_group(process, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(grace_s)
    signal_group(process, signal.SIGKILL)
    process.wait()


def signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


@dataclass
class Child:
    """One supervised child: how to start it and how often it had to be. Without a `log` it prints where we do."""

    name: str
    arguments: Sequence[str]
    log: Path | None
    grace_s: float = GRACE_S
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0

    @property
    def backoff_s(self) -> float:
        return min(MOST_BACKOFF_S, 2.0 ** max(0, self.failures - 1)) if self.failures else 0.0

    def start(self) -> subprocess.Popen[bytes]:
        """Start it, for the first time or again."""
        self.process = start(self.arguments, log=self.log)
        self.started = time.monotonic()
        return self.process


@dataclass
class Supervisor:
    """Keeps children running until closed. `say` is told when one had to be started again."""

    children: list[Child]
    say: Callable[[str], None] = lambda line: None
    _closing: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def open(self) -> None:
        """Start every child that does not run yet, and watch them in a thread."""
        for child in self.children:
            if child.process is None:
                child.start()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop all children; returns when they are gone."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        """Until closed. Children die with the thread that started them, so this one stops them before it ends."""
        self._keep_running()
        running = [(child.process, child.grace_s) for child in self.children if child.process is not None]
        for process, _ in running:
            signal_group(process, signal.SIGTERM)
        for process, grace_s in running:
            stop(process, grace_s)

    def _keep_running(self) -> None:
        while not self._closing.wait(0.2):
            for child in self.children:
                assert child.process is not None
                if child.process.poll() is None:
                    # One that has run for a minute has recovered from whatever ended it before.
                    child.failures = 0 if time.monotonic() - child.started > 60 else child.failures
                elif time.monotonic() - child.started > child.backoff_s:
                    child.failures += 1
                    self.say(f"{child.name} ended with status {child.process.returncode}; starting it again.")
                    stop(child.process)
                    child.start()
