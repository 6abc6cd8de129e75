"""Migrations: each once, in order, whoever starts first, and never backwards."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from infra import postgresql
from infra.database import LOCK_WAIT_S, applied, connect, migrate, reading, writing
from infra.errors import ServiceTrouble, UserMistake
from tests.databases import emptied


@pytest.fixture
def postgres_engine(postgres: str) -> Iterator[sa.Engine]:
    """A real PostgreSQL, for what SQLite does otherwise."""
    engine = connect(emptied(postgres))
    yield engine
    engine.dispose()


def first(connection: sa.Connection) -> None:
    connection.execute(sa.text("CREATE TABLE things (name TEXT)"))


def second(connection: sa.Connection) -> None:
    connection.execute(sa.text("INSERT INTO things VALUES ('made')"))


def test_each_step_runs_once_also_when_several_start_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'd.db'}"
    threads = [threading.Thread(target=lambda: migrate(connect(url), "x", [first, second])) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    with reading(connect(url)) as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM things")).scalar() == 1


def test_a_step_that_fails_leaves_nothing_and_runs_again(tmp_path: Path) -> None:
    def fails(connection: sa.Connection) -> None:
        first(connection)
        raise RuntimeError("power cut")

    engine = connect(f"sqlite:///{tmp_path / 'd.db'}")
    with pytest.raises(RuntimeError):
        migrate(engine, "x", [fails])

    migrate(engine, "x", [first])


def test_a_newer_database_is_refused_in_a_sentence(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path / 'd.db'}")
    migrate(engine, "x", [first, second])

    with pytest.raises(UserMistake, match=r"version 2 .* knows 1: update it"):
        migrate(engine, "x", [first])


def test_a_url_of_another_kind_is_refused() -> None:
    with pytest.raises(UserMistake, match="sqlite:///"):
        connect("mysql://host/db")


@pytest.mark.parametrize("url", ["sqlite:///", "sqlite:///:memory:"])
def test_a_database_that_would_be_thrown_away_is_refused(url: str) -> None:
    with pytest.raises(UserMistake, match="names no file"):
        connect(url)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("not a folder")

    with pytest.raises(UserMistake, match=r"letter/d\.db' cannot be made: file exists"):
        connect(f"sqlite:///{tmp_path / 'letter' / 'd.db'}")


def test_a_server_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(ServiceTrouble, match="refused") as raised, reading(connect("postgresql://127.0.0.1:1/none")):
        pass

    assert "\n" not in str(raised.value)


def test_what_a_database_quotes_of_a_row_is_not_repeated(postgres_engine: sa.Engine) -> None:
    """PostgreSQL puts the values into its complaint, and a value may be what somebody wrote."""
    twice = sa.text("INSERT INTO said VALUES ('my secret'), ('my secret')")

    with writing(postgres_engine) as connection:
        connection.execute(sa.text("CREATE TABLE said (words TEXT UNIQUE)"))
    with pytest.raises(ServiceTrouble) as raised, writing(postgres_engine) as connection:
        connection.execute(twice)

    assert "unique" in str(raised.value)
    assert "my secret" not in str(raised.value)


def test_a_writer_does_not_wait_for_ever(postgres_engine: sa.Engine) -> None:
    with reading(postgres_engine) as connection:
        assert connection.execute(sa.text("SHOW lock_timeout")).scalar() == f"{LOCK_WAIT_S}s"


def test_a_file_that_is_no_database_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "d.db").write_bytes(b"this is not a database, it is a letter" * 100)

    with pytest.raises(ServiceTrouble, match="not a database"), writing(connect(f"sqlite:///{tmp_path / 'd.db'}")):
        pass


def test_a_migration_takes_its_time_where_nothing_else_may(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that rewrites a large table says nothing for minutes."""
    monkeypatch.setattr(postgresql, "SILENCE_S", 0.5)
    engine = connect(emptied(postgres))
    slowly = sa.text("SELECT pg_sleep(1.5)")

    migrate(engine, "slow", [lambda connection: connection.execute(slowly)])

    assert applied(engine, "slow") == 1
    with pytest.raises(ServiceTrouble, match="silent for 0.5 s"), writing(engine) as connection:
        connection.execute(slowly)
    engine.dispose()
