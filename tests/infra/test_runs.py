"""The run table: one active run of a kind, one owner at a time, and no word from whoever was replaced."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from infra.database import connect
from infra.errors import UserMistake
from infra.runs import ATTEMPTS, LEASE, UNHEARD, Run, Runs, Superseded
from tests.people import NOON


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(connect(f"sqlite:///{tmp_path / 'runs.db'}"))


def queued(runs: Runs, key: str = "k", now: datetime = NOON) -> Run:
    return runs.create("retrain", key, options={}, now=now)[0]


def claimed(runs: Runs, run: Run, now: datetime = NOON) -> Run:
    found = runs.claim(run.id, "worker", now=now)
    assert found is not None
    return found


def test_a_second_retrain_joins_the_first(runs: Runs) -> None:
    first = queued(runs, "manual:1")

    second, made = runs.create("retrain", "manual:2", options={}, now=NOON)

    assert (second.id, made) == (first.id, False)


def test_any_number_of_schedulers_make_one_weekly_run(runs: Runs) -> None:
    first = queued(runs, "weekly:2026-W47")
    runs.finish(claimed(runs, first), "succeeded", now=NOON)

    again, made = runs.create("retrain", "weekly:2026-W47", options={}, now=NOON)

    assert (again.id, made) == (first.id, False)


def test_only_one_worker_gets_a_run(runs: Runs) -> None:
    run = queued(runs)

    assert [runs.claim(run.id, name, now=NOON) is not None for name in ("a", "b")] == [True, False]


def test_a_lease_that_ran_out_is_taken_over_and_the_old_owner_may_say_nothing(runs: Runs) -> None:
    old = claimed(runs, queued(runs))
    later = NOON + LEASE + timedelta(seconds=1)

    new = claimed(runs, old, now=later)

    assert (new.token, new.attempt) == (old.token + 1, 2)
    for speak in (
        lambda: runs.renew(old, now=later),
        lambda: runs.report(old, "lora", progress={}),
        lambda: runs.hold(old),
        lambda: runs.finish(old, "succeeded", now=later),
        lambda: runs.release(old, error="x", now=later),
    ):
        with pytest.raises(Superseded):
            speak()
    assert runs.hold(new).state == "running"


def test_a_renewed_lease_is_not_taken_over(runs: Runs) -> None:
    run = claimed(runs, queued(runs))
    runs.renew(run, now=NOON + LEASE)

    assert runs.claim(run.id, "other", now=NOON + LEASE + timedelta(seconds=5)) is None


def test_a_run_ends_once(runs: Runs) -> None:
    run = claimed(runs, queued(runs))
    runs.finish(run, "succeeded", now=NOON, result={"adapter": "v1"})

    with pytest.raises(Superseded):
        runs.finish(run, "failed", now=NOON)
    assert runs.get(run.id).result == {"adapter": "v1"}


def test_what_nobody_heard_of_and_what_was_lost_is_due(runs: Runs) -> None:
    run = queued(runs)
    assert runs.due(now=NOON) == []
    assert [each.id for each in runs.due(now=NOON + UNHEARD + timedelta(seconds=1))] == [run.id]

    claimed(runs, run)
    assert runs.due(now=NOON) == []
    assert [each.id for each in runs.due(now=NOON + LEASE + timedelta(seconds=1))] == [run.id]


def test_after_three_lost_workers_it_has_failed_in_words(runs: Runs) -> None:
    run, now = queued(runs), NOON
    for _ in range(ATTEMPTS):
        claimed(runs, run, now=now)
        now += LEASE + timedelta(seconds=1)

    assert runs.due(now=now) == []
    assert (runs.get(run.id).state, runs.get(run.id).error) == ("failed", "The worker was lost 3 times.")


def test_a_process_that_keeps_dying_ends_with_its_reason(runs: Runs) -> None:
    run = queued(runs)
    for _ in range(ATTEMPTS):
        run = runs.release(claimed(runs, run), error="It ended with status 1.", now=NOON)

    assert run.state == "failed"
    assert "attempt 3 of 3" in run.error


def test_stopping_the_worker_costs_no_attempt(runs: Runs) -> None:
    run = queued(runs)
    for _ in range(ATTEMPTS + 2):
        run = runs.hand_back(claimed(runs, run), now=NOON)

    assert (run.state, run.attempt) == ("queued", 0)


def test_cancelling_a_queued_run_ends_it_and_a_running_one_is_told(runs: Runs) -> None:
    waiting = queued(runs, "a")
    assert runs.cancel(waiting.id, now=NOON).state == "cancelled"

    running = claimed(runs, queued(runs, "b"))
    assert (runs.cancel(running.id, now=NOON).state, runs.renew(running, now=NOON).cancel_requested) == (
        "running",
        True,
    )
    with pytest.raises(UserMistake, match="not active"):
        runs.cancel(waiting.id, now=NOON)


def test_an_unknown_run_is_a_sentence(runs: Runs) -> None:
    with pytest.raises(UserMistake, match="There is no run 'x'"):
        runs.get("x")
