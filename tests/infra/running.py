"""The command line as a process, and a small community to run it on."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

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
