"""Choices, listening, cards and notices come from events alone, in whatever order they arrive."""

from datetime import datetime, timedelta

from memory.journal import Journal
from memory.members import Members
from memory.messages import Person, Place, Source
from memory.remember import (
    card_event,
    choice_event,
    exchange_event,
    listening_event,
    notice_event,
    question_event,
    remember,
    report_event,
)
from tests.memory.making import GROUP, said, taught
from tests.people import ADA, BOB, CHARLIE, CREATOR, NOON

DAN = Person("discord", "40", "Dan")
LATER = NOON + timedelta(hours=1)


def test_the_later_choice_stands_whatever_arrives_first(journal: Journal) -> None:
    for event in (
        choice_event(BOB, "direct", value=True, at=LATER),
        choice_event(BOB, "direct", value=False, at=NOON),
    ):
        remember(journal, [event], creator=CREATOR)

    assert Members(journal).chosen(BOB.key, "direct")
    assert not Members(journal).chosen(CHARLIE.key, "direct")
    assert Members(journal).chosen(CHARLIE.key, "remember")


def test_listening_is_off_until_an_admin_says_so(journal: Journal) -> None:
    members = Members(journal)
    assert not members.listening(GROUP.key)

    remember(journal, [listening_event(GROUP, ADA, on=True, space="s", at=NOON)], creator=CREATOR)
    assert members.listening(GROUP.key)
    assert members.places("telegram") == [(GROUP, "s")]

    remember(journal, [listening_event(GROUP, ADA, on=False, space="s", at=LATER)], creator=CREATOR)
    assert members.places("telegram") == []


def test_everybody_who_asked_is_told_once(journal: Journal) -> None:
    members = Members(journal)
    asked = [said(str(n), person, "What about rye?", minutes=n) for n, person in enumerate((BOB, CHARLIE))]
    questions = [question_event(each, Source.TELEGRAM_DIRECT) for each in asked]
    remember(journal, questions, creator=CREATOR)
    remember(
        journal, [exchange_event(taught("What about rye?", "Later."), answers=questions[0].message_id)], creator=CREATOR
    )

    waiting = members.notices("telegram")
    assert [(each.person, each.message_id, each.answer) for each in waiting] == [
        (BOB.key, "0", "Later."),
        (CHARLIE.key, "1", "Later."),
    ]

    remember(journal, [notice_event(waiting[0].question_id, "telegram", at=NOON)], creator=CREATOR)
    assert [each.person for each in members.notices("telegram")] == [CHARLIE.key]


def test_who_asked_in_other_words_elsewhere_is_told_there_in_their_own(journal: Journal) -> None:
    here = said("0", BOB, "How do I export the project?")
    there = said("7", DAN, "hi, how to export a project", place=Place("discord", "200"))
    for asked in (here, there):
        remember(journal, [question_event(asked, Source.DISCORD_API)], creator=CREATOR)
    (item,) = journal.inbox()
    answer = taught(item.question, "File, Export.")
    remember(journal, [exchange_event(answer, answers=item.question_id)], creator=CREATOR)

    told = [Members(journal).notices(platform) for platform in ("telegram", "discord")]

    assert item.count == 2
    assert [(each.person, each.place, each.message_id, each.question) for (each,) in told] == [
        (asked.person.key, asked.place, asked.id, asked.text) for asked in (here, there)
    ]


def test_a_card_is_due_until_it_shows_how_its_question_stands(journal: Journal) -> None:
    members = Members(journal)

    def due() -> list[tuple[int, str, int, str]]:
        found = members.due_cards("telegram")
        return [(item.number, item.state, item.count, card.message_id if card else "") for item, card in found]

    def show(message_id: str, at: datetime) -> None:
        events = [
            card_event(item, place=GROUP, message_id=message_id, at=at) for item, _ in members.due_cards("telegram")
        ]
        remember(journal, events, creator=CREATOR)

    questions = [
        question_event(said(str(n), person, "What about rye?", minutes=n), Source.TELEGRAM_DIRECT)
        for n, person in enumerate((BOB, CHARLIE))
    ]
    remember(journal, questions[:1], creator=CREATOR)
    assert due() == [(1, "open", 1, "")]
    show("5", NOON)
    assert due() == []

    remember(journal, questions[1:], creator=CREATOR)
    assert due() == [(1, "open", 2, "5")]
    show("6", LATER)
    answer = exchange_event(taught("What about rye?", "Later."), answers=questions[0].message_id)
    remember(journal, [answer], creator=CREATOR)
    assert due() == [(1, "answered", 2, "6")]
    assert members.due_cards("discord") == []


def test_a_report_is_shown_to_the_creator_once(journal: Journal) -> None:
    members = Members(journal)
    remember(journal, [report_event("answer", BOB, reason="wrong", at=NOON)], creator=CREATOR)
    (report,) = members.reports("telegram")
    assert (report.answer, report.reason) == ("answer", "wrong")

    remember(journal, [notice_event(report.id, "telegram", at=NOON)], creator=CREATOR)

    assert members.reports("telegram") == []
