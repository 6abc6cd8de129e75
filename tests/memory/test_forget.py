"""What is forgotten is gone from everywhere that memory keeps it, and nothing else is."""

from dataclasses import replace

from memory.forget import forget_person, forget_place, known_of
from memory.journal import Journal
from memory.members import Members
from memory.messages import Answer, Person, Source, name_uuid
from memory.remember import (
    answer_event,
    choice_event,
    consent_event,
    exchange_event,
    message_event,
    question_event,
    remember,
    vote_event,
)
from tests.memory.making import GROUP, said, taught
from tests.people import ADA, BOB, CHARLIE, CREATOR, NOON

ELSEWHERE = replace(GROUP, id="200", name="elsewhere")


def lived(journal: Journal) -> None:
    """Bob and Charlie asked, Ada answered both, and Bob asked the twin, agreed and voted."""
    asked = said("9", BOB, "What about rye?", minutes=30, place=ELSEWHERE)
    answer = Answer(name_uuid("a"), "9", "I do not know.", "abstained", "", (), "", "", {})
    shown = said(
        "10", Person("telegram", "twin", role="twin"), "I do not know.", minutes=31, reply_to="9", place=ELSEWHERE
    )
    from_bob = replace(taught("Bob's oven?", "Hot."), asker=BOB, question_source=Source.TELEGRAM_DIRECT)
    remember(
        journal,
        [
            *(
                message_event(each, Source.TELEGRAM_GROUP)
                for each in (
                    said("1", BOB, "How warm should the dough be?"),
                    said("2", ADA, "24 degrees.", minutes=1, reply_to="1"),
                    said("3", CHARLIE, "Which flour?", minutes=200),
                    said("4", ADA, "Strong white.", minutes=201, reply_to="3"),
                )
            ),
            message_event(asked, Source.TELEGRAM_DIRECT),
            question_event(asked, Source.TELEGRAM_DIRECT),
            answer_event(answer, asked, at=NOON),
            message_event(shown, Source.TWIN),
            vote_event(answer.id, BOB, value="bad", at=NOON),
            consent_event(BOB, GROUP, granted="yes", at=NOON),
            choice_event(BOB, "remember", value=False, at=NOON),
            exchange_event(from_bob),
            exchange_event(taught("Own?", "Yes.")),
        ],
        creator=CREATOR,
    )


def test_a_person_leaves_with_their_words_and_what_was_made_of_them(journal: Journal) -> None:
    lived(journal)
    assert {each.question for each in journal.exchanges()} >= {"How warm should the dough be?", "Bob's oven?"}

    done = forget_person(journal, BOB.key, creator=CREATOR, now=NOON)

    assert {each.question for each in journal.exchanges()} == {"Which flour?", "Own?"}
    assert journal.inbox() == []
    assert not journal.consent(BOB.key, GROUP.key)
    assert journal.message(ELSEWHERE, "10") is None
    assert known_of(journal, BOB.key) == []
    assert len(done.exchanges) == 2
    assert {each.op for each in journal.outbox(100) if each.id in done.exchanges} == {"upsert", "delete"}


def test_a_wish_not_to_be_remembered_outlives_the_forgetting(journal: Journal) -> None:
    lived(journal)

    forget_person(journal, BOB.key, creator=CREATOR, now=NOON)

    assert not Members(journal).chosen(BOB.key, "remember")


def test_forgetting_twice_finds_nothing_more(journal: Journal) -> None:
    lived(journal)
    forget_person(journal, BOB.key, creator=CREATOR, now=NOON)

    again = forget_person(journal, BOB.key, creator=CREATOR, now=NOON)

    assert (again.messages, again.exchanges, again.events) == (0, (), 0)


def test_everything_known_of_a_person_can_be_shown_to_them(journal: Journal) -> None:
    lived(journal)

    shown = known_of(journal, BOB.key)

    assert {each["what"] for each in shown} >= {"message", "question", "answer", "vote", "consent", "exchange"}
    assert "Which flour?" not in str(shown)


def test_a_question_that_others_asked_too_goes_on_in_their_words_and_can_be_answered(journal: Journal) -> None:
    """It kept the words of who was forgotten, and no answer could close it."""
    asked = [said("1", BOB, "Hi, how do I export a project?"), said("2", CHARLIE, "How to export the project?")]
    remember(journal, [question_event(each, Source.TELEGRAM_DIRECT) for each in asked], creator=CREATOR)

    forget_person(journal, BOB.key, creator=CREATOR, now=NOON)

    (item,) = journal.inbox()
    assert (item.question, item.asker, item.count) == ("How to export the project?", CHARLIE, 1)
    answer = taught(item.question, "File, Export.")
    remember(journal, [exchange_event(answer, answers=item.question_id)], creator=CREATOR)
    assert journal.inbox() == []
    assert [each.person for each in Members(journal).notices("telegram")] == [CHARLIE.key]


def test_a_place_is_purged_and_others_stay(journal: Journal) -> None:
    lived(journal)

    forget_place(journal, "telegram", ELSEWHERE.id, creator=CREATOR, now=NOON)

    assert journal.message(ELSEWHERE, "9") is None
    assert journal.inbox() == []
    assert {"How warm should the dough be?", "Which flour?"} <= {each.question for each in journal.exchanges()}
