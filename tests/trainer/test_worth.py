"""Exchanges are weighed in English and Chinese; context mends what only makes sense in its thread, where it may train."""

from dataclasses import replace
from datetime import timedelta

import pytest

from memory.messages import Exchange, Person, Place, Source
from memory.provenance import Permissions
from tests.memory.making import taught
from tests.people import BOB, CHARLIE, NOON
from trainer import context
from trainer.harvest import choose
from trainer.worth import LEAST, worth, worths

ROOM = Place("telegram", "100", "7")


def heard(question: str, answer: str, *, minutes: float = 0, asker: Person = BOB, place: Place = ROOM) -> Exchange:
    return replace(
        taught(question, answer, days=minutes),
        asker=asker,
        place=place,
        at=NOON + timedelta(minutes=minutes),
        pairing="near",
        question_source=Source.TELEGRAM_DIRECT,
    )


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        ("How long does rye proof at 20 degrees?", "No idea, honestly.", "answer: does not answer"),
        ("How long does rye proof at 20 degrees?", "https://example.org/rye", "answer: does not answer"),
        ("How long does rye proof at 20 degrees?", "hahaha :joy:", "answer: does not answer"),
        ("How long does rye proof at 20 degrees?", "Which flour are you using?", "answer: asks back"),
        ("How long does rye proof at 20 degrees?", "Hang on, let me check.", "answer: only puts off"),
        (
            "How long does rye proof at 20 degrees?",
            "看面团的温度，一般要两个小时。",
            "answer: in another script than the question",
        ),
        ("And why is that?", "That comes from the salt, see above.", "answer: only makes sense in its thread"),
        ("You idiot, why is my rye flat?", "It proofed for too long in a warm kitchen.", "question: insults"),
        ("黑麦面团二十度要发酵多久？", "不知道哈。", "answer: does not answer"),
        ("黑麦面团二十度要发酵多久？", "你说的是哪个配方？", "answer: asks back"),
        ("那为什么呢？", "如上，就是这样的。", "answer: only makes sense in its thread"),
        ("傻逼，为什么面包不发？", "温度太低了，放到暖和的地方再等两小时。", "question: insults"),
    ],
)
def test_what_teaches_little_is_below_the_threshold(question: str, answer: str, reason: str) -> None:
    found = worth(heard(question, answer))

    assert found.score < LEAST
    assert reason in found.reasons


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Does rye need kneading?", "No."),
        ("How many degrees for the second proof?", "26"),
        ("How do I slice warm bread?", "I don't know why anybody would: wait an hour, then use a serrated knife."),
        ("My loaf is flat, what now?", "Why not proof it for less time, say two hours?"),
        ("I feel like an idiot, why is my rye flat?", "It proofed for too long in a warm kitchen."),
        ("What does `fold` do in your notes?", "It is `stretch` and then `turn`, four times."),
        ("黑麦要揉吗？", "不用。"),
        ("老干妈能配面包吗？", "能啊，我早上就这么吃，烤一下更好。"),
        ("您用的是什么面粉？", "King Arthur"),
    ],
)
def test_what_answers_is_kept(question: str, answer: str) -> None:
    assert worth(heard(question, answer)).score >= LEAST


def test_an_answer_that_the_creator_replaced_is_worth_little() -> None:
    old = heard("How much salt for the dough?", "Two per cent of the flour.")
    again = heard("How much salt for the dough?", "Two per cent, as I said, of the flour.", minutes=30)
    new = heard("How much salt for the dough?", "I went down to 1.8 per cent.", minutes=9 * 24 * 60, asker=CHARLIE)

    assert "answer: replaced by a later one" not in worths([old, again])[old.id].reasons
    found = worths([old, again, new])
    assert (found[old.id].worst, found[old.id].score < LEAST) == ("answer: replaced by a later one", True)
    assert found[new.id].score >= LEAST


def harvested(*exchanges: Exchange, consenting: Person = BOB) -> dict[str, Exchange | None]:
    found = choose(
        exchanges,
        consent=lambda person, place: person == consenting.key,
        permissions=Permissions(),
    )
    return {each.question: found.kept[each.id].before for each in found.exchanges}


def test_what_only_makes_sense_in_its_thread_is_read_after_the_words_before_it() -> None:
    first = heard("Should I proof rye in the fridge?", "Yes, twelve hours at four degrees.")
    second = heard("And why is that?", "It gives the acids the time they need.", minutes=5)

    assert harvested(first, second)[second.question] == first
    assert worth(second).score < LEAST


def test_words_that_may_not_train_are_no_context_either() -> None:
    first = heard("Should I proof rye in the fridge?", "Yes, twelve hours at four degrees.", asker=CHARLIE)
    second = heard("And why is that?", "It gives the acids the time they need.", minutes=5)

    assert harvested(first, second) == {}


@pytest.mark.parametrize("change", [{"minutes": 5, "place": Place("telegram", "200", "7")}, {"minutes": 2000}])
def test_another_conversation_is_no_context(change: dict[str, object]) -> None:
    first = heard("Should I proof rye in the fridge?", "Yes, twelve hours at four degrees.")
    second = heard("And why is that?", "It gives the acids the time they need.", **change)  # type: ignore[arg-type]

    assert context.before([second], [first, second]) == {}
