"""What is forgotten is gone from trainings, too: none learns it, none that learned it speaks."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from infra.adapters import AdapterStore
from infra.errors import Refused, ServiceTrouble
from infra.files import write_json
from infra.runs import Runs
from infra.settings import load_settings
from memory.forget import forget
from memory.journal import Journal
from memory.messages import Source
from memory.remember import consent_event, exchange_event, remember
from memory.selection import Selection
from tests.memory.making import taught
from tests.people import BOB, CREATOR, NOON
from trainer.cycle import Work, harvested, published, refuse_forgotten
from trainer.frozen import follow_forgotten

PASSED = {"passed": True, "reasons": []}
BOBS = replace(taught("Bob's oven?", "Hot."), asker=BOB, question_source=Source.OWN_DIRECT)
OWN = taught("Own?", "Yes.")


@pytest.fixture
def work(home: Path) -> Iterator[Work]:
    """A run that was just taken up, over a journal with an exchange of Bob's and one of nobody's."""
    settings = load_settings(home)
    settings.data_folder.mkdir()
    journal = Journal.open(settings.journal_url)
    runs = Runs(journal.engine)
    agreed = consent_event(BOB, BOBS.place, granted="yes", at=NOON)
    remember(journal, [exchange_event(BOBS), exchange_event(OWN), agreed], creator=CREATOR)
    runs.create("retrain", "one", options={}, now=datetime.now(UTC))
    run = runs.claim(runs.recent()[0].id, "worker", now=datetime.now(UTC))
    assert run is not None
    yield Work(settings, journal, runs, run, threading.Event())
    journal.close()


def forget_bob(work: Work) -> None:
    forget(work.journal, Selection(person=BOB.key), creator=CREATOR, now=NOON)


def harvest(work: Work) -> list[str]:
    found, _ = harvested(work, work.folder / "harvest")
    return sorted(exchange.id for exchange in found)


def publish(work: Work, version: str, examples: list[str], *, forgotten: int = 0) -> AdapterStore:
    """An adapter that passed its gate and learned `examples`."""
    store = AdapterStore(work.settings.data_folder / "adapters")
    for name, folder in (("evalcard.json", "evals"), ("evalcard.html", "evals"), ("weights", "peft")):
        write_json(work.folder / folder / name, {})
    described = {"verdict": PASSED, "examples": examples, "forgotten": forgotten}
    card = work.folder / "evals" / "evalcard.json"
    published(work, store, version, work.folder / "peft", adapter=card, described=described)
    return store


def follow(work: Work) -> None:
    follow_forgotten(work.settings.data_folder, work.journal, work.runs)


def test_a_run_that_goes_on_begins_anew_without_what_was_forgotten(work: Work) -> None:
    assert harvest(work) == sorted([BOBS.id, OWN.id])
    write_json(work.folder / "lora" / "manifest.json", {})
    assert harvest(work) == sorted([BOBS.id, OWN.id])
    assert (work.folder / "lora").exists()

    forget_bob(work)
    assert harvest(work) == [OWN.id]
    assert not (work.folder / "lora").exists()


def test_what_was_forgotten_while_it_was_learned_never_speaks(work: Work) -> None:
    store = publish(work, "v1", [BOBS.id])
    refuse_forgotten(work, store, "v1")

    forget_bob(work)
    with pytest.raises(ServiceTrouble, match="forgotten meanwhile"):
        refuse_forgotten(work, store, "v1")
    with pytest.raises(Refused, match="tainted"):
        store.may_speak("v1")


def test_only_what_learned_it_is_tainted(work: Work) -> None:
    store = publish(work, "v1", [BOBS.id, OWN.id])
    publish(work, "v2", [OWN.id])
    follow(work)
    store.may_speak("v1")

    forget_bob(work)
    follow(work)
    assert store.tainted("v1")
    store.may_speak("v2")

    # Bob comes back and asks again: who learns that later learns nothing that was forgotten.
    publish(work, "v3", [BOBS.id], forgotten=work.journal.last_forgotten())
    follow(work)
    store.may_speak("v3")


def test_frozen_words_go_with_the_run_that_held_them(work: Work) -> None:
    """A run under way keeps its folder, whose files are in use; once it has ended, what it froze goes."""
    harvest(work)
    forget_bob(work)
    follow(work)
    assert work.folder.exists()

    work.runs.finish(work.run, "failed", now=datetime.now(UTC))
    follow(work)
    assert not work.folder.exists()


def test_a_run_that_froze_nothing_of_it_stays(work: Work) -> None:
    forget_bob(work)
    harvest(work)
    work.runs.finish(work.run, "failed", now=datetime.now(UTC))
    follow(work)

    assert json.loads((work.folder / "harvest" / "exchanges.jsonl").read_text())["id"] == OWN.id
