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

    assert {each.id for _, each in journal.found([OLD.id]).alike} == {OLD.id, NEW.id}
    assert {each.id for each in journal.answers_to(question_form(NEW))} == {OLD.id, NEW.id}
    assert journal.found(["gone"]).alike == []


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

    assert {each.id for _, each in journal.found([NEW.id]).alike} == {OLD.id, NEW.id}
    journal.close()


def row(
    answer: str, *, days: float, file: str = "qa.jsonl", question: str = "My starter is flat. What now?"
) -> Exchange:
    """A row of an imported archive."""
    pair = taught(question, answer, days=days)
    return replace(pair, source=Source.CREATOR_QA, place=replace(pair.place, platform="import", name=file))


def test_an_answer_in_several_rows_of_an_archive_replaces_no_part_of_itself() -> None:
    first, second = row("Feed it.", days=0), row("And keep it warm.", days=0.01)

    found = standing([first, second])

    assert (found.speaks, found.parts, found.answers, found.replaced) == (second, (first,), 1, None)
    assert {found.state(each) for each in (first, second)} == {"speaks"}


def test_a_later_answer_one_of_another_file_and_what_was_taught_replace_all_the_same() -> None:
    first, live = row("Feed it.", days=0), taught("My starter is flat. What now?", "Throw it away.", days=0.01)
    later, elsewhere = row("Wait.", days=30), row("Wait.", days=0.01, file="new.jsonl")
    reworded = row("Wait.", days=0.01, question="my starter is flat, what now")

    for newer in (live, later, elsewhere, reworded):
        assert (standing([first, newer]).parts, standing([first, newer]).replaced) == ((), first.at)
