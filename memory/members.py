"""What the journal knows of members and places: choices, listening, cards in the inbox, notices that are due.

Derived from events in the write that brings them, like everything else; `memory/remember.py` calls `derive`.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from infra.database import reading
from memory.codec import dumps, encoded, place_from, time_text
from memory.journal import InboxItem, Journal, Writer, inbox_item_of
from memory.messages import Event, Kind, Person, Place

# What a member may choose. "met" is no choice: the twin has introduced itself to them; "silent" is an admin's, for the
# twin itself.
Choice = Literal["met", "direct", "remember", "silent"]
# What holds until a member says otherwise.
DEFAULTS: dict[Choice, bool] = {"met": False, "direct": False, "remember": True, "silent": False}
TWIN = Person("twin", "everywhere", role="twin")


@dataclass(frozen=True)
class Notice:
    """A member whose question was answered after all, and does not know it yet."""

    question_id: str
    person: str
    place: Place
    message_id: str
    question: str
    answer: str


@dataclass(frozen=True)
class Report:
    """What a member says is wrong with an answer."""

    id: str
    answer: str
    reason: str


@dataclass(frozen=True)
class Card:
    """The message that shows question `number` of the inbox to the creator."""

    number: int
    place: str
    message_id: str


class Members:
    """Reads of these tables. Safe to share between threads."""

    def __init__(self, journal: Journal) -> None:
        self._engine = journal.engine

    def chosen(self, person: str, choice: Choice) -> bool:
        """What this person chose."""
        rows = self._rows(
            "SELECT value FROM choices WHERE person = :person AND name = :name", person=person, name=choice
        )
        return bool(rows[0]["value"]) if rows else DEFAULTS[choice]

    def listening(self, place: str) -> bool:
        """Whether an admin switched listening on in this place. Absence means no."""
        rows = self._rows("SELECT listening FROM places WHERE place = :place", place=place)
        return bool(rows and rows[0]["listening"])

    def places(self, platform: str) -> list[tuple[Place, str]]:
        """Where the twin listens on a platform, each with the server or group that it belongs to."""
        rows = self._rows(
            "SELECT payload, space FROM places WHERE platform = :platform AND listening = 1 ORDER BY place",
            platform=platform,
        )
        return [(place_from(json.loads(row["payload"])), row["space"]) for row in rows]

    def cards_shown_as(self, platform: str, message_id: str) -> list[Card]:
        """The cards that messages of this number show; on platforms that number by chat there may be several."""
        rows = self._rows(
            "SELECT number, place, message_id FROM cards WHERE platform = :platform AND message_id = :message",
            platform=platform,
            message=message_id,
        )
        return [Card(**row) for row in rows]

    def due_cards(self, platform: str) -> list[tuple[InboxItem, Card | None]]:
        """Questions whose card on a platform is missing or shows what holds no more, oldest first."""
        rows = self._rows(
            "SELECT i.*, c.place AS card_place, c.message_id, c.shown FROM inbox i LEFT JOIN cards c "
            "ON c.number = i.number AND c.platform = :platform WHERE c.shown <> i.state || ':' || i.count "
            "OR (c.shown IS NULL AND i.state = 'open') ORDER BY i.number",
            platform=platform,
        )
        return [
            (inbox_item_of(row), Card(row["number"], row["card_place"], row["message_id"]) if row["shown"] else None)
            for row in rows
        ]

    def notices(self, platform: str) -> list[Notice]:
        """Who is to be told on a platform, oldest first."""
        rows = self._rows(
            "SELECT n.question_id, n.answer, a.payload FROM notices n JOIN inbox_askers a "
            "ON a.question_id = n.question_id WHERE n.platform = :platform AND n.told = 0 ORDER BY n.at, n.question_id",
            platform=platform,
        )
        return [notice_of(row) for row in rows]

    def reports(self, platform: str) -> list[Report]:
        """Reports on a platform that the creator has not been shown."""
        rows = self._rows(
            "SELECT message_id, payload FROM events r WHERE kind = 'report' AND platform = :platform AND NOT EXISTS "
            "(SELECT 1 FROM events n WHERE n.kind = 'notice' AND n.message_id = r.message_id "
            "AND n.platform = r.platform) ORDER BY seq",
            platform=platform,
        )
        return [Report(row["message_id"], **json.loads(row["payload"])) for row in rows]

    def told(self, platform: str, identity: str) -> bool:
        """Whether somebody was told on a platform what they were to be told."""
        rows = self._rows(
            "SELECT 1 FROM events WHERE kind = 'notice' AND message_id = :id AND platform = :platform",
            id=identity,
            platform=platform,
        )
        return bool(rows)

    def draft(self, question_id: str) -> str:
        """The draft that waits for the creator's word on a question; empty when there is none."""
        rows = self._rows(
            "SELECT payload FROM events WHERE kind = :kind AND place = :place ORDER BY seq DESC LIMIT 1",
            kind=str(Kind.DRAFT),
            place=question_id,
        )
        return str(json.loads(rows[0]["payload"])["text"]) if rows else ""

    def _rows(self, statement: str, **values: Any) -> list[dict[str, Any]]:
        with reading(self._engine) as connection:
            return [dict(row) for row in connection.execute(sa.text(statement), values).mappings()]


def notice_of(row: dict[str, Any]) -> Notice:
    asked = json.loads(row["payload"])
    place = place_from(asked["place"])
    asker = asked["asker"]
    return Notice(
        question_id=row["question_id"],
        person=f"{asker['platform']}:{asker['id']}",
        place=place,
        message_id=row["question_id"].removeprefix(f"{place.key}:"),
        question=asked["question"],
        answer=row["answer"],
    )


def derive(writer: Writer, event: Event) -> None:
    """What one new event changes in these tables."""
    payload: Any = event.payload
    match event.kind:
        case Kind.CHOICE:
            put_choice(writer, event.author.key, payload["name"], value=payload["value"], at=event.at)
        case Kind.ANSWER:
            put_choice(writer, event.author.key, "met", value=True, at=event.at)
        case Kind.LISTENING:
            put_listening(writer, place_from(payload["place"]), on=payload["on"], space=payload["space"], at=event.at)
        case Kind.CARD:
            put_card(writer, event.platform, payload)
        case Kind.NOTICE:
            writer.run("UPDATE notices SET told = 1 WHERE question_id = :id", id=event.message_id)
        case Kind.EXCHANGE if payload["answers"]:
            put_notices(writer, payload["answers"], answer=payload["exchange"]["answer"], at=event.at)


def put_choice(writer: Writer, person: str, name: str, *, value: bool, at: datetime) -> None:
    """The later of two choices stands, in whatever order they arrive."""
    writer.run(
        "INSERT INTO choices (person, name, value, at) VALUES (:person, :name, :value, :at) "
        "ON CONFLICT (person, name) DO UPDATE SET value = excluded.value, at = excluded.at "
        "WHERE choices.at <= excluded.at",
        person=person,
        name=name,
        value=int(value),
        at=time_text(at),
    )


def put_listening(writer: Writer, place: Place, *, on: bool, space: str, at: datetime) -> None:
    writer.run(
        "INSERT INTO places (place, platform, space, listening, at, payload) "
        "VALUES (:place, :platform, :space, :on, :at, :payload) ON CONFLICT (place) DO UPDATE SET "
        "listening = excluded.listening, space = excluded.space, at = excluded.at, payload = excluded.payload "
        "WHERE places.at <= excluded.at",
        place=place.key,
        platform=place.platform,
        space=space,
        on=int(on),
        at=time_text(at),
        payload=dumps(encoded(place)),
    )


def put_card(writer: Writer, platform: str, payload: dict[str, Any]) -> None:
    writer.run(
        "INSERT INTO cards (platform, number, place, message_id, shown) "
        "VALUES (:platform, :number, :place, :message_id, :shown) ON CONFLICT (platform, number) DO UPDATE SET "
        "place = excluded.place, message_id = excluded.message_id, shown = excluded.shown",
        platform=platform,
        **payload,
    )


def put_notices(writer: Writer, question_id: str, *, answer: str, at: datetime) -> None:
    """Everybody who asked this question is to be told, each once, where they asked."""
    askers = writer.run(
        "SELECT question_id, payload FROM inbox_askers WHERE number = "
        "(SELECT number FROM inbox_askers WHERE question_id = :id)",
        id=question_id,
    )
    for asker in askers:
        writer.run(
            "INSERT INTO notices (question_id, platform, answer, at, told) VALUES (:id, :platform, :answer, :at, 0) "
            "ON CONFLICT DO NOTHING",
            id=asker["question_id"],
            platform=json.loads(asker["payload"])["place"]["platform"],
            answer=answer,
            at=time_text(at),
        )
