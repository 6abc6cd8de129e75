"""`understudy migrate`: an installation moves to another database or another host, and the old one is left as it was.

Nothing of the old one is given up before the new one holds the same and answers the same. Whatever is cut off can be
repeated: what had arrived by then is not used by anybody, and made anew.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from infra.artifacts import fetch, is_address, put, shown
from infra.backup import SEALED, note_backup, seal
from infra.cli.compose import memory_of, now, open_journal, open_memory
from infra.cli.console import err, out, print_json
from infra.cli.drill import drill, wrong_answers
from infra.cli.keeping import Checked, checked, in_words, move, pack, refuse_running
from infra.database import COPIED, KEYED, connect, copy_rows, last_numbers, reading, restart_numbers, writing
from infra.errors import ServiceTrouble, UserMistake
from infra.files import sha256_of
from infra.health import SIGN_S, silences
from infra.moved import mark, marked, refuse_moved, unmark
from infra.published import Published
from infra.runs import Runs
from infra.settings import Settings, find_home, load_settings, with_password
from infra.spool import Spool
from memory.journal import Journal

# A part that stopped has left its last sign of life no longer ago than this.
STOPPED_S = 3 * SIGN_S
LEFT = (
    "What was left is as it was, and nobody uses it by mistake any more. Remove it once the new one has proved itself: "
    "what is forgotten from now on is not forgotten there."
)
# No part of what is moved: both databases have their own.
OWN = {"schema_versions", "moved", "sqlite_sequence"}


@dataclass(frozen=True)
class Copied:
    """How many rows of each table are in both databases, and their digest."""

    rows: Mapping[str, int]
    digest: str


def migrate(
    home: Path | None, *, journal: str, to: str, recipients: tuple[str, ...], undo: bool, as_json: bool
) -> None:
    """Move to another database or host, or let an old one be used again. Raises UserMistake for none or several."""
    settings = load_settings(find_home(home))
    if sum(map(bool, (journal, to, undo))) != 1:
        raise UserMistake("Say where to: --journal URL for another database, --to ADDRESS for another host; or --undo.")
    if undo:
        stay(settings, as_json=as_json)
        return
    refuse_at_work(settings)
    if journal:
        to_database(settings, journal, as_json=as_json)
    else:
        to_host(settings, to, recipients or settings.backup.recipients, as_json=as_json)


def stay(settings: Settings, *, as_json: bool) -> None:
    """Let one that moved be used again. Raises UserMistake for one that has not wholly arrived."""
    with closing(Journal.open(settings.journal_url)) as here:
        found = marked(here.engine)
        if found is not None and not found.place:
            refuse_moved(here.engine)
        unmark(here.engine)
    err().print("This one may be used again. Never let both be on: they have the same bots.")
    if as_json:
        print_json({"left": found.place if found else ""})


def refuse_at_work(settings: Settings) -> None:
    """Raise UserMistake while any part of this installation still works."""
    refuse_running(settings)
    for part, host, silent in silences(settings):
        if silent < STOPPED_S:
            raise UserMistake(
                f"The {part} on {host} was at work {silent:.0f} s ago: stop every part, wait {STOPPED_S:.0f} s, repeat."
            )


def to_database(settings: Settings, url: str, *, as_json: bool) -> None:
    """Copy every table into another database, compare, and only then leave this one."""
    there = over(settings, url)
    if there.journal_url == settings.journal_url:
        raise UserMistake("The journal is there already.")
    refuse_others(settings.journal_url)
    if finished(settings, there, shown(url)):
        err().print("The move that was cut off is finished: everything had arrived.")
        if as_json:
            print_json({"journal": shown(url), "finished": True})
        return
    open_journal(settings).close()
    said = asked_here(settings)
    target = connect(there.journal_url)
    with closing(Journal.open(settings.journal_url)) as source:
        try:
            begin(source, target, there.journal_url)
            with source.writing() as held:
                copied = copy_all(held.connection, target)
                if said and (wrong := asked_there(there, said)):
                    raise ServiceTrouble(f"It does not answer there as here: {'; '.join(wrong)}. Nothing was given up.")
                mark(held.connection, shown(url), now())
            unmark(target)
        finally:
            target.dispose()
    if settings.journal_url.startswith("sqlite:///"):  # receipts name it as what still has what is forgotten
        note_backup(settings.data_folder, settings.journal_url.removeprefix("sqlite:///").partition(KEYED)[0])
    tell_database(copied, len(said["found"]) if said else 0, shown(url), as_json=as_json)


def finished(settings: Settings, there: Settings, place: str) -> bool:
    """Finish a move that was cut off after this database was left, which is after everything was compared."""
    with closing(Journal.open(settings.journal_url)) as source:
        left = marked(source.engine)
    if left is None or left.place != place:
        return False
    target = connect(there.journal_url)
    try:
        found = marked(target)
        if found is None or found.place:
            return False
        unmark(target)
        return True
    finally:
        target.dispose()


def over(settings: Settings, url: str) -> Settings:
    """The same installation over another database: with the journal's password, or the key of its file."""
    if url.startswith("sqlite:///"):
        return settings.model_copy(update={"journal": settings.journal.model_copy(update={"url": url})})
    given = url if urlsplit(url).password else with_password(url, settings.journal.password)
    changed = {"url": given, "password": None, "key_file": None}
    return settings.model_copy(update={"journal": settings.journal.model_copy(update=changed)})


def asked_here(settings: Settings) -> dict[str, Any] | None:
    """Some questions and what is found to them here; None where there is no index yet."""
    if not settings.index.url and not (settings.data_folder / "index").exists():
        return None
    with open_memory(settings) as memory:
        return drill(settings, memory.journal, memory.recall)


def asked_there(settings: Settings, said: dict[str, Any]) -> list[str]:
    """What is found otherwise over the other database, with the same index."""
    with memory_of(settings, Journal.open(settings.journal_url)) as memory:
        return wrong_answers(memory.journal, memory.recall, said)


def refuse_others(url: str) -> None:
    """Raise UserMistake while others are connected to a PostgreSQL, from whichever host."""
    engine = connect(url)
    try:
        if engine.dialect.name == "postgresql":
            with reading(engine) as connection:
                others = connection.execute(
                    sa.text(
                        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                        "AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
                    )
                ).scalar()
            if others:
                raise UserMistake(f"{others} others are connected to the journal: stop the twin on every host first.")
    finally:
        engine.dispose()


def begin(source: Journal, target: Engine, url: str) -> None:
    """Make the tables in a database that is empty, or that an earlier attempt did not finish.

    Raises UserMistake for one that is in use.
    """
    before = marked(target)
    if (before is None or before.place) and sa.inspect(target).has_table("events"):
        went = f", of a twin that moved to {before.place}" if before else ""
        raise UserMistake(f"That database holds a journal already{went}: name an empty one, or move it away first.")
    with writing(target) as connection:
        mark(connection, "", now())
    Journal.open(url).close()
    for engine in (source.engine, target):
        Published(engine)
        Spool(engine, "")
        Runs(engine)


def copy_all(held: Connection, target: Engine) -> Copied:
    """Copy every row, all or none, and compare what is there then. Raises ServiceTrouble where it is not the same."""
    tables = sorted((set(sa.inspect(held).get_table_names()) & set(sa.inspect(target).get_table_names())) - OWN)
    with writing(target) as into:
        for table in tables:
            into.execute(sa.text(f"DELETE FROM {table}"))
            copy_rows(held, into, table)
        restart_numbers(into, last_numbers(held))
    with reading(target) as arrived:
        there = {table: digest(arrived, table) for table in tables}
        if different := [table for table in tables if digest(held, table, like=arrived) != there[table]]:
            raise ServiceTrouble(f"What arrived is not what was sent: {', '.join(different)} differ. Repeat it.")
    whole = hashlib.sha256(json.dumps(there, sort_keys=True).encode()).hexdigest()
    return Copied({table: count for table, (count, _) in there.items()}, whole)


def digest(connection: Connection, table: str, like: Connection | None = None) -> tuple[int, str]:
    """How many rows a table has, and the sum of their hashes: databases sort words differently."""
    names = sorted(str(each["name"]) for each in sa.inspect(like or connection).get_columns(table))
    count, total = 0, 0
    rows = connection.execute(sa.text(f"SELECT {', '.join(names)} FROM {table}"))
    for batch in rows.partitions(COPIED):
        count += len(batch)
        total += sum(int.from_bytes(hashlib.sha256(json.dumps([*row]).encode()).digest()) for row in batch)
    return count, f"{total % (1 << 256):064x}"


def tell_database(copied: Copied, asked: int, place: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"journal": place, "rows": copied.rows, "digest": copied.digest, "asked": asked})
        return
    rows = sum(copied.rows.values())
    out().print(f"{rows:,} rows of {len(copied.rows)} tables are there, digest {copied.digest[:12]}.", markup=False)
    out().print(f"{asked} questions are answered there as here." if asked else "There was no index to ask.")
    out().print("Now name it, and its password in UNDERSTUDY_JOURNAL__PASSWORD, in understudy.toml:", markup=False)
    out().print(f'[journal]\nurl = "{place}"', markup=False, soft_wrap=True)
    err().print(LEFT)


def to_host(settings: Settings, target: str, recipients: Sequence[str], *, as_json: bool) -> None:
    """Back up for another host, bring it there, look that it arrived and could be brought back, then leave this one."""
    if settings.journal.url:
        raise UserMistake(
            "The journal is a database of its own: name it there too; or first move it into a file with "
            "understudy migrate --journal sqlite:///FILE, as journal.url, and back there."
        )
    made = now()
    named = target if target.endswith(".tar") else f"{target.rstrip('/')}/understudy-{made:%Y%m%dT%H%M%SZ}.tar"
    place = named if is_address(named) else str(Path(named).resolve())
    with tempfile.TemporaryDirectory(prefix=".moving-", dir=settings.data_folder) as name:
        folder = Path(name)
        path = folder / "made" / Path(place).name
        manifest = pack(settings, folder, path, made)
        found = checked(path, folder / "checked", settings)
        if recipients:
            path, place = seal(path, recipients), f"{place}{SEALED}"
        bring(path, place, folder / "back")
        with closing(Journal.open(settings.journal_url)) as journal, journal.writing() as held:
            if {**journal.counts(), "outbox": 0} != {**manifest["counts"], "outbox": 0}:
                raise UserMistake("Something wrote into the journal meanwhile: stop it, and repeat.")
            mark(held.connection, shown(place), made)
    note_backup(settings.data_folder, shown(place))
    tell_host(shown(place), found, sealed=bool(recipients), as_json=as_json)


def bring(path: Path, place: str, back: Path) -> None:
    """Put a file where it belongs, and compare what is read back from there."""
    if not is_address(place):
        move(path, Path(place))
    else:
        put(path, place)
        fetch(place, back)
    if sha256_of(back if is_address(place) else Path(place)) != sha256_of(path):
        raise ServiceTrouble(f"What arrived at {shown(place)} is not what was sent. Nothing was given up; repeat it.")


def tell_host(place: str, found: Checked, *, sealed: bool, as_json: bool) -> None:
    restore = f"understudy restore {place}{' --identity FILE' if sealed else ''}"
    if as_json:
        print_json({"backup": place, "counts": found.counts, "asked": found.asked, "there": [restore, "understudy up"]})
        return
    out().print(f"{place} is whole: {in_words(found)}.", markup=False)
    out().print("Secrets are not in it: bring .env, or ./secrets, there by hand. Then, there:", markup=False)
    out().print(f"{restore}\nunderstudy doctor\nunderstudy up", markup=False, soft_wrap=True)
    err().print(LEFT)
