"""Journals to test on, open and empty."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from memory.journal import Journal


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
