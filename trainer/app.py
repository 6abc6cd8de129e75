"""The Celery worker and beat, as processes: `python -m trainer.app worker|beat --home DIR`.

The worker runs its tasks in threads: one that supervises a training process and one for what takes milliseconds. The
trainings themselves are processes of their own (`trainer/train.py`). A worker ends when something in its queue cannot
even be read, which is gone by then; whoever started it starts it again.
"""

import argparse
import logging
import signal
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

from celery import Celery, bootsteps
from celery.beat import Scheduler, SchedulingError
from celery.signals import setup_logging, worker_ready, worker_shutting_down

from infra import logs, traces
from infra.database import connect
from infra.health import SIGN_S, sign
from infra.processes import die_with_parent
from infra.queue import QUEUES, STALE_S, make_app
from infra.runs import Runs
from infra.settings import Settings, load_settings
from trainer.supervise import supervise
from trainer.tasks import register, register_scheduled, ring_due, told

# Each scheduler may ask whether a training is due; the run's key lets one run through.
ASKING_S = 60.0
SCHEDULED = {"scheduled": {"task": "trainer.scheduled", "schedule": ASKING_S, "options": {"expires": STALE_S}}}
# And when a worker begins, for machines that are on for minutes.
RETAINED = {"retention": {"task": "trainer.retention", "schedule": 3600.0}}
TIDIED = {"tidy": {"task": "trainer.tidy", "schedule": 3600.0}}

# A clock that goes on by so much more or less than time does has been set, in seconds.
JUMP_S = 1.0

log = logging.getLogger(__name__)


def queue_app(settings: Settings) -> Celery:
    """The application that sends and receives doorbells for this installation."""
    training: dict[str, Any] = SCHEDULED if settings.schedule.cron else {}
    retention: dict[str, Any] = RETAINED if settings.retention.limited else {}
    tidying: dict[str, Any] = TIDIED if settings.artifacts.url else {}
    schedule = {**training, **retention, **tidying}
    return make_app(settings.queue_url, settings.data_folder / "queue", schedule=schedule)


def work(settings: Settings, queues: str) -> None:
    """Be a worker of these queues until told to stop."""
    app, runs, stopping = queue_app(settings), Runs(connect(settings.journal_url)), threading.Event()
    register_scheduled(app, runs, settings)
    log = settings.data_folder / "logs" / "training.log"
    register(app, runs, home=settings.home, log=log, stopping=stopping, queues=queues.split(","))
    # Celery keeps only weak references to receivers: these two live as long as this frame does.
    ready = worker_ready.connect(lambda **_: told(begin)(app, runs, settings), weak=False)
    ending = worker_shutting_down.connect(lambda **_: stopping.set(), weak=False)
    assert ready is not ending
    app.steps["consumer"].add(signs(settings))
    options = ["--pool", "threads", "--concurrency", "2", "--queues", queues, "--without-gossip", "--without-mingle"]
    app.worker_main(["--quiet", "worker", *options, "--loglevel", "WARNING"])


def signs(settings: Settings) -> type[bootsteps.StartStopStep]:
    """A worker's sign of life, for as long as it is connected to its broker."""

    class Signs(bootsteps.StartStopStep):
        requires: ClassVar = {"celery.worker.consumer:Tasks"}

        def start(self, parent: Any) -> None:
            sign(settings, "worker")
            self.timer = parent.timer.call_repeatedly(SIGN_S, sign, (settings, "worker"))

        def stop(self, parent: Any) -> None:
            if (timer := getattr(self, "timer", None)) is not None:
                timer.cancel()

    return Signs


class Clock(Scheduler):
    """Celery's scheduler, with a sign of life at each look at the clock.

    It remembers nothing through a restart, and the one that does keeps a pickle: what is due is asked of the tables.
    """

    settings: Settings
    _wrong: float | None = None

    def tick(self, *arguments: Any, **options: Any) -> Any:
        """What Celery does; a clock that was put back does not make it wait for as long as that was."""
        sign(self.settings, "beat")
        wrong = time.time() - time.monotonic()
        if self._wrong is not None and abs(wrong - self._wrong) > JUMP_S:
            for entry in self.schedule.values():
                entry.last_run_at = entry.default_now()
            self._heap = None
        self._wrong = wrong
        return super().tick(*arguments, **options)

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Ring for what is due; what cannot be rung for now is at its next time."""
        try:
            self.apply_async(entry, producer=producer, advance=False)
        except SchedulingError as error:
            log.warning("The queue does not answer: %s.", error)


def begin(app: Celery, runs: Runs, settings: Settings) -> None:
    """What a worker looks for first: trainings that wait, and what was kept long enough."""
    ring_due(app, runs)
    if settings.retention.limited:
        app.send_task("trainer.retention")


def work_once(settings: Settings) -> int:
    """Work on the trainings that wait, without a broker, and return how many those were; SIGTERM hands one back.

    For machines that are there for a while only. A training that is somebody else's, or failed three times, is left.
    """
    runs, stopping = Runs(connect(settings.journal_url)), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    done, log = 0, settings.data_folder / "logs" / "training.log"
    while not stopping.is_set() and (waiting := runs.waiting(now=runs.now())):
        left = supervise(runs, waiting[0].id, home=settings.home, log=log, stopping=stopping, clock=runs.now)
        done += left is not None
    return done


def main() -> None:
    """Read the arguments and be one of the two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=["worker", "beat"])
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--queues", default=",".join(QUEUES))
    parser.add_argument("--once", action="store_true", help="work on what waits, and end")
    parser.add_argument("--parent", type=int, help="end when this process does")
    given = parser.parse_args()
    if given.parent:
        die_with_parent(given.parent)
    settings = load_settings(given.home)
    logs.begin(settings, given.role)
    traces.begin(settings, given.role)
    # Celery logs as it likes unless somebody else says that they have seen to it.
    setup_logging.connect(as_begun)
    if given.once:
        logs.say(f"Trainings worked on: {work_once(settings)}.")
    elif given.role == "worker":
        work(settings, given.queues)
    else:
        Clock.settings = settings
        queue_app(settings).Beat(loglevel="WARNING", pidfile=None, scheduler_cls=Clock, quiet=True).run()


def as_begun(**given: Any) -> None:
    """Leave the logs as they are."""


if __name__ == "__main__":
    main()
