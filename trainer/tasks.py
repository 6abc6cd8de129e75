"""The Celery tasks: each only knows which plain function to call."""

import functools
import logging
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import ParamSpec

from celery import Celery

from infra.errors import ServiceTrouble
from infra.queue import ring
from infra.runs import Runs
from infra.settings import Settings
from memory.codec import storable
from memory.journal import Journal
from memory.retention import Retention, expire
from trainer.schedule import scheduled
from trainer.supervise import supervise

P = ParamSpec("P")

log = logging.getLogger(__name__)


def now() -> datetime:
    return datetime.now(UTC)


def told(work: Callable[P, None]) -> Callable[P, None]:
    """What a task could not do is a sentence in the log and no traceback: all of them are rung for again."""

    @functools.wraps(work)
    def task(*arguments: P.args, **named: P.kwargs) -> None:
        try:
            work(*arguments, **named)
        except ServiceTrouble as trouble:
            log.warning("%s", trouble)

    return task


def register(
    app: Celery, runs: Runs, *, home: Path, log: Path, stopping: threading.Event, queues: Sequence[str]
) -> None:
    """Give the application of a worker of these queues its tasks; `stopping` is set when it is asked to end."""

    @app.task(name="trainer.run")
    @told
    def run(run_id: str) -> None:
        # Whoever can ring may say anything; only an id that is in the table means something.
        known, clock = storable(str(run_id)), runs.now
        left = supervise(runs, known, home=home, log=log, stopping=stopping, clock=clock, queues=queues)
        # The next part at once, and a second try; the third when reconcile rings: by then what was down may be back.
        if left is not None and left.state == "queued" and left.attempt <= 1 and not stopping.is_set():
            ring(app, left)

    @app.task(name="trainer.reconcile")
    @told
    def reconcile() -> None:
        ring_due(app, runs)


def register_scheduled(app: Celery, runs: Runs, settings: Settings) -> None:
    """Give the application what is done by the clock: trainings, what was kept long enough, and tidying up."""

    @app.task(name="trainer.scheduled")
    @told
    def training() -> None:
        journal = Journal.open(settings.journal_url)
        try:
            run = scheduled(settings, runs, journal, now=now())
        finally:
            journal.close()
        if run is not None:
            ring(app, run)

    @app.task(name="trainer.retention")
    @told
    def retention() -> None:
        journal = Journal.open(settings.journal_url)
        try:
            rule = Retention(**settings.retention.model_dump())
            expire(journal, rule, creator=settings.answering, now=now())
        finally:
            journal.close()

    @app.task(name="trainer.tidy")
    @told
    def tidying() -> None:
        from trainer.elsewhere import tidy

        tidy(settings, runs)


def ring_due(app: Celery, runs: Runs) -> None:
    """Ring again for runs that nobody heard of and for those whose worker is gone."""
    for run in runs.due(now=runs.now()):
        ring(app, run)
