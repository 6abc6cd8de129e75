"""The one write: derived memory depends on the set of events, never on their order, number or repetition."""

import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.errors import ServiceTrouble
from memory.journal import Journal
from memory.messages import Answer, Event, Kind, Note, Person, Source
from memory.remember import (
    answer_event,
    consent_event,
    deletion_event,
    dismissal_event,
    document_event,
    exchange_event,
    message_event,
    passage_event,
    question_event,
    remember,
    vote_event,
)
from tests.memory.making import GROUP, piece, said, taught
from tests.people import ADA, BOB, CREATOR, NOON

ASKED = said("1", BOB, "How warm should the dough be?")
ANSWERED = said("2", ADA, "24 °C.", minutes=1, reply_to="1")
EDITED = said("2", ADA, "25 °C, in fact.", minutes=1, reply_to="1", revision=1)


def message(value, source: Source = Source.TELEGRAM_GROUP) -> Event:
    return message_event(value, source)


def deleted(identity: str) -> Event:
    return deletion_event(GROUP, identity, by=BOB, source=Source.TELEGRAM_GROUP, at=NOON)


def known(journal: Journal) -> list[tuple[str, str]]:
    return [(exchange.question, exchange.answer) for exchange in journal.exchanges()]


def test_an_answer_becomes_an_exchange_with_its_provenance(journal: Journal) -> None:
    remember(journal, [message(ASKED, Source.TELEGRAM_DIRECT), message(ANSWERED)], creator=CREATOR)

    (exchange,) = journal.exchanges()
    assert (exchange.question, exchange.answer) == ("How warm should the dough be?", "24 °C.")
    assert (exchange.question_source, exchange.source) == (Source.TELEGRAM_DIRECT, Source.TELEGRAM_GROUP)
    assert (exchange.asker, exchange.author, exchange.pairing) == (BOB, ADA, "reply")
    assert [(item.op, item.id) for item in journal.outbox(10)] == [("upsert", exchange.id)]


def test_repeating_changes_nothing(journal: Journal) -> None:
    events = [message(ASKED), message(ANSWERED)]
    remember(journal, events, creator=CREATOR)
    before = (known(journal), journal.outbox(10))

    receipt = remember(journal, events, creator=CREATOR)

    assert (receipt.appended, receipt.duplicates) == (0, 2)
    assert (known(journal), journal.outbox(10)) == before


def test_a_duplicate_with_other_words_is_not_believed(journal: Journal) -> None:
    remember(journal, [message(ASKED), message(ANSWERED)], creator=CREATOR)

    remember(journal, [message(said("2", ADA, "99 °C.", minutes=1, reply_to="1"))], creator=CREATOR)

    assert known(journal) == [("How warm should the dough be?", "24 °C.")]


def test_an_edit_changes_the_exchange_and_not_its_identity(journal: Journal) -> None:
    remember(journal, [message(ASKED), message(ANSWERED)], creator=CREATOR)
    (before,) = journal.exchanges()

    remember(journal, [message(EDITED)], creator=CREATOR)

    (after,) = journal.exchanges()
    assert (after.id, after.answer) == (before.id, "25 °C, in fact.")


@pytest.mark.parametrize("gone", ["1", "2"])
def test_deleting_either_half_removes_the_exchange(journal: Journal, gone: str) -> None:
    remember(journal, [message(ASKED), message(ANSWERED)], creator=CREATOR)

    remember(journal, [deleted(gone)], creator=CREATOR)

    assert known(journal) == []
    assert journal.outbox(10)[-1].op == "delete"


EVERYTHING = [
    message(ASKED),
    message(ANSWERED),
    message(EDITED),
    message(said("3", BOB, "And for rye?", minutes=600)),
    message(said("4", ADA, "A little warmer.", minutes=610)),
    deleted("3"),
    message(said("5", BOB, "面团要多热？", minutes=2000)),
    message(said("6", ADA, "24 度。", minutes=2400, reply_to="5")),
]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations([*EVERYTHING, *EVERYTHING[:3]]), st.integers(1, 4))
def test_any_order_and_repetition_derives_the_same(tmp_path_factory, events: list[Event], size: int) -> None:
    journal = Journal.open(f"sqlite:///{tmp_path_factory.mktemp('order') / 'j.db'}")

    for start in range(0, len(events), size):
        remember(journal, events[start : start + size], creator=CREATOR)

    assert known(journal) == [("How warm should the dough be?", "25 °C, in fact."), ("面团要多热？", "24 度。")]
    journal.close()


@pytest.mark.parametrize("text", ["nul \x00 here", "lone \ud800 surrogate", "🥖" * 10, "字" * 100_000, "x" * 1_000_000])
def test_any_text_is_kept_or_made_storable(journal: Journal, text: str) -> None:
    remember(journal, [exchange_event(taught("q?", text))], creator=CREATOR)

    (exchange,) = journal.exchanges()
    assert exchange.answer == text.replace("\x00", "\ufffd").replace("\ud800", "\ufffd")


def test_the_inbox_merges_the_same_question_and_closes_with_its_answer(journal: Journal) -> None:
    first = question_event(said("1", BOB, "How  warm, please?"), Source.OWN_DIRECT)
    second = question_event(said("2", BOB, "how warm please"), Source.OWN_DIRECT)
    remember(journal, [first, second, second], creator=CREATOR)
    (item,) = journal.inbox()
    assert (item.count, item.question, item.asker) == (2, "How  warm, please?", BOB)

    remember(journal, [exchange_event(taught("How warm?", "24 °C."), answers=item.question_id)], creator=CREATOR)

    assert journal.inbox() == []
    assert journal.inbox(state="answered")[0].exchange_id == next(journal.exchanges()).id


def test_a_dismissed_question_leaves_and_may_come_back(journal: Journal) -> None:
    remember(journal, [question_event(said("1", BOB, "How warm?"), Source.OWN_DIRECT)], creator=CREATOR)
    (item,) = journal.inbox()

    remember(journal, [dismissal_event(item.question_id, ADA, at=NOON)], creator=CREATOR)
    remember(journal, [question_event(said("2", BOB, "How warm?"), Source.OWN_DIRECT)], creator=CREATOR)

    assert [each.number for each in journal.inbox()] == [item.number + 1]


def test_a_new_revision_of_a_document_drops_what_it_no_longer_says(journal: Journal) -> None:
    old, kept, new = piece("guide.md", 0, "old"), piece("guide.md", 1, "kept"), piece("guide.md", 0, "new")

    for revision, pieces in enumerate([[old, kept], [new, kept]]):
        events = [passage_event(each, revision=revision) for each in pieces]
        whole = document_event(pieces, revision=revision, sha256=str(revision))
        remember(journal, [*events, whole], creator=CREATOR)

    assert {passage.text for passage in journal.passages()} == {"new", "kept"}
    assert journal.document("guide.md") == (1, "1")


def test_consent_is_what_was_decided_last_and_no_by_default(journal: Journal) -> None:
    later = consent_event(BOB, GROUP, granted="no", at=NOON.replace(hour=14))
    sooner = consent_event(BOB, GROUP, granted="yes", at=NOON)
    assert not journal.consent(BOB.key, GROUP.key)

    remember(journal, [sooner], creator=CREATOR)
    assert journal.consent(BOB.key, GROUP.key)

    remember(journal, [later], creator=CREATOR)
    assert not journal.consent(BOB.key, GROUP.key)


def test_an_answer_is_found_again_with_its_votes(journal: Journal) -> None:
    note = Note("n", "exchange", "24 °C.", 0.9, "telegram", NOON)
    answer = Answer("a", "1", "24 °C, friend.", "answered", "fits", (note,), "base", "hash", {"total": 1.5})
    remember(journal, [answer_event(answer, ASKED, at=NOON)], creator=CREATOR)
    for hour, value in ((13, "bad"), (14, "good")):
        remember(journal, [vote_event("a", BOB, value=value, at=NOON.replace(hour=hour))], creator=CREATOR)

    assert journal.answer("a") == answer
    assert journal.votes("a") == {BOB.key: "good"}
    assert journal.conversation(GROUP, 5) == [(ASKED.text, answer)]


def test_a_rebuild_queues_everything_again(journal: Journal) -> None:
    remember(journal, [exchange_event(taught("q?", "a")), passage_event(piece("d", 0, "text"))], creator=CREATOR)
    journal.outbox_done(journal.outbox(10)[-1].seq)

    journal.outbox_rebuild()

    assert [item.kind for item in journal.outbox(10)] == ["exchange", "passage"]


def test_walking_a_long_table_reads_every_row_once(sqlite_journal: Journal) -> None:
    remember(sqlite_journal, [exchange_event(taught(f"q{n}", "a", days=n // 7)) for n in range(1203)], creator=CREATOR)

    assert len({exchange.id for exchange in sqlite_journal.exchanges()}) == 1203


def test_two_writers_at_once_both_finish(journal: Journal) -> None:
    def write(name: str) -> None:
        for n in range(25):
            remember(journal, [exchange_event(taught(f"{name} {n}?", "a"))], creator=CREATOR)

    threads = [threading.Thread(target=write, args=(name,)) for name in ("left", "right")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert journal.counts()["exchanges"] == 50


def test_a_full_disk_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    journal = Journal.open(f"sqlite:///{tmp_path / 'full.db'}")
    remember(journal, [exchange_event(taught("kept?", "yes"))], creator=CREATOR)
    sa.event.listen(journal.engine, "begin", lambda connection: connection.exec_driver_sql("PRAGMA max_page_count=60"))

    with pytest.raises(ServiceTrouble, match="full"):
        remember(journal, [exchange_event(taught("huge?", "x" * 1_000_000))], creator=CREATOR)

    assert known(journal) == [("kept?", "yes")]
    journal.close()


def test_events_are_read_in_order_by_kind_and_place(journal: Journal) -> None:
    remember(journal, [message(ASKED), message(ANSWERED), exchange_event(taught("q?", "a"))], creator=CREATOR)

    found = journal.events(kind=Kind.MESSAGE, place="100")

    assert [event.message_id for _, event in found] == ["1", "2"]
    assert journal.events(kind=Kind.MESSAGE, after=found[0][0])[0][1].author == Person(
        "telegram", "1", "Ada", "creator"
    )
