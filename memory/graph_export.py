"""The graph for other programs: GraphML and JSON, every edge with its sources and its time."""

import json
from typing import Any

from memory.codec import plain
from memory.graph import CREATOR, Edge, Entity, Graph
from memory.network import graphml
from memory.topics import Topic


def as_json(graph: Graph, topics: list[Topic], *, creator: str) -> str:
    """Entities, edges and topics as one JSON document."""
    document = {
        "creator": creator,
        "entities": [entity_fields(entity) for entity in graph.entities()],
        "edges": [edge_fields(edge) for edge in graph.edges()],
        "topics": [
            {"label": each.label, "members": each.members, "summary": each.summary, "sources": each.sources}
            for each in topics
        ],
    }
    return json.dumps(plain(document), ensure_ascii=False, indent=2) + "\n"


def as_graphml(graph: Graph, topics: list[Topic], *, creator: str) -> str:
    """The same as GraphML, which Gephi, yEd and Cytoscape read; lists become text, since GraphML knows none."""
    of_topic = {member: topic.label for topic in topics for member in topic.members}
    nodes = [(CREATOR, {"name": creator, "kind": "person"})]
    nodes += [
        (entity.id, {**flat(entity_fields(entity)), "topic": of_topic.get(entity.id, "")})
        for entity in graph.entities()
    ]
    return graphml(nodes, ((edge.head, edge.tail, flat(edge_fields(edge))) for edge in graph.edges()))


def entity_fields(entity: Entity) -> dict[str, Any]:
    return {
        "id": entity.id,
        "name": entity.name,
        "kind": entity.kind,
        "aliases": entity.aliases,
        "sources": entity.sources,
    }


def edge_fields(edge: Edge) -> dict[str, Any]:
    return {
        "head": edge.head,
        "tail": edge.tail,
        "kind": edge.kind,
        "weight": edge.weight,
        "valid_from": edge.valid_from,
        "valid_to": edge.valid_to,
        "quote": edge.quote,
        "sources": edge.sources,
    }


def flat(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields as numbers and text."""
    found = {key: "; ".join(value) if isinstance(value, tuple) else value for key, value in fields.items()}
    return {key: value if isinstance(value, float) else str(plain(value or "")) for key, value in found.items()}
