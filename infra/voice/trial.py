"""A new adapter on trial: loaded and let speak in a process of its own, so that what ends llama.cpp ends only that.

    python -m infra.voice.trial BASE ADAPTER BASE_SHA256 --parent PID

What was trained here needs none: the process that trained it has loaded it to measure it. See `AdapterStore.tried`.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from infra.errors import ServiceTrouble, UnderstudyError
from infra.processes import die_with_parent, start, stop

# A 3B model needs seconds; whoever ordered the voice waits for it, and an HTTP order for `Remote.silence_s`.
LIMIT_S = 45.0
# How the child says that its last line is a sentence for people; any other status is a crash.
REFUSED = 3
# Behind whoever is being answered, but not so far that a busy voice starves it.
NICENESS = 5


def try_out(base: Path, adapter: Path, *, base_sha256: str) -> None:
    """Load `adapter` on `base` and let it say a few words, elsewhere.

    Raises ServiceTrouble when it is refused there, ends its process or takes longer than `LIMIT_S`.
    """
    survive(["-m", "infra.voice.trial", str(base), str(adapter), base_sha256], what=repr(str(adapter)), limit_s=LIMIT_S)


def survive(arguments: Sequence[str], *, what: str, limit_s: float) -> None:
    """Let a child of ours come to a good end. Raises ServiceTrouble when it does not, and leaves no process behind."""
    with tempfile.TemporaryDirectory(prefix="understudy-trial-") as folder:
        log = Path(folder) / "log"
        child = start(arguments, log=log)
        try:
            status = child.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise ServiceTrouble(f"Trying {what} took longer than {limit_s:.0f} s; it is not used.") from None
        finally:
            stop(child)
        if status == REFUSED:
            raise ServiceTrouble(log.read_text(encoding="utf-8").splitlines()[-1], permanent=True)
        if status != 0:
            raise ServiceTrouble(f"llama.cpp did not survive trying {what} (status {status}).", permanent=True)


def main() -> None:
    """The child: status 0 when the adapter may speak."""
    parser = argparse.ArgumentParser()
    parser.add_argument("base", type=Path)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("base_sha256")
    parser.add_argument("--parent", type=int, required=True)
    given = parser.parse_args()
    die_with_parent(given.parent)
    os.nice(NICENESS)
    try:
        speak(given.base, given.adapter, given.base_sha256)
    except UnderstudyError as error:
        sys.stdout.write(f"{error}\n")
        sys.exit(REFUSED)


def speak(base: Path, adapter: Path, base_sha256: str) -> None:
    """What a swap does with an adapter. Raises ServiceTrouble as it does."""
    from infra.voice.engine import probe
    from infra.voice.llama import Adapter, Context, Model

    model = Model(base)
    loaded = Adapter(model, adapter, base_sha256=base_sha256)
    probe(Context(model, tokens=256, sequences=1, batch=64, threads=1, adapter=loaded), lambda work: work())


if __name__ == "__main__":
    main()
