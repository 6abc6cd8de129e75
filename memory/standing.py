"""Of several answers to one question the one that speaks: the creator's newest. Those before it stay, dated. Pure.

What counts as one question is `memory/alike.py`'s normal form, worked out when an exchange is written. A teacher's
answer speaks only where the creator has none. Nothing is merged or lost in the journal: this is how it is read.

What the creator wrote in several messages to one question is several rows of an archive. Those are parts of one answer:
none of them replaces another, and all of them speak.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from memory.alike import normal_form
from memory.messages import Exchange, Source
from memory.terms import content_terms

# So long after an answer to somebody's question its author still goes on with it: of 32 such questions in a real
# archive 29 had all their parts within a week.
GOES_ON = timedelta(days=7)


@dataclass(frozen=True)
class Standing:
    """A question with its answers: the one that speaks, the others newest first, and how many people have asked it."""

    speaks: Exchange
    others: tuple[Exchange, ...] = ()
    askers: int = 0

    @property
    def parts(self) -> tuple[Exchange, ...]:
        """The other parts of the answer that speaks."""
        return tuple(each for each in self.others if is_part(self.speaks, each))

    @property
    def answers(self) -> int:
        return 1 + len(self.others) - len(self.parts)

    @property
    def replaced(self) -> datetime | None:
        """When the creator last said something else; None when this is what they always said."""
        return next((each.at for each in self.others if supersedes(self.speaks, each)), None)

    def state(self, exchange: Exchange) -> Literal["speaks", "replaced", "said again", "a teacher's"]:
        """What became of one of the answers."""
        if exchange == self.speaks or is_part(self.speaks, exchange):
            return "speaks"
        if supersedes(self.speaks, exchange):
            return "replaced"
        return "said again" if is_creators(exchange) else "a teacher's"


def question_form(exchange: Exchange) -> str:
    """The same for exchanges that answer the same question.

    A question that was overheard and names nothing, such as "and why?", asks something else in every conversation.
    """
    overheard = exchange.pairing != "given" and not content_terms(exchange.question)
    return exchange.id if overheard or not exchange.question.strip() else normal_form(exchange.question)


def standings(
    found: Iterable[tuple[str, Exchange]], waited: Mapping[str, Set[str]] | None = None
) -> dict[str, Standing]:
    """What stands, by form of the question. `waited` holds who asked it without being answered from memory."""
    by_form: defaultdict[str, list[Exchange]] = defaultdict(list)
    for form, exchange in found:
        by_form[form].append(exchange)
    return {form: standing(exchanges, (waited or {}).get(form, frozenset())) for form, exchanges in by_form.items()}


def standing(exchanges: Iterable[Exchange], waited: Set[str] = frozenset()) -> Standing:
    """What stands of the answers to one question; there is at least one."""
    speaks, *others = sorted(exchanges, key=lambda each: (is_creators(each), each.at, each.id), reverse=True)
    askers = {each.asker.key for each in (speaks, *others) if each.asker} | waited
    return Standing(speaks, tuple(sorted(others, key=lambda each: each.at, reverse=True)), len(askers))


def supersedes(newer: Exchange, older: Exchange) -> bool:
    """Whether one answer replaces another: it came later and says something else, and not in addition."""
    another = newer.at > older.at and normalised(newer.answer) != normalised(older.answer)
    return another and not is_part(newer, older)


def is_part(one: Exchange, other: Exchange) -> bool:
    """Whether two rows of one archive are parts of one answer: to the very same words, and written soon after."""
    archived = one.source is Source.CREATOR_QA and (one.source, one.place) == (other.source, other.place)
    return archived and one.question == other.question and abs(one.at - other.at) <= GOES_ON


def is_creators(exchange: Exchange) -> bool:
    return exchange.author.role != "teacher"


def normalised(text: str) -> str:
    """A text by its words alone, so that case, width and punctuation do not make it another one."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(c if c.isalnum() else " " for c in folded).split()) or folded.strip()
