"""A worker to kill: `python -m tests.drills.mortal_worker HOME RUN HOURS POINT`.

Supervises one attempt at a run like the real worker, `HOURS` in the future, so that the lease of the one before it has
run out. The training kills this process at POINT, see `dying_training.py`.
"""

import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

from infra.database import connect
from infra.runs import Runs
from infra.settings import load_settings
from trainer.supervise import supervise

if __name__ == "__main__":
    home, run_id, hours, point = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
    left = supervise(
        Runs(connect(load_settings(home).journal_url)),
        run_id,
        home=home,
        log=home / "training.log",
        stopping=threading.Event(),
        clock=lambda: datetime.now(UTC) + timedelta(hours=hours),
        command=("-m", "tests.drills.dying_training", point),
    )
    assert left is not None, "somebody else has the run"
