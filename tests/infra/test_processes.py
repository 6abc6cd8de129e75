"""Children are started again when they die, and have their time to end when it is over."""

import time
from collections.abc import Callable
from pathlib import Path

from infra.processes import Child, Supervisor

# Dies at its first start; at its second it waits to be told, and says goodbye.
MORTAL = """
import signal, sys, time
from pathlib import Path
from infra.processes import die_with_parent

die_with_parent(int(sys.argv[-1]))
folder = Path(sys.argv[1])
if not (folder / "died").exists():
    (folder / "died").touch()
    sys.exit(3)

def goodbye(*_):
    time.sleep(0.2)
    (folder / "goodbye").touch()
    sys.exit()

signal.signal(signal.SIGTERM, goodbye)
(folder / "back").touch()
time.sleep(60)
"""


def wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_child_that_dies_is_started_again_and_may_still_end_in_good_order(tmp_path: Path) -> None:
    said: list[str] = []
    child = Child("mortal", ["-c", MORTAL, str(tmp_path)], log=tmp_path / "logs" / "mortal.log", grace_s=10)
    supervisor = Supervisor([child], say=said.append)
    supervisor.open()
    wait((tmp_path / "back").exists)

    supervisor.close()

    assert (tmp_path / "goodbye").exists(), child.log.read_text() if child.log else ""
    assert child.process is not None
    assert (child.process.returncode, said) == (0, ["mortal ended with status 3; starting it again."])
