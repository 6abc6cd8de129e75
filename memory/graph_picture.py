"""The graph as a picture, in SVG: what is spoken of most, what it belongs with, and the topics in colours. Pure."""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from memory.graph import Edge, Graph
from memory.network import layout as place
from memory.topics import Topic

# More than this on one picture cannot be read.
SHOWN, TOPICS, EDGES = 70, 8, 3
WIDTH, HEIGHT, MARGIN, LEGEND = 1400, 1000, 60, 250
ROUNDS = 600
# Okabe and Ito's colours, which people with any kind of colour vision tell apart, darkened for text on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9", "#7b4fa3", "#6b8e23")
GREY = "#8a8f98"
FONT = "Inter, 'Helvetica Neue', Arial, 'Noto Sans CJK SC', 'PingFang SC', 'Microsoft YaHei', sans-serif"


@dataclass
class Spot:
    """One entity on the picture: its circle, and the box of the label below it."""

    id: str
    name: str
    sources: int
    colour: str
    x: float
    y: float

    @property
    def radius(self) -> float:
        return 5 + 2.6 * math.sqrt(self.sources)

    @property
    def size(self) -> float:
        return 12 + min(8.0, 1.2 * math.sqrt(self.sources))

    @property
    def half(self) -> tuple[float, float]:
        """Half the width and height of circle and label together."""
        return max(self.radius, text_width(self.name, self.size) / 2) + 5, self.radius + self.size * 0.65 + 3

    @property
    def middle(self) -> float:
        """The height of the middle of circle and label together."""
        return self.y + self.size * 0.65


def picture(graph: Graph, topics: Sequence[Topic], *, title: str) -> str:
    """The picture as SVG text."""
    coloured = {member: COLOURS[at] for at, topic in enumerate(topics[:TOPICS]) for member in topic.members}
    shown = [entity for entity in graph.entities() if entity.id in coloured][:SHOWN]
    edges = strongest(graph, {entity.id for entity in shown})
    places = layout([entity.id for entity in shown], edges, coloured)
    spots = [Spot(each.id, each.name, len(each.sources), coloured[each.id], *places[each.id]) for each in shown]
    apart(spots)
    body = [*map(line_svg, lines(spots, edges)), *map(spot_svg, spots), *legend(topics[:TOPICS])]
    return page(title, f"{len(graph.ids())} things in {len(graph.readings)} sources", body)


def strongest(graph: Graph, shown: set[str]) -> list[Edge]:
    """The few closest edges of each entity that is shown, each once."""
    kept: dict[tuple[str, str], Edge] = {}
    for identity in sorted(shown):
        for other in [other for other in graph.near(identity) if other in shown][:EDGES]:
            one, two = min(identity, other), max(identity, other)
            kept.setdefault((one, two), graph.edge(one, two))
    return list(kept.values())


def layout(ids: Sequence[str], edges: Sequence[Edge], coloured: dict[str, str]) -> dict[str, tuple[float, float]]:
    """A force-directed layout in which topics keep together, stretched over the page."""
    weighted = [
        (edge.head, edge.tail, (0.3 + edge.weight) * (3 if coloured[edge.head] == coloured[edge.tail] else 0.6))
        for edge in edges
    ]
    if not ids:
        return {}
    found = place(ids, weighted, apart=2.2 / math.sqrt(len(ids)))
    xs, ys = spread([at[0] for at in found.values()]), spread([at[1] for at in found.values()])
    wide, high = WIDTH - LEGEND - 2 * MARGIN, HEIGHT - 2 * MARGIN - 40
    return {identity: (MARGIN + x * wide, MARGIN + 50 + y * high) for identity, x, y in zip(found, xs, ys, strict=True)}


def spread(values: Sequence[float]) -> list[float]:
    """Between 0 and 1, half by value and half by rank: neither empty corners nor a crowd."""
    low, high = min(values), max(values)
    ranks = {value: at / max(1, len(values) - 1) for at, value in enumerate(sorted(values))}
    return [((value - low) / ((high - low) or 1) + ranks[value]) / 2 for value in values]


def apart(spots: Sequence[Spot]) -> None:
    """Push circles with their labels apart until none covers another, inside the page."""
    for _ in range(ROUNDS):
        moved = [push(one, other) for at, one in enumerate(spots) for other in spots[at + 1 :]]
        for spot in spots:
            keep_inside(spot)
        if not any(moved):
            return


def push(one: Spot, other: Spot) -> bool:
    """Move two that overlap apart, the shorter way; whether they did."""
    across, along = other.x - one.x, other.middle - one.middle
    wide = one.half[0] + other.half[0] - abs(across)
    high = one.half[1] + other.half[1] - abs(along)
    if wide <= 0 or high <= 0:
        return False
    if wide < high:
        step = math.copysign(wide / 2 + 0.5, across)
        one.x, other.x = one.x - step, other.x + step
    else:
        step = math.copysign(high / 2 + 0.5, along)
        one.y, other.y = one.y - step, other.y + step
    return True


def keep_inside(spot: Spot) -> None:
    wide, high = spot.half
    spot.x = min(max(spot.x, MARGIN / 2 + wide), WIDTH - LEGEND - wide)
    spot.y = min(max(spot.y, 90 + high), HEIGHT - MARGIN / 2 - high)


def text_width(text: str, size: float) -> float:
    """About how wide a text is: Chinese characters are square, others about half as wide."""
    return sum(size if unicodedata.east_asian_width(each) in "WF" else 0.56 * size for each in text)


def lines(spots: Sequence[Spot], edges: Sequence[Edge]) -> list[tuple[Spot, Spot, float]]:
    by_id = {spot.id: spot for spot in spots}
    return [(by_id[edge.head], by_id[edge.tail], edge.weight) for edge in edges]


def line_svg(line: tuple[Spot, Spot, float]) -> str:
    """A gently bent line, in the colour of the topic where both ends share it."""
    one, other, weight = line
    across, along = other.x - one.x, other.y - one.y
    bend = one.x + across / 2 - along * 0.08, one.y + along / 2 + across * 0.08
    colour = one.colour if one.colour == other.colour else GREY
    return (
        f'<path d="M{one.x:.1f} {one.y:.1f}Q{bend[0]:.1f} {bend[1]:.1f} {other.x:.1f} {other.y:.1f}" fill="none" '
        f'stroke="{colour}" stroke-opacity="{0.18 + 0.4 * min(1.0, 2 * weight):.2f}" '
        f'stroke-width="{1 + 3 * min(1.0, 2 * weight):.1f}"/>'
    )


def spot_svg(spot: Spot) -> str:
    below = spot.y + spot.radius + spot.size * 0.95
    return (
        f"<g><title>{escape(spot.name)}: {spot.sources} sources</title>"
        f'<circle cx="{spot.x:.1f}" cy="{spot.y:.1f}" r="{spot.radius:.1f}" fill="{spot.colour}" stroke="#fff" '
        f'stroke-width="1.5"/><text x="{spot.x:.1f}" y="{below:.1f}" font-size="{spot.size:.1f}" text-anchor="middle" '
        f'stroke="#fff" stroke-width="4" paint-order="stroke" fill="#1c1f26">{escape(spot.name)}</text></g>'
    )


def legend(topics: Sequence[Topic]) -> list[str]:
    """The topics with their colours, one below the other."""
    left = WIDTH - LEGEND + 20
    rows = [f'<text x="{left}" y="120" font-size="15" font-weight="600" fill="#1c1f26">Topics</text>']
    for at, topic in enumerate(topics):
        down = 150 + 56 * at
        rows.append(f'<circle cx="{left + 7}" cy="{down - 5}" r="7" fill="{COLOURS[at]}"/>')
        for row, name in enumerate(topic.label.split(", ")[:2]):
            rows.append(
                f'<text x="{left + 24}" y="{down + 18 * row}" font-size="14" fill="#1c1f26">{escape(name)}</text>'
            )
        rows.append(
            f'<text x="{WIDTH - 20}" y="{down}" font-size="12" text-anchor="end" fill="{GREY}">{topic.sources}</text>'
        )
    return rows


def page(title: str, subtitle: str, body: Sequence[str]) -> str:
    """The sheet with its heading."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="{FONT}">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
        f'<text x="40" y="48" font-size="26" font-weight="600" fill="#1c1f26">{escape(title)}</text>'
        f'<text x="40" y="74" font-size="14" fill="{GREY}">{escape(subtitle)}; a larger circle is spoken of more</text>'
        + "".join(body)
        + "</svg>\n"
    )
