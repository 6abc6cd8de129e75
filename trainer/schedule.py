"""When a training begins by itself: asked every minute, answered by the run table and not by a scheduler's memory.

A time that passed while nothing ran is caught up, once. Any number of schedulers ask the same question and make the
same run, since its key is the time that it is for.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from cronsim import CronSim

from infra.runs import TRAINING, Run, Runs
from infra.settings import ScheduleSettings, Settings
from memory.journal import Journal

# Where nothing ever trained, a time that passed is caught up for so long: a new installation does not begin with it.
LATE = timedelta(hours=1)
# What a run notes of how much there was to learn when it was asked for.
EXCHANGES = "exchanges"


def due(schedule: ScheduleSettings, runs: Sequence[Run], *, now: datetime) -> str | None:
    """The key of the run that should have begun by now; `runs` are the newest, newest first."""
    if not schedule.cron:
        return None
    there = now.astimezone(ZoneInfo(schedule.time_zone))
    time = next(CronSim(schedule.cron, there + timedelta(seconds=1), reverse=True), None)
    since = datetime.fromisoformat(runs[0].created) if runs else now - LATE
    if time is None or time <= since or quiet(schedule, there):
        return None
    return f"scheduled:{time.astimezone(UTC):%Y-%m-%dT%H:%MZ}"


def quiet(schedule: ScheduleSettings, there: datetime) -> bool:
    """Whether a local time is within the hours in which nothing begins by itself; they may go over midnight."""
    if schedule.hours is None:
        return False
    (start, end), time = schedule.hours, there.time()
    return start <= time < end if start <= end else time >= start or time < end


def learnable(journal: Journal, runs: Sequence[Run]) -> int:
    """How many exchanges came since the last training that looked at all of them."""
    before = next((run for run in runs if run.state in {"succeeded", "refused"}), None)
    return journal.counts()["exchanges"] - (before.options.get(EXCHANGES, 0) if before else 0)


def asked(
    settings: Settings, runs: Runs, journal: Journal, key: str, options: Mapping[str, Any], *, now: datetime
) -> tuple[Run, bool]:
    """A new retraining run; or the one that is active already, or that had this key before, and False."""
    noted = {**options, EXCHANGES: journal.counts()["exchanges"]}
    # What trains elsewhere begins here, where the journal is.
    queue = "default" if settings.artifacts.url else TRAINING
    return runs.create("retrain", key, options=noted, now=now, queue=queue)


def scheduled(settings: Settings, runs: Runs, journal: Journal, *, now: datetime) -> Run | None:
    """The run that is due and not there yet, made now; None where nothing is, or too little came to learn from."""
    known = runs.recent()
    key = due(settings.schedule, known, now=now)
    if key is None or learnable(journal, known) < settings.schedule.least_new:
        return None
    return asked(settings, runs, journal, key, {}, now=now)[0]
