"""What members and the creator say about an answer: votes now, drafts and edits as they come; all in the journal."""

from datetime import datetime
from typing import Literal

from infra.errors import UserMistake
from memory.journal import Journal
from memory.messages import Person
from memory.remember import remember, vote_event


def vote(journal: Journal, answer_id: str, *, person: Person, value: Literal["good", "bad"], now: datetime) -> None:
    """Journal a person's vote on an answer; a later vote of the same person replaces the earlier.

    Raises UserMistake for an answer that the journal does not know.
    """
    if journal.answer(answer_id) is None:
        raise UserMistake(f"There is no answer {answer_id!r} to judge.")
    remember(journal, [vote_event(answer_id, person, value=value, at=now)], creator=frozenset())
