"""What stands beside how well a note fits: whose word it is and how new. Both are gentle."""

from dataclasses import replace
from datetime import timedelta

from memory.messages import Authority, Note, Why
from memory.ranking import Candidate, choose
from tests.people import NOON


def found(name: str, score: float, *, days: float = 0, authority: Authority = "creator") -> Candidate:
    at = NOON + timedelta(days=days)
    note = Note(name, "exchange", name, 0.0, "", at, why=Why(authority=authority))
    return Candidate(note, score, cosine=0.8, topic=name)


def order(*candidates: Candidate) -> list[str]:
    return [each.note.id for each in choose(candidates, limit=9)]


def test_of_two_that_fit_alike_the_newer_comes_first_and_a_far_better_one_before_both() -> None:
    assert order(found("old", 1.0), found("new", 1.0, days=400), found("best", 1.2)) == ["best", "new", "old"]


def test_the_creators_answer_comes_before_a_document_and_a_document_before_a_teacher() -> None:
    ranks: list[Authority] = ["teacher", "document", "creator"]

    assert order(*(found(each, 1.0, authority=each) for each in ranks)) == ["creator", "document", "teacher"]


def test_age_counts_from_the_newest_so_that_a_silent_community_loses_nothing() -> None:
    candidates = [found("old", 1.03), found("new", 1.0, days=90)]
    later = [replace(each, note=replace(each.note, at=each.note.at + timedelta(days=9000))) for each in candidates]

    assert order(*candidates) == order(*later)


def test_what_nobody_named_said_stays_in_its_order_behind_what_they_did() -> None:
    spoken = {"hers": (0.1, "Ada"), "better": (0.5, "Bob"), "worse": (0.2, "Bob")}
    candidates = [replace(found(name, score), speaker=who) for name, (score, who) in spoken.items()]

    assert [each.note.id for each in choose(candidates, limit=3, asked={"ada"})] == ["hers", "better", "worse"]
