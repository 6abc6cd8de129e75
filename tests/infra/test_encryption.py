"""An encrypted journal: nobody reads it without its key, and everything works with it."""

from pathlib import Path

import pytest

from infra.cli import keeping
from infra.cli.compose import open_journal
from infra.errors import ServiceTrouble, UserMistake
from infra.settings import Settings, load_settings
from memory.journal import Journal
from memory.remember import exchange_event, remember
from tests.memory.making import taught
from tests.people import CREATOR

WORD = b"Zanzibar"


def write_key(path: Path, digit: str) -> Path:
    path.write_text(digit * 64, encoding="ascii")
    path.chmod(0o600)
    return path


def keyed(home: Path) -> Settings:
    """The same home with a key for its journal."""
    write_key(home / "key", "a")
    with (home / "understudy.toml").open("a", encoding="utf-8") as config:
        config.write('[journal]\nkey_file = "key"\n')
    return load_settings(home)


def teach(settings: Settings) -> Journal:
    journal = open_journal(settings)
    remember(journal, [exchange_event(taught("Where to?", "To Zanzibar."))], creator=CREATOR)
    return journal


def known(settings: Settings) -> list[str]:
    journal = open_journal(settings)
    found = [each.answer for each in journal.exchanges()]
    journal.close()
    return found


def held(folder: Path) -> list[Path]:
    """The files that hold the word."""
    return [path for path in folder.rglob("*") if path.is_file() and WORD in path.read_bytes()]


def test_no_file_shows_a_word_and_a_backup_is_encrypted_too(home: Path, tmp_path: Path) -> None:
    settings = keyed(home)
    journal = teach(settings)
    keeping.backup(home, str(tmp_path / "a.tar"), keep=0, as_json=True)
    assert held(home) == []
    journal.close()

    keeping.restore(home, str(tmp_path / "a.tar"), replace=True, as_json=True)

    assert known(settings) == ["To Zanzibar."]
    assert held(home) == []


def test_a_plain_journal_is_encrypted_in_place(home: Path) -> None:
    plain = load_settings(home)
    teach(plain).close()
    settings = keyed(home)
    with pytest.raises(ServiceTrouble, match="cannot be read with this key"):
        open_journal(settings)

    keeping.encrypt_journal(home)

    assert known(settings) == ["To Zanzibar."]
    assert held(home) == []
    with pytest.raises(UserMistake, match="encrypted already"):
        keeping.encrypt_journal(home)
    with pytest.raises(ServiceTrouble, match="If it is encrypted"):
        open_journal(plain)


def test_another_key_and_a_careless_one_are_refused(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    settings = keyed(home)
    teach(settings).close()
    with pytest.raises(ServiceTrouble, match="cannot be read with this key"):
        Journal.open(settings.journal_url.replace("/key", f"/{write_key(home / 'other', 'b').name}"))
    assert capfd.readouterr().err == ""
    (home / "key").chmod(0o644)
    with pytest.raises(UserMistake, match="chmod 600"):
        open_journal(settings)
    (home / "key").chmod(0o600)
    (home / "key").write_text("secret", encoding="ascii")
    with pytest.raises(UserMistake, match="openssl rand -hex 32"):
        open_journal(settings)


def test_a_key_beside_what_it_locks_is_refused(home: Path) -> None:
    with (home / "understudy.toml").open("a", encoding="utf-8") as config:
        config.write('[journal]\nkey_file = "data/key"\n')

    with pytest.raises(UserMistake, match="lies in the data folder"):
        load_settings(home)
