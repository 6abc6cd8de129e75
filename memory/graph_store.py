"""The graph follows the journal: it applies its own outbox, and can be made again from nothing.

Every change to an exchange or passage is queued in the transaction that makes it. Whoever drains the queue reads the
source with the extractor and keeps the reading, numbered; a source that is gone leaves its number and nothing else. So
any number of processes may drain, each catches up with what the others read, and what is forgotten is gone from all.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from typing import Any

import sqlalchemy as sa

from infra.database import reading as reading_from_database
from infra.database import settle
from memory.codec import dumps, time_of, time_text
from memory.extract import Extractor, Rules, parts
from memory.graph import Graph
from memory.graph_model import found_in, merged
from memory.journal import Journal, Writer
from memory.lexicon import Lexicon, learn
from memory.messages import Exchange, Passage
from memory.readings import Mention, Reading, Statement
from memory.topics import Community, Member, Topic, followed, found_anew, topics_in

BATCH = 200
# The lexicon is learned again when memory has grown by this factor, so that learning costs little for each source; a
# small memory is learned whole at each step.
GROWTH = 1.25
# Learning reads this many sources at most: more change no statistic that matters, and take memory.
LEARN_FROM = 20_000
# The payload of what is gone.
GONE = ""


class GraphStore:
    """L1 of memory for one process. Safe to call from several threads."""

    def __init__(self, journal: Journal, extractor: Extractor | None = None) -> None:
        self._journal = journal
        self._extractor: Extractor = extractor or Rules()
        # Only who holds the lock changes the graph, a batch in each turn; who asks it something takes a turn.
        self._lock, self._turn = threading.RLock(), threading.Lock()
        self._seen = 0
        self.graph = Graph()

    def drain_all(self) -> int:
        """Read what changed since the last time, here or in other processes; returns how many changes were waiting."""
        with self._lock:
            total = 0
            while waiting := self._waiting():
                self._learn_if_grown()
                self._apply(waiting)
                total += len(waiting)
            self.catch_up()
            if total:
                self._follow_topics()
            return total

    def forget(self) -> None:
        """Let what is gone from the journal leave the graph too, where no running twin has seen to it yet."""
        if self._waiting():
            self.drain_all()
            settle(self._journal.engine)

    def rebuild(self) -> int:
        """Learn the lexicon anew and read everything again; returns how many sources that was."""
        with self._lock:
            self._learn()
            return self.drain_all()

    @contextmanager
    def reading(self) -> Iterator[Graph]:
        """The graph, which does not change meanwhile; never held for longer than a batch takes."""
        with self._turn:
            yield self.graph

    def topics(self) -> list[Topic]:
        """The topics of the graph as it is. Found in all of it the first time and when it has grown, else followed."""
        with self._lock:
            self.catch_up()
            if (found := self._follow_topics()) is None:
                found = found_anew(self.graph)
                self._put_topics(found, found_in=len(self.graph.readings))
            return topics_in(found)

    def _waiting(self) -> list[dict[str, Any]]:
        return self._rows("SELECT seq, id FROM graph_outbox ORDER BY seq LIMIT :limit", limit=BATCH)

    def _apply(self, waiting: list[dict[str, Any]]) -> None:
        """Keep the readings of what changed; of what is gone from the journal nothing stays but the number."""
        last = {row["id"]: row["seq"] for row in waiting}
        values: list[Exchange | Passage] = [*self._journal.exchanges([*last]), *self._journal.passages([*last])]
        lexicon = self.lexicon()
        readings = {value.id: self._extractor.read(value, lexicon) for value in values}
        with self._journal.writing() as writer:
            for source, found in found_in(writer, values, last).items():
                readings[source] = merged(readings[source], found)
            payloads = {source: payload_of(reading) for source, reading in readings.items()}
            for identity, seq in last.items():
                keep(writer, identity, seq, payload=payloads.get(identity, GONE))
            writer.run("DELETE FROM graph_outbox WHERE seq <= :seq", seq=waiting[-1]["seq"])
        if len(payloads) < len(last):
            self.catch_up()
            self._forget_terms()

    def catch_up(self) -> None:
        """Bring the graph of this process up to date with the readings that any process kept.

        Where another thread is at it, or reads all of the graph for the topics, nobody waits: the next one catches up.
        """
        if not self._lock.acquire(blocking=False):
            return
        try:
            while rows := self._kept_since(self._seen):
                with self._turn:
                    for row in rows:
                        self._take(row["source"], row["payload"])
                self._seen = rows[-1]["seq"]
        finally:
            self._lock.release()

    def _kept_since(self, seq: int) -> list[dict[str, Any]]:
        return self._rows(
            "SELECT source, seq, payload FROM graph_readings WHERE seq > :seq ORDER BY seq LIMIT :limit",
            seq=seq,
            limit=BATCH,
        )

    def _take(self, source: str, payload: str) -> None:
        if payload == GONE:
            self.graph.drop(source)
        else:
            self.graph.add(reading_of(payload))

    def _follow_topics(self) -> list[Community] | None:
        """Bring the topics that are kept up to date; None when there are none, or memory has outgrown them."""
        known = self._state("topics")
        if not known:
            return None
        if len(self.graph.readings) > GROWTH * known["found_in"]:
            with self._journal.writing() as writer:
                writer.run("DELETE FROM graph_state WHERE name = 'topics'")
            return None
        before = [community_of(each) for each in known["communities"]]
        now = followed(self.graph, before)
        if now != before:
            self._put_topics(now, found_in=known["found_in"])
        return now

    def _put_topics(self, found: list[Community], *, found_in: int) -> None:
        with self._journal.writing() as writer:
            put_state(writer, "topics", {"found_in": found_in, "communities": list(map(kept_community, found))})

    def lexicon(self) -> Lexicon:
        """The terms as last learned, by whichever process."""
        found = self._state("lexicon")
        return Lexicon(found.get("terms", {}), frozenset(found.get("refrains", ())))

    def _learn_if_grown(self) -> None:
        known = self._state("lexicon")
        if self._size() > GROWTH * known.get("learned_from", 0) or known.get("extractor") != self._extractor.name:
            self._learn()

    def _size(self) -> int:
        (row,) = self._rows("SELECT (SELECT count(*) FROM exchanges) + (SELECT count(*) FROM passages) AS n")
        return int(row["n"])

    def _learn(self) -> None:
        """Learn the terms from all there is, and queue everything to be read with them."""
        lexicon = learn(parts(value) for value in islice(self._everything(), LEARN_FROM))
        with self._journal.writing() as writer:
            self._put(writer, lexicon, learned_from=self._size())
            queue_everything(writer)

    def _everything(self) -> Iterator[Exchange | Passage]:
        yield from self._journal.passages()
        yield from self._journal.exchanges()

    def _forget_terms(self) -> None:
        """A term that only forgotten words held must not outlive them."""
        lexicon, known = self.lexicon(), self._state("lexicon")
        kept = {key: name for key, name in lexicon.terms.items() if key in self.graph}
        if len(kept) < len(lexicon.terms) and not self._waiting():
            with self._journal.writing() as writer:
                self._put(writer, Lexicon(kept, lexicon.refrains), learned_from=known["learned_from"])

    def _put(self, writer: Writer, lexicon: Lexicon, *, learned_from: int) -> None:
        payload = {
            "terms": lexicon.terms,
            "refrains": sorted(lexicon.refrains),
            "learned_from": learned_from,
            "extractor": self._extractor.name,
        }
        put_state(writer, "lexicon", payload)

    def _state(self, name: str) -> dict[str, Any]:
        rows = self._rows("SELECT payload FROM graph_state WHERE name = :name", name=name)
        return dict(json.loads(rows[0]["payload"])) if rows else {}

    def _rows(self, statement: str, **values: Any) -> list[dict[str, Any]]:
        with reading_from_database(self._journal.engine) as connection:
            return [dict(row) for row in connection.execute(sa.text(statement), values).mappings()]


def keep(writer: Writer, source: str, seq: int, *, payload: str) -> None:
    """Keep what a source says, unless a later change of it was read already."""
    writer.run(
        "INSERT INTO graph_readings (source, seq, payload) VALUES (:source, :seq, :payload) "
        "ON CONFLICT (source) DO UPDATE SET seq = excluded.seq, payload = excluded.payload "
        "WHERE graph_readings.seq <= excluded.seq",
        source=source,
        seq=seq,
        payload=payload,
    )


def put_state(writer: Writer, name: str, payload: dict[str, Any]) -> None:
    """Keep something that follows from all readings, in place of what it was."""
    writer.run(
        "INSERT INTO graph_state (name, payload) VALUES (:name, :payload) "
        "ON CONFLICT (name) DO UPDATE SET payload = excluded.payload",
        name=name,
        payload=json.dumps(payload, ensure_ascii=False),
    )


def queue_everything(writer: Writer) -> None:
    """Have everything read again that there is, and what was read and is gone."""
    writer.run("DELETE FROM graph_outbox")
    everything = "SELECT id FROM exchanges UNION SELECT id FROM passages"
    writer.run(
        f"INSERT INTO graph_outbox (id) {everything} UNION SELECT source FROM graph_readings WHERE payload <> :gone",
        gone=GONE,
    )


def payload_of(reading: Reading) -> str:
    return dumps({**asdict(reading), "at": time_text(reading.at)})


def reading_of(payload: str) -> Reading:
    found = json.loads(payload)
    return Reading(
        source=found["source"],
        at=time_of(found["at"]),
        asks=found["asks"],
        mentions=tuple(Mention(**each) for each in found["mentions"]),
        aliases=tuple((one, other) for one, other in found["aliases"]),
        statements=tuple(Statement(**each) for each in found["statements"]),
    )


def kept_community(found: Community) -> dict[str, Any]:
    """A community as it is kept: there are thousands of members, and this is written after each write."""
    members = {identity: [each.sources, each.near, each.within] for identity, each in found.members.items()}
    return {"members": members, "topic": found.topic and asdict(found.topic)}


def community_of(kept: dict[str, Any]) -> Community:
    members = {identity: Member(*figures) for identity, figures in kept["members"].items()}
    topic = kept["topic"]
    if topic is None:
        return Community(members, None)
    return Community(members, Topic(topic["label"], tuple(topic["members"]), tuple(topic["summary"]), topic["sources"]))
