"""L1 of memory: what the creator's words are about, how it hangs together, and since when. Pure.

What one exchange or passage says is a `Reading`, and the graph is what all readings say together: it keeps nothing of
its own. So an edge is never without the sources it was read from, goes with the last of them, and comes out the same
whether sources arrived one by one or all at once.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, islice, zip_longest
from typing import Literal, TypeVar

from memory.encode import CJK, stem

Value = TypeVar("Value")

EntityKind = Literal["person", "place", "project", "tool", "concept"]
Stance = Literal["prefers", "recommends", "uses", "decided", "avoids", "describes"]
EdgeKind = Literal["with", "prefers", "recommends", "uses", "decided", "avoids", "describes"]

# Whom every stance starts from.
CREATOR = "the creator"
# A name of more words or characters than this is a sentence.
LONGEST = 8
# A thing is of the kind that so many of its mentions speak for; most say nothing.
KIND_SHARE = 0.2
# Punctuation is a unit of its own, so that no name reaches across it.
UNITS = re.compile(f"[{CJK}]|[^\\W{CJK}]+(?:\\+\\+|#)?(?:['’][^\\W{CJK}]+)?|[.,;:!?()\\n，。；：！？、（）]")


@dataclass(frozen=True)
class Mention:
    """A name as it was written, and what it seems to be there; "concept" is what nothing else speaks for."""

    name: str
    kind: EntityKind = "concept"


@dataclass(frozen=True)
class Statement:
    """What the creator said of something: the stance, the thing, and the words."""

    stance: Stance
    about: str
    quote: str


@dataclass(frozen=True)
class Reading:
    """What one exchange or passage says. `asks` is its question's normal form: a later answer to it replaces this."""

    source: str
    at: datetime
    asks: str = ""
    mentions: tuple[Mention, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
    statements: tuple[Statement, ...] = ()


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


def units(text: str) -> list[str]:
    """Stems of words, single Chinese characters, and punctuation."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return [unit if unit[-1] in "+#" else stem(unit) for unit in UNITS.findall(folded)]


def name_key(name: str) -> str:
    """The same for the forms of one name: "Starters" and "starter", full width and half width."""
    return " ".join(units(name))


def names_in(text: str, *known: Container[str]) -> list[str]:
    """The keys of `known` names in `text`, in order; of two that overlap the longer, then the earlier one."""
    found, row, at = [], units(text), 0
    while at < len(row):
        sizes = range(min(LONGEST, len(row) - at), 0, -1)
        windows = ((" ".join(row[at : at + size]), size) for size in sizes)
        key, taken = next(((key, size) for key, size in windows if any(key in each for each in known)), ("", 1))
        found += [key] if key else []
        at += taken
    return found


class Graph:
    """All readings, by what they mention. Not thread-safe: `memory/graph_store.py` guards it."""

    def __init__(self, readings: Iterable[Reading] = ()) -> None:
        self.readings: dict[str, Reading] = {}
        self._named: dict[str, tuple[str, ...]] = {}
        self._mentions: dict[str, dict[str, Mention]] = {}
        self._asked: dict[str, dict[str, datetime]] = {}
        self._groups: dict[str, tuple[str, ...]] = {}
        self._grouped = True
        for reading in readings:
            self.add(reading)

    def add(self, reading: Reading) -> None:
        """Take in what a source says, in place of what it said before."""
        self.drop(reading.source)
        self.readings[reading.source] = reading
        named = {name_key(mention.name): mention for mention in reading.mentions}
        self._named[reading.source] = tuple(named)
        for key, mention in named.items():
            self._mentions.setdefault(key, {})[reading.source] = mention
        if reading.asks:
            self._asked.setdefault(reading.asks, {})[reading.source] = reading.at
        self._grouped = False

    def drop(self, source: str) -> None:
        """Forget what a source said; names that nothing else mentions go with it."""
        reading = self.readings.pop(source, None)
        if reading is None:
            return
        for key in self._named.pop(source):
            remove(self._mentions, key, source)
        remove(self._asked, reading.asks, source)
        self._grouped = False

    def __contains__(self, key: object) -> bool:
        """Whether anything goes by this key, for `names_in`."""
        return key in self._mentions

    def ids(self) -> list[str]:
        """The id of every entity, in alphabetical order."""
        return sorted({self.id_of(key) for key in self._mentions})

    def id_of(self, key: str) -> str:
        """The id of the entity that goes by this key."""
        return self._keys(key)[0]

    def entity(self, name: str) -> Entity | None:
        """Whatever goes by this name, or by this id."""
        keys = self._keys(name if name in self._mentions else name_key(name))
        mentions = [mention for key in keys for mention in self._mentions.get(key, {}).values()]
        if not mentions:
            return None
        names = [name for name, _ in Counter(mention.name for mention in mentions).most_common()]
        kinds = Counter(mention.kind for mention in mentions if mention.kind != "concept").most_common(1)
        kind: EntityKind = kinds[0][0] if kinds and kinds[0][1] >= KIND_SHARE * len(mentions) else "concept"
        others = {name_key(name): name for name in reversed(names)}
        aliases = tuple(name for key, name in others.items() if key != name_key(names[0]))
        return Entity(keys[0], names[0], kind, aliases, self.sources(keys[0]))

    def entities(self) -> list[Entity]:
        """Every entity, those with most sources first."""
        found = [entity for identity in self.ids() if (entity := self.entity(identity))]
        return sorted(found, key=lambda entity: -len(entity.sources))

    def sources(self, identity: str) -> tuple[str, ...]:
        """The sources that mention an entity, by time."""
        return self.by_time(self._in(identity))

    def mentioned(self, source: str) -> list[str]:
        """The ids of what a source mentions."""
        return sorted({self.id_of(key) for key in self._named[source]})

    def by_time(self, sources: Iterable[str]) -> tuple[str, ...]:
        """Sources, oldest first."""
        return tuple(sorted(sources, key=lambda source: (self.readings[source].at, source)))

    def replaced(self, source: str) -> datetime | None:
        """When the same question was answered anew; None while this answer stands."""
        reading = self.readings[source]
        return min((at for at in self._asked.get(reading.asks, {}).values() if at > reading.at), default=None)

    def versions(self, source: str) -> tuple[str, ...]:
        """All answers to the question that this one answers, by time."""
        return self.by_time(self._asked.get(self.readings[source].asks, {source: None}))

    def near(self, identity: str) -> dict[str, float]:
        """What an entity is mentioned with, closest first, and how close: how far their sources are the same."""
        mine = self._in(identity)
        others = Counter(other for source in mine for other in self.mentioned(source) if other != identity)
        close = {other: count**2 / (len(mine) * len(self._in(other))) for other, count in others.items()}
        return dict(sorted(close.items(), key=lambda pair: (-pair[1], pair[0])))

    def around(self, identity: str, limit: int | None = None) -> list[Edge]:
        """The edges to what an entity is mentioned with, or to the closest of it."""
        return [self.edge(identity, other) for other in islice(self.near(identity), limit)]

    def edge(self, one: str, other: str) -> Edge:
        """How two entities that some source mentions together belong together.

        It holds until every answer that says so has been replaced.
        """
        mine, theirs = self.sources(one), set(self.sources(other))
        shared = tuple(source for source in mine if source in theirs)
        ends = [self.replaced(source) for source in shared]
        ended = None if None in ends else max(end for end in ends if end)
        weight = len(shared) ** 2 / (len(mine) * len(theirs))
        return Edge(one, other, "with", shared, round(weight, 4), self.readings[shared[0]].at, ended)

    def stances(self, identity: str) -> list[Edge]:
        """What the creator said of an entity, by time. One that turns the other way ends those before it."""
        keys = set(self._keys(identity))
        said = [
            (source, statement)
            for source in self.sources(identity)
            for statement in self.readings[source].statements
            if name_key(statement.about) in keys
        ]
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
            found += [edge for edge in self.around(identity) if edge.head < edge.tail]
            found += self.stances(identity)
        return found

    def path(self, one: str, other: str) -> list[Edge]:
        """The shortest way from one entity to another over at most one in between; empty when there is none."""
        first = self.near(one)
        if other in first:
            return [self.edge(one, other)]
        second = self.near(other)
        between = [name for name in first if name in second]
        if not between:
            return []
        best = max(between, key=lambda name: (min(first[name], second[name]), name))
        return [self.edge(one, best), self.edge(best, other)]

    def _stance_edges(
        self, identity: str, said: Sequence[tuple[str, Statement]], end: datetime | None
    ) -> Iterator[Edge]:
        """One edge for each kind of stance among `said`, in the words of the last."""
        for stance in dict.fromkeys(statement.stance for _, statement in said):
            of_it = [pair for pair in said if pair[1].stance == stance]
            sources = tuple(dict.fromkeys(source for source, _ in of_it))
            since = self.readings[sources[0]].at
            yield Edge(CREATOR, identity, stance, sources, 1.0, since, end, of_it[-1][1].quote)

    def _in(self, identity: str) -> Set[str]:
        """The sources that mention an entity, in any order."""
        keys = self._keys(identity)
        if len(keys) == 1:
            return self._mentions.get(identity, {}).keys()
        return {source for key in keys for source in self._mentions.get(key, ())}

    def _keys(self, key: str) -> tuple[str, ...]:
        if not self._grouped:
            self._groups, self._grouped = self._group(), True
        return self._groups.get(key, (key,))

    def _group(self) -> dict[str, tuple[str, ...]]:
        """Which keys are names of one thing: those that chains of aliases join."""
        groups: dict[str, set[str]] = {}
        said = ((name_key(a), name_key(b)) for reading in self.readings.values() for a, b in reading.aliases)
        for one, other in chain(said, self._short_names()):
            joined = groups.get(one, {one}) | groups.get(other, {other})
            groups.update(dict.fromkeys(joined, joined))
        return {key: tuple(sorted(group)) for key, group in groups.items()}

    def _short_names(self) -> Iterator[tuple[str, str]]:
        """ "Anke" and "Anke Voss", as long as no other name begins or ends with the short one."""
        whole: dict[str, set[str]] = {}
        for key, mentions in self._mentions.items():
            if " " in key and is_name(next(iter(mentions.values())).name):
                for part in {key.split()[0], key.split()[-1]} & self._mentions.keys():
                    whole.setdefault(part, set()).add(key)
        for part, keys in whole.items():
            if len(keys) == 1 and is_name(next(iter(self._mentions[part].values())).name):
                yield part, keys.pop()


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


def is_name(name: str) -> bool:
    """Whether each word of a name begins with a capital and goes on small."""
    return all(word[0].isupper() and word[1:].islower() for word in name.split())


def remove(index: dict[str, dict[str, Value]], key: str, source: str) -> None:
    """Take one entry out of an index of indexes, and the inner one with its last."""
    index.get(key, {}).pop(source, None)
    if not index.get(key, True):
        del index[key]
