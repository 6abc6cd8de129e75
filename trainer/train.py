"""The process that does the work of a run and holds the GPU: `python -m trainer.train --run ID --token N --home DIR`.

Started and watched by a worker. Writes its progress into the run table under its fencing token; a newer token there
means that another process has taken over, and this one ends without publishing anything.
"""

import argparse
import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infra import logs, traces
from infra.database import connect
from infra.errors import Refused, ServiceTrouble, UnderstudyError
from infra.processes import die_with_parent
from infra.runs import Runs, Superseded
from infra.settings import Settings, load_settings, offline_unless_hub
from memory.journal import Journal
from trainer import elsewhere, gpu
from trainer.cycle import Work, run_cycle
from trainer.frozen import follow_forgotten
from trainer.learning import Attempt, Cancelled
from trainer.supervise import STOPPED


def main() -> int:
    """Take up the run; the exit status is for the worker that watches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True)
    parser.add_argument("--token", type=int, required=True)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--parent", type=int, help="end when this process does")
    parser.add_argument("--traceparent", default="", help="the span of the worker, as W3C's trace context says it")
    given = parser.parse_args()
    if given.parent:
        die_with_parent(given.parent)
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stopping.set())
    settings = load_settings(given.home)
    logs.begin(settings, "training")
    traces.begin(settings, "training")
    headers = {"traceparent": given.traceparent} if given.traceparent else {}
    try:
        with traces.taken_up(headers):
            return take_up(settings, given.run, given.token, stopping)
    except ServiceTrouble as trouble:
        logs.say(str(trouble), level=logging.ERROR)
        return 1


def take_up(settings: Settings, run_id: str, token: int, stopping: threading.Event) -> int:
    """Work on the run, unless another attempt has it. Raises ServiceTrouble where that cannot be asked."""
    runs = Runs(connect(settings.journal_url))
    run = runs.get(run_id)
    if run.token != token:
        return STOPPED
    with logs.about(run=run.id), traces.span("training", run=run.id, attempt=run.attempt):
        if elsewhere.is_for_another(run):
            attempt = Attempt(settings, runs, run, stopping)
            return conclude(attempt, lambda: elsewhere.learn_for_another(attempt, ready=make_ready))
        make_ready(settings)
        with contextlib.closing(Journal.open(settings.journal_url)) as journal:
            work = Work(settings, runs, run, stopping, journal)
            try:
                return conclude(work, lambda: run_cycle(work))
            finally:
                with contextlib.suppress(ServiceTrouble):  # how it ended counts more; twin and worker follow too
                    follow_forgotten(settings.data_folder, journal, runs)
                    if settings.artifacts.url:
                        elsewhere.tidy(settings, runs)


def make_ready(settings: Settings) -> None:
    """What has to be done before anything else is imported, for what these settings train."""
    offline_unless_hub(settings)
    # unsloth trains a hub's weights alone, and to look for a GPU loads torch, which late stages need not.
    if trainable := settings.models.trainable:
        gpu.load_unsloth_first(gpu.Found.here(), trainable=trainable, plain=settings.training.trainer == "trl")


def conclude(work: Attempt, learn: Callable[[], dict[str, Any]]) -> int:
    """Do a run's work and write down how it ended, unless the run is no longer ours."""
    runs, run = work.runs, work.run
    try:
        try:
            result = learn()
        finally:
            work.end_stage()
        runs.finish(run, "refused" if result.get("refused") else "succeeded", now=runs.now(), result=result)
    except (Cancelled, Superseded, elsewhere.PassedOn):
        return STOPPED
    except Refused as refusal:
        runs.finish(run, "refused", now=runs.now(), error=str(refusal))
    except UnderstudyError as error:
        logs.say(str(error), level=logging.ERROR)
        with contextlib.suppress(ServiceTrouble):  # the database is what failed, or another attempt has taken over
            if isinstance(error, ServiceTrouble) and not error.permanent:
                # The twin may be starting again, the disk may have room tomorrow: what is finished waits.
                runs.release(run, error=str(error), now=runs.now())
            else:
                runs.finish(run, "failed", now=runs.now(), error=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
