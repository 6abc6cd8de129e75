"""Short ways to make memory's values in tests."""

from dataclasses import replace
from datetime import timedelta

from memory.messages import Exchange, Message, Passage, Person, Place, Source, name_uuid
from tests.people import ADA, NOON

GROUP = Place("telegram", "100", name="bakery")


def said(
    identity: str,
    person: Person,
    text: str,
    *,
    minutes: float = 0,
    reply_to: str | None = None,
    revision: int = 0,
    place: Place = GROUP,
) -> Message:
    return Message(
        identity, person, place, NOON + timedelta(minutes=minutes), text, reply_to=reply_to, revision=revision
    )


def taught(question: str, answer: str, *, days: float = 0, community: str = "main") -> Exchange:
    """What Ada taught on her own surface."""
    return Exchange(
        id=name_uuid("test", question, answer, str(days)),
        question=question,
        answer=answer,
        author=ADA,
        place=replace(GROUP, platform="own", id="creator", community=community),
        at=NOON + timedelta(days=days),
        source=Source.CREATOR_SURFACE,
        question_source=Source.CREATOR_SURFACE,
    )


def piece(document: str, position: int, text: str) -> Passage:
    return Passage(
        name_uuid("piece", document, text), document, position, "", text, ADA, GROUP, NOON, Source.CREATOR_DOCUMENT
    )
