"""L1 of memory: what the creator's words are about, how it hangs together, and since when. Pure.

What one exchange or passage says is a `Reading`, and the graph is what all readings say together: it keeps nothing of
its own. So an edge is never without the sources it was read from, goes with the last of them, and comes out the same
whether sources arrived one by one or all at once. What a question needs is counted when a reading is taken in, so that
asking about what nine of ten sources mention costs little more than asking about a rarity.
"""

from bisect import bisect_left, bisect_right, insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice, zip_longest
from operator import itemgetter
from typing import Literal

from memory.names import Names
from memory.readings import EntityKind, Mention, Reading, Statement, name_key

EdgeKind = Literal["with", "prefers", "recommends", "uses", "decided", "avoids", "describes"]
# A source and its time, in the order of time.
Dated = tuple[datetime, str]

# Whom every stance starts from.
CREATOR = "the creator"


@dataclass(frozen=True)
class Entity:
    """One thing under all its names; `sources` by time."""

    id: str
    name: str
    kind: EntityKind
    aliases: tuple[str, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Edge:
    """One relation with its sources, by time. `valid_to` is None while it holds; `weight` is between 0 and 1."""

    head: str
    tail: str
    kind: EdgeKind
    sources: tuple[str, ...]
    weight: float
    valid_from: datetime
    valid_to: datetime | None = None
    quote: str = ""


class Graph:
    """All readings, by what they mention. Not thread-safe: `memory/graph_store.py` guards it."""

    def __init__(self, readings: Iterable[Reading] = ()) -> None:
        self.readings: dict[str, Reading] = {}
        self._names = Names()
        # Of each source the keys that it mentions, and the ids.
        self._keys: dict[str, tuple[str, ...]] = {}
        self._ids: dict[str, tuple[str, ...]] = {}
        # Of each id its sources, and how many of them mention each other id; under its own stands how many there are.
        self._sources: dict[str, list[Dated]] = {}
        self._beside: defaultdict[str, Counter[str]] = defaultdict(Counter)
        # Of each question its answers, and of each key what is stated of it.
        self._asked: dict[str, list[Dated]] = {}
        self._stated: dict[str, dict[str, list[Statement]]] = {}
        for reading in readings:
            self.add(reading)

    def add(self, reading: Reading) -> None:
        """Take in what a source says, in place of what it said before."""
        self.drop(reading.source)
        mentions = by_key(reading)
        self.readings[reading.source], self._keys[reading.source] = reading, tuple(mentions)
        self._move(self._names.count(mentions, alias_keys(reading), by=1))
        self._place(reading.source)
        if reading.asks:
            insort(self._asked.setdefault(reading.asks, []), (reading.at, reading.source))
        for statement in reading.statements:
            of_it = self._stated.setdefault(name_key(statement.about), {})
            of_it.setdefault(reading.source, []).append(statement)

    def drop(self, source: str) -> None:
        """Forget what a source said; names that nothing else mentions go with it."""
        if source not in self.readings:
            return
        self._take_out(source)
        del self._keys[source]
        reading = self.readings.pop(source)
        self._move(self._names.count(by_key(reading), alias_keys(reading), by=-1))
        if reading.asks:
            remove(self._asked, reading.asks, (reading.at, source))
        for key in {name_key(statement.about) for statement in reading.statements}:
            del self._stated[key][source]
            if not self._stated[key]:
                del self._stated[key]

    def __contains__(self, key: object) -> bool:
        """Whether anything goes by this key, for `names_in`."""
        return key in self._names

    def ids(self) -> list[str]:
        """The id of every entity, in alphabetical order."""
        return sorted(self._sources)

    def id_of(self, key: str) -> str:
        """The id of the entity that goes by this key."""
        return self._names.id_of(key)

    def entity(self, name: str) -> Entity | None:
        """Whatever goes by this name, or by this id."""
        identity = self.id_of(name if name in self._names else name_key(name))
        if identity not in self._sources:
            return None
        first, *others = self._names.forms(identity)
        by_key = {name_key(other): other for other in reversed(others)}
        aliases = tuple(other for key, other in by_key.items() if key != name_key(first))
        return Entity(identity, first, self._names.kind(identity), aliases, self.sources(identity))

    def entities(self) -> list[Entity]:
        """Every entity, those with most sources first."""
        found = [entity for identity in self.ids() if (entity := self.entity(identity))]
        return sorted(found, key=lambda entity: -len(entity.sources))

    def sources(self, identity: str) -> tuple[str, ...]:
        """The sources that mention an entity, by time."""
        return tuple(map(itemgetter(1), self._sources.get(identity, ())))

    def reach(self, identity: str) -> int:
        """How many sources mention an entity."""
        return len(self._sources.get(identity, ()))

    def standing(self, identity: str) -> Iterator[str]:
        """The sources that mention an entity and are no answer that was replaced, the newest first."""
        newest = (source for _, source in reversed(self._sources.get(identity, [])))
        return (source for source in newest if self.replaced(source) is None)

    def mentioned(self, source: str) -> tuple[str, ...]:
        """The ids of what a source mentions, in alphabetical order."""
        return self._ids[source]

    def replaced(self, source: str) -> datetime | None:
        """When the same question was answered anew; None while this answer stands."""
        reading = self.readings[source]
        answers = self._asked.get(reading.asks, [])
        after = bisect_right(answers, reading.at, key=lambda answer: answer[0])
        return answers[after][0] if after < len(answers) else None

    def versions(self, source: str) -> tuple[str, ...]:
        """All answers to the question that this one answers, by time."""
        asks = self.readings[source].asks
        return tuple(each for _, each in self._asked[asks]) if asks else (source,)

    def closeness(self, identity: str) -> dict[str, float]:
        """What an entity is mentioned with, and how close: how far their sources are the same."""
        mine = self.reach(identity)
        return {
            other: count**2 / (mine * len(self._sources[other]))
            for other, count in self._beside.get(identity, {}).items()
            if other != identity
        }

    def near(self, identity: str) -> dict[str, float]:
        """The same, closest first."""
        return dict(sorted(self.closeness(identity).items(), key=lambda pair: (-pair[1], pair[0])))

    def around(self, identity: str, limit: int | None = None) -> list[Edge]:
        """The edges to what an entity is mentioned with, or to the closest of it."""
        return [self.edge(identity, other) for other in islice(self.near(identity), limit)]

    def edge(self, one: str, other: str) -> Edge:
        """How two entities that some source mentions together belong together.

        It holds until every answer that says so has been replaced.
        """
        rarer, more = sorted((one, other), key=self.reach)
        shared = tuple(source for _, source in self._sources[rarer] if more in self._ids[source])
        weight = len(shared) ** 2 / (self.reach(one) * self.reach(other))
        return Edge(one, other, "with", shared, round(weight, 4), self.readings[shared[0]].at, self._ended(shared))

    def stances(self, identity: str) -> list[Edge]:
        """What the creator said of an entity, by time. One that turns the other way ends those before it."""
        by_source = [(source, said) for key in self._names.keys(identity) for source, said in self._of(key)]
        by_time = sorted(by_source, key=lambda pair: (self.readings[pair[0]].at, pair[0]))
        said = [(source, statement) for source, statements in by_time for statement in statements]
        described = [pair for pair in said if pair[1].stance == "describes"]
        turns = list(phases([pair for pair in said if pair[1].stance != "describes"]))
        starts = [self.readings[turn[0][0]].at for turn in turns]
        edges = [
            edge for turn, end in zip_longest(turns, starts[1:]) for edge in self._stance_edges(identity, turn, end)
        ]
        return [*edges, *self._stance_edges(identity, described, None)] if described else edges

    def edges(self) -> list[Edge]:
        """Every edge once."""
        found: list[Edge] = []
        for identity in self.ids():
            found += [self.edge(identity, other) for other in self.near(identity) if identity < other]
            found += self.stances(identity)
        return found

    def path(self, one: str, other: str) -> list[Edge]:
        """The shortest way from one entity to another over at most one in between; empty when there is none."""
        if other in self._beside.get(one, ()):
            return [self.edge(one, other)]
        first, second = self.closeness(one), self.closeness(other)
        between = first.keys() & second.keys()
        if not between:
            return []
        best = max(between, key=lambda name: (min(first[name], second[name]), name))
        return [self.edge(one, best), self.edge(best, other)]

    def _of(self, key: str) -> Iterable[tuple[str, list[Statement]]]:
        return self._stated.get(key, {}).items()

    def _ended(self, sources: Sequence[str]) -> datetime | None:
        """When the last of some answers was replaced; None while one stands, which most often a new one does."""
        last: datetime | None = None
        for source in reversed(sources):
            end = self.replaced(source)
            if end is None:
                return None
            last = max(last or end, end)
        return last

    def _stance_edges(
        self, identity: str, said: Sequence[tuple[str, Statement]], end: datetime | None
    ) -> Iterator[Edge]:
        """One edge for each kind of stance among `said`, in the words of the last."""
        for stance in dict.fromkeys(statement.stance for _, statement in said):
            of_it = [pair for pair in said if pair[1].stance == stance]
            sources = tuple(dict.fromkeys(source for source, _ in of_it))
            since = self.readings[sources[0]].at
            yield Edge(CREATOR, identity, stance, sources, 1.0, since, end, of_it[-1][1].quote)

    def _move(self, ids: set[str]) -> None:
        """Place the sources of these ids again: some of their keys go by another id now."""
        sources = {source for identity in ids for _, source in self._sources.get(identity, ())}
        for source in sources:
            self._take_out(source)
        for source in sources:
            self._place(source)

    def _place(self, source: str) -> None:
        """Count a source among those of what it mentions."""
        ids = tuple(sorted({self.id_of(key) for key in self._keys[source]}))
        self._ids[source] = ids
        for identity in ids:
            insort(self._sources.setdefault(identity, []), (self.readings[source].at, source))
            self._beside[identity].update(ids)

    def _take_out(self, source: str) -> None:
        """Undo `_place`."""
        ids = self._ids.pop(source)
        for identity in ids:
            remove(self._sources, identity, (self.readings[source].at, source))
            beside = self._beside[identity]
            beside.subtract(ids)
            for other in ids:
                if not beside[other]:
                    del beside[other]
            if not beside:
                del self._beside[identity]


def by_key(reading: Reading) -> dict[str, Mention]:
    """What a reading mentions, each key once."""
    return {name_key(mention.name): mention for mention in reading.mentions}


def alias_keys(reading: Reading) -> list[tuple[str, str]]:
    """The keys of what a reading says to be one thing."""
    return [(name_key(one), name_key(other)) for one, other in reading.aliases]


def phases(said: Iterable[tuple[str, Statement]]) -> Iterator[list[tuple[str, Statement]]]:
    """Stances by time, cut wherever the creator turned from for to against, or back."""
    phase: list[tuple[str, Statement]] = []
    for pair in said:
        if phase and (pair[1].stance == "avoids") != (phase[-1][1].stance == "avoids"):
            yield phase
            phase = []
        phase.append(pair)
    if phase:
        yield phase


def remove(index: dict[str, list[Dated]], key: str, dated: Dated) -> None:
    """Take one entry out of a sorted list of an index, and the list with its last."""
    row = index[key]
    del row[bisect_left(row, dated)]
    if not row:
        del index[key]
