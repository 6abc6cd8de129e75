"""Migrations: each once, in order, whoever starts first, and never backwards."""

import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from infra.database import connect, migrate, reading, writing
from infra.errors import ServiceTrouble, UserMistake


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


def test_a_file_that_is_no_database_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "d.db").write_bytes(b"this is not a database, it is a letter" * 100)

    with pytest.raises(ServiceTrouble, match="not a database"), writing(connect(f"sqlite:///{tmp_path / 'd.db'}")):
        pass
