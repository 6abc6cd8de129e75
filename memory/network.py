"""The only module that knows networkx: communities, a layout, and GraphML. Its import takes a while, so it waits."""

from collections.abc import Iterable, Mapping
from io import BytesIO
from typing import Any

# The same graph gives the same communities and the same picture.
SEED = 20

Weighted = Iterable[tuple[str, str, float]]
Fields = Mapping[str, Any]


def communities(edges: Weighted) -> list[set[str]]:
    """Groups that hang together more than with the rest, by Louvain's method, which settles how many there are."""
    import networkx as nx

    network = nx.Graph()
    network.add_weighted_edges_from(edges)
    found: list[set[str]] = nx.community.louvain_communities(network, seed=SEED)
    return found


def layout(nodes: Iterable[str], edges: Weighted, *, apart: float) -> dict[str, tuple[float, float]]:
    """Where a force-directed layout puts each node, near 0; `apart` is the distance that it aims at."""
    import networkx as nx

    network = nx.Graph()
    network.add_nodes_from(nodes)
    network.add_weighted_edges_from(edges)
    found = nx.spring_layout(network, seed=SEED, k=apart, iterations=200)
    return {node: (float(at[0]), float(at[1])) for node, at in found.items()}


def graphml(nodes: Iterable[tuple[str, Fields]], edges: Iterable[tuple[str, str, Fields]]) -> str:
    """A directed graph in which two nodes may have several edges; the fields are text and numbers."""
    import networkx as nx

    network = nx.MultiDiGraph()
    for node, fields in nodes:
        network.add_node(node, **fields)
    for head, tail, fields in edges:
        network.add_edge(head, tail, **fields)
    written = BytesIO()
    nx.write_graphml(network, written)
    return written.getvalue().decode()
