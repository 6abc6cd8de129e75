"""The command line as a process, and a small community to run it on."""

import subprocess
import sys
from pathlib import Path

from infra.settings import child_environment

QA = 'question,answer\nHow warm should the dough be?,"24 °C, friend. Trust the dough."\nWhich flour?,Strong white.\n'


def understudy(home: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "infra.cli.main", *arguments, "--home", str(home)]
    done = subprocess.run(command, capture_output=True, text=True, env=child_environment(), timeout=200)
    assert done.returncode == code, done.stderr
    return done
