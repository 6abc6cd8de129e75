"""An installation of any earlier version is brought to the newest on both databases, and works; a newer one is refused."""

import os
import re
import signal
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import pytest
import sqlalchemy as sa
import typer
from typer.main import get_command

from infra.adapters import AdapterStore
from infra.cli.main import app
from infra.cli.setup import check_journal
from infra.database import applied, connect, migrate, save_version, writing
from infra.errors import UserMistake
from infra.published import Published
from infra.runs import Runs
from infra.settings import load_settings
from infra.spool import Spool
from memory.codec import time_text
from memory.encode import Encoder
from memory.index import Index
from memory.journal import Journal
from memory.members import Members
from memory.recall import Recall
from memory.remember import exchange_event, remember
from memory.vectors import EdgeStore
from tests.memory.making import taught
from tests.people import BOB, CHARLIE, CREATOR, NOON
from tests.upgrades import fixtures
from tests.upgrades.fixtures import COMPONENTS, KEY, ROOT, load, missing, newest

# Every command that reads or writes the database, with what it has to be given; `restore` has tests of its own.
USING = """
up --port 0|serve --port 0|worker|worker --queue gpu --once|beat|bot --platform telegram|status|chat|ask Q|recall Q
history Q|teach Q A|import {home}/qa.csv|documents|silence on|forget --author telegram:2 --yes|backup {home}/b.tar
retrain|runs|inbox list|inbox answer 1 A|inbox dismiss 1|dataset build|distil
voices publish create x|voices publish list|voices publish revoke x|graph stats|graph show x|graph topics
graph export {home}/g|graph picture {home}/g.svg|graph rebuild|profile show|profile draft|profile set about x|profile edit
profile versions|profile restore 1|migrate --undo
"""
# The others: they have no installation, make one of their own, or know only folders and the running twin.
OTHERS = {
    *("init", "health", "demo", "journal encrypt", "restore", "evaluate"),
    "doctor",  # says it as one of its checks
    *("dataset quarantine", "dataset list", "dataset show", "dataset export"),
    *("voices list", "voices promote", "voices rollback", "voices history", "voices canary", "voices pin"),
    "voices export",
}
LAST = {component: len(newest(component)) for component in COMPONENTS}


def install(url: str, version: int) -> None:
    """An installation as it was at this version of the journal, with every other component at that or its last one."""
    engine = connect(url)
    for component, last in LAST.items():
        load(engine, component, min(version, last))
    engine.dispose()


def test_every_version_of_every_component_has_its_fixture() -> None:
    wanted = [str(path.relative_to(ROOT)) for path in missing()]
    assert not wanted, f"write them and keep them for ever: python -m tests.upgrades.fixtures ({wanted})"


def test_no_component_is_forgotten_here() -> None:
    code = [path for folder in ("infra", "memory", "trainer", "bot") for path in (ROOT / folder).rglob("*.py")]
    named = {each for path in code for each in re.findall(r'migrate\(\w+, "(\w+)", MIGRATIONS\)', path.read_text())}
    assert named == COMPONENTS.keys()


@pytest.mark.parametrize(("component", "version"), [(c, v) for c, last in LAST.items() for v in range(2, last + 1)])
def test_a_step_that_was_released_still_makes_what_it_made(component: str, version: int, tmp_path: Path) -> None:
    """Whoever changes an old step has tables that nobody else has."""
    made, kept = connect(f"sqlite:///{tmp_path / 'made.db'}"), connect(f"sqlite:///{tmp_path / 'kept.db'}")
    load(made, component, version - 1)
    migrate(made, component, newest(component)[:version])
    load(kept, component, version)

    assert schema(made) == schema(kept)


def schema(engine: sa.Engine) -> dict[str, str]:
    with engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")).all()
    engine.dispose()
    return {name: " ".join(sql.split()) for name, sql in rows}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Journal:
    """What the same events are in a journal of today."""
    engine = connect(f"sqlite:///{tmp_path_factory.mktemp('today') / 'journal.db'}")
    fixtures.fill_journal(engine)
    return Journal(engine)


@pytest.mark.parametrize("version", range(1, LAST["journal"] + 1))
def test_everything_is_there_after_an_upgrade_and_works(
    journal_url: str, version: int, expected: Journal, encoder: Encoder, tmp_path: Path
) -> None:
    install(journal_url, version)

    journal = Journal.open(journal_url)

    assert journal.events() == expected.events()
    assert list(journal.exchanges()) == list(expected.exchanges())
    assert list(journal.passages()) == list(expected.passages())
    assert journal.documents() == expected.documents() or version < 8  # which pairs a file had was not known before
    assert journal.inbox() == expected.inbox()
    assert journal.consent(BOB.key, "telegram:100")
    assert journal.votes("a1") == {BOB.key: "good"}
    if version >= 4:
        assert not Members(journal).chosen(CHARLIE.key, "remember")
        assert Members(journal).listening("telegram:100")
    if version >= 7:
        assert [each.receipt for each in journal.tombstones()] == [each.receipt for each in expected.tombstones()]
        assert remember(journal, fixtures.EVENTS, creator=CREATOR).forgotten == 1
    if version < 12:
        assert when_written(journal) == list(accumulate((time_text(event.at) for _, event in journal.events()), max))
    works(journal, encoder, tmp_path)
    journal.close()


def when_written(journal: Journal) -> list[str]:
    with journal.looking() as reader:
        return [row["written"] for row in reader.run("SELECT written FROM events ORDER BY seq")]


def works(journal: Journal, encoder: Encoder, folder: Path) -> None:
    """It recalls what it knew and what it is taught now; its runs, keys and updates go on where they were."""
    remember(journal, [exchange_event(taught("How long may spelt rest?", "An hour."))], creator=CREATOR)
    index = Index(journal, EdgeStore(folder / "index"), encoder)
    recall = Recall(journal, index)
    assert recall.recall("How warm should my dough be?").notes[0].text == fixtures.SAID.text
    assert recall.recall("How long may spelt rest?").notes[0].text == "An hour."
    index.close()
    runs, keys = Runs(journal.engine), Published(journal.engine)
    waits, ended = runs.recent()
    assert (waits.state, ended.state, ended.result) == ("queued", "succeeded", {"version": "v1"})
    assert runs.claim(waits.id, "worker", now=NOON) is not None
    assert keys.used(NOON.date()) == {keys.opened(KEY, now=NOON).id: (1, 60)}
    spool = Spool(journal.engine, "telegram")
    assert (spool.waiting(), spool.meaning("100", "5")) == ([("77", '{"update_id": 77}')], {"form": "edit"})


def test_an_upgrade_that_is_killed_leaves_the_old_and_goes_on_from_there(journal_url: str) -> None:
    """With its statements done, and not committed. The last step of the journal rewrites every line of it."""
    last = LAST["journal"]
    install(journal_url, last - 1)

    pid = os.fork()
    if pid == 0:
        killed = [*newest("journal")[:-1], lambda connection: (newest("journal")[-1](connection), die())]
        migrate(connect(journal_url), "journal", killed)
        os._exit(0)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    engine = connect(journal_url)
    assert applied(engine, "journal") == last - 1
    assert "written" not in fixtures.tables(engine)["events"]
    journal = Journal.open(journal_url)
    assert applied(engine, "journal") == last
    assert "written" in fixtures.tables(engine)["events"]
    assert len(journal.events()) == len(fixtures.EVENTS) - 1
    journal.close()
    engine.dispose()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def commands(command: typer.core.TyperGroup | object, before: tuple[str, ...] = ()) -> Iterator[str]:
    """The names of all commands there are."""
    if isinstance(command, typer.core.TyperGroup):
        for name, each in command.commands.items():
            yield from commands(each, (*before, name))
    else:
        yield " ".join(before)


def using() -> list[str]:
    return [each for line in USING.strip().splitlines() for each in line.split("|")]


def test_every_command_is_known_here() -> None:
    known = {name for name in commands(get_command(app)) if not name.startswith("bench ")}
    found = {name for name in known if any(f"{each} ".startswith(f"{name} ") for each in using())}
    assert known - found == OTHERS


@pytest.fixture
def signals() -> Iterator[None]:
    """Commands that run until they are told to stop say what that means before they open anything."""
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
def test_a_newer_database_is_refused_by_every_command(
    journal_url: str, home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    install(journal_url, LAST["journal"])
    engine = connect(journal_url)
    with writing(engine) as connection:
        save_version(connection, "journal", LAST["journal"] + 1)
    (home / "qa.csv").write_text("question,answer\nWhich flour?,Strong white.\n", encoding="utf-8")
    monkeypatch.setenv("UNDERSTUDY_JOURNAL__URL", journal_url)
    monkeypatch.setenv("UNDERSTUDY_TELEGRAM__TOKEN", "123456:a-token-of-nobody")
    store = AdapterStore(home / "data" / "adapters")
    store.stage("v1")
    store.publish("v1", {"verdict": {"passed": True}, "dataset": "d"})

    said = {}
    for each in using():
        try:
            app([*each.format(home=home).split(), "--home", str(home)], standalone_mode=False)
            said[each] = capfd.readouterr().err + "nothing"
        except (UserMistake, SystemExit) as error:
            said[each] = f"{error} {capfd.readouterr()}"

    assert {name: words for name, words in said.items() if "update it" not in words} == {}
    with pytest.raises(UserMistake, match="update it"):
        check_journal(load_settings(home))
    assert not (home / "b.tar").exists()
    assert applied(engine, "journal") == LAST["journal"] + 1
    engine.dispose()
