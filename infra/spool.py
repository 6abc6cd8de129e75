"""What the process of a platform must not forget when it dies: updates to handle, and what its messages stand for.

An update is put here before the platform is told that it arrived, so that neither side's death can lose it. A message
of the twin's that asks for something, or that belongs to another place, has a note here that says what it means.
"""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from infra.database import Migration, migrate, reading, writing

# Platforms repeat for a day what was not acknowledged; for as long a handled update is known by its id alone.
REPEATED = timedelta(days=1)
# Buttons stay in chats for years, yet nobody fills a form after this.
MEANT = timedelta(days=180)


def m001_spool(connection: Connection) -> None:
    """Updates and meanings."""
    connection.execute(sa.text(SPOOL))
    connection.execute(sa.text(MEANINGS))


SPOOL = """
CREATE TABLE spool (
    platform TEXT NOT NULL, id TEXT NOT NULL, payload TEXT NOT NULL, at TEXT NOT NULL, PRIMARY KEY (platform, id)
)
"""
MEANINGS = """
CREATE TABLE meanings (
    platform TEXT NOT NULL, place TEXT NOT NULL, message_id TEXT NOT NULL, payload TEXT NOT NULL, at TEXT NOT NULL,
    PRIMARY KEY (platform, place, message_id)
)
"""

MIGRATIONS: list[Migration] = [m001_spool]


class Spool:
    """The two tables of one platform. Safe to share between threads."""

    def __init__(self, engine: Engine, platform: str) -> None:
        self._engine, self._platform = engine, platform
        migrate(engine, "spool", MIGRATIONS)

    def put(self, identity: str, payload: str, *, now: datetime) -> bool:
        """Keep an update; False when it is, or was, here already. Raises ServiceTrouble."""
        self._run(
            "DELETE FROM spool WHERE platform = :platform AND payload = '' AND at < :old", old=stamp(now - REPEATED)
        )
        made = self._run(
            "INSERT INTO spool VALUES (:platform, :id, :payload, :at) ON CONFLICT DO NOTHING RETURNING id",
            id=identity,
            payload=payload,
            at=stamp(now),
        )
        return bool(made)

    def waiting(self) -> list[tuple[str, str]]:
        """Id and payload of every update that nobody has handled, oldest first."""
        rows = self._read("SELECT id, payload FROM spool WHERE platform = :platform AND payload <> '' ORDER BY at, id")
        return [(row["id"], row["payload"]) for row in rows]

    def done(self, identity: str) -> None:
        """The update was handled: its words go, its id stays for as long as it may be repeated."""
        self._run("UPDATE spool SET payload = '' WHERE platform = :platform AND id = :id", id=identity)

    def mean(self, place: str, message_id: str, meaning: Mapping[str, Any], *, now: datetime) -> None:
        """Say what a message of the twin's stands for, in place of what it stood for; an empty `meaning` is nothing."""
        self._run("DELETE FROM meanings WHERE platform = :platform AND at < :old", old=stamp(now - MEANT))
        self._run(
            "DELETE FROM meanings WHERE platform = :platform AND place = :place AND message_id = :id",
            place=place,
            id=message_id,
        )
        if meaning:
            self._run(
                "INSERT INTO meanings VALUES (:platform, :place, :id, :payload, :at)",
                place=place,
                id=message_id,
                payload=json.dumps(dict(meaning), ensure_ascii=False),
                at=stamp(now),
            )

    def meaning(self, place: str, message_id: str) -> dict[str, Any]:
        """What a message stands for; empty when it stands for itself."""
        rows = self._read(
            "SELECT payload FROM meanings WHERE platform = :platform AND place = :place AND message_id = :id",
            place=place,
            id=message_id,
        )
        return dict(json.loads(rows[0]["payload"])) if rows else {}

    def meanings(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Place, message and meaning of all there are."""
        rows = self._read("SELECT place, message_id, payload FROM meanings WHERE platform = :platform ORDER BY at")
        return [(row["place"], row["message_id"], json.loads(row["payload"])) for row in rows]

    def _run(self, statement: str, **values: Any) -> list[dict[str, Any]]:
        with writing(self._engine) as connection:
            done = connection.execute(sa.text(statement), {"platform": self._platform, **values})
            return [dict(row) for row in done.mappings()] if done.returns_rows else []

    def _read(self, statement: str, **values: Any) -> list[dict[str, Any]]:
        with reading(self._engine) as connection:
            rows = connection.execute(sa.text(statement), {"platform": self._platform, **values}).mappings()
            return [dict(row) for row in rows]


def stamp(at: datetime) -> str:
    """UTC as text that sorts by time."""
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
