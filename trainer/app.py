"""The Celery worker and beat, as processes: `python -m trainer.app worker|beat --home DIR`.

The worker runs its tasks in threads: one that supervises a training process and one for what takes milliseconds. The
trainings themselves are processes of their own (`trainer/train.py`).
"""

import argparse
import threading
from pathlib import Path
from typing import Any

from celery import Celery
from celery.schedules import crontab
from celery.signals import worker_ready, worker_shutting_down

from infra.database import connect
from infra.processes import die_with_parent
from infra.queue import make_app
from infra.runs import Runs
from infra.settings import Settings, load_settings
from trainer.tasks import register, register_retention, ring_due

# Sunday night, when communities are quietest; each scheduler may ring, the run's key lets one run through.
WEEKLY = {"weekly": {"task": "trainer.weekly", "schedule": crontab(minute=17, hour=3, day_of_week=0)}}
# Once a day, also where the machine sleeps at night: what was missed is due at the next start.
DAILY = {"retention": {"task": "trainer.retention", "schedule": 24 * 3600.0}}


def queue_app(settings: Settings) -> Celery:
    """The application that sends and receives doorbells for this installation."""
    weekly: dict[str, Any] = WEEKLY if settings.training.weekly else {}
    daily: dict[str, Any] = DAILY if settings.retention.limited else {}
    return make_app(settings.queue.url, settings.data_folder / "queue", schedule={**weekly, **daily})


def work(settings: Settings) -> None:
    """Be a worker until told to stop."""
    app, runs, stopping = queue_app(settings), Runs(connect(settings.journal_url)), threading.Event()
    register_retention(app, settings)
    register(app, runs, home=settings.home, log=settings.data_folder / "logs" / "training.log", stopping=stopping)
    # Celery keeps only weak references to receivers: these two live as long as this frame does.
    ready = worker_ready.connect(lambda **_: ring_due(app, runs), weak=False)
    ending = worker_shutting_down.connect(lambda **_: stopping.set(), weak=False)
    assert ready is not ending
    app.worker_main(["worker", "--pool", "threads", "--concurrency", "2", "--loglevel", "WARNING", "--without-gossip"])


def main() -> None:
    """Read the arguments and be one of the two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=["worker", "beat"])
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--parent", type=int, help="end when this process does")
    given = parser.parse_args()
    if given.parent:
        die_with_parent(given.parent)
    settings = load_settings(given.home)
    if given.role == "worker":
        work(settings)
    else:
        queue_app(settings).Beat(loglevel="WARNING", pidfile=None).run()


if __name__ == "__main__":
    main()
