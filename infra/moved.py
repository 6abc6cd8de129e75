"""A mark in a database that an installation has left, or has not wholly arrived in: nobody begins to use it by mistake.

Two twins with one bot's token would both answer. The mark is in the database and not in a folder, because every host
that uses the database has to see it.
"""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from infra.database import reading, writing
from infra.errors import UserMistake

TABLE = "moved"


@dataclass(frozen=True)
class Mark:
    """Where the twin went, and when; an empty place is a database that it has not wholly arrived in."""

    place: str
    at: str


def mark(connection: Connection, place: str, at: datetime) -> None:
    """Leave the mark, instead of another."""
    connection.execute(sa.text(f"CREATE TABLE IF NOT EXISTS {TABLE} (place TEXT NOT NULL, at TEXT NOT NULL)"))
    connection.execute(sa.text(f"DELETE FROM {TABLE}"))
    connection.execute(
        sa.text(f"INSERT INTO {TABLE} (place, at) VALUES (:place, :at)"), {"place": place, "at": at.isoformat()}
    )


def marked(engine: Engine) -> Mark | None:
    """The mark, where there is one."""
    with reading(engine) as connection:
        if not sa.inspect(connection).has_table(TABLE):
            return None
        row = connection.execute(sa.text(f"SELECT place, at FROM {TABLE}")).first()
        return Mark(*row) if row else None


def unmark(engine: Engine) -> None:
    """Take the mark away."""
    with writing(engine) as connection:
        connection.execute(sa.text(f"DROP TABLE IF EXISTS {TABLE}"))


def refuse_moved(engine: Engine) -> None:
    """Raise UserMistake for a database with a mark."""
    found = marked(engine)
    if found is None:
        return
    if not found.place:
        raise UserMistake('A move into this database was not finished: repeat "understudy migrate" where it came from.')
    raise UserMistake(
        f"This twin moved to {found.place} at {found.at[:16]}, and is used there. Only where that one is off, and will "
        "stay so: understudy migrate --undo"
    )
