"""SQL databases: SQLite by default, PostgreSQL by URL, with the same transactions and numbered migrations on both.

Knows no table but its own list of schema versions. SQLite runs in WAL with synchronous=FULL, so that a commit survives
a power cut and readers never wait for a writer; writers take their lock at the start, so that none fails half-way.
"""

import contextlib
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from infra.errors import ServiceTrouble, UserMistake
from infra.files import sync_folder

Migration = Callable[[Connection], None]

# How long a writer waits for another process's transaction before it gives up, in seconds.
LOCK_WAIT_S = 20
# Rows copied at a time from one database to another.
COPIED = 500
# What stands in the URL of an encrypted SQLite file before the path of its key; the key itself is in no URL.
KEYED = "?key_file="
# SQLCipher would tell stderr of a wrong key, in its own words, beside our sentence.
QUIET = "PRAGMA cipher_log_level = NONE"
UNREADABLE = {
    False: "is not a database that can be read. If it is encrypted, journal.key_file must name its key.",
    True: "cannot be read with this key. It is another's, or the journal is not encrypted: understudy journal encrypt",
}
# Any constant; it only has to be ours among the advisory locks of a shared PostgreSQL.
MIGRATION_LOCK = 7_301_190_522


def connect(url: str) -> Engine:
    """An engine for `url`; the folder of an SQLite file is made.

    Raises UserMistake for a URL of another kind, one without a file, and a folder that cannot be made.
    """
    if url.startswith("sqlite:///"):
        file, _, key_file = url.removeprefix("sqlite:///").partition(KEYED)
        make_folder(file)
        return connect_sqlite(file, key_of(Path(key_file)) if key_file else "")
    if url.startswith(("postgresql://", "postgresql+psycopg://")):
        return connect_postgresql(re.sub(r"^postgresql(\+psycopg)?", "postgresql+psycopg", url))
    raise UserMistake(f"The journal's URL must begin with sqlite:/// or postgresql://, not {url.split(':')[0]!r}.")


def connect_postgresql(address: str) -> Engine:
    """An engine for a PostgreSQL server, whose connections notice when it is gone without a word."""
    from infra import postgresql

    def prepare(connection: Any, _: object) -> None:
        # A writer gives up on a lock after as long as on SQLite, instead of waiting for ever.
        connection.execute(f"SET lock_timeout = '{LOCK_WAIT_S}s'; {postgresql.SERVER_PATIENCE}")
        connection.commit()

    def begin(connection: Connection) -> None:
        # Whoever writes holds locks: one that is gone in between loses them.
        if connection.get_execution_options().get("writes", False):
            idle = f"SET LOCAL idle_in_transaction_session_timeout = '{postgresql.SILENCE_S:g}s'"
            connection.exec_driver_sql(idle)

    engine = sa.create_engine(address, pool_pre_ping=True)
    event.listen(engine, "do_connect", lambda _, __, given, named: postgresql.connect(*given, **named))
    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", begin)
    return engine


def connect_sqlite(file: str, key: str) -> Engine:
    """An engine for an SQLite file; with a key one that SQLCipher encrypts."""
    module = sqlcipher() if key else sqlite3
    engine = sa.create_engine(f"sqlite:///{file}", module=module, connect_args={"timeout": LOCK_WAIT_S})

    def prepare(connection: Any, _: object) -> None:
        try:
            prepare_sqlite(connection, key)
        except module.DatabaseError as error:
            if "not a database" not in str(error):
                raise
            raise ServiceTrouble(f"The journal {file!r} {UNREADABLE[bool(key)]}", permanent=True) from error

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", begin_sqlite)
    return engine


def sqlcipher() -> Any:
    """SQLCipher's driver. Raises UserMistake where it is not installed."""
    try:
        from sqlcipher3 import dbapi2
    except ImportError as error:
        raise UserMistake('journal.key_file needs SQLCipher: pip install "understudy[encryption]".') from error
    return dbapi2


def key_of(path: Path) -> str:
    """The key in a file. Raises UserMistake for one that anybody may read, and for what is no key."""
    try:
        key, mode = path.read_text(encoding="ascii").strip(), path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise UserMistake(f"The key of the journal, {str(path)!r}, cannot be read: {error}.") from error
    if mode & 0o004:
        raise UserMistake(f"Anybody on this machine may read the key of the journal: chmod 600 {path}")
    if not re.fullmatch("[0-9a-fA-F]{64}", key):
        raise UserMistake(f"{str(path)!r} holds no key of 64 hexadecimal digits; make one with: openssl rand -hex 32")
    return key


def encrypt(file: Path, key_file: Path) -> None:
    """Put an encrypted copy in the place of a plain SQLite file that nobody has open; it is whole or not there.

    Raises UserMistake when the file is not a plain database.
    """
    key, part = key_of(key_file), file.with_name(f".{file.name}.part")
    part.unlink(missing_ok=True)
    module = sqlcipher()
    try:
        with contextlib.closing(module.connect(file, isolation_level=None)) as plain:
            plain.execute(QUIET)
            plain.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            plain.execute(f"ATTACH DATABASE ? AS encrypted KEY \"x'{key}'\"", (str(part),))
            plain.execute("SELECT sqlcipher_export('encrypted')").fetchall()
            plain.execute("DETACH DATABASE encrypted")
        part.replace(file)
        sync_folder(file.parent)
    except module.DatabaseError as error:
        raise UserMistake(f"{str(file)!r} cannot be encrypted: {error}. It may be encrypted already.") from error
    finally:
        part.unlink(missing_ok=True)


def make_folder(file: str) -> None:
    """The folder of an SQLite file. SQLite itself would take an empty name for a database that is thrown away."""
    if not file or file.startswith(":memory:"):
        raise UserMistake("The journal's URL names no file after sqlite:///: give it a path.")
    try:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = (error.strerror or "it failed").lower()
        raise UserMistake(f"The folder of the journal {file!r} cannot be made: {why}.") from error


def prepare_sqlite(connection: Any, key: str) -> None:
    """Pragmas of every new connection. The driver's own transaction handling is off: `begin_sqlite` does it."""
    connection.isolation_level = None
    if key:
        connection.execute(QUIET)
        connection.execute(f"PRAGMA key = \"x'{key}'\"")
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")


def begin_sqlite(connection: Connection) -> None:
    """BEGIN, taking the write lock at once where the transaction is going to write."""
    immediate = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One write transaction: committed at the end of the block, rolled back on any exception.

    Raises ServiceTrouble when the database is full, locked or gone; nothing of the block is then kept.
    """
    try:
        with engine.connect().execution_options(writes=True) as connection, connection.begin():
            yield connection
    except (sa.exc.DBAPIError, sa.exc.TimeoutError) as error:
        raise trouble("write to", error) from error


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One consistent view for reading. Raises ServiceTrouble when the database cannot be read."""
    try:
        with engine.connect() as connection:
            yield connection
    except (sa.exc.DBAPIError, sa.exc.TimeoutError) as error:
        raise trouble("read", error) from error


def settle(engine: Engine) -> None:
    """Let what was deleted leave SQLite's write-ahead log too, where its bytes would stay until they are overwritten.

    Where somebody is reading, it stays until the next time.
    """
    if engine.dialect.name != "sqlite":
        return
    connection = engine.raw_connection()
    try:
        with contextlib.suppress(engine.dialect.loaded_dbapi.OperationalError):
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
    finally:
        connection.close()


def copy_database(url: str, path: Path) -> None:
    """A consistent copy of an SQLite database as a file of its own, while others write to it; encrypted if it is.

    Raises UserMistake for PostgreSQL, which has its own tool, and ServiceTrouble when it cannot be written.
    """
    if not url.startswith("sqlite:///"):
        raise UserMistake("The journal is on PostgreSQL: back it up with pg_dump, and the adapters' folder beside it.")
    _, keyed, key_file = url.partition(KEYED)
    source, target = connect(url), connect(f"sqlite:///{path}{keyed}{key_file}")
    try:
        with contextlib.closing(source.raw_connection()) as known, contextlib.closing(target.raw_connection()) as copy:
            known.dbapi_connection.backup(copy.dbapi_connection)  # type: ignore[union-attr]
    except source.dialect.loaded_dbapi.Error as error:
        raise ServiceTrouble(f"Could not copy the database to {str(path)!r}: {error}.") from error
    finally:
        source.dispose()
        target.dispose()


def trouble(doing: str, error: sa.exc.DBAPIError | sa.exc.TimeoutError) -> ServiceTrouble:
    """What a driver's error means, without the statement or its values, which may be people's words."""
    said = str(error.orig) if isinstance(error, sa.exc.DBAPIError) else "all its connections are in use"
    # PostgreSQL quotes the values of the row from the second line on.
    words = said.split("\n", 1)[0].rstrip(". ")[:200]
    return ServiceTrouble(f"Could not {doing} the database: {words}.", permanent="malformed" in words)


def migrate(engine: Engine, component: str, migrations: Sequence[Migration]) -> None:
    """Bring `component`'s tables to the newest version, each step in a transaction of its own.

    Safe when several processes start at once. Raises UserMistake when the database is newer than this program.
    """
    while (version := applied(engine, component)) < len(migrations):
        with writing(engine) as connection, at_leisure(connection):
            if connection.dialect.name == "postgresql":
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            # Another process may have done this step while we waited for the lock.
            if version_of(connection, component) == version:
                migrations[version](connection)
                save_version(connection, component, version + 1)
    refuse_newer(engine, component, len(migrations))


@contextmanager
def at_leisure(connection: Connection) -> Iterator[None]:
    """A block whose statements may rewrite whole tables: a server that is silent meanwhile is not taken for gone."""
    driver = connection.connection.dbapi_connection
    if connection.dialect.name != "postgresql" or driver is None:
        yield
        return
    driver.silence_s = float("inf")
    try:
        yield
    finally:
        driver.silence_s = None


def refuse_newer(engine: Engine, component: str, known: int) -> None:
    """Raise UserMistake for a component of the database that is newer than what this program knows."""
    if (version := applied(engine, component)) > known:
        words = f"The database has version {version} of {component!r}, this program knows {known}: update it."
        raise UserMistake(words)


def applied(engine: Engine, component: str) -> int:
    """How many migrations of `component` are in; makes the list of versions where it is missing.

    Where it is there it is only read, which is all that a user with few rights may do.
    """
    with reading(engine) as connection:
        if sa.inspect(connection).has_table("schema_versions"):
            return version_of(connection, component)
    with writing(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        connection.execute(
            sa.text("CREATE TABLE IF NOT EXISTS schema_versions (component TEXT PRIMARY KEY, version INTEGER NOT NULL)")
        )
        return version_of(connection, component)


def version_of(connection: Connection, component: str) -> int:
    found = connection.execute(
        sa.text("SELECT version FROM schema_versions WHERE component = :component"), {"component": component}
    )
    return int(found.scalar() or 0)


def save_version(connection: Connection, component: str, version: int) -> None:
    connection.execute(
        sa.text(
            "INSERT INTO schema_versions (component, version) VALUES (:component, :version) "
            "ON CONFLICT (component) DO UPDATE SET version = excluded.version"
        ),
        {"component": component, "version": version},
    )


def json_text(engine: Engine, column: str, *path: str) -> str:
    """SQL for a text inside a JSON document that is kept as text."""
    if engine.dialect.name == "postgresql":
        return f"CAST({column} AS json) #>> '{{{','.join(path)}}}'"
    return f"json_extract({column}, '$.{'.'.join(path)}')"


def serial(connection: Connection) -> str:
    """The column type of a counting primary key that never reuses a number."""
    return "BIGSERIAL PRIMARY KEY" if connection.dialect.name == "postgresql" else "INTEGER PRIMARY KEY AUTOINCREMENT"


def last_numbers(connection: Connection) -> dict[str, int]:
    """The last number that each table's counting primary key gave, of rows that are gone too; 0 before the first."""
    if connection.dialect.name == "sqlite":
        return {name: int(last) for name, last in connection.execute(sa.text("SELECT name, seq FROM sqlite_sequence"))}
    return {
        table: int(connection.execute(sa.text(f"SELECT pg_sequence_last_value({sequence})")).scalar() or 0)
        for table, sequence, _ in sequences(connection)
    }


def restart_numbers(connection: Connection, last: Mapping[str, int] | None = None) -> None:
    """Let every counting primary key go on after the rows that are there, however they came, and after `last`."""
    last = last or {}
    if connection.dialect.name == "sqlite":
        for table in last.keys() & set(sa.inspect(connection).get_table_names()):
            connection.execute(sa.text("DELETE FROM sqlite_sequence WHERE name = :table"), {"table": table})
            connection.execute(
                sa.text("INSERT INTO sqlite_sequence (name, seq) VALUES (:table, :last)"),
                {"table": table, "last": max(last[table], highest(connection, table, "rowid"))},
            )
        return
    for table, sequence, column in sequences(connection):
        if number := max(last.get(table, 0), highest(connection, table, column)):
            connection.execute(sa.text(f"SELECT setval({sequence}, :number)"), {"number": number})


def highest(connection: Connection, table: str, column: str) -> int:
    return int(connection.execute(sa.text(f"SELECT coalesce(max({column}), 0) FROM {table}")).scalar() or 0)


def sequences(connection: Connection) -> list[tuple[str, str, str]]:
    """Every table of PostgreSQL with a counting primary key, SQL for its sequence, and its column."""
    counted = connection.execute(
        sa.text(
            "SELECT table_name, column_name FROM information_schema.columns "
            "WHERE table_schema = current_schema() AND column_default LIKE 'nextval(%'"
        )
    )
    return [(table, f"pg_get_serial_sequence('{table}', '{column}')::regclass", column) for table, column in counted]


def copy_rows(source: Connection, target: Connection, table: str, *, where: str = "1 = 1", **values: Any) -> int:
    """Copy the rows of a table that fit into the same table elsewhere, and return how many those were."""
    names = [str(each["name"]) for each in sa.inspect(target).get_columns(table)]
    statement = sa.text(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(f':{name}' for name in names)})")
    found = source.execute(sa.text(f"SELECT {', '.join(names)} FROM {table} WHERE {where}"), values)
    copied = 0
    for batch in found.mappings().partitions(COPIED):
        target.execute(statement, [dict(row) for row in batch])
        copied += len(batch)
    return copied
