"""Of several answers to one question the creator's newest speaks; the others stay, dated, and askers are counted once."""

from dataclasses import replace
from itertools import permutations

import sqlalchemy as sa

from infra.database import connect, migrate, writing
from memory.codec import dumps, encoded
from memory.journal import Journal
from memory.messages import Exchange, Person, Source
from memory.migrations import MIGRATIONS, m010_questions_of_exchanges
from memory.remember import exchange_event, question_event, remember
from memory.standing import question_form, standing
from tests.memory.making import said, taught
from tests.people import BOB, CHARLIE, CREATOR

TEACHER = Person("telegram", "9", "Tom", role="teacher")
OLD = taught("How warm should the dough be?", "22 °C.")
NEW = taught("how warm should my dough be", "24 °C.", days=9)


def by(teacher: Person, exchange: Exchange) -> Exchange:
    return replace(exchange, author=teacher)


def test_the_newest_answer_speaks_and_says_when_it_replaced_another_whatever_comes_first() -> None:
    again = taught("How warm should the dough be?", "24°c", days=5)

    for order in permutations([OLD, again, NEW]):
        found = standing(order)
        assert (found.speaks, found.others, found.replaced) == (NEW, (again, OLD), OLD.at)
        assert [found.state(each) for each in (NEW, again, OLD)] == ["speaks", "said again", "replaced"]


def test_what_was_always_said_replaces_nothing() -> None:
    assert standing([OLD, taught("How warm should the dough be?", "22 °c", days=3)]).replaced is None


def test_a_teacher_speaks_only_where_the_creator_does_not() -> None:
    later = by(TEACHER, taught("How warm should the dough be?", "30 °C.", days=99))

    assert standing([later, OLD]).speaks == OLD
    assert standing([later, OLD]).replaced is None
    assert standing([later, OLD]).state(later) == "a teacher's"
    assert standing([later]).speaks == later


def test_what_was_overheard_and_names_nothing_is_a_question_of_its_own() -> None:
    why = taught("And why?", "Because it is cold.")
    overheard = replace(why, pairing="near")

    assert question_form(overheard) == why.id
    assert question_form(why) == question_form(taught("and why", "Just so."))


def test_every_answer_to_a_question_is_found_from_any_of_them(journal: Journal) -> None:
    other = taught("How cold is the fridge?", "4 °C.")
    remember(journal, [exchange_event(each) for each in (OLD, NEW, other)], creator=CREATOR)

    assert {each.id for _, each in journal.alike([OLD.id])} == {OLD.id, NEW.id}
    assert {each.id for each in journal.answers_to(question_form(NEW))} == {OLD.id, NEW.id}
    assert journal.alike(["gone"]) == []


def test_people_are_counted_once_whether_they_were_answered_or_waited(journal: Journal) -> None:
    asked = [
        question_event(said(str(number), person, "How warm should the dough be?"), Source.OWN_DIRECT)
        for number, person in enumerate([BOB, BOB, CHARLIE])
    ]
    remember(journal, [*asked, exchange_event(replace(NEW, asker=BOB))], creator=CREATOR)
    form = question_form(NEW)

    assert journal.waited([form, "another"]) == {form: {BOB.key, CHARLIE.key}}
    assert standing(journal.answers_to(form), journal.waited([form])[form]).askers == 2


def test_exchanges_of_an_older_journal_learn_which_question_they_answer(journal_url: str) -> None:
    engine = connect(journal_url)
    migrate(engine, "journal", MIGRATIONS[: MIGRATIONS.index(m010_questions_of_exchanges)])
    with writing(engine) as connection:
        connection.execute(
            sa.text(
                "INSERT INTO exchanges (id, place_key, at, pairing, community, payload) "
                "VALUES (:id, 'p', '2026', 'given', 'main', :payload)"
            ),
            {"id": OLD.id, "payload": dumps(encoded(OLD))},
        )
    engine.dispose()
    journal = Journal.open(journal_url)

    remember(journal, [exchange_event(NEW)], creator=CREATOR)

    assert {each.id for _, each in journal.alike([NEW.id])} == {OLD.id, NEW.id}
    journal.close()
