"""Databases to test on: a real PostgreSQL of our own, whose binaries come from a package, and empty ones of each kind."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

ENGINES = ("sqlite", "postgres")


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """The URL of a server that keeps its data in `folder` and ends with the block."""
    import pgserver

    server = pgserver.get_server(folder, cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def emptied(url: str) -> str:
    """The same PostgreSQL database with nothing in it."""
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
    engine.dispose()
    return url
