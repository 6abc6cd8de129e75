"""Topics, export and picture of a graph of two things that people ask about."""

import json
from datetime import timedelta
from xml.etree import ElementTree

import pytest

from memory.graph import CREATOR, Graph
from memory.graph_export import as_graphml, as_json
from memory.graph_picture import Spot, apart, picture
from memory.readings import Mention, Reading, Statement
from memory.topics import Community, Topic, followed, found_anew, topics_in
from tests.people import NOON

BREAD, MUSIC = ("rye", "salt", "starter", "黑麦"), ("piano", "violin", "concert", "Liszt & Co")


@pytest.fixture
def graph() -> Graph:
    readings = [
        Reading(f"{names[0]}-{n}", NOON + timedelta(days=n), "", tuple(map(Mention, names[: 2 + n % 3])))
        for names in (BREAD, MUSIC)
        for n in range(9)
    ]
    stance = Statement("prefers", "rye", 'I like "rye" & <salt>.')
    return Graph([*readings, Reading("s", NOON, "", (Mention("rye"),), (), (stance,))])


def topics_of(graph: Graph) -> list[Topic]:
    return topics_in(found_anew(graph))


def talk(source: str, *names: str) -> Reading:
    return Reading(source, NOON, "", tuple(map(Mention, names)))


def test_topics_are_what_belongs_together_with_label_and_sources(graph: Graph) -> None:
    bread, music = topics_of(graph)

    assert {graph.entity(each).name for each in bread.members} == set(BREAD)
    assert {graph.entity(each).name for each in music.members} == set(MUSIC)
    assert set(bread.label.split(", ")) <= set(BREAD)
    assert set(bread.summary) <= {f"rye-{n}" for n in range(9)}
    assert topics_of(graph) == [bread, music]


def of(found: list[Community], identity: str) -> Community:
    return next(each for each in found if identity in each.members)


def test_after_a_write_only_the_topic_it_touches_is_described_anew(graph: Graph) -> None:
    before = found_anew(graph)
    for n in range(9):
        graph.add(talk(f"new-{n}", "rye", "salt", "spelt"))

    after = followed(graph, before)

    assert of(after, "piano") is of(before, "piano")
    assert set(of(after, "rye").members) == {*of(before, "rye").members, "spelt"}
    bread = of(after, "rye").topic
    assert bread
    assert bread.sources == 19
    assert followed(graph, after) == after


def test_topics_that_were_followed_are_about_those_found_anew(graph: Graph) -> None:
    found = found_anew(Graph())
    kept = list(graph.readings.values())
    grown = Graph()
    for reading in kept:
        grown.add(reading)
        found = followed(grown, found)

    assert {frozenset(each.members) for each in topics_in(found)} == {
        frozenset(each.members) for each in topics_of(graph)
    }


def test_what_is_gone_leaves_its_topic(graph: Graph) -> None:
    before = found_anew(graph)
    for n in range(9):
        graph.drop(f"piano-{n}")

    after = followed(graph, before)

    assert [each.label for each in topics_in(after)] == [of(before, "rye").topic.label]
    assert not any("piano" in each.members for each in after)


def test_an_empty_graph_has_no_topics_and_an_empty_picture() -> None:
    assert topics_of(Graph()) == []
    assert "0 things" in picture(Graph(), [], title="Nobody")


def test_exports_hold_every_edge_with_its_sources(graph: Graph) -> None:
    topics = topics_of(graph)

    document = json.loads(as_json(graph, topics, creator="Ada"))
    xml = ElementTree.fromstring(as_graphml(graph, topics, creator="Ada"))

    stance = next(edge for edge in document["edges"] if edge["head"] == CREATOR)
    assert (stance["tail"], stance["sources"], stance["valid_to"]) == ("rye", ["s"], None)
    assert all(edge["sources"] and edge["valid_from"] for edge in document["edges"])
    space = "{http://graphml.graphdrawing.org/xmlns}"
    assert len(list(xml.iter(f"{space}edge"))) == len(document["edges"])
    assert len(list(xml.iter(f"{space}node"))) == len(document["entities"]) + 1


def test_the_picture_shows_every_name_escaped(graph: Graph) -> None:
    drawn = ElementTree.fromstring(picture(graph, topics_of(graph), title="Ada & <co>"))

    shown = {text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert {*BREAD, *MUSIC, "Ada & <co>", "Topics"} <= shown


def test_no_label_covers_another() -> None:
    crowd = [Spot(str(n), "a longish name 黑麦", n, "#000", 200 + n * 37 % 700, 200 + n * 53 % 600) for n in range(40)]

    apart(crowd)

    for at, one in enumerate(crowd):
        for other in crowd[at + 1 :]:
            wide, high = abs(one.x - other.x), abs(one.middle - other.middle)
            assert wide >= one.half[0] + other.half[0] - 2 or high >= one.half[1] + other.half[1] - 2
