"""The training process: what it shares with the twin, and how it leaves a run that met trouble."""

import threading
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import trainer.train
from infra.database import connect
from infra.errors import Refused, ServiceTrouble, UnderstudyError
from infra.files import finish_folder
from infra.runs import Run, Runs
from infra.settings import load_settings
from memory.prepared import Prepared
from tests.infra.running import lend_embedder
from trainer.gpu import Found
from trainer.learning import Attempt, Given, trained
from trainer.lora import TrainReport


@pytest.mark.parametrize(
    ("trouble", "state"),
    [
        (ServiceTrouble("The running twin does not answer."), "queued"),
        (ServiceTrouble("The adapter is broken.", permanent=True), "failed"),
        (Refused("Only 3 rows."), "refused"),
    ],
)
def test_trouble_that_may_pass_is_tried_again(tmp_path: Path, trouble: UnderstudyError, state: str) -> None:
    def cycle() -> dict[str, object]:
        raise trouble

    runs = Runs(connect(f"sqlite:///{tmp_path / 'runs.db'}"))
    made, _ = runs.create("retrain", "key", options={}, now=datetime.now(UTC))
    run = runs.claim(made.id, "worker", now=datetime.now(UTC))
    assert run is not None

    attempt = Attempt(cast(Any, None), runs, run, threading.Event())
    trainer.train.conclude(attempt, cycle)

    assert runs.get(run.id).state == state
    assert runs.get(run.id).error == str(trouble)


def test_a_training_encodes_with_what_the_twin_has_prepared(home: Path) -> None:
    settings = load_settings(home)
    lend_embedder(settings)
    work = Attempt(settings, cast("Runs", None), cast("Run", None), threading.Event())

    encoder = work.encoder()

    assert isinstance(encoder._model, Prepared)
    assert len(list((settings.data_folder / "models").iterdir())) == 1  # nothing was prepared beside it


def test_what_goes_on_after_the_training_loads_no_torch(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks for a GPU loads it; the served weights' finished training is only read."""

    def looked() -> Found:
        raise AssertionError("a GPU was looked for")

    monkeypatch.setattr(Found, "here", looked)
    monkeypatch.setattr(trainer.train, "offline_unless_hub", lambda settings: None)
    settings = load_settings(home)
    report: dict[str, Any] = {**dict.fromkeys(TrainReport.__dataclass_fields__, 0), "peft": "peft", "validation": []}
    finish_folder(home / "lora", {"report": report})
    work = Attempt(settings, cast("Runs", None), cast("Run", SimpleNamespace(options={})), threading.Event())

    trainer.train.make_ready(settings)

    assert trained(work, home / "lora", cast("Given", None)).peft == home / "lora" / "peft"
