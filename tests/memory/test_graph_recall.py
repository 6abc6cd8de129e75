"""Which questions want the graph, what it finds for them, and that it leaves all others alone."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from statistics import mean

import pytest

from memory.encode import Encoder
from memory.graph import Graph
from memory.graph_bench import labelled, ordinary_questions, sample_journal
from memory.graph_recall import GraphRecall, Wanted, evidence, wanted
from memory.graph_store import GraphStore
from memory.index import Index
from memory.journal import Journal
from memory.readings import Mention, Reading, Statement
from memory.recall import Recall
from memory.remember import exchange_event, remember
from memory.vectors import EdgeStore
from tests.memory.making import taught
from tests.people import CREATOR, NOON


def reading(source: str, days: float, *names: str, asks: str = "", said: tuple[Statement, ...] = ()) -> Reading:
    return Reading(source, NOON + timedelta(days=days), asks, tuple(map(Mention, names)), (), said)


@pytest.fixture
def graph() -> Graph:
    return Graph(
        [
            reading("old", 1, "rye", "Lyon", asks="price?"),
            reading("new", 9, "rye", "Lyon", asks="price?"),
            reading("liked", 2, "rye", said=(Statement("uses", "rye", "I use rye."),)),
            reading("left", 5, "rye", said=(Statement("avoids", "rye", "I never use rye."),)),
            reading("far", 3, "Lyon", "黑麦"),
        ]
    )


@pytest.mark.parametrize(
    ("question", "kind", "about"),
    [
        ("How are rye and Lyon connected?", "connection", ("rye", "lyon")),
        ("Lyon 和黑麦有什么关系？", "connection", ("lyon", "黑 麦")),
        ("What did you think of rye over time?", "change", ("rye",)),
        ("这些年黑麦有变化吗", "change", ("黑 麦",)),
        ("What do you think about rye?", "overview", ("rye",)),
        ("你怎么看黑麦？", "overview", ("黑 麦",)),
    ],
)
def test_questions_that_want_the_graph(graph: Graph, question: str, kind: str, about: tuple[str, ...]) -> None:
    assert wanted(question, graph) == Wanted(kind, about)


@pytest.mark.parametrize(
    "question",
    [
        "How much rye do I take?",
        "How is rye connected with quinoa?",
        "What do you think about quinoa?",
        "How do I connect my oven?",
        "黑麦要多少水",
    ],
)
def test_questions_that_do_not(graph: Graph, question: str) -> None:
    assert wanted(question, graph) is None


def test_a_connection_is_the_newest_standing_source_of_each_edge_on_the_way(graph: Graph) -> None:
    assert list(evidence(graph, Wanted("connection", ("rye", "lyon")), [])) == ["new"]
    assert list(evidence(graph, Wanted("connection", ("rye", "黑 麦")), [])) == ["far", "new"]


def test_a_change_is_all_answers_to_the_question_or_else_all_stances(graph: Graph) -> None:
    asked = Wanted("change", ("rye",))

    assert list(evidence(graph, asked, ["new"])) == ["old", "new"]
    assert list(evidence(graph, asked, ["far"])) == ["liked", "left"]


def test_an_overview_begins_with_what_is_thought_now(graph: Graph) -> None:
    found = list(evidence(graph, Wanted("overview", ("rye",)), []))

    assert found[0] == "left"
    assert "old" not in found
    assert list(evidence(graph, Wanted("overview", ("rye",)), ["new", "far"])) == ["left"]


def test_the_notes_of_a_change_are_dated_and_nobody_sees_what_they_may_not(
    sqlite_journal: Journal, tmp_path: Path, encoder: Encoder
) -> None:
    index = Index(sqlite_journal, EdgeStore(tmp_path / "index"), encoder)
    elsewhere = taught("When do you open the shop in Lyon?", "Never.", days=40, community="other")
    told = [
        taught("When do you open the shop in Lyon?", "At 9, in Lyon.", days=0),
        taught("when do you open the shop in LYON", "At 8, in Lyon.", days=31),
        replace(elsewhere, place=replace(elsewhere.place, community="other")),
    ]
    remember(sqlite_journal, map(exchange_event, told), creator=CREATOR)
    index.drain_all()
    store = GraphStore(sqlite_journal)
    store.drain_all()
    recall = GraphRecall(Recall(sqlite_journal, index), sqlite_journal, store)

    changed = recall.recall("Did the opening of the shop in Lyon change?").notes
    asked = recall.recall("When do you open the shop in Lyon?").notes
    without = recall.recall("Did the opening of the shop in Lyon change?", excluded=frozenset({told[0].id})).notes

    months = f"{told[0].at:%Y-%m}", f"{told[1].at:%Y-%m}"
    assert [note.text for note in changed] == [f"{months[0]}: At 9, in Lyon.", f"{months[1]}: At 8, in Lyon."]
    assert [note.text for note in asked] == ["At 8, in Lyon."]
    assert told[0].id not in {note.id for note in without}
    index.close()


def test_the_labelled_questions_find_their_evidence_and_ordinary_ones_do_not_want_the_graph(tmp_path: Path) -> None:
    """Without L0, which `understudy bench graph` measures too: that takes a minute."""
    journal = sample_journal(tmp_path)
    store = GraphStore(journal)
    store.drain_all()
    asked = [each for each in labelled(journal.exchanges()) if each.kind == "connection"]

    found = [set(evidence(store.graph, wanted(each.question, store.graph), [])) for each in asked]

    assert mean(len(each.gold & ids) / len(each.gold) for each, ids in zip(asked, found, strict=True)) > 0.7
    assert [question for question in ordinary_questions() if wanted(question, store.graph)] == []
    journal.close()
