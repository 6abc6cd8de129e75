"""A restore drill: what was asked when a backup was made is asked again of what is in it."""

import json
import tarfile
from pathlib import Path

import pytest

from infra.backup import manifest_of, unpack, write_backup
from infra.cli import keeping
from infra.cli.compose import open_journal, open_memory
from infra.cli.drill import file_in
from infra.errors import UserMistake
from infra.settings import Settings, load_settings
from memory.remember import exchange_event, passage_event, remember
from tests.infra.running import lend_embedder
from tests.memory.making import piece, taught
from tests.people import CREATOR

ANSWERS = {
    "Which flour makes the crust so thin?": "Strong white, and never sifted.",
    "How warm should the dough be?": "24 °C.",
    "When do you open?": "At six, but on Mondays.",
}


@pytest.fixture
def backed(home: Path, tmp_path: Path) -> tuple[Settings, Path]:
    """A home that was asked already, and its backup."""
    settings = load_settings(home)
    settings.data_folder.mkdir()
    lend_embedder(settings)
    journal = open_journal(settings)
    remember(journal, [exchange_event(taught(*each)) for each in ANSWERS.items()], creator=CREATOR)
    remember(journal, [passage_event(piece("oven.md", 0, "The oven is older than the house."))], creator=CREATOR)
    journal.close()
    with open_memory(settings):
        pass
    keeping.backup(home, str(tmp_path / "a.tar"), keep=0, as_json=True)
    return settings, tmp_path / "a.tar"


def test_a_backup_answers_as_it_did_and_its_manifest_has_no_words(
    backed: tuple[Settings, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    settings, backup = backed
    drill = manifest_of(backup)["drill"]
    assert len(drill["found"]) == len(ANSWERS) + 1
    assert all(asked == notes[0][0] for asked, notes in drill["found"].items()), "each finds itself first"
    assert not [word for word in ("flour", "oven", "Strong") if word in json.dumps(manifest_of(backup))]
    capsys.readouterr()

    keeping.restore(settings.home, str(backup), replace=False, check=True, as_json=False)

    assert "4 questions are answered as they were" in " ".join(capsys.readouterr().out.split())


def test_what_is_answered_otherwise_is_named(backed: tuple[Settings, Path], tmp_path: Path) -> None:
    """A copy in which one answer is another's, one is lost and one was added; all counts are right."""
    settings, backup = backed
    folder = tmp_path / "changed"
    folder.mkdir()
    manifest = unpack(backup, folder)
    journal = open_journal(file_in(settings, folder))
    known = {each.question: each.id for each in journal.exchanges()}
    lost, other = known["When do you open?"], taught("How warm should the dough really be?", "30 °C.")
    with journal.writing() as writer:
        writer.drop_exchange(lost)
        writer.put_exchange(other)
    journal.close()
    files = {name: folder / name for name in manifest["files"]}
    kept = {name: value for name, value in manifest.items() if name not in {"files", "format"}}
    write_backup(tmp_path / "b.tar", files, kept)
    with tarfile.open(tmp_path / "b.tar") as tar:
        assert "journal.db" in tar.getnames()

    with pytest.raises(UserMistake, match="does not answer as it did") as raised:
        keeping.restore(settings.home, str(tmp_path / "b.tar"), replace=False, check=True, as_json=True)

    assert f"{lost} is missing" in str(raised.value)
    assert f"to {known['How warm should the dough be?']}, {other.id} is found instead" in str(raised.value)
    assert "open" not in str(raised.value)


def test_a_drill_needs_the_embedder_of_then(
    backed: tuple[Settings, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, backup = backed
    monkeypatch.setenv("UNDERSTUDY_PRESET", "cpu")
    capsys.readouterr()

    keeping.restore(settings.home, str(backup), replace=False, check=True, as_json=True)

    found = json.loads(capsys.readouterr().out)
    assert (found["asked"], "was asked then" in found["why_not"]) == (0, True)
