"""Measures of answers, on examples that can be worked out by hand."""

import pytest

from trainer.metrics import (
    groundedness,
    learned_runs,
    paired_bootstrap,
    rouge_l,
    rouge_n,
    unhealthy,
    units,
    verbatim,
)
from trainer.style import learn


def test_units_are_words_and_single_characters() -> None:
    assert units("The dough, 24 °C: 面团hot") == ["the", "dough", "24", "c", "面", "团", "hot"]


@pytest.mark.parametrize(
    ("answer", "reference", "one", "two", "longest"),
    [
        ("the dough is warm", "the dough is warm", 1.0, 1.0, 1.0),
        ("warm is the dough", "the dough is warm", 1.0, 1 / 3, 0.5),
        ("cold", "the dough is warm", 0.0, 0.0, 0.0),
        ("", "the dough", 0.0, 0.0, 0.0),
        ("面团要热", "面团很热", 0.75, 1 / 3, 0.75),
    ],
)
def test_rouge(answer: str, reference: str, one: float, two: float, longest: float) -> None:
    assert rouge_n(answer, reference, 1) == pytest.approx(one)
    assert rouge_n(answer, reference, 2) == pytest.approx(two)
    assert rouge_l(answer, reference) == pytest.approx(longest)


@pytest.mark.parametrize(
    ("answer", "finished", "ill"),
    [
        ("Keep it at 24 °C and wait.", True, 0),
        ("", True, 1),
        ("and the dough is warm " * 5, True, 1),
        ("A fine answer that never", False, 1),
        ("很好很好很好很好很好很好很好", True, 1),
    ],
)
def test_health(answer: str, finished: bool, ill: int) -> None:
    assert unhealthy(answer, finished=finished) == ill


def test_copying_counts_only_what_was_not_handed_over() -> None:
    secret = "the oven was bought in morpeth for four hundred pounds in nineteen eighty seven"
    learned = learned_runs([secret])

    assert verbatim(secret, learned, allowed="") == 1.0
    assert verbatim(secret, learned, allowed=secret) == 0.0
    assert verbatim("a short answer", learned, allowed="") == 0.0


def test_groundedness_counts_numbers_and_content() -> None:
    assert groundedness("Warm dough: 24 °C.", "The dough should be warm, 24 °C.") == 1.0
    assert groundedness("Warm dough: 30 °C.", "The dough should be warm, 24 °C.") < 1.0
    assert groundedness("", "anything") == 1.0


def test_the_interval_of_a_clear_difference_excludes_zero_and_of_noise_does_not() -> None:
    old = [1.0 + (n % 5) / 10 for n in range(40)]
    clear = paired_bootstrap([value - 0.5 for value in old], old, seed=1)
    noise = paired_bootstrap([value + (0.1 if n % 2 else -0.1) for n, value in enumerate(old)], old, seed=1)

    assert (clear.mean, clear.high < 0) == (pytest.approx(-0.5), True)
    assert noise.low < 0 < noise.high
    assert paired_bootstrap(old, old, seed=1) == paired_bootstrap(old, old, seed=1)


def test_style_tells_two_voices_apart_and_says_when_it_cannot() -> None:
    dry = [f"Right. {n} minutes, friend. Trust the dough." for n in range(30)]
    bland = [f"I would recommend approximately {n} minutes for best results!" for n in range(30)]

    clear, blind = learn(dry, bland, seed=1), learn(dry[:15] + bland[:15], dry[15:] + bland[15:], seed=1)

    assert clear.auc > 0.95
    assert clear.score(["Right. Trust it, friend."])[0] > clear.score(["I would recommend results!"])[0]
    assert blind.auc < 0.7
