"""The command line as a process, a small community to run it on, and apps on sockets."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from infra.settings import child_environment, load_settings
from infra.voice.weights import Weights

QA = 'question,answer\nHow warm should the dough be?,"24 °C, friend. Trust the dough."\nWhich flour?,Strong white.\n'


def lend_weights(home: Path, weights: Weights) -> None:
    """Let an installation serve the weights that the session prepared, instead of measuring this machine again."""
    folder = load_settings(home).data_folder / "models" / load_settings(home).models.base
    shutil.copytree(weights.path.parent, folder, copy_function=os.link)


def understudy(home: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "infra.cli.main", *arguments, "--home", str(home)]
    done = subprocess.run(command, capture_output=True, text=True, env=child_environment(), timeout=200)
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
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()
