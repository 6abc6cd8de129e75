"""How a run is left by its training process: what may be better next time is tried again, what cannot be is not."""

from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest

import trainer.train
from infra.database import connect
from infra.errors import Refused, ServiceTrouble, UnderstudyError
from infra.runs import Runs
from trainer.cycle import Work


@pytest.mark.parametrize(
    ("trouble", "state"),
    [
        (ServiceTrouble("The running twin does not answer."), "queued"),
        (ServiceTrouble("The adapter is broken.", permanent=True), "failed"),
        (Refused("Only 3 rows."), "refused"),
    ],
)
def test_trouble_that_may_pass_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: UnderstudyError, state: str
) -> None:
    def cycle(work: Work) -> dict[str, object]:
        raise trouble

    monkeypatch.setattr(trainer.train, "run_cycle", cycle)
    runs = Runs(connect(f"sqlite:///{tmp_path / 'runs.db'}"))
    made, _ = runs.create("retrain", "key", options={}, now=datetime.now(UTC))
    run = runs.claim(made.id, "worker", now=datetime.now(UTC))
    assert run is not None

    trainer.train.conclude(runs, run, cast("Work", None))

    assert runs.get(run.id).state == state
    assert runs.get(run.id).error == str(trouble)
