"""The profile: drafted from memory, kept in versions, carried by every prompt within its budget, theirs to change."""

from datetime import timedelta

import pytest

from infra.errors import UserMistake
from memory.graph import Graph
from memory.journal import Journal
from memory.persona import PersonaCard
from memory.profile import TOKENS, Profile, current, draft, edited, keep, opinions, persona_card, version, versions
from memory.prompt import estimate_tokens, system_text
from memory.readings import Mention, Reading, Statement
from memory.topics import Topic
from tests.people import ADA, NOON

TOPICS = [Topic("rye, flour", ("rye", "flour"), (), 9), Topic("黑麦, 面团", ("黑 麦",), (), 4)]


def test_a_draft_says_what_they_care_about_and_how_they_write() -> None:
    answers = [f"Take {n} grams. Wait {n} hours for it. The crumb never lies." for n in range(20)]

    drafted = draft(TOPICS, answers, about="Ada bakes.")

    assert (drafted.about, drafted.cares) == ("Ada bakes.", "rye, 黑麦")
    assert (
        drafted.speaks
        == 'in about 3 sentences of 4 words, without exclamation marks, often with "The crumb never lies."'
    )


def test_of_too_few_answers_nothing_is_said() -> None:
    assert draft([], ["Yes!"], about="") == Profile()


def test_the_last_version_counts_and_none_is_lost(journal: Journal) -> None:
    assert current(journal) is None
    for days, cares in enumerate(("rye", "rye and salt")):
        keep(journal, Profile(cares=cares), creator=ADA, at=NOON + timedelta(days=days))

    assert current(journal) == Profile(cares="rye and salt")
    assert [each.cares for _, each in versions(journal)] == ["rye", "rye and salt"]


def test_an_old_version_counts_again_and_the_one_between_stays(sqlite_journal: Journal) -> None:
    for days, cares in enumerate(("rye", "rye and salt")):
        keep(sqlite_journal, Profile(cares=cares), creator=ADA, at=NOON + timedelta(days=days))

    keep(sqlite_journal, version(sqlite_journal, 1), creator=ADA, at=NOON + timedelta(days=2))

    assert current(sqlite_journal) == Profile(cares="rye")
    assert [each.cares for _, each in versions(sqlite_journal)] == ["rye", "rye and salt", "rye"]


@pytest.mark.parametrize("number", [-1, 0, 3])
def test_a_version_that_there_is_not_is_named_with_those_that_there_are(sqlite_journal: Journal, number: int) -> None:
    for days in range(2):
        keep(sqlite_journal, Profile(cares="rye"), creator=ADA, at=NOON + timedelta(days=days))

    with pytest.raises(UserMistake, match=f"no version {number} of the profile: there are 1 to 2"):
        version(sqlite_journal, number)


def test_the_card_is_as_before_until_there_is_a_profile(sqlite_journal: Journal) -> None:
    plain = PersonaCard("Ada", "Ada bakes.", "en")
    assert persona_card(sqlite_journal, "Ada", "Ada bakes.", "en") == plain
    keep(sqlite_journal, Profile(cares="rye", speaks="in 2 sentences"), creator=ADA, at=NOON)

    card = persona_card(sqlite_journal, "Ada", "Ada bakes.", "en")

    assert card.version != plain.version
    assert system_text(card) == (
        "You are the AI stand-in for Ada. Ada bakes. Ada cares about rye. Ada answers in 2 sentences. "
        "Answer as Ada would, only from the notes."
    )


def test_a_long_profile_does_not_take_the_prompt(sqlite_journal: Journal) -> None:
    keep(sqlite_journal, Profile(cares="黑麦和" * 400), creator=ADA, at=NOON)

    assert estimate_tokens(persona_card(sqlite_journal, "Ada", "", "en").profile) <= TOKENS + 1


def test_only_fields_that_there_are_can_be_edited() -> None:
    assert edited(Profile(cares="rye"), "cares", " salt\nand time ") == Profile(cares="salt and time")
    with pytest.raises(UserMistake, match="no 'salary'"):
        edited(Profile(), "salary", "much")


def test_opinions_are_those_that_still_hold_with_their_sources() -> None:
    said = (("old", "uses"), ("new", "avoids"))
    readings = [
        Reading(name, NOON + timedelta(days=n), "", (Mention("rye"),), (), (Statement(stance, "rye", name),))
        for n, (name, stance) in enumerate(said)
    ]

    (held,) = opinions(Graph(readings))

    assert (held.kind, held.sources) == ("avoids", ("new",))
