"""Pairing by the strongest evidence first; the labelled conversations measure it, these pin single rules."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory.exchanges import pair
from memory.messages import Message
from memory.pairing_score import SPLITS, Split, compare, labelled, links_of
from memory.wording import agrees, is_talk
from tests.memory.making import said
from tests.people import ADA, BOB, CHARLIE, CREATOR


def pairs(*messages: Message) -> list[tuple[str, str]]:
    return [(exchange.question, exchange.answer) for exchange in pair(messages, creator=CREATOR)]


@pytest.mark.parametrize("split", SPLITS)
def test_ours_is_clearly_ahead_of_the_five_minute_window(split: Split) -> None:
    ours, peers = [each for each in compare() if each.cases == split]

    assert ours.precision > max(0.8, peers.precision + 0.2)
    assert ours.recall > max(0.8, peers.recall + 0.2)


def test_a_reply_wins_over_nearness_however_late() -> None:
    found = pair(
        [
            said("1", BOB, "How warm?"),
            said("2", CHARLIE, "How salty?", minutes=2000),
            said("3", ADA, "24 °C.", minutes=2001, reply_to="1"),
        ],
        creator=CREATOR,
    )

    assert [(each.question, each.answer, each.pairing) for each in found] == [("How warm?", "24 °C.", "reply")]


def test_an_answer_in_pieces_is_one_answer() -> None:
    assert pairs(
        said("1", BOB, "How warm?"), said("2", ADA, "24 °C.", minutes=1), said("3", ADA, "Not more.", minutes=2)
    ) == [("How warm?", "24 °C.\nNot more.")]


def test_a_question_back_is_no_answer_and_what_is_said_to_it_belongs_to_the_question() -> None:
    assert pairs(
        said("1", BOB, "Why is it flat?"),
        said("2", ADA, "How long was bulk?", minutes=1),
        said("3", BOB, "nine hours", minutes=2),
        said("4", ADA, "Too long by four.", minutes=3),
    ) == [("Why is it flat?\nnine hours", "Too long by four.")]


def test_thanks_and_laughter_are_neither() -> None:
    assert pairs(said("1", BOB, "thanks!"), said("2", ADA, "you're welcome", minutes=1)) == []
    assert is_talk("谢谢！")
    assert not is_talk("How warm, thanks?")


def test_the_same_answer_keeps_its_identity_when_it_is_edited() -> None:
    before = pair([said("1", BOB, "How warm?"), said("2", ADA, "24.", minutes=1)], creator=CREATOR)
    after = pair([said("1", BOB, "How warm?"), said("2", ADA, "25.", minutes=1, revision=1)], creator=CREATOR)

    assert [each.id for each in before] == [each.id for each in after]


@given(st.data())
def test_the_order_in_which_messages_are_given_makes_no_difference(data: st.DataObject) -> None:
    conversation = data.draw(st.sampled_from(list(labelled("tuned"))))
    shuffled = data.draw(st.permutations(conversation.messages))
    creator = frozenset({"case:W"})

    assert links_of(pair(shuffled, creator=creator)) == links_of(pair(conversation.messages, creator=creator))


def test_what_was_said_longer_ago_than_the_window_changes_nothing() -> None:
    """All labelled conversations, a day apart in one place, pair as they do one by one."""
    creator, one_by_one, together = frozenset({"case:W"}), set(), []
    for number, conversation in enumerate(labelled("tuned")):
        moved = [
            replace(
                message,
                id=f"{number}-{message.id}",
                reply_to=f"{number}-{message.reply_to}" if message.reply_to else None,
                place=replace(message.place, id="one"),
            )
            for message in conversation.messages
        ]
        one_by_one |= links_of(pair(moved, creator=creator))
        together += moved

    assert links_of(pair(together, creator=creator)) == one_by_one


def test_a_yes_answers_what_can_be_answered_so_and_nothing_else() -> None:
    assert pairs(said("1", BOB, "Can I freeze it?"), said("2", ADA, "Yes.", minutes=1)) == [
        ("Can I freeze it?", "Yes.")
    ]
    assert pairs(said("1", BOB, "How warm?"), said("2", ADA, "Yes.", minutes=1)) == []


@pytest.mark.parametrize("text", ["Nothing beats rye.", "Now add salt.", "Normally 24.", "Surely", "Yesterday at noon"])
def test_a_word_that_only_begins_like_yes_or_no_is_neither(text: str) -> None:
    assert not agrees(text)


@pytest.mark.parametrize("text", ["No.", "Yes, 24.", "Not yet.", "it can't", "you cannot", "是的", "不会的"])
def test_yes_and_no_are_told(text: str) -> None:
    assert agrees(text)


def test_a_promise_is_no_answer_and_what_another_settled_waits_no_more() -> None:
    assert pairs(said("1", BOB, "How warm?"), said("2", ADA, "let me check", minutes=1)) == []
    assert (
        pairs(
            said("1", BOB, "How warm?"),
            said("2", CHARLIE, "24", minutes=1),
            said("3", BOB, "thanks Charlie", minutes=2),
            said("4", ADA, "The oven is broken again.", minutes=9),
        )
        == []
    )


def test_a_question_asked_while_the_creator_was_typing_is_not_what_they_answer() -> None:
    found = pairs(
        said("1", BOB, "How salty should it be?"),
        said("2", CHARLIE, "Is it open today?", minutes=1.9),
        said("3", ADA, "Two percent of the weight of all the flour.", minutes=2),
    )

    assert found == [("How salty should it be?", "Two percent of the weight of all the flour.")]
