"""The gate: a good card passes, every rule can refuse alone and in words, and doubt refuses."""

import math
from dataclasses import replace

import pytest

from trainer.card import MEASURES, EvalCard, Interval, Item, System, from_json, to_json
from trainer.evalcard import page
from trainer.gate import Verdict, decide

GOOD = {
    "nll": 2.0,
    "rouge_1": 0.4,
    "rouge_2": 0.2,
    "rouge_l": 0.3,
    "similarity": 0.7,
    "style": 0.9,
    "groundedness": 0.6,
    "verbatim": 0.0,
    "unhealthy": 0.0,
}
STILL = Interval(0.0, -0.01, 0.01)


def system(name: str, ability: float = 0.5, **changed: float) -> System:
    return System(name, [Item("Warm, friend.", {**GOOD, **changed}) for _ in range(20)], ability)


def card(candidate: System | None = None, *, against: dict[str, Interval] | None = None, **changed) -> EvalCard:
    """A card that passes, but for what is said."""
    base = {**dict.fromkeys(MEASURES, STILL), "nll": Interval(-0.8, -1.0, -0.6), **(against or {})}
    whole = EvalCard(
        questions=["How warm?"] * 20,
        references=["24 °C."] * 20,
        candidate=candidate or system("candidate"),
        base=system("base"),
        current=None,
        against={"base": base},
        style_auc=0.99,
        seed=1,
        wall_s=1.0,
        dataset="d",
        facts={"train": 100, "base_sha256": "0" * 64},
    )
    return replace(whole, **changed)


def test_a_good_card_passes() -> None:
    assert decide(card()) == Verdict(passed=True, reasons=())


WORSE = Interval(-0.3, -0.4, -0.2)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (
            card(against={"nll": Interval(-0.1, -0.3, 0.1)}),
            "not better than base + memory: NLL -0.100 [-0.300, +0.100]",
        ),
        (card(against={"style": WORSE}), "Style is further from the creator"),
        (card(against={"similarity": WORSE}), "Meaning is further"),
        (card(against={"rouge_l": WORSE}), "Wording is further"),
        (card(against={"groundedness": WORSE}), "keep less to their notes"),
        (card(system("candidate", unhealthy=0.2)), "20% of the answers loop"),
        (card(system("candidate", verbatim=0.2)), "20.0% of what it says is copied"),
        (card(system("candidate", ability=0.1)), "General ability fell by 40%"),
        (
            card(
                questions=["q"] * 5,
                candidate=replace(system("candidate"), items=system("candidate").items[:5]),
                base=replace(system("base"), items=system("base").items[:5]),
            ),
            "Held-out exchanges: 5, at least 12",
        ),
        (
            card(
                current=system("current"),
                against={},
            ),
            "difference of 'nll' to 'current' is missing",
        ),
        (card(system("candidate", nll=math.nan)), "'nll' of 'candidate' is missing or not a number"),
        (card(style_auc=math.nan), "not a number"),
        (card(questions=[]), "Nothing was held out"),
    ],
)
def test_every_rule_refuses_alone_and_in_words(bad: EvalCard, said: str) -> None:
    verdict = decide(bad)

    assert not verdict.passed
    assert said in verdict.reasons[0]
    assert len(verdict.reasons) == 1 or "missing" in said


def test_a_voice_worse_than_the_current_one_is_refused() -> None:
    good = card(current=system("current"))
    worse = {**dict.fromkeys(MEASURES, STILL), "nll": Interval(0.3, 0.2, 0.4)}

    verdict = decide(replace(good, against={**good.against, "current": worse}))

    assert verdict.reasons == ("Likelihood is worse than the current voice's: NLL +0.300 [+0.200, +0.400].",)


def test_broken_answers_pass_only_when_they_are_clearly_fewer_than_before() -> None:
    ill = system("candidate", unhealthy=0.2)

    assert decide(card(ill, against={"unhealthy": Interval(-0.3, -0.4, -0.2)})).passed
    assert not decide(card(ill, against={"unhealthy": Interval(-0.1, -0.3, 0.1)})).passed


def test_style_that_measures_nothing_refuses_nobody() -> None:
    assert decide(card(against={"style": WORSE}, style_auc=0.6)).passed


def test_a_card_survives_json() -> None:
    whole = card(current=system("current"))

    assert from_json(to_json(whole)) == whole


def test_the_page_shows_words_as_words_and_asks_nobody_for_anything() -> None:
    attack = "<script>alert(1)</script>"
    html = page(card(system("candidate")), Verdict(passed=False, reasons=(attack,)))

    assert attack not in html
    assert "&lt;script&gt;" in html
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert "https://" not in html


def test_the_page_shows_the_same_questions_before_and_after() -> None:
    asked = {"id": "en-25", "language": "en", "group": "comparing", "question": "Which is larger, 9.9 or 9.11?"}
    answers = {"before": "9.11", "after": "9.9 <b>", "before_right": False, "after_right": True}
    whole = card(sheet=[{**asked, **answers}])

    found = page(whole, decide(whole))

    assert "The same questions before and after" in found
    assert "9.9 &lt;b&gt;" in found
    assert "comparing, en" in found
    assert from_json(to_json(whole)) == whole
    assert "The same questions" not in page(card(), decide(card()))
