"""`understudy graph`: what memory's graph knows, for people, scripts and other programs."""

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.cli.compose import open_journal, settings_of
from infra.cli.console import err, out, print_json, table
from infra.errors import UserMistake

if TYPE_CHECKING:
    from infra.settings import Settings
    from memory.graph import Edge
    from memory.graph_store import GraphStore
    from memory.journal import Journal

# What one screen shows of the neighbours of an entity.
SHOWN = 12


@dataclass(frozen=True)
class Opened:
    """What one command reads, each opened once and only if it is asked for."""

    home: Path | None

    @cached_property
    def settings(self) -> "Settings":
        return settings_of(self.home)

    @cached_property
    def journal(self) -> "Journal":
        return open_journal(self.settings)

    @cached_property
    def graph(self) -> "GraphStore":
        """The graph, up to date with the journal."""
        from memory.graph_store import GraphStore

        store = GraphStore(self.journal)
        store.drain_all()
        return store


def stats(home: Path | None, *, as_json: bool) -> None:
    """How much there is of what."""
    graph = Opened(home).graph.graph
    entities, edges = graph.entities(), graph.edges()
    stances = [edge for edge in edges if edge.kind != "with"]
    kinds: dict[str, int] = {}
    for entity in entities:
        kinds[entity.kind] = kinds.get(entity.kind, 0) + 1
    document = {
        "sources": len(graph.readings),
        "entities": len(entities),
        "aliases": sum(len(entity.aliases) for entity in entities),
        "edges": len(edges),
        "stances": len(stances),
        "closed": sum(edge.valid_to is not None for edge in edges),
        "kinds": dict(sorted(kinds.items())),
        "most": [{"name": each.name, "kind": each.kind, "sources": len(each.sources)} for each in entities[:SHOWN]],
    }
    if as_json:
        print_json(document)
        return
    counts = ((name, value) for name, value in document.items() if isinstance(value, int))
    out().print(table("Graph", ("what", "how many"), counts))
    out().print(table("Most spoken of", ("name", "kind", "sources"), (each.values() for each in document["most"])))  # type: ignore[attr-defined]


def show(home: Path | None, name: str, *, as_json: bool) -> None:
    """One entity with its edges, and where each comes from."""
    store = Opened(home).graph
    graph = store.graph
    entity = graph.entity(name)
    if entity is None:
        raise UserMistake(f"The graph knows nothing called {name!r}. See: understudy graph stats.")
    stances, around = graph.stances(entity.id), graph.around(entity.id, SHOWN)
    if as_json:
        edges = [edge_document(store, edge) for edge in [*stances, *around]]
        print_json({**asdict(entity), "edges": edges})
        return
    also = f", also {', '.join(entity.aliases)}" if entity.aliases else ""
    out().print(f"{entity.name} ({entity.kind}{also}): {len(entity.sources)} sources", markup=False)
    if stances:
        rows = ((edge.kind, edge.quote, span(edge), ", ".join(edge.sources)) for edge in stances)
        out().print(table("What the creator says", ("stance", "words", "holds", "sources"), rows))
    near = ((name_of(store, edge.tail), edge.weight, span(edge), ", ".join(edge.sources[:3])) for edge in around)
    out().print(table("Mentioned with", ("name", "weight", "holds", "sources"), near))


def topics(home: Path | None, *, as_json: bool) -> None:
    """What the creator's words are about, each topic in the words that say most of it."""
    opened = Opened(home)
    found = opened.graph.topics()
    said = sayings(opened.journal, [source for topic in found for source in topic.summary])
    if as_json:
        print_json([{**asdict(topic), "summary": {each: said[each] for each in topic.summary}} for topic in found])
        return
    rows = ((topic.label, topic.sources, "\n".join(said[each] for each in topic.summary)) for topic in found[:SHOWN])
    out().print(table("Topics", ("about", "sources", "in the creator's words"), rows))


def sayings(journal: "Journal", sources: list[str]) -> dict[str, str]:
    """The first sentence or two of what the creator says in each source."""
    from memory.stances import quoted

    texts = {each.id: each.answer for each in journal.exchanges(sources)}
    texts |= {each.id: each.text for each in journal.passages(sources)}
    return {identity: quoted(text) for identity, text in texts.items()}


def export(home: Path | None, file: Path, format_name: str) -> None:
    """Write the graph for other programs."""
    from infra.files import write_atomic
    from memory.graph_export import as_graphml, as_json

    formats = {"graphml": as_graphml, "json": as_json}
    if format_name not in formats:
        raise UserMistake(f"--format takes graphml or json, not {format_name!r}.")
    opened = Opened(home)
    store, creator = opened.graph, opened.settings.creator.name
    write_atomic(file, formats[format_name](store.graph, store.topics(), creator=creator))
    err().print(f"Wrote {file}.", markup=False)


def picture(home: Path | None, file: Path) -> None:
    """Draw the graph."""
    from infra.files import write_atomic
    from memory.graph_picture import picture as draw

    if file.suffix != ".svg":
        raise UserMistake(f"The picture is an SVG: give the file a name that ends with .svg, not {file.name!r}.")
    opened = Opened(home)
    store, title = opened.graph, f"What {opened.settings.creator.name} talks about"
    write_atomic(file, draw(store.graph, store.topics(), title=title))
    err().print(f"Wrote {file}.", markup=False)


def rebuild(home: Path | None, *, as_json: bool) -> None:
    """Read everything again."""
    read = Opened(home).graph.rebuild()
    if as_json:
        print_json({"read": read})
    else:
        err().print(f"Read {read} exchanges and passages.")


def span(edge: "Edge") -> str:
    """Since when an edge holds, and until when."""
    return f"{edge.valid_from:%Y-%m-%d} – {f'{edge.valid_to:%Y-%m-%d}' if edge.valid_to else ''}"


def name_of(store: "GraphStore", identity: str) -> str:
    entity = store.graph.entity(identity)
    return entity.name if entity else identity


def edge_document(store: "GraphStore", edge: "Edge") -> dict[str, Any]:
    return {**asdict(edge), "head": name_of(store, edge.head), "tail": name_of(store, edge.tail)}
