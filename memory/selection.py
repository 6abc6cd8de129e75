"""What a forgetting is about: one selection, asked of a line of the journal, and the tombstone that keeps it. Pure.

A tombstone holds no words: ids, times, and of a person only a salted hash of their key. It outlives the journal, so
that neither an older backup nor the same archive brings back what was forgotten; see `memory/tombstones.py`.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import Any

from memory.codec import plain, time_of
from memory.messages import Event, Kind, pair_id

# A person's decisions about their data outlive the data: forgetting them would switch listening back on.
KEPT = frozenset({Kind.CHOICE})
# Lines without words: they go with a person or a place, and stay when a time or a source goes.
STATE = frozenset(
    {
        Kind.CONSENT,
        Kind.LISTENING,
        Kind.CARD,
        Kind.NOTICE,
        Kind.DISMISSAL,
        Kind.DELETION,
        Kind.VOTE,
        Kind.TRIAL,
        Kind.CLEARANCE,
    }
)
SEAL = "sealed"


@dataclass(frozen=True)
class Selection:
    """What to forget: whatever fits every part that is given.

    `person` and `place` are keys; in a tombstone the person's is sealed. `messages` are the keys of the messages that
    `exchange` was paired from. `undated`, in a tombstone, are the ids of what went and would come again as of another
    hour.
    """

    person: str = ""
    place: str = ""
    exchange: str = ""
    document: str = ""
    source: str = ""
    after: datetime | None = None
    before: datetime | None = None
    messages: tuple[str, ...] = ()
    undated: frozenset[str] = frozenset()

    def fits(self, event: Event) -> bool:
        """Whether a line of the journal is meant."""
        return (
            event.kind not in (KEPT if self.person or self.place else KEPT | STATE)
            and (self.after is None or event.at >= self.after)
            and (self.before is None or event.at < self.before)
            and (not self.source or self.source in sources_of(event))
            and (not self.person or any(is_person(self.person, key) for key in people_of(event)))
            and (not self.place or any(f"{key}:".startswith(f"{self.place}:") for key in places_of(event)))
            and (not self.document or document_of(event) == self.document)
            and (not self.exchange or self._is_of_exchange(event))
        )

    def _is_of_exchange(self, event: Event) -> bool:
        if event.kind is Kind.EXCHANGE:
            return event.message_id == self.exchange
        return event.kind in {Kind.MESSAGE, Kind.EDIT} and message_key(event) in self.messages

    def sealed(self, salt: str) -> "Selection":
        """The same without the person's id; it fits what it did."""
        return replace(self, person=seal(salt, self.person)) if self.person else self

    def described(self) -> dict[str, Any]:
        """The parts that are given, as JSON."""
        return {name: value for name, value in plain(asdict(self)).items() if value}


@dataclass(frozen=True)
class Tombstone:
    """A forgetting that stays in force until it is lifted: its receipt, when it was, and how much of what went."""

    receipt: str
    at: datetime
    selection: Selection
    counts: Mapping[str, int] = field(default_factory=dict)
    lifted: bool = False

    def covers(self, event: Event) -> bool:
        """Whether a line must not come back: what is named by its id or name ever, anything else if it is from before.

        So a person who was forgotten, and writes again, is remembered again.
        """
        if self.lifted:
            return False
        if event.message_id in self.selection.undated and is_undated(event):
            return True
        named = self.selection.document or self.selection.exchange
        return bool(named or event.at < self.at) and self.selection.fits(event)

    def described(self) -> dict[str, Any]:
        """As JSON; `tombstone_from` reads it back."""
        return {**plain(asdict(self)), "selection": self.selection.described()}


def selection_from(found: Mapping[str, Any]) -> Selection:
    """The selection that `Selection.described` wrote."""
    times = {name: time_of(found[name]) for name in ("after", "before") if found.get(name)}
    listed = {"messages": tuple(found.get("messages", ())), "undated": frozenset(found.get("undated", ()))}
    return Selection(**{**found, **times, **listed})


def tombstone_from(found: Mapping[str, Any]) -> Tombstone:
    return Tombstone(**{**found, "at": time_of(found["at"]), "selection": selection_from(found["selection"])})


def is_undated(event: Event) -> bool:
    """Whether a line has the hour of its import: a piece of a document, or a pair that came without a date."""
    if event.kind is Kind.EXCHANGE:
        pair = event.payload["exchange"]
        return event.message_id == pair_id(pair["question"], pair["answer"], None)
    return event.kind is Kind.PASSAGE and event.platform == "import"


def is_person(named: str, key: str) -> bool:
    """Whether a person's key is the one that is named, openly or by its seal."""
    kind, _, salted = named.partition("$")
    return named == key or (kind == SEAL and named == seal(salted.partition("$")[0], key))


@lru_cache(maxsize=1 << 14)
def seal(salt: str, key: str) -> str:
    """A person's key as a salted hash. It hides who was meant at a glance, not from somebody who tries every id."""
    return f"{SEAL}${salt}${hashlib.sha256(f'{salt}:{key}'.encode()).hexdigest()}"


def message_key(event: Event) -> str:
    """Names a message on every platform; whichever thread it stands in."""
    return f"{event.platform}:{event.place}:{event.message_id}"


def people_of(event: Event) -> list[str]:
    """Whose words a line holds: its author's, and the asker's of an exchange."""
    asker = event.payload["exchange"]["asker"] if event.kind is Kind.EXCHANGE else None
    return [event.author.key, *([f"{asker['platform']}:{asker['id']}"] if asker else ())]


def places_of(event: Event) -> list[str]:
    """Where a line is from; answers are filed by conversation, exchanges may have been asked elsewhere."""
    keys = [f"{event.platform}:{event.place}", event.place]
    return [*keys, event.payload["exchange"]["question_place"]] if event.kind is Kind.EXCHANGE else keys


def sources_of(event: Event) -> set[str]:
    """How the words of a line came; those of an exchange may have come in two ways."""
    asked = {event.payload["exchange"]["question_source"]} if event.kind is Kind.EXCHANGE else set()
    return {str(event.source), *asked}


def document_of(event: Event) -> str:
    """The file that a line was imported from as a document or a table of pairs; empty for any other."""
    if event.kind is Kind.PASSAGE:
        return str(event.payload["document"])
    if event.kind is Kind.IMPORT:
        return event.message_id
    imported = event.kind is Kind.EXCHANGE and event.platform == "import"
    return str(event.payload["exchange"]["place"]["name"]) if imported else ""
