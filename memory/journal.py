"""The journal: the append-only record of events, the only truth, and the tables derived from it.

All of memory's SQL is here. `Journal` reads; `Writer` is one write transaction, which only `remember` (and erasure)
opens. Nothing here decides what an event means.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from infra.database import connect, json_text, migrate, reading, writing
from memory.codec import (
    answer_from,
    dumps,
    encoded,
    exchange_from,
    message_from,
    passage_from,
    person_from,
    place_from,
    time_of,
    time_text,
)
from memory.messages import (
    Answer,
    Event,
    Exchange,
    Kind,
    Message,
    Passage,
    Person,
    Place,
    Source,
    name_uuid,
)
from memory.migrations import MIGRATIONS
from memory.selection import Selection, Tombstone, selection_from
from memory.standing import question_form

Derived = Literal["exchange", "passage"]
Operation = Literal["upsert", "delete"]

MESSAGE_COLUMNS = "platform, place, message_id, thread, at, reply_to, revision, deleted, source, payload"
# Any constant; it only has to be ours, and another than that of migrations, among the locks of a shared PostgreSQL.
WRITER_LOCK = 7_301_190_523
# Of so many answers it is looked at how long they took to begin.
TIMED = 5000
# Rows fetched at a time when a whole table is walked.
BATCH = 500
# Payloads whose values are kept: a conversation is paired again whenever the creator says something.
KEPT = 1 << 13


# Who asked a question, by its form, when memory had no answer to it.
WAITED = (
    "SELECT 'waited' AS what, i.normalised AS form, a.payload FROM inbox i "
    "JOIN inbox_askers a ON a.number = i.number WHERE i.normalised IN"
)
# Exchanges with every other answer to their questions, who waits for one, and passages, by the ids that a search found.
FOUND = (
    "WITH asked AS (SELECT form FROM exchanges WHERE id IN :values) "
    "SELECT 'alike' AS what, form, payload FROM exchanges WHERE form IN (SELECT form FROM asked) "
    f"UNION ALL {WAITED} (SELECT form FROM asked) "
    "UNION ALL SELECT 'passage' AS what, '' AS form, payload FROM passages WHERE id IN :values"
)


@dataclass(frozen=True)
class Found:
    """Answers with the form of their question, who waits for one by the same form, and passages."""

    alike: Sequence[tuple[str, Exchange]]
    waited: Mapping[str, Set[str]]
    passages: Sequence[Passage]


@dataclass(frozen=True)
class OutboxItem:
    """One change that the vector index has yet to apply."""

    seq: int
    op: Operation
    kind: Derived
    id: str


@dataclass(frozen=True)
class InboxItem:
    """A question that waits for the creator. `number` is what the creator types; `count` how many have asked it."""

    number: int
    question_id: str
    question: str
    asker: Person
    place: Place
    source: Source
    at: datetime
    count: int
    state: Literal["open", "answered", "dismissed"]
    exchange_id: str | None = None


@dataclass(frozen=True)
class Document:
    """A file that was imported: how many passages and exchanges are known from it, when it was read, and on what terms.

    `title` is what it calls itself, if it does.
    """

    name: str
    title: str
    passages: int
    exchanges: int
    at: datetime
    source: Source


@dataclass(frozen=True)
class Judged:
    """How many answers a voice gave, and what the last vote of each person said of them.

    `failed` of the answers broke off, or had not begun. `critics` is how many people the bad votes are from.
    `first_tokens` are the milliseconds after which the latest answers began.
    """

    answers: int = 0
    good: int = 0
    bad: int = 0
    failed: int = 0
    critics: int = 0
    first_tokens: tuple[float, ...] = ()


class Journal:
    """Reads of the journal. Safe to share between threads; other processes may write at the same time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, url: str) -> "Journal":
        """The journal at `url`, its tables made or brought up to date.

        Raises UserMistake for a URL that is no database of ours and ServiceTrouble when it cannot be opened.
        """
        engine = connect(url)
        try:
            migrate(engine, "journal", MIGRATIONS)
        except BaseException:
            engine.dispose()
            raise
        return cls(engine)

    @property
    def engine(self) -> Engine:
        """The database, for the other tables that live beside the journal."""
        return self._engine

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def writing(self) -> Iterator["Writer"]:
        """One write transaction. Raises ServiceTrouble when it cannot be committed; nothing of it is then kept.

        Writers take turns on PostgreSQL as they do on SQLite: of two at once, neither would see the other's message to
        pair it with, and the outbox's numbers would not be in the order of the commits.
        """
        with writing(self._engine) as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": WRITER_LOCK})
            yield Writer(connection)

    @contextmanager
    def looking(self) -> Iterator["Writer"]:
        """One view for whoever is to write later: a writer that must not write yet, and that nobody waits for."""
        with reading(self._engine) as connection:
            yield Writer(connection)

    def events(
        self, *, kind: Kind | None = None, place: str | None = None, after: int = 0, limit: int = BATCH
    ) -> list[tuple[int, Event]]:
        """Up to `limit` events after sequence number `after`, in order, with their numbers."""
        where = ["seq > :after"]
        where += ["kind = :kind"] if kind else []
        where += ["place = :place"] if place is not None else []
        rows = self._rows(
            f"SELECT * FROM events WHERE {' AND '.join(where)} ORDER BY seq LIMIT :limit",
            after=after,
            limit=limit,
            **({"kind": str(kind)} if kind else {}),
            **({"place": place} if place is not None else {}),
        )
        return [(row["seq"], event_of(row)) for row in rows]

    def last(self) -> int:
        """The number of the latest event; 0 when there is none."""
        return int(self._rows("SELECT coalesce(max(seq), 0) AS n FROM events")[0]["n"])

    def tallied(self, *, after: int, until: int) -> list[tuple[str, str, int]]:
        """How many events of each kind and platform there are after one number, until another."""
        rows = self._rows(
            "SELECT kind, platform, count(*) AS n FROM events WHERE seq > :after AND seq <= :until"
            " GROUP BY kind, platform",
            after=after,
            until=until,
        )
        return [(row["kind"], row["platform"], int(row["n"])) for row in rows]

    def spoken(self, *, after: int, until: int, limit: int = BATCH) -> list[tuple[int, Event]]:
        """Up to `limit` answers and messages of the twin itself between two numbers, in order, with their numbers."""
        rows = self._rows(
            "SELECT * FROM events WHERE seq > :after AND seq <= :until AND source = :source ORDER BY seq LIMIT :limit",
            after=after,
            until=until,
            source=str(Source.TWIN),
            limit=limit,
        )
        return [(row["seq"], event_of(row)) for row in rows]

    def conversation(self, place: Place, limit: int) -> list[tuple[str, Answer]]:
        """The last `limit` questions and answers of the twin in one conversation, oldest first."""
        rows = self._rows(
            "SELECT payload FROM events WHERE kind = :kind AND place = :place ORDER BY seq DESC LIMIT :limit",
            kind=str(Kind.ANSWER),
            place=place.key,
            limit=limit,
        )
        found = [json.loads(row["payload"]) for row in reversed(rows)]
        return [(each["question"], answer_from(each["answer"])) for each in found]

    def chain(self, place: Place, message_id: str, limit: int) -> list[Message]:
        """Up to `limit` messages of a chain of replies that ends with `message_id`, oldest first."""
        found: list[Message] = []
        wanted: str | None = message_id
        while wanted and len(found) < limit and (message := self.message(place, wanted)):
            found.append(message)
            wanted = message.reply_to if message.reply_to not in {each.id for each in found} else None
        return found[::-1]

    def message(self, place: Place, message_id: str) -> Message | None:
        """One current message of a place, whichever thread it stands in; None when it is unknown or deleted."""
        found = self.said(place, message_id)
        return found[0] if found else None

    def said(self, place: Place, message_id: str) -> tuple[Message, Source] | None:
        """The same with where it came from."""
        rows = self._rows(
            "SELECT payload, source FROM messages WHERE platform = :platform AND place = :place AND message_id = :id "
            "AND deleted = 0",
            platform=place.platform,
            place=place.id,
            id=message_id,
        )
        return (message_from(json.loads(rows[0]["payload"])), Source(rows[0]["source"])) if rows else None

    def edits(self, place: Place, message_id: str) -> dict[int, str]:
        """What a message said after each of its edits, by revision."""
        rows = self._rows(
            "SELECT revision, payload FROM events WHERE platform = :platform AND place = :place AND message_id = :id "
            "AND kind = :kind",
            platform=place.platform,
            place=place.id,
            id=message_id,
            kind=str(Kind.EDIT),
        )
        return {row["revision"]: json.loads(row["payload"])["text"] for row in rows}

    def answer(self, answer_id: str) -> Answer | None:
        """An answer of the twin, or None."""
        rows = self._rows(
            "SELECT payload FROM events WHERE kind = :kind AND message_id = :id", kind=str(Kind.ANSWER), id=answer_id
        )
        return answer_from(json.loads(rows[0]["payload"])["answer"]) if rows else None

    def asked(self, answer_id: str) -> tuple[Message, Source] | None:
        """The message that an answer answers, and where it came from; None when either is gone."""
        rows = self._rows(
            "SELECT payload FROM events WHERE kind = :kind AND message_id = :id", kind=str(Kind.ANSWER), id=answer_id
        )
        if not rows:
            return None
        found = json.loads(rows[0]["payload"])
        return self.said(place_from(found["place"]), found["answer"]["question_id"])

    def answer_shown_as(self, place: Place, message_id: str) -> Answer | None:
        """The answer that a message of the twin's shows."""
        shown = self.message(place, message_id)
        if shown is None or shown.person.role != "twin" or shown.reply_to is None:
            return None
        return self.answer(name_uuid("answer", shown.place.key, shown.reply_to, "0"))

    def shown_last(self, place: Place, person: Person) -> str:
        """The id of the twin's latest message that answers `person` in a conversation; empty when there is none."""
        rows = self._rows(
            "SELECT t.message_id, q.payload FROM messages t JOIN messages q ON q.platform = t.platform "
            "AND q.place = t.place AND q.message_id = t.reply_to WHERE t.platform = :platform AND t.place = :place "
            "AND t.thread = :thread AND t.source = 'twin' AND t.deleted = 0 AND q.deleted = 0 "
            "ORDER BY t.at DESC LIMIT 50",
            platform=place.platform,
            place=place.id,
            thread=place.thread,
        )
        theirs = (row for row in rows if message_from(json.loads(row["payload"])).person.key == person.key)
        return next((str(row["message_id"]) for row in theirs), "")

    def unshown(self, platform: str, *, since: datetime) -> list[tuple[Message, Answer]]:
        """Answers since `since` that no message of the twin's shows: it died between writing down and sending."""
        named = {"platform": platform, "since": time_text(since)}
        rows = self._rows(
            "SELECT payload FROM events WHERE kind = 'answer' AND platform = :platform AND at >= :since ORDER BY seq",
            **named,
        )
        replies = self._rows(
            "SELECT place, reply_to FROM messages WHERE platform = :platform AND source = 'twin' AND at >= :since",
            **named,
        )
        shown = {(row["place"], row["reply_to"]) for row in replies}
        found = [json.loads(row["payload"]) for row in rows]
        left = [each for each in found if (each["place"]["id"], each["answer"]["question_id"]) not in shown]
        asked = [
            (self.message(place_from(e["place"]), e["answer"]["question_id"]), answer_from(e["answer"])) for e in left
        ]
        return [(message, answer) for message, answer in asked if message is not None]

    def visited(self, platform: str, *, since: datetime, limit: int = BATCH) -> list[tuple[Place, datetime]]:
        """Where people said something since `since`, thread by thread, each with when they last did, newest first."""
        rows = self._rows(
            "SELECT payload, at FROM messages m WHERE platform = :platform AND source <> 'twin' AND deleted = 0 "
            "AND at >= :since AND NOT EXISTS (SELECT 1 FROM messages n WHERE n.platform = m.platform "
            "AND n.place = m.place AND n.thread = m.thread AND n.source <> 'twin' AND n.deleted = 0 AND (n.at > m.at "
            "OR (n.at = m.at AND n.message_id > m.message_id))) ORDER BY at DESC LIMIT :limit",
            platform=platform,
            since=time_text(since),
            limit=limit,
        )
        return [(message_from(json.loads(row["payload"])).place, time_of(row["at"])) for row in rows]

    def votes(self, answer_id: str) -> dict[str, str]:
        """The last vote of each person on an answer, by person key."""
        rows = self._rows(
            "SELECT payload FROM events WHERE kind = :kind AND place = :id ORDER BY at, seq",
            kind=str(Kind.VOTE),
            id=answer_id,
        )
        votes = [json.loads(row["payload"]) for row in rows]
        return {f"{v['person']['platform']}:{v['person']['id']}": v["value"] for v in votes}

    def judged(self, *, since: datetime) -> dict[str, Judged]:
        """What was said of the answers since `since`, by the name of the voice that gave them."""
        voice = json_text(self._engine, "payload", "answer", "voice")
        first = json_text(self._engine, "payload", "answer", "timings_ms", "first_token")
        value, person = json_text(self._engine, "payload", "value"), json_text(self._engine, "author", "id")
        rows = self._rows(
            f"WITH answers AS (SELECT message_id AS id, {voice} AS voice, {first} AS first FROM events "
            "WHERE kind = 'answer' AND at >= :since), "
            f"votes AS (SELECT place AS answer, {value} AS value, platform || ':' || ({person}) AS person, "
            f"row_number() OVER (PARTITION BY place, platform, {person} ORDER BY at DESC, seq DESC) AS nth FROM events "
            "WHERE kind = 'vote' AND at >= :since) "
            "SELECT voice, count(DISTINCT id) AS answers, "
            "count(CASE WHEN value = 'good' THEN 1 END) AS good, count(CASE WHEN value = 'bad' THEN 1 END) AS bad, "
            "count(DISTINCT CASE WHEN first IS NULL THEN id END) AS failed, "
            "count(DISTINCT CASE WHEN value = 'bad' THEN person END) AS critics "
            "FROM answers LEFT JOIN votes ON votes.answer = answers.id AND votes.nth = 1 "
            "WHERE voice <> '' GROUP BY voice",
            since=time_text(since),
        )
        times = self._first_tokens(since)
        return {(voice := row.pop("voice")): Judged(**row, first_tokens=tuple(times[voice])) for row in rows}

    def _first_tokens(self, since: datetime) -> dict[str, list[float]]:
        """After how many milliseconds the latest answers since `since` began, by voice."""
        voice = json_text(self._engine, "payload", "answer", "voice")
        first = json_text(self._engine, "payload", "answer", "timings_ms", "first_token")
        rows = self._rows(
            f"SELECT {voice} AS voice, {first} AS first FROM events WHERE kind = 'answer' AND at >= :since "
            f"AND {first} IS NOT NULL ORDER BY seq DESC LIMIT :limit",
            since=time_text(since),
            limit=TIMED,
        )
        found: dict[str, list[float]] = defaultdict(list)
        for row in rows:
            found[row["voice"]].append(float(row["first"]))
        return found

    def exchanges(self, ids: Sequence[str] | None = None) -> Iterator[Exchange]:
        """All exchanges by time, or those of `ids` that there are. Streams: memory holds one batch."""
        yield from (exchange_from(found) for found in self._payloads("exchanges", ids, order="at"))

    def found(self, ids: Sequence[str]) -> Found:
        """What is known of what a search found; what is gone from here is not among it.

        One statement, as recall waits for it. The form of a question is worked out when an exchange is written, so this
        reads as many rows as it returns.
        """
        alike, waited, passages = [], [], []
        for row in self._among(FOUND, ids):
            if row["what"] == "alike":
                alike.append((row["form"], exchange_of(row["payload"])))
            elif row["what"] == "waited":
                waited.append(row)
            else:
                passages.append(passage_from(json.loads(row["payload"])))
        return Found(alike, waiting(waited), passages)

    def answers_to(self, form: str) -> list[Exchange]:
        """Every answer to the question of this normal form."""
        rows = self._rows("SELECT payload FROM exchanges WHERE form = :form", form=form)
        return [exchange_of(row["payload"]) for row in rows]

    def waited(self, forms: Sequence[str]) -> dict[str, set[str]]:
        """Who asked these questions when memory had no answer, by the question's form, as person keys."""
        return waiting(self._among(f"{WAITED} :values", forms))

    def last_forgotten(self) -> int:
        """The number of the latest forgetting; what is read of the journal after this call holds nothing before it."""
        return int(self._rows("SELECT coalesce(max(seq), 0) AS n FROM forgotten")[0]["n"])

    def forgotten(self, *, after: int) -> set[str]:
        """The exchanges that were forgotten after the one numbered `after`."""
        return {
            row["exchange_id"]
            for row in self._rows("SELECT exchange_id FROM forgotten WHERE seq > :after", after=after)
        }

    def tombstones(self) -> list[Tombstone]:
        """Everything that was ever forgotten, oldest first, without its words."""
        return [tombstone_of(row) for row in self._rows("SELECT * FROM tombstones ORDER BY at, receipt")]

    def passages(self, ids: Sequence[str] | None = None) -> Iterator[Passage]:
        """All passages by document, or those of `ids` that there are."""
        yield from (passage_from(found) for found in self._payloads("passages", ids, order="document"))

    def document(self, document: str) -> tuple[int, str] | None:
        """The revision number and content hash of a document as last imported, or None."""
        rows = self._rows("SELECT revision, sha256 FROM documents WHERE document = :document", document=document)
        return (int(rows[0]["revision"]), str(rows[0]["sha256"])) if rows else None

    def documents(self) -> list[Document]:
        """Every file that memory knows, by name."""
        title = json_text(self._engine, "p.payload", "title")
        rows = self._rows(
            f"SELECT d.document, e.at, e.source, (SELECT max({title}) FROM passages p WHERE p.document = d.document) "
            "AS title, (SELECT count(*) FROM passages p WHERE p.document = d.document) AS passages, "
            "(SELECT count(*) FROM document_exchanges x WHERE x.document = d.document) AS exchanges FROM documents d "
            "JOIN events e ON e.kind = 'import' AND e.message_id = d.document AND e.revision = d.revision "
            "WHERE d.sha256 <> '' ORDER BY d.document"
        )
        return [
            Document(
                row["document"],
                row["title"] or "",
                row["passages"],
                row["exchanges"],
                time_of(row["at"]),
                Source(row["source"]),
            )
            for row in rows
        ]

    def consent(self, person: str, place: str) -> bool:
        """Whether this person has agreed, in this place, that what they write may train. Absence means no."""
        rows = self._rows(
            "SELECT granted FROM consents WHERE person = :person AND place = :place", person=person, place=place
        )
        return bool(rows and rows[0]["granted"])

    def inbox(self, *, state: str = "open") -> list[InboxItem]:
        """The questions in this state, oldest first."""
        rows = self._rows("SELECT * FROM inbox WHERE state = :state ORDER BY number", state=state)
        return [inbox_item_of(row) for row in rows]

    def outbox(self, limit: int) -> list[OutboxItem]:
        """The oldest changes that the index has yet to apply."""
        rows = self._rows("SELECT seq, op, kind, id FROM outbox ORDER BY seq LIMIT :limit", limit=limit)
        return [OutboxItem(**row) for row in rows]

    def outbox_last(self) -> int:
        """The number of the latest change that waits; 0 when none does."""
        return int(self._rows("SELECT coalesce(max(seq), 0) AS n FROM outbox")[0]["n"])

    def outbox_done(self, last: int) -> None:
        """Forget the changes up to number `last`: the index holds them durably."""
        with self.writing() as writer:
            writer.run("DELETE FROM outbox WHERE seq <= :last", last=last)

    def outbox_rebuild(self) -> None:
        """Queue everything that memory knows, for an index that begins empty."""
        with self.writing() as writer:
            writer.run("DELETE FROM outbox")
            writer.run("INSERT INTO outbox (op, kind, id) SELECT 'upsert', 'exchange', id FROM exchanges ORDER BY at")
            writer.run("INSERT INTO outbox (op, kind, id) SELECT 'upsert', 'passage', id FROM passages ORDER BY id")

    def counts(self) -> dict[str, int]:
        """How much there is of what, and how much waits."""
        return {**self.sizes(), **self.waiting()}

    def sizes(self) -> dict[str, int]:
        """How much there is of what; the database reads all of it to know."""
        names = ("events", "exchanges", "passages", "documents")
        return {name: int(self._rows(f"SELECT count(*) AS n FROM {name}")[0]["n"]) for name in names}

    def waiting(self) -> dict[str, int]:
        """How many changes wait for the index, and how many questions for the creator."""
        outbox = self._rows("SELECT count(*) AS n FROM outbox")[0]["n"]
        questions = self._rows("SELECT count(*) AS n FROM inbox WHERE state = 'open'")[0]["n"]
        return {"outbox": int(outbox), "waiting questions": int(questions)}

    def _payloads(self, table: str, ids: Sequence[str] | None, *, order: str) -> Iterator[dict[str, Any]]:
        if ids is not None:
            for start in range(0, len(ids), BATCH):
                yield from self._by_ids(table, ids[start : start + BATCH])
            return
        last = ("", "")
        while rows := self._rows(
            f"SELECT id, {order} AS sorted, payload FROM {table} "
            f"WHERE ({order} > :last) OR ({order} = :last AND id > :id) ORDER BY {order}, id LIMIT :limit",
            last=last[0],
            id=last[1],
            limit=BATCH,
        ):
            yield from (json.loads(row["payload"]) for row in rows)
            last = (rows[-1]["sorted"], rows[-1]["id"])

    def _by_ids(self, table: str, ids: Sequence[str]) -> list[dict[str, Any]]:
        return [
            json.loads(row["payload"]) for row in self._among(f"SELECT payload FROM {table} WHERE id IN :values", ids)
        ]

    def _among(self, statement: str, values: Sequence[str]) -> list[dict[str, Any]]:
        """The rows of a statement that compares something with a list of `:values`."""
        named = {f"value_{number}": value for number, value in enumerate(values)}
        with reading(self._engine) as connection:
            return [dict(row) for row in connection.execute(listing(statement, len(values)), named).mappings()]

    def _rows(self, statement: str, **values: Any) -> list[dict[str, Any]]:
        with reading(self._engine) as connection:
            return [dict(row) for row in connection.execute(sa.text(statement), values).mappings()]


class Writer:
    """One write transaction on the journal and its derived tables."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def connection(self) -> Connection:
        """The transaction, for what is no statement about the journal."""
        return self._connection

    def run(self, statement: str, **values: Any) -> list[dict[str, Any]]:
        """Execute one statement; the rows it returns, if any."""
        result = self._connection.execute(parsed(statement), values)
        return [dict(row) for row in result.mappings()] if result.returns_rows else []

    def json_text(self, column: str, *path: str) -> str:
        """SQL for a text inside a column of JSON."""
        return json_text(self._connection.engine, column, *path)

    def append(self, event: Event) -> bool:
        """Add one `cleaned` event; False when the same event is already there, whatever this one's payload says."""
        return bool(
            self.run(
                "INSERT INTO events "
                "(platform, place, message_id, kind, revision, author, source, at, payload, written) "
                "VALUES (:platform, :place, :message_id, :kind, :revision, :author, :source, :at, :payload, :written) "
                "ON CONFLICT DO NOTHING RETURNING seq",
                platform=event.platform,
                place=event.place,
                message_id=event.message_id,
                kind=str(event.kind),
                revision=event.revision,
                author=dumps(encoded(event.author)),
                source=str(event.source),
                at=time_text(event.at),
                payload=dumps(event.payload),
                written=time_text(clock()),
            )
        )

    def put_message(self, message: Message, source: Source) -> None:
        """Keep the highest revision of a message; a deletion that came first stays a deletion."""
        self.run(
            f"INSERT INTO messages ({MESSAGE_COLUMNS}) "
            "VALUES (:platform, :place, :id, :thread, :at, :reply_to, :revision, 0, :source, :payload) "
            "ON CONFLICT (platform, place, message_id) DO UPDATE SET thread = excluded.thread, at = excluded.at, "
            "reply_to = excluded.reply_to, revision = excluded.revision, source = excluded.source, "
            "payload = excluded.payload WHERE messages.revision < excluded.revision",
            platform=message.place.platform,
            place=message.place.id,
            id=message.id,
            thread=message.place.thread,
            at=time_text(message.at),
            reply_to=message.reply_to,
            revision=message.revision,
            source=str(source),
            payload=dumps(encoded(message)),
        )

    def delete_message(self, platform: str, place: str, message_id: str, *, at: datetime) -> None:
        """Mark a message as deleted, also one that has not been seen yet."""
        self.run(
            f"INSERT INTO messages ({MESSAGE_COLUMNS}) "
            "VALUES (:platform, :place, :id, '', :at, NULL, -1, 1, '', '') "
            "ON CONFLICT (platform, place, message_id) DO UPDATE SET deleted = 1",
            platform=platform,
            place=place,
            id=message_id,
            at=time_text(at),
        )

    def hide_messages(self, messages: Sequence[Message]) -> None:
        """Mark messages as deleted: nothing is paired from them any more. There is at least one."""
        rows = [{"platform": each.place.platform, "place": each.place.id, "id": each.id} for each in messages]
        statement = "UPDATE messages SET deleted = 1 WHERE platform = :platform AND place = :place AND message_id = :id"
        self._connection.execute(sa.text(statement), rows)

    def all_forgotten(self) -> set[str]:
        """The ids of all exchanges that were ever forgotten and have not come back."""
        rows = self.run("SELECT exchange_id FROM forgotten WHERE exchange_id NOT IN (SELECT id FROM exchanges)")
        return {row["exchange_id"] for row in rows}

    def neighbours(self, platform: str, place: str, message_id: str) -> list[dict[str, Any]]:
        """Thread and time of a message and of those that reply to it, wherever in the place they stand."""
        return self.run(
            "SELECT thread, at FROM messages WHERE platform = :platform AND place = :place AND revision >= 0 AND "
            "(message_id = :id OR reply_to = :id)",
            platform=platform,
            place=place,
            id=message_id,
        )

    def messages_between(
        self, platform: str, place: str, thread: str, *, start: str, end: str
    ) -> list[tuple[Message, Source]]:
        """The current messages of one conversation from `start` until before `end`, by time, with their sources."""
        rows = self._connection.execute(
            parsed(
                "SELECT payload, source FROM messages WHERE platform = :platform AND place = :place "
                "AND thread = :thread AND at >= :start AND at < :end AND deleted = 0 ORDER BY at"
            ),
            {"platform": platform, "place": place, "thread": thread, "start": start, "end": end},
        )
        return [(message_of(payload), Source(source)) for payload, source in rows]

    def text_at(self, message: Message, revision: int) -> str:
        """The text that a message had before a later revision than this; empty when it is not known."""
        rows = self.run(
            "SELECT payload FROM events WHERE platform = :platform AND place = :place AND message_id = :id "
            "AND kind IN ('message', 'edit') AND revision <= :revision ORDER BY revision DESC LIMIT 1",
            platform=message.place.platform,
            place=message.place.id,
            id=message.id,
            revision=revision,
        )
        return message_of(rows[0]["payload"]).text if rows else ""

    def said(self, platform: str, place: str, thread: str, *, start: str, end: str = "9999", besides: str = "") -> bool:
        """Whether anybody wrote in one conversation from `start` until before `end`, apart from one message."""
        return bool(
            self.run(
                "SELECT 1 FROM messages WHERE platform = :platform AND place = :place AND thread = :thread "
                "AND at >= :start AND at < :end AND deleted = 0 AND message_id <> :besides LIMIT 1",
                platform=platform,
                place=place,
                thread=thread,
                start=start,
                end=end,
                besides=besides,
            )
        )

    def message(self, platform: str, place: str, message_id: str) -> tuple[Message, Source] | None:
        """One current message with its source, or None when it is unknown or deleted."""
        rows = self.run(
            "SELECT payload, source FROM messages WHERE platform = :platform AND place = :place AND message_id = :id "
            "AND deleted = 0",
            platform=platform,
            place=place,
            id=message_id,
        )
        return (message_of(rows[0]["payload"]), Source(rows[0]["source"])) if rows else None

    def paired_between(self, place_key: str, *, start: str, end: str) -> dict[str, Exchange]:
        """The exchanges paired from a conversation, by id, answered from `start` until before `end`."""
        rows = self.run(
            "SELECT id, payload FROM exchanges WHERE place_key = :place AND at >= :start AND at < :end "
            "AND pairing <> 'given'",
            place=place_key,
            start=start,
            end=end,
        )
        return {row["id"]: exchange_of(row["payload"]) for row in rows}

    def put_exchange(self, exchange: Exchange) -> None:
        """Add or replace an exchange, and tell the index."""
        self.run(
            "INSERT INTO exchanges (id, place_key, at, pairing, community, form, payload) "
            "VALUES (:id, :place, :at, :pairing, :community, :form, :payload) ON CONFLICT (id) DO UPDATE SET "
            "place_key = excluded.place_key, at = excluded.at, pairing = excluded.pairing, "
            "community = excluded.community, form = excluded.form, payload = excluded.payload",
            id=exchange.id,
            place=exchange.place.key,
            at=time_text(exchange.at),
            pairing=exchange.pairing,
            community=exchange.place.community,
            form=question_form(exchange),
            payload=dumps(encoded(exchange)),
        )
        self.tell_index("upsert", "exchange", exchange.id)

    def put_passage(self, passage: Passage, *, revision: int) -> None:
        """Add or replace a passage, and tell the index, unless a later revision of it or of its document is known."""
        known = self.run("SELECT revision FROM documents WHERE document = :document", document=passage.document)
        if known and known[0]["revision"] > revision:
            return
        written = self.run(
            "INSERT INTO passages (id, document, position, community, revision, payload) "
            "VALUES (:id, :document, :position, :community, :revision, :payload) ON CONFLICT (id) DO UPDATE SET "
            "document = excluded.document, position = excluded.position, community = excluded.community, "
            "revision = excluded.revision, payload = excluded.payload "
            "WHERE passages.revision <= excluded.revision RETURNING id",
            id=passage.id,
            document=passage.document,
            position=passage.position,
            community=passage.place.community,
            revision=revision,
            payload=dumps(encoded(passage)),
        )
        if written:
            self.tell_index("upsert", "passage", passage.id)

    def put_document(
        self, document: str, *, revision: int, sha256: str, passages: Sequence[str], exchanges: Sequence[str] = ()
    ) -> None:
        """Make `passages` and `exchanges` the whole of a document: what it had before and is not among them goes.

        Of two revisions the later one stands, in whatever order they arrive.
        """
        known = self.run("SELECT revision FROM documents WHERE document = :document", document=document)
        if known and known[0]["revision"] > revision:
            return
        kept = set(passages)
        rows = self.run(
            "SELECT id FROM passages WHERE document = :document AND revision <= :revision",
            document=document,
            revision=revision,
        )
        for row in rows:
            if row["id"] not in kept:
                self.run("DELETE FROM passages WHERE id = :id", id=row["id"])
                self.tell_index("delete", "passage", row["id"])
        self._keep_exchanges(document, exchanges)
        self.run(
            "INSERT INTO documents (document, revision, sha256) VALUES (:document, :revision, :sha256) "
            "ON CONFLICT (document) DO UPDATE SET revision = excluded.revision, sha256 = excluded.sha256",
            document=document,
            revision=revision,
            sha256=sha256,
        )

    def _keep_exchanges(self, document: str, exchanges: Sequence[str]) -> None:
        """The pairs of a document; one that no document has any more goes, and one that is back comes back."""
        rows = self.run("SELECT exchange_id FROM document_exchanges WHERE document = :document", document=document)
        before, now = {row["exchange_id"] for row in rows}, set(exchanges)
        took = "DELETE FROM document_exchanges WHERE document = :document AND exchange_id = :id"
        gave = "INSERT INTO document_exchanges (document, exchange_id) VALUES (:document, :id)"
        for identity in sorted(before ^ now):
            self.run(took if identity in before else gave, document=document, id=identity)
        for identity in sorted(before - now):
            if not self.run("SELECT 1 FROM document_exchanges WHERE exchange_id = :id LIMIT 1", id=identity):
                self.drop_exchange(identity)
        for identity in sorted(now - before):
            if not self.run("SELECT 1 FROM exchanges WHERE id = :id", id=identity):
                self._restore_exchange(identity)

    def _restore_exchange(self, identity: str) -> None:
        """Put back an exchange that was dropped with its document and stands in one again: its event is not new."""
        for row in self.run(
            "SELECT payload FROM events WHERE kind = 'exchange' AND message_id = :id ORDER BY seq DESC LIMIT 1",
            id=identity,
        ):
            self.put_exchange(exchange_from(json.loads(row["payload"])["exchange"]))

    def drop_exchange(self, exchange_id: str) -> None:
        """Remove an exchange, and tell the index."""
        self.run("DELETE FROM exchanges WHERE id = :id", id=exchange_id)
        self.tell_index("delete", "exchange", exchange_id)

    def drop_passage(self, passage_id: str) -> None:
        """Remove a passage of which no line is left, and tell the index."""
        self.run("DELETE FROM passages WHERE id = :id", id=passage_id)
        self.tell_index("delete", "passage", passage_id)

    def tombstones(self) -> list[Tombstone]:
        """What must not come back."""
        return [tombstone_of(row) for row in self.run("SELECT * FROM tombstones WHERE lifted = 0")]

    def put_tombstone(self, tombstone: Tombstone) -> None:
        """Keep a tombstone; one that is there already can only be lifted."""
        self.run(
            "INSERT INTO tombstones (receipt, at, selection, counts, lifted) "
            "VALUES (:receipt, :at, :selection, :counts, :lifted) "
            "ON CONFLICT (receipt) DO UPDATE SET lifted = excluded.lifted WHERE tombstones.lifted = 0",
            receipt=tombstone.receipt,
            at=time_text(tombstone.at),
            selection=dumps(tombstone.selection.described()),
            counts=dumps(tombstone.counts),
            lifted=int(tombstone.lifted),
        )

    def mark_forgotten(self, exchange_id: str, *, after: int = 0) -> None:
        """Number the forgetting of an exchange, above `after` and above all before it; numbers never come again."""
        self.run(
            "INSERT INTO forgotten (seq, exchange_id) "
            "SELECT CASE WHEN coalesce(max(seq), 0) < :after THEN :after ELSE coalesce(max(seq), 0) END + 1, :id "
            "FROM forgotten",
            after=after,
            id=exchange_id,
        )

    def tell_index(self, op: Operation, kind: Derived, identity: str) -> None:
        """Queue a change for the index, and for the graph, which finds out by itself what became of it."""
        self.run("INSERT INTO outbox (op, kind, id) VALUES (:op, :kind, :id)", op=op, kind=kind, id=identity)
        self.run("INSERT INTO graph_outbox (id) VALUES (:id)", id=identity)

    def open_question(self, question_id: str, payload: Mapping[str, Any], *, normalised: str, at: datetime) -> None:
        """Put a question into the inbox; one of the same normal form, still open, counts up instead.

        Where its answer or dismissal came first, it is closed at once.
        """
        rows = self.run(
            "UPDATE inbox SET count = count + 1 WHERE number = "
            "(SELECT min(number) FROM inbox WHERE state = 'open' AND normalised = :normalised) RETURNING number",
            normalised=normalised,
        ) or self.run(
            "INSERT INTO inbox (normalised, question, at, count, state, payload) "
            "VALUES (:normalised, :question, :at, 1, 'open', :payload) RETURNING number",
            normalised=normalised,
            question=payload["question"],
            at=time_text(at),
            payload=dumps({**payload, "question_id": question_id}),
        )
        self.run(
            "INSERT INTO inbox_askers (question_id, number, payload) VALUES (:id, :number, :payload) "
            "ON CONFLICT DO NOTHING",
            id=question_id,
            number=rows[0]["number"],
            payload=dumps(payload),
        )
        for row in self.run(
            "DELETE FROM inbox_closings WHERE question_id = :id RETURNING state, exchange_id", id=question_id
        ):
            self.close_question(question_id, row["state"], exchange_id=row["exchange_id"])

    def close_question(
        self, question_id: str, state: Literal["answered", "dismissed"], exchange_id: str | None = None
    ) -> None:
        """Close the inbox item that holds this question, or will: what closes it first stands."""
        if not self.run("SELECT 1 FROM inbox_askers WHERE question_id = :id", id=question_id):
            self.run(
                "INSERT INTO inbox_closings (question_id, state, exchange_id) VALUES (:id, :state, :exchange) "
                "ON CONFLICT DO NOTHING",
                id=question_id,
                state=state,
                exchange=exchange_id,
            )
        self.run(
            "UPDATE inbox SET state = :state, exchange_id = :exchange WHERE state = 'open' AND number = "
            "(SELECT number FROM inbox_askers WHERE question_id = :id)",
            state=state,
            exchange=exchange_id,
            id=question_id,
        )

    def put_consent(self, person: str, place: str, *, granted: int, at: datetime) -> None:
        """The later of two decisions stands, in whatever order they arrive."""
        self.run(
            "INSERT INTO consents (person, place, granted, at) VALUES (:person, :place, :granted, :at) "
            "ON CONFLICT (person, place) DO UPDATE SET granted = excluded.granted, at = excluded.at "
            "WHERE consents.at <= excluded.at",
            person=person,
            place=place,
            granted=granted,
            at=time_text(at),
        )


def clock() -> datetime:
    """When something is written down."""
    return datetime.now(UTC)


parsed = lru_cache(maxsize=None)(sa.text)


@lru_cache(maxsize=256)
def listing(statement: str, many: int) -> sa.TextClause:
    """A statement whose `:values` is a list of so many: written out and kept, since a list that is expanded at every
    execution took half a millisecond of each recall.
    """
    names = ", ".join(f":value_{number}" for number in range(many)) or "NULL"
    return sa.text(statement.replace(":values", f"({names})"))


def waiting(rows: Iterable[Mapping[str, Any]]) -> dict[str, set[str]]:
    """Who waits for an answer, by the form of the question, as person keys."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        found[row["form"]].add(person_from(json.loads(row["payload"])["asker"]).key)
    return dict(found)


@lru_cache(maxsize=KEPT)
def message_of(payload: str) -> Message:
    return message_from(json.loads(payload))


@lru_cache(maxsize=KEPT)
def exchange_of(payload: str) -> Exchange:
    return exchange_from(json.loads(payload))


def tombstone_of(row: Mapping[str, Any]) -> Tombstone:
    return Tombstone(
        receipt=row["receipt"],
        at=time_of(row["at"]),
        selection=chosen(row["selection"]),
        counts=json.loads(row["counts"]),
        lifted=bool(row["lifted"]),
    )


@lru_cache(maxsize=KEPT)
def chosen(selection: str) -> Selection:
    return selection_from(json.loads(selection))


def event_of(row: Mapping[str, Any]) -> Event:
    return Event(
        platform=row["platform"],
        place=row["place"],
        message_id=row["message_id"],
        kind=Kind(row["kind"]),
        revision=row["revision"],
        author=person_from(json.loads(row["author"])),
        source=Source(row["source"]),
        at=time_of(row["at"]),
        payload=json.loads(row["payload"]),
    )


def inbox_item_of(row: Mapping[str, Any]) -> InboxItem:
    payload = json.loads(row["payload"])
    return InboxItem(
        number=row["number"],
        question_id=payload["question_id"],
        question=row["question"],
        asker=person_from(payload["asker"]),
        place=place_from(payload["place"]),
        source=Source(payload["source"]),
        at=time_of(row["at"]),
        count=row["count"],
        state=row["state"],
        exchange_id=row["exchange_id"],
    )
