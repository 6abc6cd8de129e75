"""A journal as it was: compared, moment by moment, with one that stopped there."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from memory import journal as journal_module
from memory.forget import forget
from memory.journal import Journal
from memory.members import Members
from memory.messages import Event, Source
from memory.remember import (
    answer_event,
    choice_event,
    consent_event,
    deletion_event,
    exchange_event,
    message_event,
    passage_event,
    question_event,
    remember,
    vote_event,
)
from memory.replay import last_written, replay, spoke, written
from memory.retention import Retention, expire
from memory.selection import Selection
from tests.memory.making import GROUP, document_event, piece, said, taught
from tests.people import ADA, BOB, CHARLIE, CREATOR, NOON
from tests.upgrades.fixtures import ANSWER

BEGAN = NOON + timedelta(days=100)


class Clock:
    """Every event is written a minute after the one before, a long time after most of them happened."""

    def __init__(self) -> None:
        self.now = BEGAN

    def __call__(self) -> datetime:
        self.now += timedelta(minutes=1)
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(journal_module, "clock", clock)
    return clock


def story() -> list[Event]:
    """Imports, questions, answers, edits, deletions, votes and consents, in the order in which they were written."""
    flour, old = piece("bread.md", 0, "Strong white."), piece("bread.md", 1, "Old words.")
    new = replace(piece("bread.md", 1, "New words."), at=NOON + timedelta(days=2))
    chat = Source.TELEGRAM_DIRECT
    question = said("1", BOB, "How warm should the dough be?")
    return [
        passage_event(flour),
        passage_event(old),
        document_event([flour, old], revision=0, sha256="a"),
        consent_event(CHARLIE, GROUP, granted="no", at=NOON),
        message_event(question, chat),
        message_event(said("2", ADA, "24 °C.", minutes=1, reply_to="1"), chat),
        question_event(said("3", CHARLIE, "Is there a secret ingredient?", minutes=2), chat),
        question_event(said("4", BOB, "What about spelt?", minutes=3), chat),
        answer_event(replace(ANSWER, voice="base+v1"), question, at=NOON),
        vote_event("a1", BOB, value="good", at=NOON),
        message_event(said("5", CHARLIE, "Which oven do you have?", minutes=40), chat),
        message_event(said("6", ADA, "An old one.", minutes=41, reply_to="5"), chat),
        message_event(replace(question, text="How warm should the dough be, Ada?", revision=9), chat),
        exchange_event(taught("What about spelt?", "Knead it less."), answers="telegram:100:4"),
        passage_event(flour, revision=1),
        passage_event(new, revision=1),
        document_event([flour, new], revision=1, sha256="b"),
        answer_event(replace(ANSWER, id="a2", voice="base+v2"), question, at=NOON + timedelta(minutes=50)),
        vote_event("a1", BOB, value="bad", at=NOON + timedelta(hours=1)),
        deletion_event(GROUP, "2", by=ADA, source=chat, at=NOON + timedelta(hours=2)),
        consent_event(BOB, GROUP, granted="yes", at=NOON + timedelta(hours=3)),
        choice_event(BOB, "remember", value=False, at=NOON + timedelta(hours=3)),
    ]


def known(journal: Journal) -> dict[str, object]:
    """What a journal tells, but for when it was written."""
    return {
        "events": [event for _, event in journal.events()],
        "exchanges": list(journal.exchanges()),
        "passages": list(journal.passages()),
        "documents": journal.documents(),
        "inbox": {state: journal.inbox(state=state) for state in ("open", "answered", "dismissed")},
        "votes": journal.votes("a1"),
        "consents": [journal.consent(each.key, GROUP.key) for each in (BOB, CHARLIE)],
        "remembered": Members(journal).chosen(BOB.key, "remember"),
        "message": journal.message(GROUP, "1"),
        "deleted": journal.message(GROUP, "2"),
        "voice": spoke(journal),
        "forgotten": journal.last_forgotten(),
    }


def opened(folder: Path, name: str) -> Journal:
    return Journal.open(f"sqlite:///{folder / name}.db")


def replayed(source: Journal, folder: Path, until: int) -> Journal:
    target, scratch = opened(folder, f"target{until}"), opened(folder, f"scratch{until}")
    replay(source, target, scratch, until=until, creator=CREATOR)
    scratch.close()
    return target


def test_every_moment_comes_back_as_it_was_without_what_was_forgotten_since(tmp_path: Path) -> None:
    source, events = opened(tmp_path, "source"), story()
    for event in events:
        remember(source, [event], creator=CREATOR)
    forget(source, Selection(person=CHARLIE.key), creator=CREATOR, now=NOON + timedelta(days=1))
    left = [event for _, event in source.events()]
    decisions = [each for each in left if each.kind in {"consent", "choice", "deletion"}]
    assert len(left) == len(events) - 3

    for number in (5, 6, 9, 12, 14, 16, 18, 20):
        then = [event for event in events[:number] if event in left]
        stopped = opened(tmp_path, f"stopped{number}")
        # The inbox numbers of the forgotten are not given again, so the one that stopped there had them, too.
        for event in events[:number]:
            remember(stopped, [event], creator=CREATOR)
        forget(stopped, Selection(person=CHARLIE.key), creator=CREATOR, now=NOON + timedelta(days=1))
        remember(stopped, decisions, creator=CREATOR)

        moment = replayed(source, tmp_path, number)

        wanted, found = known(stopped), known(moment)
        assert [each for each in found["events"] if each in then] == then
        assert found.pop("forgotten") == source.last_forgotten() == 1, "its numbers never come again"
        wanted.pop("forgotten")
        assert found == wanted
        assert found["deleted"] is None, "a message that was taken back since stays away"
        assert [receipt.receipt for receipt in moment.tombstones()] == [each.receipt for each in source.tombstones()]
        assert remember(moment, events, creator=CREATOR).forgotten == 3
        stopped.close()
        moment.close()
    source.close()


def test_a_moment_is_when_something_was_written_and_not_when_it_happened(tmp_path: Path) -> None:
    """An archive that was imported today is of years ago; half of a file is no state that ever was."""
    source = opened(tmp_path, "source")
    remember(source, [exchange_event(taught("Before?", "Yes.", days=90))], creator=CREATOR)
    first = written(source, 1)
    remember(source, [exchange_event(taught("Archive?", "Yes.", days=-900))], creator=CREATOR)

    assert first == BEGAN + timedelta(minutes=1)
    assert last_written(source, first) == 1
    assert last_written(source, first - timedelta(seconds=1)) == 0
    assert written(source, 0) is None
    moment = replayed(source, tmp_path, last_written(source, first))
    assert [each.question for each in moment.exchanges()] == ["Before?"]
    assert written(moment, 1) == first
    moment.close()
    source.close()


def test_questions_keep_their_numbers_and_none_is_given_again(tmp_path: Path) -> None:
    """Cards in chats name them, so that an answer would go to another question."""
    source = opened(tmp_path, "source")
    for number, asker in enumerate((CHARLIE, BOB, BOB, BOB)):
        words = ("What is rye?", "Which oven?", "Is there cake?", "When do you open?")[number]
        remember(source, [question_event(said(str(number), asker, words), Source.OWN_DIRECT)], creator=CREATOR)
    forget(source, Selection(person=CHARLIE.key), creator=CREATOR, now=NOON + timedelta(days=1))

    moment = replayed(source, tmp_path, 3)
    remember(moment, [question_event(said("9", BOB, "And now?", minutes=5), Source.OWN_DIRECT)], creator=CREATOR)

    assert [(item.number, item.question) for item in moment.inbox()] == [
        (2, "Which oven?"),
        (3, "Is there cake?"),
        (5, "And now?"),
    ]
    assert [number for number, _ in moment.events()] == [2, 3, 5]
    moment.close()
    source.close()


def test_what_retention_left_is_not_paired_otherwise(tmp_path: Path) -> None:
    """A line between question and answer is gone, without which nobody would know that they belong together."""
    source = opened(tmp_path, "source")
    talk = [
        said("1", CHARLIE, "How warm should the dough be?"),
        said("2", CHARLIE, "Hello all.", minutes=0.3, reply_to="1"),
        said("3", ADA, "24 °C.", minutes=5.3, reply_to="2"),
    ]
    remember(source, [message_event(each, Source.TELEGRAM_DIRECT) for each in talk], creator=CREATOR)
    had = list(source.exchanges())
    expire(source, Retention(places={"telegram:100": 1}), creator=CREATOR, now=NOON + timedelta(days=30))
    assert [event.message_id for _, event in source.events()] == ["1", "3"]
    remember(source, [exchange_event(taught("Later?", "Yes."))], creator=CREATOR)

    moment = replayed(source, tmp_path, source.last() - 1)

    assert list(moment.exchanges()) == had != []
    moment.close()
    source.close()
