"""The journal's tables, step by step. A step that was released is never changed: the next one is added below it.

`events` is the truth and only grows. `messages`, `exchanges`, `passages`, `inbox` and `consents` are derived from it in
the same transaction; `outbox` lists what the vector index has yet to learn, `graph_outbox` what the graph has yet to.
"""

import json

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from infra.database import Migration, serial
from memory.alike import normal_form
from memory.codec import exchange_from
from memory.standing import question_form


def m001_initial(connection: Connection) -> None:
    """Everything the spine needs."""
    for statement in M001.format(serial=serial(connection)).split(";"):
        if statement.strip():
            connection.execute(sa.text(statement))


M001 = """
CREATE TABLE events (
    seq {serial},
    platform TEXT NOT NULL, place TEXT NOT NULL, message_id TEXT NOT NULL, kind TEXT NOT NULL,
    revision INTEGER NOT NULL, author TEXT NOT NULL, source TEXT NOT NULL, at TEXT NOT NULL, payload TEXT NOT NULL,
    UNIQUE (platform, place, message_id, kind, revision)
);
CREATE INDEX events_by_kind ON events (kind, place, seq);
CREATE TABLE messages (
    platform TEXT NOT NULL, place TEXT NOT NULL, message_id TEXT NOT NULL,
    thread TEXT NOT NULL, at TEXT NOT NULL, reply_to TEXT, revision INTEGER NOT NULL, deleted INTEGER NOT NULL,
    source TEXT NOT NULL, payload TEXT NOT NULL,
    PRIMARY KEY (platform, place, message_id)
);
CREATE INDEX messages_by_time ON messages (platform, place, thread, at);
CREATE INDEX messages_by_reply ON messages (platform, place, reply_to);
CREATE TABLE exchanges (
    id TEXT PRIMARY KEY, place_key TEXT NOT NULL, at TEXT NOT NULL, pairing TEXT NOT NULL,
    community TEXT NOT NULL, payload TEXT NOT NULL
);
CREATE INDEX exchanges_by_time ON exchanges (place_key, at);
CREATE TABLE passages (
    id TEXT PRIMARY KEY, document TEXT NOT NULL, position INTEGER NOT NULL,
    community TEXT NOT NULL, payload TEXT NOT NULL
);
CREATE INDEX passages_by_document ON passages (document, position);
CREATE TABLE documents (document TEXT PRIMARY KEY, revision INTEGER NOT NULL, sha256 TEXT NOT NULL);
CREATE TABLE inbox (
    number {serial},
    normalised TEXT NOT NULL, question TEXT NOT NULL, at TEXT NOT NULL, count INTEGER NOT NULL,
    state TEXT NOT NULL, exchange_id TEXT, payload TEXT NOT NULL
);
CREATE INDEX inbox_by_question ON inbox (state, normalised);
CREATE TABLE inbox_askers (question_id TEXT PRIMARY KEY, number INTEGER NOT NULL, payload TEXT NOT NULL);
CREATE TABLE consents (
    person TEXT NOT NULL, place TEXT NOT NULL, granted INTEGER NOT NULL, at TEXT NOT NULL,
    PRIMARY KEY (person, place)
);
CREATE TABLE outbox (seq {serial}, op TEXT NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL)
"""


def m002_long_questions_and_late_pieces(connection: Connection) -> None:
    """PostgreSQL indexes no text over 2.7 kB, and questions may be longer; pieces now know their revision."""
    for statement in (
        "DROP INDEX inbox_by_question",
        "CREATE INDEX inbox_by_state ON inbox (state, number)",
        "ALTER TABLE passages ADD COLUMN revision INTEGER NOT NULL DEFAULT 0",
    ):
        connection.execute(sa.text(statement))


def m003_closings_before_their_questions(connection: Connection) -> None:
    """An answer or a dismissal that came before its question waits for it here."""
    connection.execute(
        sa.text("CREATE TABLE inbox_closings (question_id TEXT PRIMARY KEY, state TEXT NOT NULL, exchange_id TEXT)")
    )


def m004_members_and_places(connection: Connection) -> None:
    """What members chose, where the twin listens, what the creator was shown, whom to tell."""
    for statement in M004.split(";"):
        connection.execute(sa.text(statement))


M004 = """
CREATE TABLE choices (
    person TEXT NOT NULL, name TEXT NOT NULL, value INTEGER NOT NULL, at TEXT NOT NULL, PRIMARY KEY (person, name)
);
CREATE TABLE places (
    place TEXT PRIMARY KEY, platform TEXT NOT NULL, space TEXT NOT NULL, listening INTEGER NOT NULL, at TEXT NOT NULL,
    payload TEXT NOT NULL
);
CREATE TABLE cards (
    platform TEXT NOT NULL, number INTEGER NOT NULL, place TEXT NOT NULL, message_id TEXT NOT NULL,
    shown TEXT NOT NULL, PRIMARY KEY (platform, number)
);
CREATE TABLE notices (
    question_id TEXT PRIMARY KEY, platform TEXT NOT NULL, answer TEXT NOT NULL, at TEXT NOT NULL, told INTEGER NOT NULL
);
CREATE INDEX notices_by_platform ON notices (platform, told, at);
CREATE INDEX events_by_message ON events (kind, message_id)
"""


def m005_forgotten(connection: Connection) -> None:
    """Which exchanges were forgotten, in order: what learned from one before its number must never speak again."""
    connection.execute(sa.text(f"CREATE TABLE forgotten (seq {serial(connection)}, exchange_id TEXT NOT NULL)"))


def m006_questions_by_normal_form(connection: Connection) -> None:
    """Of a question's words the inbox compares the normal form, which is short enough to be indexed."""
    for number, question in connection.execute(sa.text("SELECT number, question FROM inbox")).all():
        connection.execute(
            sa.text("UPDATE inbox SET normalised = :form WHERE number = :number"),
            {"form": normal_form(question), "number": number},
        )
    connection.execute(sa.text("CREATE INDEX inbox_by_form ON inbox (normalised, state)"))


def m007_tombstones(connection: Connection) -> None:
    """What was forgotten, without its words, so that neither an archive nor an older journal brings it back."""
    connection.execute(
        sa.text(
            "CREATE TABLE tombstones (receipt TEXT PRIMARY KEY, at TEXT NOT NULL, selection TEXT NOT NULL, "
            "counts TEXT NOT NULL, lifted INTEGER NOT NULL)"
        )
    )


def m008_exchanges_of_documents(connection: Connection) -> None:
    """Which exchanges came with which file: they go when the file no longer has them, unless another one does."""
    for statement in (
        "CREATE TABLE document_exchanges (document TEXT NOT NULL, exchange_id TEXT NOT NULL, "
        "PRIMARY KEY (document, exchange_id))",
        "CREATE INDEX documents_by_exchange ON document_exchanges (exchange_id)",
    ):
        connection.execute(sa.text(statement))


def m009_graph(connection: Connection) -> None:
    """What each source says for the graph, what the graph has yet to read, and the terms it learned."""
    for statement in M009.format(serial=serial(connection)).split(";"):
        connection.execute(sa.text(statement))


M009 = """
CREATE TABLE graph_outbox (seq {serial}, id TEXT NOT NULL);
CREATE TABLE graph_readings (source TEXT PRIMARY KEY, seq BIGINT NOT NULL, payload TEXT NOT NULL);
CREATE INDEX graph_readings_by_seq ON graph_readings (seq);
CREATE TABLE graph_state (name TEXT PRIMARY KEY, payload TEXT NOT NULL);
INSERT INTO graph_outbox (id) SELECT id FROM exchanges UNION SELECT id FROM passages
"""


def m010_questions_of_exchanges(connection: Connection) -> None:
    """Exchanges know their question's form, so that recall finds every answer to it without comparing questions."""
    connection.execute(sa.text("ALTER TABLE exchanges ADD COLUMN form TEXT NOT NULL DEFAULT ''"))
    update = sa.text("UPDATE exchanges SET form = :form WHERE id = :id")
    for identity, payload in connection.execute(sa.text("SELECT id, payload FROM exchanges")).all():
        form = question_form(exchange_from(json.loads(payload)))
        connection.execute(update, {"form": form, "id": identity})
    for statement in (
        "CREATE INDEX exchanges_by_form ON exchanges (form)",
        "CREATE INDEX inbox_askers_by_number ON inbox_askers (number)",
    ):
        connection.execute(sa.text(statement))


def m011_found_by_a_model(connection: Connection) -> None:
    """What a language model found in a source beside the rules, and in which text."""
    connection.execute(
        sa.text(
            "CREATE TABLE graph_found (source TEXT PRIMARY KEY, seq BIGINT NOT NULL, model TEXT NOT NULL, "
            "digest TEXT NOT NULL, payload TEXT NOT NULL)"
        )
    )


def m012_when_it_was_written(connection: Connection) -> None:
    """When each event was written down, which for an archive is long after it happened.

    Nobody noted it for those before: they were written no earlier than anything that stands before them happened.
    """
    connection.execute(sa.text("ALTER TABLE events ADD COLUMN written TEXT NOT NULL DEFAULT ''"))
    connection.execute(
        sa.text(
            "UPDATE events SET written = before.latest FROM "
            "(SELECT seq, max(at) OVER (ORDER BY seq) AS latest FROM events) AS before WHERE before.seq = events.seq"
        )
    )


MIGRATIONS: list[Migration] = [
    m001_initial,
    m002_long_questions_and_late_pieces,
    m003_closings_before_their_questions,
    m004_members_and_places,
    m005_forgotten,
    m006_questions_by_normal_form,
    m007_tombstones,
    m008_exchanges_of_documents,
    m009_graph,
    m010_questions_of_exchanges,
    m011_found_by_a_model,
    m012_when_it_was_written,
]
