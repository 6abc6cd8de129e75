"""Memory's values as JSON and back. The journal's payloads and the run folders hold exactly this.

Text that no database can hold (NUL, lone surrogates) becomes U+FFFD here, once, so that what is read back is what was
written on SQLite and PostgreSQL alike.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from infra.errors import UserMistake
from memory.messages import Answer, Event, Exchange, Message, Note, Passage, Person, Place, Source, Why

# No chat is older; exports write the year 1 where they know no date, and dates far out overflow what is read around.
YEARS = range(1970, 2200)
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(text: str) -> str:
    """`text` with what cannot be stored replaced by U+FFFD."""
    return UNSTORABLE.sub("\ufffd", text)


def time_text(at: datetime) -> str:
    """UTC as text that sorts by time. Raises ValueError for a naive time: its meaning would depend on the machine."""
    if at.tzinfo is None:
        raise ValueError(f"{at!r} has no time zone")
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def time_of(text: str) -> datetime:
    return datetime.fromisoformat(text)


def dumps(value: Mapping[str, Any]) -> str:
    """Canonical JSON text that any database can hold."""
    return json.dumps(plain(value), ensure_ascii=False, sort_keys=True)


def plain(value: Any) -> Any:
    """JSON values of frozen dataclasses' dictionaries: times as text, tuples and sets as lists, storable text."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, datetime):
        return time_text(value)
    if isinstance(value, Mapping):
        return {storable(str(key)): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, frozenset):
        return sorted(map(plain, value))
    return value


def cleaned(event: Event) -> Event:
    """`event` as it will be read back, so that what is derived from it and what is stored of it cannot differ.

    Raises UserMistake for a date that no chat can have.
    """
    if event.at.year not in YEARS:
        raise UserMistake(f"An event is dated {event.at.isoformat()}: only the years 1970 to 2199 can be kept.")
    return replace(
        event,
        platform=storable(event.platform),
        place=storable(event.place),
        message_id=storable(event.message_id),
        author=person_from(encoded(event.author)),
        payload=json.loads(dumps(event.payload)),
    )


def encoded(value: Message | Exchange | Passage | Answer | Person | Place) -> dict[str, Any]:
    """A value as the dictionary its `*_from` reads back."""
    found = plain(asdict(value))
    assert isinstance(found, dict)
    return found


def person_from(found: Mapping[str, Any]) -> Person:
    return Person(**found)


def place_from(found: Mapping[str, Any]) -> Place:
    return Place(**found)


def message_from(found: Mapping[str, Any]) -> Message:
    return Message(**{**found, **who_where_when(found, "person"), "mentions": tuple(found["mentions"])})


def exchange_from(found: Mapping[str, Any]) -> Exchange:
    given = {
        **found,
        **who_where_when(found, "author"),
        "source": Source(found["source"]),
        "question_source": Source(found["question_source"]),
        "asker": person_from(found["asker"]) if found["asker"] else None,
        "question_ids": tuple(found["question_ids"]),
        "answer_ids": tuple(found["answer_ids"]),
    }
    return Exchange(**given)


def passage_from(found: Mapping[str, Any]) -> Passage:
    return Passage(**{**found, **who_where_when(found, "author"), "source": Source(found["source"])})


def answer_from(found: Mapping[str, Any]) -> Answer:
    return Answer(**{**found, "notes": tuple(map(note_from, found["notes"]))})


def note_from(found: Mapping[str, Any]) -> Note:
    return Note(**{**found, "at": time_of(found["at"]), "why": why_from(found.get("why", {}))})


def why_from(found: Mapping[str, Any]) -> Why:
    """Answers that were journalled before notes told why have nothing to tell."""
    replaced = found.get("replaced")
    return Why(**{**found, "words": tuple(found.get("words", ())), "replaced": time_of(replaced) if replaced else None})


def who_where_when(found: Mapping[str, Any], who: str) -> dict[str, Any]:
    return {who: person_from(found[who]), "place": place_from(found["place"]), "at": time_of(found["at"])}
