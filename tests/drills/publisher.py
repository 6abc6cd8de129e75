"""A process that starts processes to kill: each publishes an adapter and points to it, as the end of a training does.

Run as `python -m tests.drills.publisher`. Every line `HOME FATAL` on stdin starts one process and waits for it, and its
exit code is printed. Above 0, `FATAL` is the change to the file system before which it kills itself with SIGKILL: opening
a file to write, making, naming and removing one, giving it its times, and waiting for the disk. It is one program and
forks, because importing costs a second and dying must be cheap.
"""

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from infra.adapters import AdapterStore
from trainer.cycle import published
from trainer.gate import Verdict

OLD, NEW = "20260101T000000Z-aaaaaaaa", "20260102T000000Z-bbbbbbbb"
CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.utime", "os.chmod", "os.truncate", "os.link"}


def publish(home: Path, version: str) -> None:
    """The last stages of a training whose files are in `home`. Raises as they do."""
    store = AdapterStore(home / "adapters")
    work: Any = SimpleNamespace(
        folder=home, runs=SimpleNamespace(hold=lambda run: run), run=SimpleNamespace(artifact="")
    )
    described = {"base_sha256": "0" * 64, "verdict": {"passed": Verdict(True, ()).passed, "reasons": []}}
    published(work, store, version, home / "peft", described=described)
    store.point(version)


def prepare(home: Path, *, size: int) -> AdapterStore:
    """A store with a voice that speaks, and the files of the next one, each of `size` bytes."""
    for name in ("peft/adapter_config.json", "peft/adapter_model.safetensors", "gguf/adapter.gguf"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(name.encode() * (size // len(name)))
    for name in ("evalcard.json", "evalcard.html"):
        (home / "evals").mkdir(exist_ok=True)
        (home / "evals" / name).write_text("{}")
    publish(home, OLD)
    return AdapterStore(home / "adapters")


def die_before(step: int) -> None:
    """Let this process die instead of making its change number `step`."""
    made, sync = 0, os.fsync

    def change() -> None:
        nonlocal made
        made += 1
        if made == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def audited(event: str, arguments: tuple[Any, ...]) -> None:
        if event in CHANGES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            change()

    def synced(handle: int) -> None:
        change()
        sync(handle)

    os.fsync = synced
    sys.addaudithook(audited)


def main() -> None:
    for line in sys.stdin:
        home, fatal = line.split()
        child = os.fork()
        if not child:
            die_before(int(fatal))
            publish(Path(home), NEW)
            os._exit(0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
