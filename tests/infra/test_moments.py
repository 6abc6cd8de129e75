"""An installation as it was at a moment, out of a later backup."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from infra.adapters import AdapterStore
from infra.cli import forgetting, keeping
from infra.cli.compose import adapter_store, open_journal, open_memory, open_runs
from infra.cli.forgetting import Wanted
from infra.errors import UserMistake
from infra.published import Published, Quota
from infra.settings import Settings, load_settings
from infra.voice.chat import Audience
from memory import journal as journal_module
from memory.messages import Source
from memory.remember import answer_event, exchange_event, message_event, remember
from tests.infra.running import lend_embedder
from tests.memory.making import said, taught
from tests.people import BOB, CHARLIE, CREATOR, NOON
from tests.upgrades.fixtures import ANSWER

HOUR = timedelta(hours=1)
EARLY, LATE = "20260301T110000Z-d1", "20260301T143000Z-d2"


def publish(store: AdapterStore, version: str) -> None:
    store.stage(version)
    store.publish(version, {"verdict": {"passed": True}, "examples": [], "forgotten": 0})
    store.point(version)


@pytest.fixture
def settings(home: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """One thing an hour from noon on: taught, answered, a member's question, an adapter, a training, taught again."""
    settings = load_settings(home)
    settings.data_folder.mkdir()
    journal, store = open_journal(settings), adapter_store(settings)
    question = said("1", BOB, "Which flour?")
    publish(store, EARLY)
    store.pin(EARLY, Audience(language="zh-CN"))
    events = [
        exchange_event(taught("Which flour?", "Strong white.")),
        answer_event(replace(ANSWER, voice=f"base+{EARLY}"), question, at=NOON),
        message_event(said("2", CHARLIE, "My secret question about Zanzibar."), Source.TELEGRAM_DIRECT),
        answer_event(replace(ANSWER, id="a2", voice=f"base+{LATE}"), question, at=NOON),
        exchange_event(taught("Which flour is best?", "Rye, after all.", days=1)),
    ]
    for hours, event in enumerate(events):
        monkeypatch.setattr(journal_module, "clock", lambda hours=hours: NOON + hours * HOUR)
        remember(journal, [event], creator=CREATOR)
    publish(store, LATE)
    runs = open_runs(settings, journal)
    for hours in (0, 3):
        run, _ = runs.create("retrain", f"k{hours}", options={}, now=NOON + hours * HOUR)
        claimed = runs.claim(run.id, "worker", now=NOON + hours * HOUR)
        assert claimed is not None
        runs.finish(claimed, "succeeded", now=NOON + hours * HOUR + HOUR / 2)
    keys = Published(journal.engine)
    keys.create("bakery", Quota(1, 1), now=NOON)
    keys.revoke("bakery", now=NOON + 4 * HOUR)
    journal.close()
    return settings


def test_a_moment_comes_back_with_its_voice_and_without_what_came_later(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keeping.backup(settings.home, str(tmp_path / "a.tar"), keep=0, as_json=True)
    forgetting.forget(settings.home, Wanted(author=CHARLIE.key), dry_run=False, yes=True, as_json=True)
    capsys.readouterr()

    keeping.restore(settings.home, str(tmp_path / "a.tar"), replace=True, until="2026-03-01T14:00", as_json=True)

    said = json.loads(capsys.readouterr().out)
    assert (said["event"], said["voice"], said["left_out"]) == (3, EARLY, [LATE])
    assert said["forgotten_again"] == 1
    journal, store = open_journal(settings), adapter_store(settings)
    assert [number for number, _ in journal.events()] == [1, 2], "the third was forgotten since"
    assert (store.versions(), store.current(), store.previous(), store.canary()) == ([EARLY], EARLY, None, None)
    assert store.pins() == {Audience(language="zh-CN"): EARLY}
    assert [run.key for run in open_runs(settings, journal).recent()] == ["k0"]
    assert [key.revoked != "" for key in Published(journal.engine).all()] == [True], "a revoked key stays so"
    journal.close()
    assert not [path for path in settings.data_folder.rglob("*") if b"Zanzibar" in file(path)]
    assert not (settings.data_folder / ".later").exists()
    lend_embedder(settings)
    with open_memory(settings) as memory:
        assert [note.text for note in memory.recall.recall("Which flour is best?").notes] == ["Strong white."]


def file(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


@pytest.mark.parametrize(
    ("until", "voice", "event"),
    [("1", EARLY, 1), ("2026-03-01T13:30+00:00", EARLY, 2), ("4", LATE, 4), ("2027-01-01", LATE, 5)],
)
def test_who_spoke_then_speaks_again(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str], until: str, voice: str, event: int
) -> None:
    """Before anybody was answered nobody can tell, and the newest adapter that there was then may."""
    keeping.backup(settings.home, str(tmp_path / "a.tar"), keep=0, as_json=True)
    capsys.readouterr()

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    keeping.restore(elsewhere, str(tmp_path / "a.tar"), replace=False, until=until, as_json=True)

    said = json.loads(capsys.readouterr().out)
    assert (said["event"], said["voice"]) == (event, voice)


@pytest.mark.parametrize(
    ("until", "said"),
    [
        ("yesterday", "is no date"),
        ("0", "before everything in this backup: its first event was written down at 2026-03-01T12:00:00Z"),
        ("2026-02-01", "before everything in this backup"),
    ],
)
def test_what_is_no_moment_is_a_sentence_and_changes_nothing(
    settings: Settings, tmp_path: Path, until: str, said: str
) -> None:
    keeping.backup(settings.home, str(tmp_path / "a.tar"), keep=0, as_json=True)

    with pytest.raises(UserMistake, match=said):
        keeping.restore(settings.home, str(tmp_path / "a.tar"), replace=True, until=until, as_json=True)
    with pytest.raises(UserMistake, match="leave --until away"):
        keeping.restore(settings.home, str(tmp_path / "a.tar"), replace=True, check=True, until="1", as_json=True)

    journal = open_journal(settings)
    assert journal.last() == 5
    journal.close()
    assert not list(settings.home.glob(".data*"))
