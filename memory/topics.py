"""Topics: what in the graph belongs together more than with the rest, found by community detection. Pure.

A topic has no words of its own: its label is its most telling names, its summary the sources that speak of most of it.
So nothing is left of a topic when its sources are gone.

Finding communities in all of a large memory takes seconds, so after a change only the things whose sources changed find
their place again, by the gain in modularity that Louvain's method goes by, and only the communities that they left or
came to are described anew. What is kept of the others drifts a little, until all are found again.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from memory.graph import Graph
from memory.network import communities

# What one source mentions belongs to no topic, and fewer things than these are none.
LEAST_SOURCES, LEAST_MEMBERS = 2, 3
LABEL, SUMMARY = 3, 3
# A summary is of the sources that speak of most of so many central members.
CENTRAL = 24


@dataclass(frozen=True)
class Topic:
    """Entities by how central they are, a label of the first of them, and the sources that sum it up."""

    label: str
    members: tuple[str, ...]
    summary: tuple[str, ...]
    sources: int


@dataclass(frozen=True)
class Member:
    """What was known of an entity when it found its place: its sources, how close it is to all others and to its own.

    `near` is the sum of how close it is to everything, `within` to what is in its community.
    """

    sources: int
    near: float
    within: float


@dataclass(frozen=True)
class Community:
    """Entities that hang together, and the topic that they are, if they are enough of them."""

    members: Mapping[str, Member]
    topic: Topic | None


def topics_in(found: Iterable[Community]) -> list[Topic]:
    """The topics, the largest first."""
    topics = [each.topic for each in found if each.topic is not None]
    return sorted(topics, key=lambda each: (-each.sources, each.label))


def found_anew(graph: Graph) -> list[Community]:
    """The communities of the whole graph."""
    groups = communities((one, other, weight) for one in known(graph) for other, weight in ties(graph, one).items())
    places = {member: number for number, group in enumerate(groups) for member in group}
    members: list[dict[str, Member]] = [{} for _ in groups]
    for identity, place in places.items():
        tied = ties(graph, identity)
        members[place][identity] = member(graph, identity, tied, of_places(tied, places).get(place, 0.0))
    return [Community(each, topic(graph, each)) for each in members]


def followed(graph: Graph, before: Sequence[Community]) -> list[Community]:
    """The communities after a change of the graph; those that it does not touch stay the very same."""
    places = {identity: number for number, each in enumerate(before) for identity in each.members}
    members: list[dict[str, Member]] = [dict(each.members) for each in before]
    weights = [sum(each.near for each in group.values()) for group in members]
    changed = [identity for identity in sorted({*places, *known(graph)}) if moved(graph, identity, places, members)]
    touched = set[int]()
    for identity in changed:
        if (place := places.pop(identity, None)) is not None:
            weights[place] -= members[place].pop(identity).near
            touched.add(place)
        if graph.reach(identity) < LEAST_SOURCES:
            continue
        tied = ties(graph, identity)
        place, within = best_place(tied, places, weights)
        if place == len(members):
            members.append({})
            weights.append(0.0)
        places[identity] = place
        members[place][identity] = member(graph, identity, tied, within)
        weights[place] += members[place][identity].near
        touched.add(place)
    return [
        Community(group, topic(graph, group)) if number in touched else before[number]
        for number, group in enumerate(members)
        if group
    ]


def known(graph: Graph) -> list[str]:
    """What may belong to a topic."""
    return [identity for identity in graph.ids() if graph.reach(identity) >= LEAST_SOURCES]


def moved(graph: Graph, identity: str, places: Mapping[str, int], members: Sequence[Mapping[str, Member]]) -> bool:
    """Whether an entity has more sources or fewer than when it found its place, or has none yet."""
    place = places.get(identity)
    return place is None or members[place][identity].sources != graph.reach(identity)


def ties(graph: Graph, identity: str) -> dict[str, float]:
    """How close an entity is to the others that may belong to a topic."""
    near = graph.closeness(identity).items()
    return {other: weight for other, weight in near if graph.reach(other) >= LEAST_SOURCES}


def of_places(tied: Mapping[str, float], places: Mapping[str, int]) -> dict[int, float]:
    """How close something is to each community, of what has a place."""
    sums: defaultdict[int, float] = defaultdict(float)
    for other, weight in tied.items():
        if other in places:
            sums[places[other]] += weight
    return sums


def best_place(tied: Mapping[str, float], places: Mapping[str, int], weights: Sequence[float]) -> tuple[int, float]:
    """The community that gains most modularity by something, and how close it is to that; a new one if none gains."""
    near = sum(tied.values())
    total = sum(weights) + near
    gains = [
        (within - near * weights[place] / total, -place, within) for place, within in of_places(tied, places).items()
    ]
    gain, place, within = max(gains, default=(0.0, 0, 0.0))
    return (-place, within) if gain > 0 else (len(weights), 0.0)


def member(graph: Graph, identity: str, tied: Mapping[str, float], within: float) -> Member:
    return Member(graph.reach(identity), round(sum(tied.values()), 4), round(within, 4))


def topic(graph: Graph, members: Mapping[str, Member]) -> Topic | None:
    """One community with its label and summary."""
    if len(members) < LEAST_MEMBERS:
        return None
    central = {identity: -each.within * each.sources**0.5 for identity, each in members.items()}
    ranked = sorted(members, key=lambda identity: (central[identity], identity))
    said = Counter(source for identity in ranked[:CENTRAL] for source in graph.sources(identity))
    least = min((count for _, count in said.most_common(SUMMARY)), default=0)
    telling = [source for source in said if said[source] >= least]
    summary = sorted(telling, key=lambda source: (-said[source], graph.replaced(source) is not None, source))
    names = [entity.name for identity in ranked[:LABEL] if (entity := graph.entity(identity))]
    every = set().union(*(graph.sources(identity) for identity in members))
    return Topic(", ".join(names), tuple(ranked), tuple(summary[:SUMMARY]), len(every))
