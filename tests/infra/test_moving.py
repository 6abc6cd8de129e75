"""An installation moves to a real PostgreSQL and back, and is what it was; two twins never come of one."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from infra.backup import backups
from infra.cli import moving, run
from infra.cli.compose import open_journal, open_memory, open_runs
from infra.database import connect
from infra.errors import ServiceTrouble, UserMistake
from infra.health import sign
from infra.moved import marked
from infra.published import Published
from infra.remote import announce
from infra.settings import Settings, load_settings
from infra.spool import Spool
from memory.forget import forget
from memory.journal import Journal
from memory.messages import Source
from memory.remember import exchange_event, question_event, remember
from memory.selection import Selection
from tests.databases import emptied
from tests.infra.running import lend_embedder
from tests.memory.making import said, taught
from tests.people import BOB, CHARLIE, CREATOR, NOON
from tests.upgrades import fixtures
from tests.upgrades.fixtures import KEY


@pytest.fixture
def settings(home: Path) -> Settings:
    """An installation with a bit of everything, of which the last question of the inbox was forgotten."""
    settings = load_settings(home)
    settings.data_folder.mkdir()
    engine = connect(settings.journal_url)
    for component in ("journal", "runs", "published", "spool"):
        fixtures.FILLED[component](engine)
    journal = Journal(engine)
    remember(journal, [question_event(said("9", CHARLIE, "Why is rye sour?"), Source.OWN_DIRECT)], creator=CREATOR)
    forget(journal, Selection(person=CHARLIE.key), creator=CREATOR, now=NOON + timedelta(days=2))
    journal.close()
    return settings


@pytest.fixture
def url(postgres: str) -> str:
    return emptied(postgres)


def migrate(settings: Settings, **given: str | bool) -> None:
    chosen = {"journal": "", "to": "", "undo": False, "recipients": (), **given}
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("UNDERSTUDY_JOURNAL__URL", settings.journal.url or "")
        moving.migrate(settings.home, as_json=True, **chosen)  # type: ignore[arg-type]


def known(settings: Settings) -> dict[str, object]:
    """What an installation knows, read through its own parts."""
    journal = open_journal(settings)
    spool = Spool(journal.engine, "telegram")
    found = {
        "events": journal.events(),
        "exchanges": list(journal.exchanges()),
        "passages": list(journal.passages()),
        "documents": journal.documents(),
        "inbox": journal.inbox(),
        "outbox": journal.outbox(100),
        "tombstones": journal.tombstones(),
        "runs": open_runs(settings, journal).recent(),
        "keys": Published(journal.engine).all(),
        "updates": (spool.waiting(), spool.meanings()),
    }
    journal.close()
    return found


def named(settings: Settings, url: str) -> Settings:
    """The installation after its settings name another database."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("UNDERSTUDY_JOURNAL__URL", url)
        return load_settings(settings.home)


def test_a_twin_moves_to_postgresql_and_back_and_answers_as_before(
    settings: Settings, url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lend_embedder(settings)
    with open_memory(settings):
        pass
    before = known(settings)
    capsys.readouterr()

    migrate(settings, journal=url)

    moved = json.loads(capsys.readouterr().out)
    assert (moved["rows"]["events"], moved["asked"]) == (len(before["events"]), len(before["exchanges"]) + 2)
    there = named(settings, url)
    assert known(there) == before
    assert backups(settings.data_folder) == [str(settings.data_folder / "journal.db")], "receipts name it"
    for use in (open_journal, open_memory, run.refuse_unusable):
        with pytest.raises(UserMistake, match="This twin moved to postgresql://"):
            use(settings)
    goes_on(there)

    shutil.rmtree(settings.data_folder / "index")  # nobody can be asked without one
    back = f"sqlite:///{tmp_path / 'back.db'}"
    later = known(there)
    migrate(there, journal=back)
    assert known(named(settings, back)) == later
    with pytest.raises(UserMistake, match=r"moved to sqlite:///.*back\.db"):
        open_journal(there)

    migrate(settings, undo=True)
    assert known(settings) == before, "the old one is as it was"


def goes_on(settings: Settings) -> None:
    """Numbers go on after those that were ever given; keys open; nothing forgotten comes back."""
    journal = open_journal(settings)
    last = journal.last()
    asked = question_event(said("10", BOB, "What do you make of barley?"), Source.OWN_DIRECT)
    assert remember(journal, [asked, *fixtures.EVENTS], creator=CREATOR).forgotten == 3
    assert [item.number for item in journal.inbox()] == [1, 3]
    assert journal.last() > last
    assert Published(journal.engine).opened(KEY, now=NOON).name == "bakery"
    journal.close()


def killed(do: Callable[[], object]) -> None:
    """Do it in a process that does not survive it."""
    pid = os.fork()
    if pid == 0:
        do()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("step", ["restart_numbers", "digest", "mark after", "unmark"])
def test_a_move_that_is_killed_is_repeated_and_until_then_one_of_the_two_is_the_twin(
    settings: Settings, url: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = known(settings)

    def cut_off() -> None:
        real = moving.mark
        if step == "mark after":
            monkeypatch.setattr(moving, "mark", lambda held, place, at: (real(held, place, at), place and die()))
        else:
            monkeypatch.setattr(moving, step, die)
        migrate(settings, journal=url)

    killed(cut_off)

    there = named(settings, url)
    for use in (open_journal, lambda half: migrate(half, undo=True)):
        with pytest.raises(UserMistake, match="was not finished: repeat"):
            use(there)
    if step != "unmark":
        assert known(settings) == before
    migrate(settings, journal=url)
    assert known(there) == before
    with pytest.raises(UserMistake, match="This twin moved to"):
        open_journal(settings)


def test_what_arrives_otherwise_is_named_and_nothing_is_given_up(
    settings: Settings, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = moving.copy_rows
    monkeypatch.setattr(
        moving,
        "copy_rows",
        lambda held, into, table: real(held, into, table, where="number <> 1" if table == "inbox" else "1 = 1"),
    )

    with pytest.raises(ServiceTrouble, match="not what was sent: inbox differ"):
        migrate(settings, journal=url)

    assert known(settings)["inbox"]


@pytest.fixture
def another(url: str) -> Iterator[None]:
    """A journal of somebody else's."""
    journal = Journal.open(url)
    remember(journal, [exchange_event(taught("Who?", "Me."))], creator=CREATOR)
    journal.close()
    yield
    journal = Journal.open(url)
    assert [each.answer for each in journal.exchanges()] == ["Me."]
    journal.close()


@pytest.mark.usefixtures("another")
def test_a_database_in_use_is_left_alone(settings: Settings, url: str) -> None:
    with pytest.raises(UserMistake, match="holds a journal already"):
        migrate(settings, journal=url)


def test_nothing_moves_while_a_part_is_at_work(settings: Settings, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sign(settings, "bot")
    with pytest.raises(UserMistake, match="The bot on .* was at work 0 s ago"):
        migrate(settings, journal=url)
    monkeypatch.setattr(moving, "STOPPED_S", -1)
    announce(settings, url="http://127.0.0.1:1", token=None, pid=os.getpid())
    with pytest.raises(UserMistake, match="is running"):
        migrate(settings, journal=url)
    (settings.data_folder / "run" / "api.json").unlink()
    for given in ({}, {"journal": url, "to": "/x"}, {"undo": True, "to": "/x"}):
        with pytest.raises(UserMistake, match="Say where to"):
            migrate(settings, **given)
    with pytest.raises(UserMistake, match="there already"):
        migrate(settings, journal=settings.journal_url)

    there = named(settings, url)
    beside = open_journal(there)
    beside.last()
    with pytest.raises(UserMistake, match="1 others are connected"):
        migrate(there, journal=f"sqlite:///{settings.home / 'back.db'}")
    with pytest.raises(UserMistake, match="first move it into a file"):
        migrate(there, to="/x")
    beside.close()


def test_a_move_to_another_host_leaves_one_twin(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from infra.cli import keeping

    before = known(settings)
    real = moving.bring

    def written_meanwhile(*given: Path) -> None:
        journal = open_journal(settings)
        remember(journal, [exchange_event(taught("Late?", "Yes."))], creator=CREATOR)
        journal.close()
        real(*given)

    with monkeypatch.context() as patched:
        patched.setattr(moving, "bring", written_meanwhile)
        with pytest.raises(UserMistake, match="wrote into the journal meanwhile"):
            migrate(settings, to=str(tmp_path / "carried"))
    assert marked(connect(settings.journal_url)) is None
    before = known(settings)
    capsys.readouterr()

    migrate(settings, to=str(tmp_path / "carried"))

    moved = json.loads(capsys.readouterr().out)
    assert moved["there"] == [f"understudy restore {moved['backup']}", "understudy up"]
    with pytest.raises(UserMistake, match="This twin moved to .*carried"):
        open_journal(settings)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    keeping.restore(elsewhere, moved["backup"], replace=False, as_json=True)
    assert known(load_settings(elsewhere)) == before

    keeping.backup(settings.home, str(tmp_path / "old.tar"), keep=0, as_json=True)
    third = tmp_path / "third"
    third.mkdir()
    keeping.restore(third, str(tmp_path / "old.tar"), replace=False, as_json=True)
    assert known(load_settings(third)) == before, "whoever restores the old one wants it there"
