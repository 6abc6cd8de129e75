"""Journals to test on: SQLite in a temporary folder, and a real PostgreSQL that the suite starts and stops."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from memory.journal import Journal
from tests.databases import ENGINES, emptied, postgresql


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL server of our own; its binaries come from a PyPI package."""
    with postgresql(tmp_path_factory.mktemp("postgres")) as url:
        yield url


@pytest.fixture(params=ENGINES)
def journal_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'journal.db'}"
    return emptied(request.getfixturevalue("postgres"))


@pytest.fixture
def journal(journal_url: str) -> Iterator[Journal]:
    """An open, empty journal on each database."""
    opened = Journal.open(journal_url)
    yield opened
    opened.close()


@pytest.fixture
def sqlite_journal(tmp_path: Path) -> Iterator[Journal]:
    """An open, empty journal on SQLite, where the database makes no difference."""
    opened = Journal.open(f"sqlite:///{tmp_path / 'own.db'}")
    yield opened
    opened.close()
