"""The graph for other programs: GraphML and JSON, every edge with its sources and its time."""

import json
from dataclasses import asdict
from typing import Any

from memory.codec import plain
from memory.graph import CREATOR, Graph
from memory.network import graphml
from memory.topics import Topic


def as_json(graph: Graph, topics: list[Topic], *, creator: str) -> str:
    """Entities, edges and topics as one JSON document."""
    document = {
        "creator": creator,
        "entities": list(map(asdict, graph.entities())),
        "edges": list(map(asdict, graph.edges())),
        "topics": list(map(asdict, topics)),
    }
    return json.dumps(plain(document), ensure_ascii=False, indent=2) + "\n"


def as_graphml(graph: Graph, topics: list[Topic], *, creator: str) -> str:
    """The same as GraphML, which Gephi, yEd and Cytoscape read; lists become text, since GraphML knows none."""
    of_topic = {member: topic.label for topic in topics for member in topic.members}
    nodes = [(CREATOR, {"name": creator, "kind": "person"})]
    nodes += [(each.id, {**flat(asdict(each)), "topic": of_topic.get(each.id, "")}) for each in graph.entities()]
    return graphml(nodes, ((edge.head, edge.tail, flat(asdict(edge))) for edge in graph.edges()))


def flat(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields as numbers and text."""
    found = {key: "; ".join(value) if isinstance(value, tuple) else value for key, value in fields.items()}
    return {key: value if isinstance(value, float) else str(plain(value or "")) for key, value in found.items()}
