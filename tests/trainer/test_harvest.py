"""Only what both halves allow is harvested; every other exchange is counted under its reason."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from memory.journal import Journal
from memory.messages import Exchange, Person, Source
from memory.provenance import Permissions
from memory.remember import exchange_event, remember
from tests.memory.making import taught
from tests.people import ADA, BOB, CHARLIE, CREATOR, NOON
from trainer.harvest import ASKER_ROWS, Harvest, choose, harvest

PERMITTED = Permissions(discord_reference="ticket 12", discord_date="2026-01-01")


def asked(number: int, asker: Person, source: Source) -> Exchange:
    """A question number `number` that a member asked and Ada answered where the bot could read it."""
    return replace(
        taught(f"Question {number}?", f"Answer {number}."),
        asker=asker,
        question_source=source,
        source=Source.DISCORD_API,
    )


def chosen(*exchanges: Exchange, permissions: Permissions | None = None) -> Harvest:
    return choose(exchanges, consent=lambda person, place: person == BOB.key, permissions=permissions or Permissions())


def test_what_the_creator_taught_is_harvested() -> None:
    own = taught("How warm?", "Lukewarm.")

    assert chosen(own) == Harvest([own], {}, 1)


@pytest.mark.parametrize("source", [Source.TELEGRAM_GROUP, Source.TWIN])
def test_a_question_that_never_trains_keeps_its_answer_out(source: Source) -> None:
    found = chosen(replace(taught("How warm?", "Lukewarm."), question_source=source, asker=BOB))

    assert (found.exchanges, found.excluded, found.seen) == ([], {f"question: {source} never trains": 1}, 1)


def test_a_members_question_trains_with_consent_only() -> None:
    said = replace(taught("How warm?", "Lukewarm."), question_source=Source.TELEGRAM_DIRECT)
    found = chosen(replace(said, asker=BOB), replace(said, asker=CHARLIE), replace(said, asker=None))

    assert [each.asker for each in found.exchanges] == [BOB]
    assert sum(found.excluded.values()) == 2


def test_discord_needs_a_recorded_permission() -> None:
    exchange = asked(1, BOB, Source.DISCORD_API)

    assert chosen(exchange).exchanges == []
    assert chosen(exchange, permissions=PERMITTED).exchanges == [exchange]


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        (" ", "Yes.", "question: empty"),
        ("How?", "https://example.org/a <https://example.org/b>", "answer: nothing but links or signs"),
        ("???", "Yes.", "question: nothing but links or signs"),
        ("Same.", "Same.", "answer: repeats the question"),
    ],
)
def test_what_teaches_nothing_is_counted_with_its_reason(question: str, answer: str, reason: str) -> None:
    assert chosen(taught(question, answer)).excluded == {reason: 1}


def test_chinese_words_are_words() -> None:
    assert len(chosen(taught("怎么揉面？", "慢慢来。")).exchanges) == 1


def test_one_member_cannot_write_most_of_what_is_learned() -> None:
    """The newest rows of the busiest asker are kept, so that an old flood does not outlive what came later."""
    flood = [replace(asked(n, CHARLIE, Source.DISCORD_API), at=NOON + timedelta(days=n)) for n in range(40)]

    found = chosen(*flood, permissions=PERMITTED)

    assert [each.question for each in found.exchanges] == [f"Question {n}?" for n in range(40 - ASKER_ROWS, 40)]
    assert found.excluded == {"asker: more rows than one member may write": 40 - ASKER_ROWS}


def test_the_creators_own_pairs_have_no_cap() -> None:
    pairs = [replace(taught(f"Question {n}?", f"Answer {n}."), asker=ADA) for n in range(40)]

    assert len(chosen(*pairs).exchanges) == 40


def test_the_journal_is_harvested(tmp_path: Path) -> None:
    journal = Journal.open(f"sqlite:///{tmp_path / 'journal.db'}")
    exchange = taught("How warm?", "Lukewarm.")
    remember(journal, [exchange_event(exchange)], creator=CREATOR)

    found = harvest(journal, permissions=Permissions())
    journal.close()

    assert found == Harvest([exchange], {}, 1)
