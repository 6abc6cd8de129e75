"""What is forgotten is gone from trainings, too: none learns it, none that learned it speaks."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

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
from trainer.card import MEASURES, EvalCard, Interval, Item, System, without
from trainer.cycle import Work, harvested, published, refuse_forgotten
from trainer.evals import load_card, save_card
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
    yield Work(settings, runs, run, threading.Event(), journal)
    journal.close()


def forget_bob(work: Work) -> None:
    forget(work.journal, Selection(person=BOB.key), creator=CREATOR, now=NOON)


def harvest(work: Work) -> list[str]:
    found, _ = harvested(work, work.folder / "harvest")
    return sorted(exchange.id for exchange in found)


def system(name: str, *answers: str) -> System:
    return System(name, [Item(answer, dict.fromkeys(MEASURES, 0.5)) for answer in answers], ability=0.5)


def examined(**more: Any) -> EvalCard:
    """A card of two questions: one of Bob's, and one of nobody's that was asked with no note of his."""
    against = {"base": dict.fromkeys(MEASURES, Interval(0, 0, 0))}
    systems = system("candidate", "Bob's now", "Own now"), system("base", "Bob's before", "Own before"), None
    questions, answers = [BOBS.question, OWN.question], [BOBS.answer, OWN.answer]
    facts = {"train": 1, "base_sha256": "0" * 64}
    return EvalCard(
        questions, answers, *systems, against, style_auc=0.8, seed=1, wall_s=1, dataset="d", facts=facts, **more
    )


def publish(
    work: Work, version: str, examples: list[str], *, forgotten: int = 0, card: EvalCard | None = None
) -> AdapterStore:
    """An adapter that passed its gate and learned `examples`."""
    store = AdapterStore(work.settings.data_folder / "adapters")
    write_json(work.folder / "peft" / "weights", {})
    (work.folder / "evals").mkdir(exist_ok=True)
    save_card(card or examined(), work.folder / "evals")
    described = {"verdict": PASSED, "base_sha256": "0" * 64, "examples": examples, "forgotten": forgotten}
    write_json(work.folder / "gguf" / "adapter.gguf", {})
    published(work, store, version, work.folder / "peft", described=described)
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


def test_an_eval_card_loses_the_words_of_what_was_forgotten_and_keeps_its_figures(work: Work) -> None:
    store = publish(work, "v1", [OWN.id], card=examined(sources=[[BOBS.id], [OWN.id]]))
    before = store.card("v1")
    follow(work)
    assert store.card("v1") == before

    forget_bob(work)
    follow(work)

    shown = json.dumps(store.card("v1")) + (store.folder("v1") / "evalcard.html").read_text(encoding="utf-8")
    assert not any(words in shown for words in (BOBS.question, BOBS.answer, "Bob's now", "Bob's before"))
    assert OWN.question in shown
    assert "Own now" in shown
    assert store.card("v1")["candidate"]["items"][0]["measures"] == before["candidate"]["items"][0]["measures"]
    store.verify("v1")
    store.may_speak("v1")


def test_a_question_that_was_asked_with_a_forgotten_note_goes_too(work: Work) -> None:
    store = publish(work, "v1", [OWN.id], card=examined(sources=[[BOBS.id], [OWN.id, BOBS.id]]))
    forget_bob(work)
    follow(work)

    assert store.card("v1")["questions"] == ["", ""]


def test_a_card_that_does_not_say_what_it_asked_keeps_no_words(work: Work) -> None:
    store = publish(work, "v1", [OWN.id])
    forget_bob(work)
    follow(work)

    assert store.card("v1")["references"] == ["", ""]


def test_a_card_that_was_left_half_silenced_is_vouched_for_again(work: Work) -> None:
    store = publish(work, "v1", [OWN.id], card=examined(sources=[[BOBS.id], [OWN.id]]))
    forget_bob(work)
    save_card(without(load_card(store.folder("v1")), {BOBS.id}), store.folder("v1"))
    with pytest.raises(ServiceTrouble, match="changed"):
        store.verify("v1")

    follow(work)

    store.verify("v1")


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
