"""The figures of refusing: judged on what was not seen, by rules that can be checked by hand."""

import numpy as np
import pytest

from memory.abstention import Trial, Verdict, cross_fitted, figures, fitted_weights, folds, operating_point, rows_of


def trials(count: int, *, gap: float, chinese: bool = False) -> list[Trial]:
    """Half of the questions have a right note, whose coverage is higher by `gap`; a little noise blurs it."""
    rng = np.random.default_rng(4)
    return [
        Trial(chinese, right, 0.9 if right else 0.1, 0.5, 0.3 + gap * right + 0.05 * float(rng.normal()))
        for right in (True, False)
        for _ in range(count // 2)
    ]


def test_precision_recall_and_cost_of_refusing() -> None:
    marks = [(True, False)] * 3 + [(True, True)] + [(False, False)] + [(False, True)] * 3

    found = figures([Verdict(refused, right) for refused, right in marks])

    assert found == {
        "questions": 8,
        "to refuse": 4,
        "refusal precision": 0.75,
        "refusal recall": 0.75,
        "right notes refused": 0.25,
    }
    assert figures([Verdict(refused=False, right=True)])["refusal precision"] == "-"


def test_the_operating_point_loses_a_tenth_of_what_it_was_chosen_on() -> None:
    seen = trials(200, gap=0.1)
    weights = fitted_weights(seen)
    point = operating_point(seen, weights)

    assert sum(np.dot(each.signals, weights) < point for each in seen if each.right) == 10
    assert weights[2] > 0


def test_nothing_that_is_held_out_was_seen_in_either_asking() -> None:
    asked = [Trial(False, at % 2 == 0, at, 0.5, 0.5) for at in range(24)]
    parts = list(folds(asked))

    assert sorted(each.confidence for _, held_out in parts for each in held_out) == list(range(24))
    for seen, held_out in parts:
        assert not {each.confidence // 2 for each in seen} & {each.confidence // 2 for each in held_out}


@pytest.mark.parametrize(("gap", "least", "most"), [(0.4, 0.99, 1.0), (0.0, 0.0, 0.25)])
def test_a_question_is_judged_by_a_model_that_has_not_seen_it(gap: float, least: float, most: float) -> None:
    """Where the signals say nothing, refusing is no better than chance, which a model that knew the answers would be."""
    found = figures(cross_fitted(trials(200, gap=gap)))

    assert least <= found["refusal recall"] <= most
    assert found["right notes refused"] < 0.25


def test_languages_are_judged_apart() -> None:
    rows = rows_of("set", [*trials(20, gap=0.4), *trials(30, gap=0.4, chinese=True)])

    assert [(row["language"], row["model"], row["questions"]) for row in rows] == [
        ("English", "shipped", 20),
        ("English", "cross-fitted", 20),
        ("Chinese", "shipped", 30),
        ("Chinese", "cross-fitted", 30),
    ]
