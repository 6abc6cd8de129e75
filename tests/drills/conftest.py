"""Databases for the drills, as the journal's own tests have them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.databases import ENGINES, emptied, postgresql


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL server of our own."""
    with postgresql(tmp_path_factory.mktemp("postgres")) as url:
        yield url


@pytest.fixture(params=ENGINES)
def journal_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'journal.db'}"
    return emptied(request.getfixturevalue("postgres"))
