"""When a training begins by itself: at its time, once, after quiet hours, and only where there is something to learn."""

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.runs import Run, Runs
from infra.settings import ScheduleSettings, Settings
from memory.journal import Journal
from memory.remember import exchange_event, remember
from tests.memory.making import taught
from tests.people import CREATOR
from trainer.schedule import asked, due, learnable, quiet, scheduled

SUNDAYS = ScheduleSettings()
# 2026-11-29 is a Sunday.
SUNDAY = datetime(2026, 11, 29, 3, 17, tzinfo=UTC)


@pytest.fixture
def journal(tmp_path) -> Iterator[Journal]:
    journal = Journal.open(f"sqlite:///{tmp_path / 'journal.db'}")
    teach(journal, 3)
    yield journal
    journal.close()


@pytest.fixture
def runs(journal: Journal) -> Runs:
    return Runs(journal.engine)


def installation(**schedule: Any) -> Settings:
    return Settings.model_validate({"home": ".", "creator": {"name": "Ada"}, "schedule": schedule})


def teach(journal: Journal, count: int, *, days: int = 0) -> None:
    said = [taught(f"Question {days} {number}?", f"Answer {days} {number}.", days=days) for number in range(count)]
    remember(journal, [exchange_event(each) for each in said], creator=CREATOR)


def ended(runs: Runs, run: Run, state="succeeded") -> None:
    held = runs.claim(run.id, "w", now=SUNDAY)
    assert held is not None
    runs.finish(held, state, now=SUNDAY)


def known(created: datetime) -> Sequence[Run]:
    """A table whose newest run was made then."""
    text = created.isoformat()
    return [Run("r", "retrain", "k", "succeeded", "", {}, {}, 1, 1, "", False, "", {}, text, text, text, "gpu", "")]


@pytest.mark.parametrize(
    ("now", "last", "key"),
    [
        (SUNDAY - timedelta(seconds=1), SUNDAY - timedelta(days=6), None),
        (SUNDAY, SUNDAY - timedelta(days=6), "scheduled:2026-11-29T03:17Z"),
        # Down since before: caught up once, for the newest time alone.
        (SUNDAY + timedelta(days=3), SUNDAY - timedelta(days=30), "scheduled:2026-11-29T03:17Z"),
        # Somebody trained since.
        (SUNDAY + timedelta(days=3), SUNDAY + timedelta(days=1), None),
    ],
)
def test_what_is_due_is_told_by_the_newest_run(now: datetime, last: datetime, key: str | None) -> None:
    assert due(SUNDAYS, known(last), now=now) == key


def test_a_new_installation_does_not_begin_with_the_last_sunday() -> None:
    assert due(SUNDAYS, [], now=SUNDAY + timedelta(days=1)) is None
    assert due(SUNDAYS, [], now=SUNDAY + timedelta(minutes=5)) == "scheduled:2026-11-29T03:17Z"


def test_without_a_time_nothing_begins() -> None:
    assert due(ScheduleSettings(cron=""), known(SUNDAY - timedelta(days=99)), now=SUNDAY) is None


def test_times_are_meant_where_the_creator_lives() -> None:
    there = ScheduleSettings(cron="0 4 * * *", time_zone="Asia/Shanghai")
    assert due(there, known(SUNDAY - timedelta(days=2)), now=SUNDAY) == "scheduled:2026-11-28T20:00Z"


def test_an_hour_that_a_clock_change_repeats_is_one_time() -> None:
    """On 2026-10-25 Paris has 02:30 twice."""
    paris = ScheduleSettings(cron="30 2 * * *", time_zone="Europe/Paris")
    midnight, last = datetime(2026, 10, 24, 22, tzinfo=UTC), known(datetime(2026, 10, 24, 12, tzinfo=UTC))
    keys = {due(paris, last, now=midnight + timedelta(minutes=minutes)) for minutes in range(0, 360, 10)}
    assert len(keys - {None}) == 1


@pytest.mark.parametrize(
    ("hours", "time", "expected"),
    [
        ("08:00-23:00", 8, True),
        ("08:00-23:00", 23, False),
        ("22:00-06:00", 23, True),
        ("22:00-06:00", 3, True),
        ("22:00-06:00", 6, False),
        ("", 12, False),
    ],
)
def test_quiet_hours_may_go_over_midnight(hours: str, time: int, expected: bool) -> None:
    assert quiet(ScheduleSettings(quiet=hours), SUNDAY.replace(hour=time, minute=0)) is expected


def test_what_is_due_in_quiet_hours_begins_after_them() -> None:
    calm = ScheduleSettings(quiet="03:00-05:00")
    last = known(SUNDAY - timedelta(days=3))
    assert due(calm, last, now=SUNDAY + timedelta(hours=1)) is None
    assert due(calm, last, now=SUNDAY + timedelta(hours=2)) == "scheduled:2026-11-29T03:17Z"


def test_what_came_since_the_last_training_is_counted(journal: Journal, runs: Runs) -> None:
    assert learnable(journal, runs.recent()) == 3
    run, _ = asked(installation(), runs, journal, "manual:1", {}, now=SUNDAY - timedelta(days=1))
    ended(runs, run)
    assert learnable(journal, runs.recent()) == 0

    teach(journal, 2, days=1)
    failed, _ = asked(installation(), runs, journal, "manual:2", {}, now=SUNDAY - timedelta(hours=2))
    ended(runs, failed, "failed")

    assert learnable(journal, runs.recent()) == 2  # the one that failed has not learned them


def test_a_training_waits_until_enough_has_come(journal: Journal, runs: Runs) -> None:
    patient = installation(least_new=5)
    assert scheduled(patient, runs, journal, now=SUNDAY) is None
    teach(journal, 2, days=1)
    assert scheduled(patient, runs, journal, now=SUNDAY + timedelta(minutes=30)) is not None


def test_any_number_of_schedulers_make_one_run(journal: Journal, runs: Runs) -> None:
    made: list[Run | None] = []
    at_once = threading.Barrier(8)

    def tick() -> None:
        at_once.wait()
        made.append(scheduled(installation(), runs, journal, now=SUNDAY))

    threads = [threading.Thread(target=tick) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert len(runs.recent()) == 1
    assert {run.id for run in made if run} == {runs.recent()[0].id}
    ended(runs, runs.recent()[0])
    assert [scheduled(installation(), runs, journal, now=SUNDAY + timedelta(minutes=n)) for n in range(5)] == [None] * 5


@given(st.lists(st.integers(-1440, 1440), min_size=1, max_size=40))
def test_clocks_that_jump_begin_nothing_twice(jumps: list[int]) -> None:
    """Whatever a clock says, in whatever order, each time has one run at most, and only of times that passed."""
    made: dict[str, datetime] = {}
    created = SUNDAY - timedelta(days=2)
    for minutes in jumps:
        now = SUNDAY + timedelta(minutes=minutes)
        key = due(ScheduleSettings(cron="0 */6 * * *"), known(created), now=now)
        if key is not None:
            assert key not in made
            assert datetime.fromisoformat(key.removeprefix("scheduled:")) <= now
            made[key] = now
            created = max(created, now)
