"""Backups that leave this machine: encrypted for a key that is not here, over a real SFTP server, whole or not there."""

import json
from collections.abc import Iterator
from pathlib import Path

import pyrage
import pytest

from infra import artifacts
from infra.backup import backups
from infra.cli import keeping, moving
from infra.cli.compose import open_journal
from infra.errors import ServiceTrouble, UserMistake
from infra.settings import Settings, load_settings
from memory.remember import exchange_event, remember
from tests.infra.sftp_server import PASSWORD, USER, sftp_server, trust
from tests.memory.making import taught
from tests.people import CREATOR

SECRET = "Strong white, and never sifted."


@pytest.fixture
def settings(home: Path) -> Settings:
    settings = load_settings(home)
    settings.data_folder.mkdir()
    journal = open_journal(settings)
    remember(journal, [exchange_event(taught("Which flour?", SECRET))], creator=CREATOR)
    journal.close()
    return settings


@pytest.fixture
def identity(tmp_path: Path) -> tuple[Path, str]:
    """A file with age's identity, as age-keygen writes it, and the public key of it."""
    made = pyrage.x25519.Identity.generate()
    path = tmp_path / "identity.txt"
    path.write_text(f"# created: 2026-12-01\n# public key: {made.to_public()}\n{made}\n")
    return path, str(made.to_public())


@pytest.fixture
def sftp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """The address of a folder on a real SFTP server of loopback, which we know, and that folder."""
    folder = tmp_path / "remote"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(artifacts, "WAITS_S", (0.1,))
    with sftp_server(folder) as (port, key):
        trust(tmp_path, port, key)
        yield f"sftp://{USER}:{PASSWORD}@127.0.0.1:{port}/backups", folder / "backups"


def test_only_whoever_has_the_identity_can_open_it(settings: Settings, identity, tmp_path: Path, capsys) -> None:
    file, public = identity
    keeping.backup(settings.home, str(tmp_path / "a.tar"), keep=0, recipients=[public], as_json=True)
    sealed = Path(json.loads(capsys.readouterr().out)["backup"])

    assert sealed == tmp_path / "a.tar.age"
    assert sealed.stat().st_mode & 0o077 == 0
    assert sealed.read_bytes().startswith(b"age-encryption.org/v1")  # which age itself opens, too
    assert SECRET.encode() not in sealed.read_bytes()
    assert not (tmp_path / "a.tar").exists()
    other = tmp_path / "other.txt"
    other.write_text(str(pyrage.x25519.Identity.generate()))
    for wrong, said in (
        (None, "is encrypted: name the file"),
        (other, "cannot be opened"),
        (sealed, "cannot be opened"),
    ):
        with pytest.raises(UserMistake, match=said):
            keeping.restore(settings.home, str(sealed), replace=True, identity=wrong, as_json=True)

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    keeping.restore(elsewhere, str(sealed), replace=False, identity=file, as_json=True)
    journal = open_journal(load_settings(elsewhere))
    assert [each.answer for each in journal.exchanges()] == [SECRET]
    journal.close()


def test_a_setting_encrypts_every_backup(settings: Settings, identity, tmp_path: Path) -> None:
    config = settings.home / "understudy.toml"
    config.write_text(config.read_text() + f'[backup]\nrecipients = ["{identity[1]}"]\n')
    keeping.backup(settings.home, str(tmp_path / "kept"), keep=2, as_json=True)
    assert [path.suffixes for path in (tmp_path / "kept").iterdir()] == [[".tar", ".age"]]


@pytest.mark.parametrize("key", ["age1", "ssh-ed25519 AAAA", "", "AGE-SECRET-KEY-1QQQ"])
def test_what_is_no_public_key_is_a_sentence_and_leaves_nothing(settings: Settings, tmp_path: Path, key: str) -> None:
    with pytest.raises(UserMistake, match="public key of age"):
        keeping.backup(settings.home, str(tmp_path / "a.tar"), keep=0, recipients=[key], as_json=True)
    assert not list(tmp_path.glob("a.tar*"))
    assert not list(settings.data_folder.glob(".backup-*"))


def test_a_backup_goes_to_another_host_and_comes_back(settings: Settings, identity, sftp, tmp_path, capsys) -> None:
    address, folder = sftp
    folder.mkdir()
    for day in (1, 2):
        (folder / f"understudy-2026010{day}T000000Z.tar.age").write_text("old")

    (folder / "understudy-20260103T000000Z.tar.age.77.part").write_text("cut off")  # is none, and takes no place

    keeping.backup(settings.home, address, keep=2, recipients=[identity[1]], as_json=True)

    (folder / "understudy-20260103T000000Z.tar.age.77.part").unlink()
    found = json.loads(capsys.readouterr().out)
    public = address.replace(f":{PASSWORD}", "")
    assert found["removed"] == [f"{public}/understudy-20260101T000000Z.tar.age"]
    assert found["backup"].startswith(f"{public}/understudy-")
    assert sorted(path.name for path in folder.iterdir())[0] == "understudy-20260102T000000Z.tar.age"
    assert len(list(folder.iterdir())) == 2
    assert not list(folder.glob("*.part"))
    assert backups(settings.data_folder) == [found["backup"]]
    made = found["backup"].replace(public, address)

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    keeping.restore(elsewhere, made, replace=False, identity=identity[0], check=True, as_json=True)
    assert json.loads(capsys.readouterr().out)["counts"]["exchanges"] == 1
    assert not list(elsewhere.iterdir())  # it was only looked at
    keeping.restore(elsewhere, made, replace=False, identity=identity[0], as_json=True)
    journal = open_journal(load_settings(elsewhere))
    assert [each.answer for each in journal.exchanges()] == [SECRET]
    journal.close()


@pytest.mark.parametrize(
    "address", ["sftp://twin:wrong@127.0.0.1:{port}/x", "sftp://twin:a-password@127.0.0.1:1/x", "nothing://here/x"]
)
def test_a_host_that_does_not_let_us_in_is_a_sentence(settings: Settings, sftp, address: str) -> None:
    port = sftp[0].rpartition(":")[2].partition("/")[0]
    with pytest.raises(ServiceTrouble, match=r"^(sftp|nothing):// cannot be used as asked"):
        keeping.backup(settings.home, address.format(port=port), keep=0, as_json=True)
    assert not list(settings.data_folder.glob(".backup-*"))


def test_a_backup_that_does_not_hold_what_it_says_is_found(settings: Settings, tmp_path: Path, monkeypatch) -> None:
    """A copy of a journal that is older than its manifest."""
    real = keeping.write_backup
    monkeypatch.setattr(
        keeping, "write_backup", lambda path, files, said: real(path, files, {**said, "counts": {"exchanges": 7}})
    )
    keeping.backup(settings.home, str(tmp_path / "a.tar"), keep=0, as_json=True)
    with pytest.raises(UserMistake, match="exchanges differ"):
        keeping.restore(settings.home, str(tmp_path / "a.tar"), replace=False, check=True, as_json=True)


def test_a_twin_moves_to_another_host_over_sftp(settings: Settings, identity, sftp, tmp_path: Path, capsys) -> None:
    address, public = sftp[0], sftp[0].replace(f":{PASSWORD}", "")
    moving.migrate(settings.home, journal="", to=address, recipients=(identity[1],), undo=False, as_json=True)

    moved = json.loads(capsys.readouterr().out)
    assert moved["there"][0] == f"understudy restore {moved['backup']} --identity FILE"
    assert moved["backup"].startswith(f"{public}/understudy-")
    with pytest.raises(UserMistake, match=f"This twin moved to {public}"):
        open_journal(settings)

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    made = moved["backup"].replace(public, address)
    keeping.restore(elsewhere, made, replace=False, identity=identity[0], as_json=True)
    journal = open_journal(load_settings(elsewhere))
    assert [each.answer for each in journal.exchanges()] == [SECRET]
    journal.close()


def test_a_twin_that_did_not_arrive_stays(settings: Settings, sftp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "fetch", lambda place, file: file.write_text("cut off"))
    with pytest.raises(ServiceTrouble, match="is not what was sent"):
        moving.migrate(settings.home, journal="", to=sftp[0], recipients=(), undo=False, as_json=True)
    open_journal(settings).close()
