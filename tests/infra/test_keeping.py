"""Forgetting, end to end: through a restart, a new index, an older backup and the same archive again."""

import contextlib
import json
import tarfile
from datetime import timedelta
from io import BytesIO
from pathlib import Path

import pytest

from infra.backup import backups, unpack, write_backup
from infra.cli import forgetting, graph, keeping
from infra.cli.compose import Memory, adapter_store, open_journal, open_memory
from infra.cli.feed import import_files
from infra.cli.forgetting import Wanted
from infra.cli.operations import House
from infra.errors import ServiceTrouble, UserMistake
from infra.files import MANIFEST, finish_folder, write_atomic
from infra.remote import Remote
from infra.settings import Settings, load_settings
from memory.codec import dumps, encoded
from memory.encode import Encoder
from memory.forget import known_of
from memory.graph_recall import GraphRecall
from memory.graph_store import GraphStore
from memory.index import Index
from memory.members import Members
from memory.provenance import Permissions
from memory.recall import Recall
from memory.remember import choice_event, consent_event, remember
from memory.tombstones import FILE
from memory.vectors import EdgeStore
from tests.infra.running import QA, lend_embedder
from tests.people import BOB, CHARLIE, CREATOR, NOON
from trainer.harvest import harvest

WORD = "Zanzibar"
CHAT = {
    "name": "bakery",
    "type": "private_supergroup",
    "id": 1,
    "messages": [
        {"id": 1, "from_id": "user2", "text": f"How do I bake a {WORD} loaf with rye and honey?"},
        {"id": 2, "from_id": "user1", "text": "Slowly, with steam, at 210 degrees.", "reply_to_message_id": 1},
        {"id": 3, "from_id": "user3", "text": "Which flour makes the crust of a baguette so thin?"},
        {"id": 4, "from_id": "user1", "text": "Strong white, and nothing else.", "reply_to_message_id": 3},
    ],
}
PLACE = "telegram:-1001"


@pytest.fixture
def archive(home: Path) -> Path:
    """Bob and Charlie asked, Ada answered both, in a group."""
    messages = [
        {**each, "type": "message", "from": "X", "date_unixtime": str(1_767_000_000 + 60 * number)}
        for number, each in enumerate(CHAT["messages"])
    ]
    path = home / "result.json"
    path.write_text(json.dumps({**CHAT, "messages": messages}), encoding="utf-8")
    return path


@pytest.fixture
def settings(home: Path, archive: Path) -> Settings:
    """A home that knows the archive, and that both members agreed to training, which an adapter came from."""
    import_files(home, [archive], prune=False, as_json=True)
    settings = load_settings(home)
    journal = open_journal(settings)
    place = next(iter(journal.exchanges())).place
    agreed = [consent_event(each, place, granted="yes", at=NOON) for each in (BOB, CHARLIE)]
    remember(journal, agreed, creator=CREATOR)
    found = harvest(journal, permissions=Permissions()).exchanges
    frozen = settings.data_folder / "runs" / "ended" / "harvest"
    write_atomic(frozen / "exchanges.jsonl", "".join(f"{dumps(encoded(each))}\n" for each in found))
    finish_folder(frozen, {"forgotten": 0})
    store = adapter_store(settings)
    store.stage("v1")
    store.publish("v1", {"verdict": {"passed": True}, "examples": [each.id for each in found], "forgotten": 0})
    store.point("v1")
    journal.close()
    return settings


def know_bob(settings: Settings, encoder: Encoder) -> list[str]:
    """Every way in which this installation, opened anew and with its index made again, still knows Bob's words."""
    journal = open_journal(settings)
    index = Index(journal, EdgeStore(settings.data_folder / "index"), encoder)
    store = GraphStore(journal)
    with Memory(journal, index, store, GraphRecall(Recall(journal, index), journal, store)) as memory:
        journal.outbox_rebuild()
        memory.drain_all()
        with store.reading() as read:
            graphed = [name for name in read.ids() if WORD.casefold() in name]
        recalled = memory.recall.recall(f"How do I bake a {WORD} loaf?").notes
        trained = harvest(journal, permissions=Permissions()).exchanges
        ways = {
            "graphed": graphed,
            "recalled": [note for note in recalled if WORD in note.question],
            "listed": known_of(journal, BOB.key) + [e for e in journal.exchanges() if WORD in e.question],
            "waiting": journal.inbox(),
            "trained on": [each for each in trained if WORD in each.question],
        }
        assert [each for each in journal.exchanges() if "flour" in each.question]
    ways["exported"] = [each for each in exported(settings) if WORD in each]
    return [*(way for way, found in ways.items() if found), *held(settings)]


def held(settings: Settings) -> list[str]:
    """The files of the installation that hold the word."""
    found = []
    for path in settings.data_folder.rglob("*"):
        # What SQLite keeps beside its file comes and goes.
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            found += [str(path)] if WORD.casefold().encode() in path.read_bytes().lower() else []
    return found


def exported(settings: Settings) -> list[str]:
    """The graph as other programs get it."""
    file = settings.home / "graph"
    texts = []
    for form in ("graphml", "json"):
        graph.export(settings.home, file, form)
        texts.append(file.read_text(encoding="utf-8"))
    return texts


def forget_bob(settings: Settings, capsys: pytest.CaptureFixture[str]) -> dict:
    capsys.readouterr()
    forgetting.forget(settings.home, Wanted(author=BOB.key), dry_run=False, yes=True, as_json=True)
    return json.loads(capsys.readouterr().out)


def test_forgotten_words_come_back_in_no_way(
    settings: Settings, archive: Path, tmp_path: Path, encoder: Encoder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {"graphed", "recalled", "listed", "trained on", "exported"} <= set(know_bob(settings, encoder))
    older = tmp_path / "older.tar"
    keeping.backup(settings.home, str(older), keep=0, as_json=True)

    receipt = forget_bob(settings, capsys)
    assert (receipt["messages"], receipt["exchanges"], receipt["consents"]) == (1, 1, 1)
    assert (receipt["tainted"], receipt["dataset_files"], receipt["backups"]) == (["v1"], 2, [str(older)])
    assert held(settings) == [], "also before anything starts again"
    assert know_bob(settings, encoder) == []

    import_files(settings.home, [archive], prune=False, as_json=True)
    assert json.loads(capsys.readouterr().out)["skipped"] == {"already known": 3, "forgotten": 1}
    assert know_bob(settings, encoder) == []

    keeping.restore(settings.home, str(older), replace=True, as_json=True)
    assert json.loads(capsys.readouterr().out)["forgotten_again"] == 1
    assert know_bob(settings, encoder) == []
    store = adapter_store(settings)
    assert store.tainted("v1")
    assert store.current() is None

    import_files(settings.home, [archive], prune=False, as_json=True)
    assert know_bob(settings, encoder) == []


def test_the_graph_of_a_running_twin_is_not_read_a_second_time(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks for what was forgotten twice a minute, and brings its own graph up to date."""

    def drained(self: GraphStore) -> int:
        raise AssertionError("a second graph")

    monkeypatch.setattr(Remote, "find", lambda settings: Remote("http://127.0.0.1:1", None))
    monkeypatch.setattr(GraphStore, "drain_all", drained)

    House(settings, open_journal(settings)).follow_forgotten()


def test_decisions_made_since_outlive_an_older_backup(settings: Settings, tmp_path: Path) -> None:
    keeping.backup(settings.home, str(tmp_path / "older.tar"), keep=0, as_json=True)
    journal = open_journal(settings)
    place = next(iter(journal.exchanges())).place
    later = NOON + timedelta(days=1)
    withdrawn = consent_event(CHARLIE, place, granted="no", at=later)
    remember(journal, [withdrawn, choice_event(CHARLIE, "remember", value=False, at=later)], creator=CREATOR)
    journal.close()

    keeping.restore(settings.home, str(tmp_path / "older.tar"), replace=True, as_json=True)

    journal = open_journal(settings)
    assert not journal.consent(CHARLIE.key, place.key)
    assert not Members(journal).chosen(CHARLIE.key, "remember")
    journal.close()


def test_a_restore_keeps_what_no_backup_holds_and_lets_expire_what_is_too_old(
    settings: Settings, tmp_path: Path
) -> None:
    keeping.backup(settings.home, str(tmp_path / "older.tar"), keep=0, as_json=True)
    write_atomic(settings.data_folder / "models" / "base", "weights")
    config = settings.home / "understudy.toml"
    config.write_text(config.read_text() + "[retention]\ndays = 1\nexchanges = true\n", encoding="utf-8")

    keeping.restore(settings.home, str(tmp_path / "older.tar"), replace=True, as_json=True)

    assert (settings.data_folder / "models" / "base").read_text() == "weights"
    assert backups(settings.data_folder) == [str(tmp_path / "older.tar")]
    journal = open_journal(settings)
    assert list(journal.exchanges()) == []
    journal.close()


def test_a_backup_brings_everything_to_another_machine_but_secrets(settings: Settings, tmp_path: Path) -> None:
    config = settings.home / "understudy.toml"
    config.write_text(config.read_text() + '[api]\nport = 8400\ntoken = "0123456789abcdef"\n', encoding="utf-8")
    keeping.backup(settings.home, str(tmp_path / "a.tar.gz"), keep=0, as_json=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    keeping.restore(elsewhere, str(tmp_path / "a.tar.gz"), replace=False, as_json=True)

    moved = load_settings(elsewhere)
    assert (moved.api.port, moved.api.token, moved.creator.name) == (8400, None, "Ada")
    assert adapter_store(moved).verify("v1")
    assert adapter_store(moved).current() == "v1"
    lend_embedder(moved)
    with open_memory(moved) as memory:
        assert memory.recall.recall(f"How do I bake a {WORD} loaf?").notes


def kept(settings: Settings) -> list[Path]:
    """Every file of the installation, but for those that SQLite makes and takes away by itself."""
    return sorted(path for path in settings.data_folder.rglob("*") if not path.name.endswith(("-shm", "-wal")))


def test_a_restore_that_cannot_be_finished_leaves_what_was_there(settings: Settings, tmp_path: Path) -> None:
    good, cut = tmp_path / "good.tar", tmp_path / "cut.tar"
    keeping.backup(settings.home, str(good), keep=0, as_json=True)
    cut.write_bytes(good.read_bytes()[:-60_000])
    before = kept(settings)

    for file, replace, said in (
        (good, False, "not empty"),
        (cut, True, "cannot be unpacked|damaged"),
        (tmp_path / "none.tar", True, "No such file"),
    ):
        with pytest.raises(UserMistake, match=said):
            keeping.restore(settings.home, str(file), replace=replace, as_json=True)

    assert kept(settings) == before
    assert not list(settings.home.glob(".data*"))


def test_a_restore_that_was_killed_half_way_forgets_nothing_of_what_was_forgotten(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keeping.backup(settings.home, str(tmp_path / "older.tar"), keep=0, as_json=True)
    forget_bob(settings, capsys)
    settings.data_folder.rename(keeping.aside_of(settings.data_folder))

    keeping.restore(settings.home, str(tmp_path / "older.tar"), replace=True, as_json=True)

    journal = open_journal(settings)
    assert [each.question for each in journal.exchanges()] == [CHAT["messages"][2]["text"]]
    journal.close()


def test_a_restore_asks_the_journal_it_replaces_what_was_forgotten(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keeping.backup(settings.home, str(tmp_path / "older.tar"), keep=0, as_json=True)
    forget_bob(settings, capsys)
    (settings.data_folder / FILE).unlink()

    keeping.restore(settings.home, str(tmp_path / "older.tar"), replace=True, as_json=True)

    journal = open_journal(settings)
    assert [each.question for each in journal.exchanges()] == [CHAT["messages"][2]["text"]]
    journal.close()


def test_an_empty_volume_is_restored_into_and_one_in_use_is_not(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container's data folder is a mount point: it cannot be renamed, and nothing can be written beside it."""
    keeping.backup(settings.home, str(tmp_path / "a.tar"), keep=0, as_json=True)
    volume = tmp_path / "elsewhere" / "data"
    (volume / "models").mkdir(parents=True)
    (volume / "adapters" / "half").mkdir(parents=True)  # of one that was cut off
    monkeypatch.setattr(Path, "is_mount", lambda path: path == volume)
    monkeypatch.setattr(Path, "rename", lambda path, target: pytest.fail("nothing of a volume can be renamed"))

    keeping.restore(volume.parent, str(tmp_path / "a.tar"), replace=False, as_json=True)

    moved = load_settings(volume.parent)
    assert len(list(open_journal(moved).exchanges())) == 2
    assert adapter_store(moved).versions() == ["v1"]
    assert sorted(path.name for path in volume.iterdir() if "journal" not in path.name) == ["adapters", "models"]
    with pytest.raises(UserMistake, match="mount an empty one"):
        keeping.restore(volume.parent, str(tmp_path / "a.tar"), replace=True, as_json=True)


@pytest.mark.parametrize("name", ["../outside", "/outside", "not in the manifest"])
def test_a_hostile_backup_writes_nothing_outside(tmp_path: Path, name: str) -> None:
    path = tmp_path / "hostile.tar"
    known = {"../outside": "0", "/outside": "0"}
    with tarfile.open(path, "w") as tar:
        for entry, content in ((MANIFEST, json.dumps({"format": 1, "files": known})), (name, "x")):
            info = tarfile.TarInfo(entry)
            info.size = len(content)
            tar.addfile(info, BytesIO(content.encode()))
    (tmp_path / "in").mkdir()

    with pytest.raises(UserMistake, match="no backup of ours"):
        unpack(path, tmp_path / "in")

    assert not list((tmp_path / "in").iterdir())


@pytest.mark.parametrize(
    "manifest", ["{cut", "[]", "{}", '{"format": 1}', '{"format": 1, "files": 3}', '{"format": 2, "files": {}}']
)
def test_a_tar_whose_manifest_is_not_ours_is_no_backup(tmp_path: Path, manifest: str) -> None:
    path = tmp_path / "other.tar"
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo(MANIFEST)
        info.size = len(manifest)
        tar.addfile(info, BytesIO(manifest.encode()))

    with pytest.raises(UserMistake, match="no manifest of ours|has format 2"):
        unpack(path, tmp_path)


def test_a_backup_beside_a_file_that_is_no_folder_is_one_sentence(settings: Settings, archive: Path) -> None:
    with pytest.raises(ServiceTrouble, match="Could not write"):
        keeping.backup(settings.home, str(archive), keep=3, as_json=True)


def test_old_backups_rotate_and_are_no_longer_named(settings: Settings, tmp_path: Path) -> None:
    for day in (1, 2):
        write_backup(tmp_path / f"understudy-2026010{day}T000000Z.tar", {}, {})

    keeping.backup(settings.home, str(tmp_path), keep=2, as_json=True)

    assert not (tmp_path / "understudy-20260101T000000Z.tar").exists()
    assert len(list(tmp_path.glob("*.tar"))) == 2
    assert len(backups(settings.data_folder)) == 1


def test_what_cannot_be_meant_is_one_sentence(settings: Settings) -> None:
    for wanted, said in (
        (Wanted(), "Say what to forget"),
        (Wanted(author="bob"), "PLATFORM:ID"),
        (Wanted(source="rumour"), "known are: creator-surface"),
        (Wanted(before="yesterday"), "is no date"),
        (Wanted(before="9999-12-31T23:00-02:00"), "is no date"),
        (Wanted(exchange="x"), "no exchange 'x'"),
        (Wanted(document="x"), "no document 'x'"),
        (Wanted(author=BOB.key), "Nobody is here to confirm"),
    ):
        with pytest.raises(UserMistake, match=said):
            forgetting.forget(settings.home, wanted, dry_run=False, yes=False, as_json=False)


def test_counts_come_first_and_receipts_are_kept(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    forgetting.forget(settings.home, Wanted(place=PLACE), dry_run=True, yes=False, as_json=False)
    assert "Would go: 4 messages, 2 exchanges" in capsys.readouterr().out

    done = forget_bob(settings, capsys)
    forgetting.receipts(settings.home, as_json=False)
    shown = capsys.readouterr().out
    assert done["receipt"][:8] in shown
    assert "a person" in shown
    assert BOB.key not in shown


def test_a_table_of_pairs_is_forgotten_by_its_name(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    (settings.home / "qa.csv").write_text(QA, encoding="utf-8")
    import_files(settings.home, [settings.home / "qa.csv"], prune=False, as_json=True)
    with pytest.raises(UserMistake, match="near are: qa.csv"):
        forgetting.forget(settings.home, Wanted(document="qs.csv"), dry_run=False, yes=True, as_json=True)
    capsys.readouterr()

    forgetting.forget(settings.home, Wanted(document="qa.csv"), dry_run=False, yes=True, as_json=True)

    assert json.loads(capsys.readouterr().out)["exchanges"] == 2


def test_retention_by_hand(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserMistake, match="Nothing expires"):
        forgetting.retention(settings.home, as_json=True)
    config = settings.home / "understudy.toml"
    limits = f'[retention]\nexchanges = true\n[retention.places]\n"{PLACE}" = 1\n'
    config.write_text(config.read_text() + limits, encoding="utf-8")
    capsys.readouterr()

    forgetting.retention(settings.home, as_json=True)

    assert json.loads(capsys.readouterr().out)["exchanges"] == 2
