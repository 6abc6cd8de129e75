"""Topics: what in the graph belongs together more than with the rest, found by community detection. Pure.

A topic has no words of its own: its label is its most telling names, its summary the sources that speak of most of it.
So nothing is left of a topic when its sources are gone.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from memory.graph import Graph
from memory.network import communities

# What one source mentions belongs to no topic, and fewer things than these are none.
LEAST_SOURCES, LEAST_MEMBERS = 2, 3
LABEL, SUMMARY = 3, 3


@dataclass(frozen=True)
class Topic:
    """Entities by how central they are, a label of the first of them, and the sources that sum it up."""

    label: str
    members: tuple[str, ...]
    summary: tuple[str, ...]
    sources: int


def topics_of(graph: Graph) -> list[Topic]:
    """The topics, the largest first."""
    edges = together(graph)
    groups = communities(edges)
    found = [topic(graph, members, edges) for members in groups if len(members) >= LEAST_MEMBERS]
    return sorted(found, key=lambda each: (-each.sources, each.label))


def together(graph: Graph) -> list[tuple[str, str, float]]:
    """What is mentioned together, and how close, of things that more than one source mentions."""
    known = {identity for identity in graph.ids() if graph.reach(identity) >= LEAST_SOURCES}
    near = ((one, other, weight) for one in sorted(known) for other, weight in graph.closeness(one).items())
    return [each for each in near if each[1] in known and each[0] < each[1]]


def topic(graph: Graph, members: set[str], edges: Iterable[tuple[str, str, float]]) -> Topic:
    """One community with its label and summary."""
    strength = dict.fromkeys(members, 0.0)
    for one, other, weight in edges:
        if one in members and other in members:
            strength[one] += weight
            strength[other] += weight
    ranked = sorted(members, key=lambda member: (-strength[member] * graph.reach(member) ** 0.5, member))
    reach = Counter(source for member in members for source in graph.sources(member))
    summary = sorted(reach, key=lambda source: (-reach[source], graph.replaced(source) is not None, source))
    names = [entity.name for member in ranked[:LABEL] if (entity := graph.entity(member))]
    return Topic(", ".join(names), tuple(ranked), tuple(summary[:SUMMARY]), len(reach))
