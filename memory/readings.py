"""What one exchange or passage says, as the graph takes it in, and the form in which names are compared. Pure."""

import re
import unicodedata
from collections.abc import Container
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from memory.terms import CJK, stem

EntityKind = Literal["person", "place", "project", "tool", "concept"]
Stance = Literal["prefers", "recommends", "uses", "decided", "avoids", "describes"]

# A name of more words or characters than this is a sentence.
LONGEST = 8
# Punctuation is a unit of its own, so that no name reaches across it.
UNITS = re.compile(f"[{CJK}]|[^\\W{CJK}]+(?:\\+\\+|#)?(?:['’][^\\W{CJK}]+)?|[.,;:!?()\\n，。；：！？、（）]")


@dataclass(frozen=True)
class Mention:
    """A name as it was written, and what it seems to be there; "concept" is what nothing else speaks for."""

    name: str
    kind: EntityKind = "concept"


@dataclass(frozen=True)
class Statement:
    """What the creator said of something: the stance, the thing, and the words."""

    stance: Stance
    about: str
    quote: str


@dataclass(frozen=True)
class Reading:
    """What one exchange or passage says. `asks` is its question's normal form: a later answer to it replaces this."""

    source: str
    at: datetime
    asks: str = ""
    mentions: tuple[Mention, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
    statements: tuple[Statement, ...] = ()


def units(text: str) -> list[str]:
    """Stems of words, single Chinese characters, and punctuation."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return [unit if unit[-1] in "+#" else stem(unit) for unit in UNITS.findall(folded)]


def name_key(name: str) -> str:
    """The same for the forms of one name: "Starters" and "starter", full width and half width."""
    return " ".join(units(name))


def names_in(text: str, *known: Container[str]) -> list[str]:
    """The keys of `known` names in `text`, in order; of two that overlap the longer, then the earlier one."""
    found, row, at = [], units(text), 0
    while at < len(row):
        sizes = range(min(LONGEST, len(row) - at), 0, -1)
        windows = ((" ".join(row[at : at + size]), size) for size in sizes)
        key, taken = next(((key, size) for key, size in windows if any(key in each for each in known)), ("", 1))
        found += [key] if key else []
        at += taken
    return found
