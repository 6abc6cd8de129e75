"""What a teacher is shown: near in topic, and never the answer."""

from dataclasses import replace

from tests.memory.making import taught
from tests.trainer.imitating import community
from trainer.dataset import NEARLY, closeness, folded
from trainer.exemplars import Exemplars

POOL = community()


def test_what_is_shown_is_near_and_never_gives_the_answer_away() -> None:
    exemplars = Exemplars.of(POOL)
    by_id = {each.id: each for each in POOL}

    chosen = exemplars.near([each.question for each in POOL], POOL)

    for origin, shown in zip(POOL, chosen, strict=True):
        assert len(shown) == 3
        assert origin.id not in shown
        others = [by_id[each] for each in shown]
        assert max(closeness([folded(origin.question)], [folded(each.question) for each in others])) < NEARLY + 0.1
        assert origin.answer not in {each.answer for each in others}


def test_what_is_shown_is_about_the_same() -> None:
    (shown,) = Exemplars.of(POOL).near(["My rye starter smells of pears, shall I bin it?"], [None])

    first = next(each for each in POOL if each.id == shown[0])
    assert "rye starter" in first.question


def test_neither_an_exchange_that_asks_the_same_nor_one_that_answers_the_same_is_shown() -> None:
    own = POOL[0]
    same_question = taught(own.question.replace("?", ", please?"), "Something else altogether, says nobody.")
    same_answer = taught("What would your grandmother whisper about it?", own.answer.replace("friend", "friends"))
    pool = [*POOL[:12], same_question, same_answer]

    (shown,) = Exemplars.of(pool).near([own.question], [own], count=20)

    assert {own.id, same_question.id, same_answer.id}.isdisjoint(shown)
    assert len(shown) > 5


def test_a_question_that_was_made_of_nothing_is_not_answered_by_what_is_shown() -> None:
    (shown,) = Exemplars.of(POOL).near([POOL[0].question], [None], count=99)

    assert POOL[0].id not in shown


def test_the_same_answer_is_shown_once() -> None:
    twins = [taught(f"{word} what about it all?", "Same.") for word in ("Rye", "Oats", "Barley")]
    (shown,) = Exemplars.of([*twins, replace(POOL[0], id="x")]).near(["Spelt?"], [None], count=9)

    assert len(shown) == 2
