"""The one write: derived memory depends on the set of events, never on their order, number or repetition."""

import random
import threading
from dataclasses import replace
from datetime import timedelta
from itertools import permutations
from pathlib import Path
from typing import Literal

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.database import connect, migrate, writing
from infra.errors import ServiceTrouble, UserMistake
from memory.codec import dumps, encoded
from memory.journal import Journal, Judged, Writer
from memory.messages import Answer, Event, Exchange, Kind, Note, Person, Source
from memory.migrations import MIGRATIONS
from memory.remember import (
    answer_event,
    consent_event,
    deletion_event,
    dismissal_event,
    exchange_event,
    message_event,
    passage_event,
    question_event,
    remember,
    vote_event,
)
from tests.memory.making import GROUP, document_event, piece, said, taught
from tests.people import ADA, BOB, CHARLIE, CREATOR, NOON

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


@pytest.mark.parametrize(
    ("rewritten", "minutes", "left"),
    [
        ("Should I bake with bleach?", 5, []),
        ("how warm should the dough be", 5, ["how warm should the dough be"]),
        ("How warm should the levain be?", 0.5, ["How warm should the levain be?"]),
    ],
    ids=["asks something else by now", "asks the same", "was rewritten before it was answered"],
)
def test_a_question_that_is_rewritten_after_its_answer_takes_nothing_from_it(
    journal: Journal, rewritten: str, minutes: float, left: list[str]
) -> None:
    when = int((NOON + timedelta(minutes=minutes)).timestamp())
    remember(journal, [message(ASKED), message(ANSWERED)], creator=CREATOR)
    remember(journal, [message(said("1", BOB, rewritten, revision=when))], creator=CREATOR)

    assert [question for question, _ in known(journal)] == left


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


# A chat as it goes, over some days and in several voices: nearly every message has others within the pairing window.
WORDS = (
    "How warm should the dough be?",
    "24 °C is fine.",
    "Thanks!",
    "Ada, what about salt?",
    "Which flour do you mean?",
    "Type 1050 flour.",
    "面团要多热？",
    "24 度。",
    "yes",
)
TURN = st.tuples(
    st.sampled_from([ADA, BOB, CHARLIE, ADA]),
    st.sampled_from(WORDS),
    st.sampled_from([1, 4, 30, 300, 700, 1000]),
    st.none() | st.integers(1, 20),
)


def chat(turns) -> list[Event]:
    minutes, events = 0, []
    for number, (person, words, later, back) in enumerate(turns):
        minutes += later
        target = str(number - back) if back and back <= number else None
        events.append(message(said(str(number), person, words, minutes=minutes, reply_to=target)))
    return events


def derived(journal: Journal) -> list[Exchange]:
    return sorted(journal.exchanges(), key=lambda exchange: exchange.id)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(TURN, min_size=10, max_size=30).map(chat), st.randoms(use_true_random=False), st.integers(1, 9))
def test_a_busy_chat_derives_the_same_in_any_order_and_any_portions(tmp_path_factory, events, random, size) -> None:
    """What one message changes reaches as far as pairing reads, and no further."""
    folder = tmp_path_factory.mktemp("busy")
    ordered, shuffled = Journal.open(f"sqlite:///{folder / 'a.db'}"), Journal.open(f"sqlite:///{folder / 'b.db'}")
    events += [deleted(str(number)) for number in range(0, len(events), 9)]
    remember(ordered, events, creator=CREATOR)

    mixed = random.sample(events + events[::3], k=len(events + events[::3]))
    for start in range(0, len(mixed), size):
        remember(shuffled, mixed[start : start + size], creator=CREATOR)

    assert derived(shuffled) == derived(ordered)
    ordered.close()
    shuffled.close()


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_an_answer_is_paired_across_midnight_whatever_arrives_first(sqlite_journal: Journal, order) -> None:
    """Conversations are paired by the day; what is said across its end belongs together all the same."""
    asked = said("1", BOB, "How warm should the dough be?", minutes=710)
    told = said("2", ADA, "24 °C is fine.", minutes=718)
    added = said("3", ADA, "In summer 22.", minutes=721)

    for number in order:
        remember(sqlite_journal, [message((asked, told, added)[number])], creator=CREATOR)

    assert known(sqlite_journal) == [(asked.text, f"{told.text}\n{added.text}")]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_question_of_the_evening_is_answered_after_midnight(sqlite_journal: Journal, order) -> None:
    both = (said("1", BOB, "How warm should the dough be?", minutes=710), said("2", ADA, "24 °C.", minutes=730))

    for number in order:
        remember(sqlite_journal, [message(both[number])], creator=CREATOR)

    assert known(sqlite_journal) == [(both[0].text, both[1].text)]


def test_a_message_that_moves_to_another_thread_takes_its_pair_along(journal: Journal) -> None:
    thread = replace(GROUP, thread="9")
    remember(journal, [message(ASKED), message(said("2", ADA, "24 °C.", minutes=1))], creator=CREATOR)

    moved = [said("1", BOB, ASKED.text, revision=1, place=thread)]
    moved += [said("2", ADA, "24 °C.", minutes=1, revision=1, place=thread)]
    remember(journal, [message(each) for each in moved], creator=CREATOR)

    assert [exchange.place.thread for exchange in journal.exchanges()] == ["9"]


def test_only_what_may_change_a_pair_is_paired_again(sqlite_journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a member says last does not, unless it brings something older into the day by replying to it."""
    paired = []
    monkeypatch.setattr("memory.remember.pair", lambda messages, creator: paired.append(len(messages)) or [])
    old = said("0", BOB, "How salty?", minutes=-4000)
    ours, earlier = said("2", ADA, "24 °C.", minutes=2), said("4", CHARLIE, "And rye?", minutes=1)
    bringing = said("5", CHARLIE, "Same question.", minutes=5, reply_to="0")

    for each in (old, ASKED, ours, said("3", BOB, "How long?", minutes=3, reply_to="1"), earlier, bringing):
        remember(sqlite_journal, [message(each)], creator=CREATOR)

    assert paired == [2, 4, 6]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations([*EVERYTHING, *EVERYTHING[:3]]), st.integers(1, 4))
def test_any_order_and_repetition_derives_the_same(tmp_path_factory, events: list[Event], size: int) -> None:
    journal = Journal.open(f"sqlite:///{tmp_path_factory.mktemp('order') / 'j.db'}")

    for start in range(0, len(events), size):
        remember(journal, events[start : start + size], creator=CREATOR)

    assert known(journal) == [("How warm should the dough be?", "25 °C, in fact."), ("面团要多热？", "24 度。")]
    journal.close()


@pytest.mark.parametrize("identity", ["nul\x00", "lone\ud800"])
def test_any_identity_is_made_storable_everywhere(journal: Journal, identity: str) -> None:
    remember(journal, [message(said(identity, BOB, "How warm?")), deleted(identity)], creator=CREATOR)
    remember(journal, [question_event(said(identity, BOB, "Why?"), Source.OWN_DIRECT)], creator=CREATOR)
    (item,) = journal.inbox()

    remember(journal, [dismissal_event(item.question_id, ADA, at=NOON)], creator=CREATOR)

    assert journal.inbox() == []
    assert journal.events()[0][1].message_id == identity[:-1] + "\ufffd"


@pytest.mark.parametrize("year", [1, 1969, 2200, 9999])
def test_a_date_that_no_chat_has_is_refused_before_anything_is_kept(journal: Journal, year: int) -> None:
    undated = replace(ASKED, id="9", at=NOON.replace(year=year))

    with pytest.raises(UserMistake, match=f"dated .*{year}-03-01.*1970 to 2199"):
        remember(journal, [message(ASKED), message(undated)], creator=CREATOR)

    assert journal.counts()["events"] == 0


def test_the_first_and_the_last_day_that_can_be_kept_are_paired(journal: Journal) -> None:
    for place, at in (("old", NOON.replace(1970, 1, 1)), ("new", NOON.replace(2199, 12, 31))):
        where = replace(GROUP, id=place)
        both = (replace(each, place=where, at=at) for each in (ASKED, ANSWERED))
        remember(journal, map(message, both), creator=CREATOR)

    assert len(known(journal)) == 2


@pytest.mark.parametrize("length", [4_000, 1_000_000])
def test_a_question_of_any_length_waits_in_the_inbox(journal: Journal, length: int) -> None:
    """Random Chinese, which no database can shorten to what it would index."""
    asked = "".join(map(chr, random.Random(1).choices(range(0x4E00, 0x9FA5), k=length))) + "？"

    for identity in ("1", "2"):
        remember(journal, [question_event(said(identity, BOB, asked), Source.OWN_DIRECT)], creator=CREATOR)

    assert [(item.question, item.count) for item in journal.inbox()] == [(asked, 2)]


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


def test_a_question_that_waited_in_an_older_journal_is_merged_with_too(journal_url: str) -> None:
    engine = connect(journal_url)
    migrate(engine, "journal", MIGRATIONS[:4])
    with writing(engine) as connection:
        Writer(connection).open_question(
            "old", question_event(said("0", BOB, "Rye?"), Source.OWN_DIRECT).payload, normalised="rye", at=NOON
        )
    engine.dispose()
    journal = Journal.open(journal_url)

    remember(journal, [question_event(said("1", BOB, "What about rye?"), Source.OWN_DIRECT)], creator=CREATOR)

    assert [(item.question, item.count) for item in journal.inbox()] == [("Rye?", 2)]
    journal.close()


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_a_question_in_other_words_is_merged_whatever_comes_first(
    sqlite_journal: Journal, order: tuple[int, ...]
) -> None:
    """With a repetition of each, and the same again when another journal is made from the events of this one."""
    texts = (
        "How do I install the plugin on Windows?",
        "Hi, how can I install plugins on Windows?",
        "How do I install the plugin on Linux?",
        "怎么安装插件？",
    )
    asked = [question_event(said(str(n), BOB, text), Source.OWN_DIRECT) for n, text in enumerate(texts)]

    for number in (*order, *order):
        remember(sqlite_journal, [asked[number]], creator=CREATOR)

    assert sorted(item.count for item in sqlite_journal.inbox()) == [1, 1, 2]
    again = Journal.open("sqlite:///" + sqlite_journal.engine.url.database.replace("own.db", "again.db"))
    remember(again, [event for _, event in sqlite_journal.events()], creator=CREATOR)
    assert again.inbox() == sqlite_journal.inbox()
    again.close()


@pytest.mark.parametrize("order", list(permutations(range(4))))
@pytest.mark.parametrize("closing", ["answered", "dismissed"])
def test_a_question_is_closed_whether_it_or_what_closes_it_comes_first(
    sqlite_journal: Journal, order: tuple[int, ...], closing: str
) -> None:
    """With a repetition of each, as retries deliver them."""
    asked = question_event(said("1", BOB, "How warm?"), Source.OWN_DIRECT)
    given = taught("How warm?", "24 °C.")
    closed = {
        "answered": exchange_event(given, answers=asked.message_id),
        "dismissed": dismissal_event(asked.message_id, ADA, at=NOON),
    }[closing]

    for number in order:
        remember(sqlite_journal, [(asked, closed, asked, closed)[number]], creator=CREATOR)

    assert sqlite_journal.inbox() == []
    (item,) = sqlite_journal.inbox(state=closing)
    assert (item.count, item.exchange_id) == (1, given.id if closing == "answered" else None)


def test_a_question_that_comes_after_its_answer_is_closed_on_every_database(journal: Journal) -> None:
    """It closes what was merged with it, as it would have in order; the same words asked later are a new question."""
    first, second, third = (
        question_event(said(number, BOB, "How warm?"), Source.OWN_DIRECT) for number in ("1", "2", "3")
    )
    closed = dismissal_event(second.message_id, ADA, at=NOON)
    answered = exchange_event(taught("How warm?", "24 °C."), answers=second.message_id)

    remember(journal, [first, closed, answered, second, third], creator=CREATOR)

    assert [(item.question_id, item.count) for item in journal.inbox()] == [(third.message_id, 1)]
    assert [item.count for item in journal.inbox(state="dismissed")] == [2]


def test_what_the_twin_said_is_recorded_and_never_becomes_memory(journal: Journal) -> None:
    """However it comes in: as a pair, as a document, or as a message under the creator's account."""
    own = [
        exchange_event(replace(taught("q?", "made up"), source=Source.TWIN)),
        passage_event(replace(piece("d", 0, "made up"), source=Source.TWIN)),
        message(ASKED),
        message(ANSWERED, Source.TWIN),
    ]

    receipt = remember(journal, own, creator=CREATOR)

    assert (receipt.appended, receipt.exchanges, receipt.passages) == (4, 0, 0)
    assert (known(journal), list(journal.passages()), journal.outbox(9)) == ([], [], [])


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


def revision_of(number: int, texts: list[str]) -> list[Event]:
    pieces = [piece("guide.md", position, text) for position, text in enumerate(texts)]
    return [
        *(passage_event(each, revision=number) for each in pieces),
        document_event(pieces, revision=number, sha256=str(number)),
    ]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations([*revision_of(0, ["a", "b"]), *revision_of(1, ["b", "c"]), *revision_of(2, ["c", "d"])]))
def test_the_last_revision_of_a_document_stands_in_any_order(tmp_path_factory, events: list[Event]) -> None:
    journal = Journal.open(f"sqlite:///{tmp_path_factory.mktemp('pieces') / 'j.db'}")

    for event in events:
        remember(journal, [event], creator=CREATOR)

    assert {(passage.position, passage.text) for passage in journal.passages()} == {(0, "c"), (1, "d")}
    assert journal.document("guide.md") == (2, "2")
    journal.close()


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


def test_voices_are_judged_by_the_last_vote_of_each_person(journal: Journal) -> None:
    """Answers before the moment that is asked about do not count, nor those that no voice gave."""
    given = [("0", "tiny", 11), ("1", "tiny", 12), ("2", "tiny", 12), ("3", "tiny+v1", 12), ("4", "", 12)]
    for identity, voice, hour in given:
        answer = Answer(identity, identity, "24 °C.", "answered", "fits", (), voice, "hash", {"first_token": 90.5})
        remember(journal, [answer_event(answer, ASKED, at=NOON.replace(hour=hour))], creator=CREATOR)
    renamed = replace(BOB, name="Robert")
    votes = [("0", BOB, "bad"), ("1", BOB, "bad"), ("1", renamed, "good"), ("1", CHARLIE, "bad"), ("3", BOB, "good")]
    for minute, (identity, person, value) in enumerate(votes):
        at = NOON.replace(hour=13, minute=minute)
        remember(journal, [vote_event(identity, person, value=value, at=at)], creator=CREATOR)

    expected = {
        "tiny": Judged(2, good=1, bad=1, critics=1, first_tokens=(90.5, 90.5)),
        "tiny+v1": Judged(1, good=1, first_tokens=(90.5,)),
    }
    assert journal.judged(since=NOON) == expected


def test_voices_are_judged_by_what_failed_and_by_how_soon_they_began(journal: Journal) -> None:
    """One voice answered, one broke off after some words, one said nothing, and once the voice was not to be had."""
    given: list[tuple[str, Literal["answered", "failed"], dict[str, float]]] = [
        ("tiny", "answered", {"first_token": 120.0}),
        ("tiny", "answered", {"first_token": 7.25}),
        ("tiny+v1", "answered", {"total": 50.0}),
        ("tiny+v1", "failed", {}),
        ("", "failed", {}),
    ]
    for number, (voice, outcome, timings) in enumerate(given):
        answer = Answer(str(number), str(number), "24", outcome, "why", (), voice, "hash", timings)
        remember(journal, [answer_event(answer, ASKED, at=NOON)], creator=CREATOR)
    for person in (BOB, CHARLIE):
        for minute in (1, 2):
            vote = vote_event("2", person, value="bad", at=NOON.replace(minute=minute))
            remember(journal, [vote], creator=CREATOR)
    remember(journal, [vote_event("3", BOB, value="bad", at=NOON.replace(minute=3))], creator=CREATOR)

    expected = {
        "tiny": Judged(2, first_tokens=(7.25, 120.0)),
        "tiny+v1": Judged(2, failed=2, bad=3, critics=2),
    }
    assert journal.judged(since=NOON) == expected


def test_a_rebuild_queues_everything_again(journal: Journal) -> None:
    remember(journal, [exchange_event(taught("q?", "a")), passage_event(piece("d", 0, "text"))], creator=CREATOR)
    journal.outbox_done(journal.outbox(10)[-1].seq)

    journal.outbox_rebuild()

    assert [item.kind for item in journal.outbox(10)] == ["exchange", "passage"]


def test_walking_a_long_table_reads_every_row_once(sqlite_journal: Journal) -> None:
    remember(sqlite_journal, [exchange_event(taught(f"q{n}", "a", days=n // 7)) for n in range(1203)], creator=CREATOR)

    assert len({exchange.id for exchange in sqlite_journal.exchanges()}) == 1203


def test_a_question_and_its_answer_written_at_once_are_paired(journal: Journal) -> None:
    """Neither of two transactions sees what the other has not committed; one of them has to come second."""
    for number in range(15):
        place = replace(GROUP, id=str(number))
        both, ready = [message(replace(each, place=place)) for each in (ASKED, ANSWERED)], threading.Barrier(2)

        def write(event: Event, ready: threading.Barrier = ready) -> None:
            ready.wait()
            remember(journal, [event], creator=CREATOR)

        threads = [threading.Thread(target=write, args=(event,)) for event in both]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert journal.counts()["exchanges"] == 15


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

    huge = exchange_event(taught("huge?", "x" * 1_000_000))
    with pytest.raises(ServiceTrouble, match="full"):
        remember(journal, [huge], creator=CREATOR)

    assert known(journal) == [("kept?", "yes")]
    assert journal.counts()["outbox"] == 1
    journal.close()
    roomy = Journal.open(f"sqlite:///{tmp_path / 'full.db'}")
    assert remember(roomy, [huge], creator=CREATOR).appended == 1
    roomy.close()


def test_a_journal_of_the_first_version_is_brought_up_to_date(journal_url: str) -> None:
    engine = connect(journal_url)
    migrate(engine, "journal", MIGRATIONS[:1])
    with writing(engine) as connection:
        connection.execute(
            sa.text("INSERT INTO passages VALUES ('p', 'd', 0, 'main', :payload)"),
            {"payload": dumps(encoded(piece("d", 0, "old")))},
        )
    engine.dispose()

    journal = Journal.open(journal_url)

    assert [passage.text for passage in journal.passages()] == ["old"]
    remember(journal, revision_of(0, ["new"]), creator=CREATOR)
    assert len(list(journal.passages())) == 2
    journal.close()


def test_events_are_read_in_order_by_kind_and_place(journal: Journal) -> None:
    remember(journal, [message(ASKED), message(ANSWERED), exchange_event(taught("q?", "a"))], creator=CREATOR)

    found = journal.events(kind=Kind.MESSAGE, place="100")

    assert [event.message_id for _, event in found] == ["1", "2"]
    assert journal.events(kind=Kind.MESSAGE, after=found[0][0])[0][1].author == Person(
        "telegram", "1", "Ada", "creator"
    )
