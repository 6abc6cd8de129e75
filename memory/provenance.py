"""What may be learned from what: one table, applied in one place, closed to everything it does not name. Pure.

Answering and training are judged apart. A row of training needs both halves eligible: the creator's answer and the
question, which is somebody else's words unless it came as the creator's own question-and-answer pair.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from memory.messages import Exchange, Source

Terms = Literal["yes", "consent", "permission", "no"]

# design.md, "What may be learned from what". "consent": the author's, in that place. "permission": the platform's, as
# recorded by the operator with a reference and a date (Discord's developer policy, rule 21).
ANSWERING: dict[Source, bool] = {source: source is not Source.TWIN for source in Source}
TRAINING: dict[Source, Terms] = {
    Source.CREATOR_SURFACE: "yes",
    Source.CREATOR_DOCUMENT: "yes",
    Source.CREATOR_QA: "yes",
    Source.CREATOR_ARCHIVE: "yes",
    Source.CHAT_EXPORT: "consent",
    Source.DISCORD_API: "permission",
    Source.TELEGRAM_DIRECT: "consent",
    Source.OWN_DIRECT: "consent",
    Source.TELEGRAM_GROUP: "no",
    Source.TWIN: "no",
}


@dataclass(frozen=True)
class Permissions:
    """What the operator recorded of the permission that a platform gave; empty when there is none."""

    discord_reference: str = ""
    discord_date: str = ""


@dataclass(frozen=True)
class Eligibility:
    """Whether a row may train, and the reason, in words that are counted and shown."""

    eligible: bool
    reason: str


def may_answer(source: Source) -> bool:
    """Whether memory may answer from what came this way."""
    return ANSWERING.get(source, False)


def may_train(
    exchange: Exchange, *, consent: Callable[[str, str], bool], permissions: Permissions = Permissions()
) -> Eligibility:
    """Whether both halves of `exchange` may train. `consent(person_key, place_key)` says who agreed where."""
    place = exchange.place.key
    if exchange.author.role == "teacher":
        return Eligibility(eligible=False, reason="answer: a teacher's, and the voice is the creator's")
    answer = half(exchange.source, exchange.author.key, place, consent=consent, permissions=permissions)
    if answer:
        return Eligibility(eligible=False, reason=f"answer: {answer}")
    asker = exchange.asker.key if exchange.asker else ""
    asked_in = exchange.question_place or place
    question = half(exchange.question_source, asker, asked_in, consent=consent, permissions=permissions)
    if question:
        return Eligibility(eligible=False, reason=f"question: {question}")
    return Eligibility(eligible=True, reason="eligible")


def half(
    source: Source, person: str, place: str, *, consent: Callable[[str, str], bool], permissions: Permissions
) -> str:
    """Why one half may not train; empty when it may."""
    terms = TRAINING.get(source, "no")
    if terms == "yes":
        return ""
    if terms == "consent":
        return "" if person and consent(person, place) else f"no consent for what came as {source}"
    if terms == "permission":
        recorded = permissions.discord_reference and permissions.discord_date
        return "" if recorded else f"no recorded permission of the platform for {source}"
    return f"{source} never trains"
