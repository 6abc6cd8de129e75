"""All eval cards in a row: the verdict follows the figures, and the page shows each voice."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from infra.adapters import AdapterStore
from infra.cli.main import app
from infra.errors import UserMistake
from infra.files import sha256_of
from infra.settings import load_settings
from infra.voice.weights import Weights
from memory.persona import PersonaCard
from tests.trainer.test_gate import card, system
from tests.weights import small_base, write_adapter
from trainer import history
from trainer.card import Duel, EvalCard, Interval, Judged, StyleCheck, from_json, to_json
from trainer.dataset import load
from trainer.evals import save_card

BETTER, WORSE = Interval(-0.1, -0.15, -0.05), Interval(0.1, 0.05, 0.15)


def after(step: Interval) -> EvalCard:
    """A card of a voice that followed another."""
    one = card()
    return replace(
        one, current=system("current"), against={**one.against, "current": {**one.against["base"], "nll": step}}
    )


def publish(store: AdapterStore, version: str, found: EvalCard, *, gguf: Path | None = None, **more: Any) -> None:
    staged = store.stage(version)
    save_card(found, staged)
    if gguf is not None:
        gguf.rename(staged / "adapter.gguf")
    store.publish(
        version, {"verdict": {"passed": True, "reasons": []}, "base_sha256": "0" * 64, "dataset": "d", **more}
    )


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(tmp_path / "adapters")


def test_voices_are_set_beside_the_one_before_them_on_the_same_questions(store: AdapterStore) -> None:
    for number, found in enumerate((card(), after(BETTER), after(WORSE), after(BETTER)), 1):
        publish(store, f"2026110{number}T000000Z-d", found)

    found = history.weeks(store)

    assert [week.step for week in found] == [None, BETTER, WORSE, BETTER]
    assert history.verdict(found, None) == (
        "Of 3 voices that followed another, 2 were clearly better than the one before on the same questions and 1 "
        "clearly worse; the last: NLL -0.100 [-0.150, -0.050]."
    )
    assert "Too early" in history.verdict(found[:1], None)


@pytest.mark.parametrize(
    ("change", "said"), [(BETTER, "getting better"), (WORSE, "getting worse"), (Interval(0, -1, 1), "Nothing clear")]
)
def test_the_newest_questions_decide_where_they_were_asked(change: Interval, said: str) -> None:
    measured = history.Again(30, {"base": 3.0, "v1": 2.5, "v2": 2.4}, change)

    sentence = history.verdict([], measured)

    assert said in sentence
    assert "v2 against v1" in sentence


def test_the_page_shows_every_voice_and_nothing_unescaped(store: AdapterStore) -> None:
    judged = Judged("<b>judge</b>", 4, (Duel("candidate", "base", Interval(0.75, 0.5, 1.0), 1, 0.9),))
    publish(store, "20261101T000000Z-d", replace(card(), judged=judged, style_check=StyleCheck(0.9, 0.8, 0.2)))
    publish(store, "20261108T000000Z-d", after(BETTER))
    store.taint("20261101T000000Z-d", "it learned what was forgotten")

    text = history.page(history.weeks(store), history.Again(5, {"base": 3.0, "v1": 2.5}, BETTER))

    assert all(words in text for words in ("20261101T000000Z-d", "passed, tainted", "90 %", "0.75", "11-08"))
    assert text.count("<figure>") == len(history.SHOWN)
    assert "<b>judge" not in text


def test_a_card_keeps_its_judge_and_one_without_loads() -> None:
    judged = Judged("m", 4, (Duel("candidate", "base", Interval(0.75, 0.5, 1.0), 1, 0.9),))
    one = replace(card(), judged=judged, style_check=StyleCheck(0.9, 0.8, 0.2), sources=[["x"]] * 20, sheet=[])

    assert from_json(json.loads(json.dumps(to_json(one)))) == one
    old = to_json(one)
    del old["judged"], old["style_check"], old["sheet"]
    assert from_json(json.loads(json.dumps(old))) == replace(one, judged=None, style_check=None, sheet=())


def test_all_voices_are_asked_the_newest_questions(store: AdapterStore, small_dataset: Path, tmp_path: Path) -> None:
    """In real llama.cpp: two adapters differ, and one of another base is left out."""
    weights = Weights(small_base(), sha256_of(small_base()), "Q4_1")
    for number, seed in enumerate((1, 2), 1):
        made = write_adapter(weights, tmp_path / "made.gguf", seed=seed, size=0.1 * number)
        publish(store, f"2026110{number}T000000Z-d", card(), gguf=made, base_sha256=weights.sha256)
    publish(store, "20261103T000000Z-d", card())
    built, said = load(small_dataset), list[str]()

    found = history.again(
        store,
        built,
        store.versions(),
        weights=weights,
        persona=PersonaCard("Ada"),
        threads=2,
        seed=1,
        on_progress=said.append,
    )

    one, two = "20261101T000000Z-d", "20261102T000000Z-d"
    assert list(found.nll) == said == ["base", one, two]
    assert len(set(found.nll.values())) == 3
    assert found.change.mean == pytest.approx(found.nll[two] - found.nll[one])
    with pytest.raises(UserMistake, match="train again"):
        history.again(
            store, built, ["20261103T000000Z-d"], weights=weights, persona=PersonaCard("Ada"), threads=2, seed=1
        )


def test_the_command_says_what_is_missing_and_writes_the_page(home: Path) -> None:
    asked = ["voices", "history", "--home", str(home), "--json"]
    none = CliRunner().invoke(app, asked)
    assert isinstance(none.exception, UserMistake)
    settings = load_settings(home)
    publish(AdapterStore(settings.data_folder / "adapters"), "20261101T000000Z-d", card())

    found = json.loads(CliRunner().invoke(app, asked, catch_exceptions=False).stdout)

    assert (found["weeks"][0]["version"], found["again"]) == ("20261101T000000Z-d", None)
    assert "20261101T000000Z-d" in Path(found["page"]).read_text(encoding="utf-8")
