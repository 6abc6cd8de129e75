"""The multiplication experiment: its steps are right, its test is apart from its training, its answers read strictly."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import UserMistake
from infra.presets import PRESETS
from infra.voice.weights import Weights
from tests.weights import write_adapter
from trainer import multiply
from trainer.dataset import load
from trainer.multiply import answer_of, named_in, splits, worked, write_dataset


def test_steps_are_written_out_with_their_carries() -> None:
    assert worked(47, 36).splitlines() == [
        "47*6: 7*6=42 carry 4, 4*6=24+4=28, so 282",
        "47*3: 7*3=21 carry 2, 4*3=12+2=14, so 141",
        "282+1410: 2+0=2, 8+1=9, 2+4=6, 0+1=1, so 1692",
        "Answer: 1692",
    ]


@settings(deadline=None)
@given(st.integers(2, 999), st.integers(2, 999))
def test_every_equation_in_the_steps_is_true(a: int, b: int) -> None:
    steps = worked(a, b)

    for left, right in re.findall(r"(?<![=\d*+])(\d+(?:[*+]\d+)+)=(\d+)", steps):
        assert eval(left) == int(right), steps
    for left, right in re.findall(r"(?m)^(\d+[*+]\d+):.* so (\d+)$", steps):
        assert eval(left) == int(right), steps
    assert answer_of(steps) == a * b


def test_what_is_asked_was_never_taught_either_way_round(tmp_path: Path) -> None:
    found = splits(2, 600, seed=20)
    data = load(write_dataset(found, tmp_path, seed=20))
    taught = {frozenset(map(int, re.findall(r"\d+", row.prompt[-1].content))) for row in data.rows("train")}
    watched = {frozenset(map(int, re.findall(r"\d+", row.prompt[-1].content))) for row in data.rows("validation")}
    asked = {frozenset(pair) for each in found for pair in each.asked}

    assert len(data.rows("train")) > 550
    assert asked.isdisjoint(taught)
    assert asked.isdisjoint(watched)
    assert watched.isdisjoint(taught)
    assert frozenset(multiply.EXAMPLE) not in asked | taught
    assert {each.kind: len(each.asked) for each in found} == {(1, 1): 9, (2, 1): 40, (2, 2): 40}
    assert {"Multiply 47 by 36."[:8], "Please w"} - {row.prompt[-1].content[:8] for row in data.rows("train")} == {
        "Please w"
    }


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("47*6: 282\nAnswer: 1692", 1692),
        ("Answer: 1,692.", 1692),
        ("**Answer: 1692**", 1692),
        ("Answer: 1692\nAnswer: 1692", 1692),
        ("Answer: 1692\nAnswer: 1693", None),
        ("Answer: 1692 or 1693", None),
        ("The answer would be 1692", None),
        ("1692", None),
        ("", None),
    ],
)
def test_an_answer_is_the_number_of_its_answer_line(said: str, answer: int | None) -> None:
    assert answer_of(said) == answer


def test_a_product_is_named_as_a_whole_number() -> None:
    assert named_in("47 × 36 is 1,692, I think.", 1692)
    assert not named_in("It is 16920 or 169.", 1692)


def test_more_digits_than_an_answer_holds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserMistake, match="1 to 3"):
        multiply.multiplying(tmp_path, preset=PRESETS["tiny"], digits=4, rows=50, epochs=1)


def test_the_same_questions_go_to_the_base_to_an_example_and_to_the_adapter(
    weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(multiply.ANSWERING, 1, replace(multiply.ANSWERING[1], max_tokens=2))
    adapter = write_adapter(weights, tmp_path / "adapter.gguf", seed=1, size=0.3)
    found = [replace(each, asked=each.asked[:3]) for each in splits(1, 50, seed=20)]

    scores = multiply.asked_of_all(weights, adapter, found, threads=2, say=lambda line: None)

    assert {who: len(each[0].said) for who, each in scores.items()} == {"base": 3, "base, one example": 3, "after": 3}
    assert len({scores[who][0].said for who in scores}) == 3
    assert multiply.table(scores)[0]["digits"] == "1 × 1"
