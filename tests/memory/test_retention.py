"""What members say is kept as long as the operator says, place by place."""

from datetime import timedelta

from memory.journal import Journal
from memory.messages import Source
from memory.remember import exchange_event, message_event, remember
from memory.retention import Retention, expire
from tests.memory.making import GROUP, said, taught
from tests.memory.test_forget import ELSEWHERE
from tests.people import ADA, BOB, CHARLIE, CREATOR, NOON


def heard(journal: Journal) -> None:
    """A question with its answer and talk in the group, and talk elsewhere."""
    chat = (
        said("1", BOB, "How warm should the dough be?"),
        said("2", ADA, "24 degrees.", minutes=1, reply_to="1"),
        said("3", CHARLIE, "Good morning all", minutes=300),
        said("4", CHARLIE, "Good evening all", place=ELSEWHERE),
        said("5", ADA, "Good night", minutes=5, place=ELSEWHERE),
    )
    remember(journal, [message_event(each, Source.TELEGRAM_GROUP) for each in chat], creator=CREATOR)
    remember(journal, [exchange_event(taught("Own?", "Yes."))], creator=CREATOR)


def left(journal: Journal, rule: Retention, *, days: float) -> set[str]:
    """The messages that are left after some days."""
    expire(journal, rule, creator=CREATOR, now=NOON + timedelta(days=days))
    places = {"1": GROUP, "2": GROUP, "3": GROUP, "4": ELSEWHERE, "5": ELSEWHERE}
    return {identity for identity, place in places.items() if journal.message(place, identity)}


def test_members_words_expire_and_the_creators_exchanges_stay(journal: Journal) -> None:
    heard(journal)
    rule = Retention(days=30)

    assert left(journal, rule, days=29) == {"1", "2", "3", "4", "5"}
    assert left(journal, rule, days=31) == {"1", "2", "5"}
    assert {each.question for each in journal.exchanges()} == {"How warm should the dough be?", "Own?"}


def test_exchanges_expire_where_the_operator_says_so(sqlite_journal: Journal) -> None:
    heard(sqlite_journal)

    assert left(sqlite_journal, Retention(days=30, exchanges=True), days=31) == {"2", "5"}
    assert {each.question for each in sqlite_journal.exchanges()} == {"Own?"}
    assert len(sqlite_journal.forgotten(after=0)) == 1


def test_an_answer_whose_question_expired_answers_no_other(journal: Journal) -> None:
    chat = (
        said("1", BOB, "How warm should the dough be?"),
        said("2", CHARLIE, "How long does it rest?", minutes=6),
        said("3", ADA, "24 degrees warm, the dough.", minutes=7),
    )
    remember(journal, [message_event(each, Source.TELEGRAM_GROUP) for each in chat], creator=CREATOR)

    expire(journal, Retention(days=20, exchanges=True), creator=CREATOR, now=NOON + timedelta(days=20, minutes=5))

    assert journal.message(GROUP, "1") is None
    assert journal.message(GROUP, "2") is not None
    assert list(journal.exchanges()) == []


def test_a_place_has_its_own_limit(sqlite_journal: Journal) -> None:
    heard(sqlite_journal)

    assert left(sqlite_journal, Retention(days=0, places={ELSEWHERE.key: 10}), days=1000) == {"1", "2", "3", "5"}
    assert left(sqlite_journal, Retention(days=10, places={GROUP.key: 0}), days=1000) == {"1", "2", "3", "5"}


def test_without_a_limit_nothing_expires(sqlite_journal: Journal) -> None:
    heard(sqlite_journal)

    assert left(sqlite_journal, Retention(), days=100_000) == {"1", "2", "3", "4", "5"}
