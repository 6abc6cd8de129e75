"""Which imitations are worth learning from, and why the others are not."""

import random
from dataclasses import replace

import pytest

from tests.memory.making import taught
from tests.trainer.imitating import community, voiced
from trainer import sift
from trainer.exemplars import Exemplars

SHOWN = [
    taught(
        "How is a rye starter fed?",
        "Aye, friend: feed the rye starter at dawn, and trust the dough, whatever it smells of.",
    ),
    taught("Is salt needed?", "Salt late, friend, and never hurry it."),
    taught("And water?", "Rain water, friend: 3 cups."),
]
BARS = sift.Bars(least_tokens=4, most_tokens=40, grounded=0.3, style=0.5, auc=0.9)
GOOD = sift.Imitation("Does rye need salt?", "Aye, friend: salt the rye starter and trust the dough.", True, SHOWN)


def against(**change: object) -> str:
    return sift.reason_against(replace(GOOD, **change), BARS)  # type: ignore[arg-type]


def test_a_good_imitation_has_nothing_against_it() -> None:
    assert against() == ""


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (" … ", "answer: empty"),
        ("Rye rye rye rye rye rye rye rye rye rye rye rye.", "answer: loops"),
        ("As an AI language model, I know rye starter and dough.", "answer: speaks as an AI, or refuses"),
        ("I'm sorry, but I can't discuss the rye starter, friend.", "answer: speaks as an AI, or refuses"),
        ("作为一个人工智能，我不能谈论面团。", "answer: speaks as an AI, or refuses"),
        ("Does rye need salt?", "answer: repeats the question"),
        ("黑麦面团要慢慢来，别着急，相信面团。", "answer: in another language"),
        ("Aye.", "answer: shorter than the creator's"),
        ("Aye, friend, the rye starter: " + "trust the dough and the salt and the rye, then " * 9, "answer: loops"),
        (
            "Salt rye starter: " + " ".join(f"dough{chr(97 + n)} salted" for n in range(20)),
            "answer: longer than the creator's",
        ),
        ("Aye, friend: write rye@example.com about rye and dough.", "answer: what looks like personal data"),
        (SHOWN[0].answer, "answer: copies what was shown"),
        (SHOWN[0].answer.upper().replace(".", "!"), "answer: copies what was shown"),
        ("Aye, friend: salt the rye starter for 45 hours.", "answer: a number that nothing shown has"),
        ("Aye: quantum computers entangle photons in vacuum chambers.", "answer: about what nothing shown is about"),
    ],
)
def test_what_is_wrong_with_an_answer_is_said(answer: str, reason: str) -> None:
    assert against(answer=answer) == reason


def test_an_answer_that_ran_into_its_limit_would_teach_to_stop_half_way() -> None:
    assert against(finished=False) == "answer: ran into its limit"


def test_most_of_the_creators_own_answers_reach_the_bars_that_they_set() -> None:
    pool, draw = community(), random.Random(9)
    near = Exemplars.of(pool).near([each.question for each in pool], pool)
    by_id = {each.id: each for each in pool}
    real = [(each, [by_id[one] for one in shown]) for each, shown in zip(pool, near, strict=True)]
    bare = [f"Certainly! Here is an overview of item {n}: it depends on several factors." for n in range(20)]

    bars, style = sift.bars_of(real, bare, most_tokens=256, seed=1)

    assert style is not None
    assert bars.auc > 0.9
    fresh = [voiced(topic, draw) for topic in ("rye", "malt", "lye", "salt") for _ in range(10)]
    assert sum(not sift.unlike(score, bars) for score in style.score(fresh)) >= 30
    assert all(sift.unlike(score, bars) for score in style.score(bare))


def test_a_measure_that_cannot_tell_the_teacher_from_the_creator_judges_nobody() -> None:
    pool = community()
    real = [(each, pool[:3]) for each in pool]

    bars, style = sift.bars_of(real, [each.answer for each in pool][:20], most_tokens=256, seed=1)

    assert (bars.style, style) == (None, None)
    assert sift.unlike(0.0, bars) == ""


def test_what_nearly_repeats_another_is_found() -> None:
    repeats, draw = sift.Repeats(), random.Random(4)
    shuffled = [draw.sample(text.split(), len(text.split())) for text in (voiced("rye", draw) for _ in range(50))]

    assert all(repeats.take(" ".join(words)) for words in shuffled)
    assert not any(repeats.take(" ".join([*words, "indeed"])) for words in shuffled)
    assert repeats.take("相信面团，别着急。")
    assert not repeats.take("相信面团，别着急！")
