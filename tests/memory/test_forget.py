"""What is forgotten is gone from everywhere that memory keeps it, and nothing else is."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import memory.forget
from infra.errors import UserMistake
from memory.forget import Doomed, Forgotten, Lines, forget, known_of, lift, rehearse, selection_of_exchange
from memory.importers.records import ImportContext
from memory.importing import import_paths
from memory.journal import Journal, Writer
from memory.members import Members
from memory.messages import Answer, Kind, Note, Person, Source, name_uuid
from memory.remember import (
    answer_event,
    choice_event,
    consent_event,
    exchange_event,
    message_event,
    passage_event,
    question_event,
    remember,
    vote_event,
)
from memory.selection import Selection, tombstone_from
from memory.tombstones import follow_tombstones
from tests.memory.making import GROUP, document_event, piece, said, taught
from tests.people import ADA, BOB, CHARLIE, CREATOR, NOON

LATER = NOON + timedelta(days=1)
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


def test_a_table_of_pairs_is_forgotten_as_a_file_and_outlives_other_forgettings(
    journal: Journal, tmp_path: Path
) -> None:
    lived(journal)
    table = tmp_path / "qa.csv"
    table.write_text("question,answer\nWhich salt?,Sea salt.\n", encoding="utf-8")
    context = ImportContext(ADA, CREATOR, NOON)
    import_paths(journal, [table], context)

    forgotten(journal, person=BOB.key)
    assert [each.name for each in journal.documents()] == ["qa.csv"]

    forgotten(journal, document="qa.csv")
    assert (journal.documents(), [each for each in journal.exchanges() if each.question == "Which salt?"]) == ([], [])
    assert import_paths(journal, [table], context).skipped["forgotten"] == 1


@pytest.mark.parametrize("parts", [{"source": "creator-qa"}, {"before": NOON + timedelta(days=2)}, {"person": ADA.key}])
def test_what_has_no_date_stays_gone_when_its_file_comes_again(
    sqlite_journal: Journal, tmp_path: Path, parts: dict[str, Any]
) -> None:
    table = tmp_path / "qa.csv"
    table.write_text("question,answer\nWhich salt?,Sea salt.\n", encoding="utf-8")
    later = ImportContext(ADA, CREATOR, NOON + timedelta(days=9))
    import_paths(sqlite_journal, [table], replace(later, now=NOON))
    done = forgotten(sqlite_journal, **parts)
    assert tombstone_from(json.loads(json.dumps(done.tombstone.described()))) == done.tombstone

    assert import_paths(sqlite_journal, [table], later).skipped["forgotten"] == 1
    assert asked_of(sqlite_journal) == set()

    lift(sqlite_journal, done.receipt)
    import_paths(sqlite_journal, [table], later)
    assert asked_of(sqlite_journal) == {"Which salt?"}


def test_a_document_stays_gone_with_its_source_when_it_comes_again(sqlite_journal: Journal, tmp_path: Path) -> None:
    guide = tmp_path / "guide.md"
    guide.write_text("Salt goes in last.\n", encoding="utf-8")
    import_paths(sqlite_journal, [guide], ImportContext(ADA, CREATOR, NOON))
    forgotten(sqlite_journal, source="creator-document")

    import_paths(sqlite_journal, [guide], ImportContext(ADA, CREATOR, NOON + timedelta(days=9)))

    assert list(sqlite_journal.passages()) == []


def test_a_person_leaves_with_their_words_and_what_was_made_of_them(journal: Journal) -> None:
    lived(journal)
    assert {each.question for each in journal.exchanges()} >= {"How warm should the dough be?", "Bob's oven?"}

    done = forget(journal, Selection(person=BOB.key), creator=CREATOR, now=NOON)

    assert {each.question for each in journal.exchanges()} == {"Which flour?", "Own?"}
    assert journal.inbox() == []
    assert not journal.consent(BOB.key, GROUP.key)
    assert journal.message(ELSEWHERE, "10") is None
    assert known_of(journal, BOB.key) == []
    assert len(done.exchanges) == 2
    assert {each.op for each in journal.outbox(100) if each.id in done.exchanges} == {"upsert", "delete"}


def test_a_wish_not_to_be_remembered_outlives_the_forgetting(journal: Journal) -> None:
    lived(journal)

    forget(journal, Selection(person=BOB.key), creator=CREATOR, now=NOON)

    assert not Members(journal).chosen(BOB.key, "remember")


def test_forgetting_twice_finds_nothing_more(journal: Journal) -> None:
    lived(journal)
    forget(journal, Selection(person=BOB.key), creator=CREATOR, now=NOON)

    again = forget(journal, Selection(person=BOB.key), creator=CREATOR, now=NOON)

    assert (again.messages, again.exchanges, again.events) == (0, (), 0)


@pytest.mark.parametrize("done", [0, 2])
def test_a_forgetting_that_is_cut_off_answers_nothing_and_ends_when_it_is_repeated(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    """After so many batches; what quotes a pair is found the second time too, when the pair itself is gone."""
    lived(journal)
    quote_bob(journal)
    whole = rehearse(journal, Selection(person=BOB.key), now=LATER).tombstone.counts
    batches, erase_lines = count(), memory.forget.erase_lines

    def dying(writer: Writer, batch: Lines) -> None:
        if next(batches) == done:
            raise KeyboardInterrupt
        erase_lines(writer, batch)

    monkeypatch.setattr(memory.forget, "BATCH", 2)
    monkeypatch.setattr(memory.forget, "erase_lines", dying)
    with pytest.raises(KeyboardInterrupt):
        forgotten(journal, person=BOB.key)

    assert asked_of(journal) == {"Which flour?", "Own?"}
    # What is said next in the same conversation pairs nothing of what is still in the journal.
    remember(journal, [message_event(said("90", ADA, "Warm, I said."), Source.TELEGRAM_GROUP)], creator=CREATOR)
    assert asked_of(journal) == {"Which flour?", "Own?"}
    assert known_of(journal, BOB.key)

    rest = forgotten(journal, person=BOB.key)

    assert 0 < rest.events == whole["events"] - 2 * done
    assert known_of(journal, BOB.key) == []
    assert not any(event.kind is Kind.ANSWER for _, event in journal.events())


def quote_bob(journal: Journal) -> None:
    """Charlie asks the twin, which answers from what Ada said to Bob."""
    exchange = next(each for each in journal.exchanges() if each.question == "How warm should the dough be?")
    note = Note(exchange.id, "exchange", "24 degrees.", 0.9, "bakery", NOON)
    asked = said("80", CHARLIE, "How warm do I make it?", minutes=300)
    answer = Answer(name_uuid("q"), "80", "24 degrees.", "answered", "", (note,), "base", "", {})
    remember(journal, [answer_event(answer, asked, at=NOON)], creator=CREATOR)


def test_what_is_written_while_the_rest_is_looked_for_goes_too(
    sqlite_journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    lived(sqlite_journal)
    looked = memory.forget.look

    def slow_look(journal: Journal, choose: Callable[[Writer], Lines]) -> Doomed:
        found = looked(journal, choose)
        remember(journal, [message_event(said("60", BOB, "And salt?"), Source.TELEGRAM_GROUP)], creator=CREATOR)
        return found

    monkeypatch.setattr(memory.forget, "look", slow_look)
    forgotten(sqlite_journal, person=BOB.key)

    assert known_of(sqlite_journal, BOB.key) == []


def test_between_two_batches_others_get_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.forget, "BATCH", 2)
    monkeypatch.setattr(memory.forget, "PAUSE_S", 0.05)
    began = time.monotonic()

    assert list(memory.forget.batches(range(5))) == [[0, 1], [2, 3], [4]]

    assert time.monotonic() - began >= 0.1


def test_others_write_while_much_is_forgotten(sqlite_journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    lived(sqlite_journal)
    written: list[int] = []

    def between(values: Iterable[Any]) -> Iterator[list[Any]]:
        for value in values:
            new = message_event(said(f"9{len(written)}", CHARLIE, "Hello?", minutes=999), Source.TELEGRAM_GROUP)
            written.append(remember(sqlite_journal, [new], creator=CREATOR).appended)
            yield [value]

    monkeypatch.setattr(memory.forget, "batches", between)
    forgotten(sqlite_journal, person=BOB.key)

    assert len(written) > 5
    assert all(written)
    assert known_of(sqlite_journal, BOB.key) == []


def test_everything_known_of_a_person_can_be_shown_to_them(journal: Journal) -> None:
    lived(journal)

    shown = known_of(journal, BOB.key)

    assert {each["what"] for each in shown} >= {"message", "question", "answer", "vote", "consent", "exchange"}
    assert "Which flour?" not in str(shown)


def test_a_question_that_others_asked_too_goes_on_in_their_words_and_can_be_answered(journal: Journal) -> None:
    """It kept the words of who was forgotten, and no answer could close it."""
    asked = [said("1", BOB, "Hi, how do I export a project?"), said("2", CHARLIE, "How to export the project?")]
    remember(journal, [question_event(each, Source.TELEGRAM_DIRECT) for each in asked], creator=CREATOR)

    forget(journal, Selection(person=BOB.key), creator=CREATOR, now=NOON)

    (item,) = journal.inbox()
    assert (item.question, item.asker, item.count) == ("How to export the project?", CHARLIE, 1)
    answer = taught(item.question, "File, Export.")
    remember(journal, [exchange_event(answer, answers=item.question_id)], creator=CREATOR)
    assert journal.inbox() == []
    assert [each.person for each in Members(journal).notices("telegram")] == [CHARLIE.key]


def test_a_place_is_purged_and_others_stay(journal: Journal) -> None:
    lived(journal)

    forget(journal, Selection(place=ELSEWHERE.key), creator=CREATOR, now=LATER)

    assert journal.message(ELSEWHERE, "9") is None
    assert journal.inbox() == []
    assert {"How warm should the dough be?", "Which flour?"} <= {each.question for each in journal.exchanges()}
    like = said("1", BOB, "Who is up?", place=replace(ELSEWHERE, id=f"{ELSEWHERE.id}0"))
    assert remember(journal, [message_event(like, Source.TELEGRAM_GROUP)], creator=CREATOR).forgotten == 0


def forgotten(journal: Journal, **parts: Any) -> Forgotten:
    return forget(journal, Selection(**parts), creator=CREATOR, now=LATER)


def asked_of(journal: Journal) -> set[str]:
    return {each.question for each in journal.exchanges()}


def test_a_rehearsal_counts_and_changes_nothing(journal: Journal) -> None:
    lived(journal)
    before = journal.counts(), journal.inbox(), journal.tombstones()

    planned = rehearse(journal, Selection(person=BOB.key), now=LATER)

    assert (journal.counts(), journal.inbox(), journal.tombstones()) == before
    done = forgotten(journal, person=BOB.key)
    assert planned.tombstone.counts == done.tombstone.counts
    assert done.tombstone.counts == {
        "messages": 3,
        "exchanges": 2,
        "questions": 1,
        "answers": 1,
        "votes": 1,
        "consents": 1,
        "events": 8,
    }


def test_a_receipt_holds_no_word_and_no_id_of_a_person(sqlite_journal: Journal) -> None:
    lived(sqlite_journal)
    forgotten(sqlite_journal, person=BOB.key)

    (kept,) = sqlite_journal.tombstones()

    assert BOB.key not in str(kept.described())
    assert tombstone_from(json.loads(json.dumps(kept.described()))) == kept


def test_what_was_forgotten_cannot_be_remembered_again_and_what_is_new_can(journal: Journal) -> None:
    lived(journal)
    forgotten(journal, person=BOB.key)
    old, new = said("1", BOB, "How warm should the dough be?"), said("50", BOB, "I am back.", minutes=2000)

    receipt = remember(journal, [message_event(each, Source.TELEGRAM_GROUP) for each in (old, new)], creator=CREATOR)

    assert (receipt.forgotten, receipt.appended) == (1, 1)
    assert journal.message(GROUP, "1") is None
    assert journal.message(GROUP, "50") is not None


def test_a_lifted_forgetting_lets_it_back_in(sqlite_journal: Journal) -> None:
    lived(sqlite_journal)
    lift(sqlite_journal, forgotten(sqlite_journal, person=BOB.key).receipt)

    lived(sqlite_journal)

    assert "How warm should the dough be?" in asked_of(sqlite_journal)
    with pytest.raises(UserMistake, match="no receipt"):
        lift(sqlite_journal, "another")


def test_one_exchange_goes_with_its_messages_and_stays_gone(sqlite_journal: Journal) -> None:
    lived(sqlite_journal)
    found = next(each for each in sqlite_journal.exchanges() if each.question == "Which flour?")

    named = selection_of_exchange(sqlite_journal, Selection(exchange=found.id))
    forget(sqlite_journal, named, creator=CREATOR, now=NOON)
    lived(sqlite_journal)

    assert asked_of(sqlite_journal) == {"How warm should the dough be?", "Bob's oven?", "Own?"}
    assert sqlite_journal.message(GROUP, "3") is None
    assert sqlite_journal.forgotten(after=0) == {found.id}
    with pytest.raises(UserMistake, match="no exchange"):
        selection_of_exchange(sqlite_journal, Selection(exchange="another"))


def test_a_document_goes_whole_with_the_answers_that_quote_it(journal: Journal) -> None:
    pages = [piece("guide.md", number, f"Page {number}.") for number in range(2)]
    question = said("1", CHARLIE, "What does the guide say?")
    quoted = Note(pages[0].id, "passage", "Page 0.", 0.9, "guide.md", NOON)
    answer = Answer(name_uuid("b"), "1", "Page 0.", "answered", "", (quoted,), "base", "", {})
    whole = document_event(pages, revision=0, sha256="1")
    document = [*map(passage_event, [*pages, piece("other.md", 0, "Stays.")]), whole]
    asked = [message_event(question, Source.TELEGRAM_DIRECT), answer_event(answer, question, at=NOON)]
    remember(journal, [*document, *asked, vote_event(answer.id, CHARLIE, value="good", at=NOON)], creator=CREATOR)

    forgotten(journal, document="guide.md")

    assert [each.text for each in journal.passages()] == ["Stays."]
    assert (journal.document("guide.md"), journal.answer(answer.id)) == (None, None)
    assert journal.message(GROUP, "1") is not None
    assert remember(journal, document[:2], creator=CREATOR).forgotten == 2


def test_a_source_goes_and_parts_intersect(journal: Journal) -> None:
    lived(journal)
    forgotten(journal, source="telegram-group", after=NOON + timedelta(minutes=100))
    assert asked_of(journal) == {"How warm should the dough be?", "Bob's oven?", "Own?"}

    forgotten(journal, source="telegram-group", before=NOON + timedelta(minutes=100))
    assert asked_of(journal) == {"Bob's oven?", "Own?"}
    assert journal.consent(BOB.key, GROUP.key)

    forgotten(journal, source="telegram-direct")
    assert asked_of(journal) == {"Own?"}


def test_an_answer_in_a_thread_goes_with_its_question_outside(sqlite_journal: Journal) -> None:
    thread = replace(GROUP, thread="7")
    chat = [said("1", BOB, "How warm should the dough be?")]
    chat += [said("2", ADA, "24 degrees.", minutes=1, reply_to="1", place=thread)]
    remember(sqlite_journal, [message_event(each, Source.TELEGRAM_GROUP) for each in chat], creator=CREATOR)
    assert asked_of(sqlite_journal) == {"How warm should the dough be?"}

    forgotten(sqlite_journal, person=BOB.key)

    assert asked_of(sqlite_journal) == set()


def test_an_older_journal_is_brought_to_what_was_forgotten_since(tmp_path: Path) -> None:
    """Also one that was put in place by hand, and numbers go on, so that adapters that learned it find out."""
    lost, older = (Journal.open(f"sqlite:///{tmp_path / name}") for name in ("lost.db", "older.db"))
    for journal in (lost, older):
        lived(journal)
    forgotten(lost, person=CHARLIE.key)
    forgotten(lost, person=BOB.key)
    follow_tombstones(tmp_path, lost, creator=CREATOR)

    assert follow_tombstones(tmp_path, older, creator=CREATOR) == 2

    assert asked_of(older) == {"Own?"}
    assert older.tombstones() == lost.tombstones()
    # Three exchanges, and the answer that Bob had voted on.
    assert len(older.forgotten(after=lost.last_forgotten())) == 4
    assert follow_tombstones(tmp_path, older, creator=CREATOR) == 0
    lost.close()
    older.close()


def test_no_file_holds_a_word_of_it(tmp_path: Path) -> None:
    """Neither the database's free pages nor its write-ahead log."""
    journal = Journal.open(f"sqlite:///{tmp_path / 'journal.db'}")
    chat = [said(str(number), BOB, f"Zanzibar {number}?", minutes=number) for number in range(50)]
    remember(journal, [message_event(each, Source.TELEGRAM_GROUP) for each in chat], creator=CREATOR)

    forgotten(journal, person=BOB.key)

    assert not [path for path in tmp_path.iterdir() if b"Zanzibar" in path.read_bytes()]
    journal.close()
