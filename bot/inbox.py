"""The creator's side of the flywheel: teach, answer what waits, dismiss. Each is one write through `remember`."""

import uuid
from dataclasses import replace
from datetime import datetime

from infra.errors import UserMistake
from memory.journal import InboxItem, Journal
from memory.messages import Exchange, Person, Place, Source
from memory.remember import dismissal_event, exchange_event, remember

# Where the creator's own words arrive when no platform carried them.
SURFACE = Place("own", "creator", name="taught")


def teach(journal: Journal, question: str, *, answer: str, creator: Person, now: datetime) -> Exchange:
    """Journal one exchange from the creator's own surface. Raises UserMistake when either half is empty."""
    exchange = given(question, answer, creator=creator, now=now)
    remember(journal, [exchange_event(exchange)], creator=frozenset({creator.key}))
    return exchange


def answer_question(journal: Journal, number: int, *, answer: str, creator: Person, now: datetime) -> Exchange:
    """Answer question `number` of the inbox and close it. Raises UserMistake when it is not open."""
    item = waiting(journal, number)
    # The answer is the creator's own; the question stays the member's, on the terms it came under.
    exchange = replace(
        given(item.question, answer, creator=creator, now=now),
        question_source=item.source,
        question_place=item.place.key,
        asker=item.asker,
    )
    remember(journal, [exchange_event(exchange, answers=item.question_id)], creator=frozenset({creator.key}))
    return exchange


def dismiss(journal: Journal, number: int, *, creator: Person, now: datetime) -> None:
    """Close question `number` without an answer. Raises UserMistake when it is not open."""
    item = waiting(journal, number)
    remember(journal, [dismissal_event(item.question_id, creator, at=now)], creator=frozenset({creator.key}))


def waiting(journal: Journal, number: int) -> InboxItem:
    """The open question with this number."""
    for item in journal.inbox():
        if item.number == number:
            return item
    raise UserMistake(f'No question {number} waits in the inbox. See "understudy inbox list".')


def given(question: str, answer: str, *, creator: Person, now: datetime) -> Exchange:
    """An exchange in the creator's own words."""
    question, answer = question.strip(), answer.strip()
    if not question or not answer:
        raise UserMistake("Both the question and the answer need words.")
    # Teaching the same question twice is meant: the newer answer wins in recall, so every teaching has its own id.
    return Exchange(
        id=str(uuid.uuid4()),
        question=question,
        answer=answer,
        author=creator,
        place=SURFACE,
        at=now,
        source=Source.CREATOR_SURFACE,
        question_source=Source.CREATOR_SURFACE,
    )
