"""`retrain --stage preference`, whole: journal, opinions, DPO on the current voice, GGUF, evals, gate, on one layer."""

import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from infra.adapters import AdapterStore
from infra.errors import Refused
from infra.runs import Runs
from infra.settings import load_settings
from infra.voice import engine
from memory.journal import Journal
from memory.remember import consent_event, exchange_event, remember
from tests.infra.running import lend_embedder, small_settings
from tests.memory.making import GROUP, taught
from tests.people import BOB, CREATOR, NOON
from tests.trainer.conftest import DOUGHS, METHODS
from tests.trainer.test_preference import edited
from trainer import cycle, gate
from trainer.cycle import Work, run_cycle

TRAINING = """[training]
epochs = 1
tokens = 3000
max_length = 200
heldout = 12
least_pairs = 8
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "understudy.toml").write_text(small_settings(TRAINING), encoding="utf-8")
    return tmp_path


@pytest.fixture
def journal(home: Path) -> Iterator[Journal]:
    """What Ada taught, and sixteen drafts of the voice that she wrote anew."""
    settings = load_settings(home)
    lend_embedder(settings)
    opened = Journal.open(settings.journal_url)
    pairs = [(method, dough) for dough in DOUGHS for method in METHODS]
    own = [
        taught(f"May I {m} {d}?", f"Aye, {m} it {n % 9 + 1} times, says Ada.", days=n) for n, (m, d) in enumerate(pairs)
    ]
    edits = [event for n in range(16) for event in edited(n, notes=())]
    agreed = consent_event(BOB, GROUP, granted="yes", at=NOON)
    remember(opened, [*map(exchange_event, own), agreed, *edits], creator=CREATOR)
    yield opened
    opened.close()


def work(home: Path, journal: Journal, **options: Any) -> Work:
    runs = Runs(journal.engine)
    made, _ = runs.create("retrain", uuid4().hex, options=options, now=datetime.now(UTC))
    run = runs.claim(made.id, "worker", now=datetime.now(UTC))
    assert run is not None
    return Work(load_settings(home), runs, run, threading.Event(), journal)


def end(one: Work) -> None:
    one.runs.finish(one.run, "succeeded", now=datetime.now(UTC))


@pytest.mark.timeout(1200)
@pytest.mark.skipif(not os.environ.get("UNDERSTUDY_TEST_WHOLE_RUNS"), reason="takes minutes; the parts are tested")
def test_a_voice_learns_from_the_edits_of_its_drafts(
    home: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "decide", lambda card: gate.Verdict(passed=True, reasons=()))
    monkeypatch.setattr(engine, "probe", lambda context, between_steps: None)  # one layer has nothing to say
    monkeypatch.setattr(cycle.swap, "promote", lambda settings, store, version: store.point(version))
    with pytest.raises(Refused, match="the bare base speaks"):
        run_cycle(first := work(home, journal, stage="preference"))
    end(first)
    run_cycle(before := work(home, journal))
    end(before)
    # The edits are rows of supervised tuning as well, but for those that judged it: of these there are new ones.
    remember(journal, [event for n in range(20, 36) for event in edited(n, notes=())], creator=CREATOR)
    store = AdapterStore(load_settings(home).data_folder / "adapters")
    voice = store.current()

    result = run_cycle(preferring := work(home, journal, stage="preference"))

    made, parent = store.manifest(result["adapter"]), store.manifest(str(voice))
    assert store.current() == result["adapter"] != voice
    assert made["hyperparameters"]["method"] == "dpo"
    assert made["hyperparameters"]["held_out"]["rows"] >= 1
    assert set(parent["examples"]) < set(made["examples"])
    assert store.card(result["adapter"])["memorisation"]["rows"] > 0
    # Taken up again after its end it does nothing twice.
    assert run_cycle(preferring)["adapter"] == result["adapter"]
