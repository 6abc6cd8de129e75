"""The policy table: what may answer, what may train, and that silence means no."""

from dataclasses import replace

import pytest

from memory.messages import Source
from memory.provenance import ANSWERING, TRAINING, Permissions, may_answer, may_train
from tests.memory.making import taught
from tests.people import ADA, BOB, CHARLIE

NOBODY = Permissions()
RECORDED = Permissions(discord_reference="ticket 4711", discord_date="2026-02-01")
FREE = {Source.CREATOR_SURFACE, Source.CREATOR_DOCUMENT, Source.CREATOR_QA, Source.CREATOR_ARCHIVE}
CONSENTED = {Source.CHAT_EXPORT, Source.TELEGRAM_DIRECT, Source.OWN_DIRECT}


def nobody(person: str, place: str) -> bool:
    return False


def everybody(person: str, place: str) -> bool:
    return True


def asked_by_bob(source: Source):
    return replace(taught("q?", "a"), asker=BOB, question_source=source)


def test_both_tables_name_every_source() -> None:
    assert set(ANSWERING) == set(TRAINING) == set(Source)


def test_everything_but_the_twin_itself_may_answer() -> None:
    assert {source for source in Source if not may_answer(source)} == {Source.TWIN}


def test_a_source_that_no_table_names_is_refused_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(ANSWERING, Source.CREATOR_QA)
    monkeypatch.delitem(TRAINING, Source.CREATOR_QA)

    assert not may_answer(Source.CREATOR_QA)
    assert not may_train(asked_by_bob(Source.CREATOR_QA), consent=everybody, permissions=RECORDED).eligible


@pytest.mark.parametrize("source", Source)
@pytest.mark.parametrize("consent", [nobody, everybody])
@pytest.mark.parametrize("permissions", [NOBODY, RECORDED])
def test_a_half_trains_on_its_terms_and_no_other(source: Source, consent, permissions: Permissions) -> None:
    """Neither a consent nor a permission opens what asks for the other, and nothing opens the rest."""
    open_to = set(FREE)
    open_to |= CONSENTED if consent is everybody else set()
    open_to |= {Source.DISCORD_API} if permissions is RECORDED else set()

    question = may_train(asked_by_bob(source), consent=consent, permissions=permissions)
    answer = may_train(replace(taught("q?", "a"), source=source), consent=consent, permissions=permissions)

    assert question.eligible == answer.eligible == (source in open_to)
    assert question.eligible or (question.reason.startswith("question: ") and source in question.reason)
    assert answer.eligible or (answer.reason.startswith("answer: ") and source in answer.reason)


def test_consent_is_asked_of_the_one_who_wrote_it_where_it_was_written() -> None:
    exchange = replace(asked_by_bob(Source.OWN_DIRECT), source=Source.TELEGRAM_DIRECT)
    heard: list[tuple[str, str]] = []

    def consent(person: str, place: str) -> bool:
        heard.append((person, place))
        return True

    assert may_train(exchange, consent=consent).eligible
    assert heard == [(ADA.key, exchange.place.key), (BOB.key, exchange.place.key)]


def test_the_consent_of_another_opens_nothing() -> None:
    def charlie(person: str, place: str) -> bool:
        return person == CHARLIE.key

    assert not may_train(asked_by_bob(Source.OWN_DIRECT), consent=charlie).eligible


def test_a_question_by_nobody_in_particular_has_nobody_to_consent() -> None:
    exchange = replace(taught("q?", "a"), question_source=Source.CHAT_EXPORT, asker=None)

    assert not may_train(exchange, consent=everybody).eligible


def test_a_teacher_s_answer_is_memory_and_never_the_creator_s_voice() -> None:
    said = replace(asked_by_bob(Source.CREATOR_QA), author=replace(CHARLIE, role="teacher"))

    found = may_train(said, consent=everybody, permissions=RECORDED)

    assert not found.eligible
    assert "teacher" in found.reason


@pytest.mark.parametrize("half", [Permissions(discord_reference="x"), Permissions(discord_date="2026-02-01")])
def test_a_permission_needs_its_reference_and_its_date(half: Permissions) -> None:
    assert not may_train(asked_by_bob(Source.DISCORD_API), consent=everybody, permissions=half).eligible
