"""L1: what is read from a text, how it becomes one graph, and that it follows the journal in both directions."""

import random
import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from memory.codec import dumps
from memory.extract import Rules
from memory.forget import forget
from memory.graph import CREATOR as TWIN_OF
from memory.graph import Graph
from memory.graph_store import GraphStore
from memory.journal import Journal
from memory.lexicon import Lexicon, learn
from memory.messages import Source
from memory.readings import Mention, Reading, Statement, name_key, names_in
from memory.remember import exchange_event, passage_event, remember
from memory.selection import Selection
from tests.memory.making import piece, taught
from tests.people import BOB, CREATOR, NOON


def read(answer: str, *terms: str, question: str = "And?") -> Reading:
    return Rules().read(taught(question, answer), Lexicon({name_key(term): term for term in terms}))


def named(answer: str, **more) -> dict[str, str]:
    return {mention.name: mention.kind for mention in read(answer, **more).mentions}


def at(days: float, source: str, *statements: Statement, asks: str = "", also: tuple[str, ...] = ()) -> Reading:
    names = dict.fromkeys([*(each.about for each in statements), *also])
    return Reading(source, NOON + timedelta(days=days), asks, tuple(map(Mention, names)), (), statements)


def test_names_show_themselves_by_how_they_are_written() -> None:
    found = named(
        "I learned from Odile Marchand, who lives in Lyon. Ask in #first-loaf, run `git pull`, read 《面包》."
    )

    assert found == {
        "Odile Marchand": "person",
        "Lyon": "place",
        "#first-loaf": "place",
        "git pull": "tool",
        "面包": "project",
    }


@pytest.mark.parametrize(
    "text",
    [
        "Wednesday is for sleeping. Honestly, no.",
        "Write to wren@bakery.example or ring +44 1434 555 0188.",
        "The key is sk-test-4fA9xQ2LrT8vZ1mN7cW5yB3d.",
        "EVERYTHING HERE IS SHOUTED LOUDLY",
    ],
)
def test_what_is_no_name_or_nobodys_business_becomes_no_entity(text: str) -> None:
    assert named(text) == {}


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("我们用的检索增强生成（RAG）很好。", ("检索增强生成", "RAG")),
        ("RAG = 检索增强生成", ("RAG", "检索增强生成")),
        ("I build on retrieval augmented generation (RAG) now.", ("retrieval augmented generation", "RAG")),
        ("RAG is short for retrieval augmented generation.", ("RAG", "retrieval augmented generation")),
        ("发酵篮又叫藤篮。", ("发酵篮", "藤篮")),
    ],
)
def test_two_names_of_one_thing(text: str, pair: tuple[str, str]) -> None:
    reading = read(text)

    assert reading.aliases == (pair,)
    entity = Graph([reading]).entity(pair[1])
    assert entity
    assert {entity.name, *entity.aliases} == set(pair)


@pytest.mark.parametrize("text", ["Call me (tomorrow).", "x = 3", "I like bread (mostly)."])
def test_brackets_alone_make_no_alias(text: str) -> None:
    assert read(text, "bread").aliases == ()


@pytest.mark.parametrize(
    ("answer", "stances"),
    [
        ("I prefer spelt over rye.", {("prefers", "spelt"), ("avoids", "rye")}),
        ("I never use rye.", {("avoids", "rye")}),
        ("We switched from rye to spelt.", {("decided", "spelt"), ("avoids", "rye")}),
        ("I'd recommend rye to you.", {("recommends", "rye")}),
        ("我从来不用黑麦。", {("avoids", "黑麦")}),
        ("我推荐黑麦。", {("recommends", "黑麦")}),
        ("我从黑麦换成了小麦。", {("decided", "小麦"), ("avoids", "黑麦")}),
        ("You could use rye.", set()),
    ],
)
def test_stances(answer: str, stances: set[tuple[str, str]]) -> None:
    found = read(answer, "rye", "spelt", "黑麦", "小麦").statements

    assert {(each.stance, each.about) for each in found} == stances
    assert all(each.quote == answer for each in found)


def test_a_yes_or_no_is_a_stance_on_what_was_asked() -> None:
    (found,) = read("Honestly? No. It makes rubber.", "rye", question="Is rye any better?").statements

    assert (found.stance, found.about, found.quote) == ("avoids", "rye", "Is rye any better? Honestly? No.")


def test_an_asker_or_a_teacher_cannot_put_a_stance_in_the_creators_mouth() -> None:
    asked = taught("I never use rye. And you?", "Hm.")
    by_a_teacher = replace(taught("q", "I never use rye."), author=replace(BOB, role="teacher"))
    lexicon = Lexicon({"rye": "rye"})

    assert Rules().read(asked, lexicon).statements == ()
    assert Rules().read(by_a_teacher, lexicon).statements == ()


def test_terms_are_what_questions_and_answers_share() -> None:
    topics = ("starter", "rye", "salt", "黑麦", "酵种")
    halves = [(f"what about {topic} number {n}", "", f"some {topic} will do {n}") for topic in topics for n in range(4)]
    halves += [(f"当{topic}遇到水{n}", "", f"加点{topic}就好{n}") for topic in topics for n in range(4)]
    halves += [("so", "", "Bake it and report back.")] * 9

    lexicon = learn(halves)

    assert {"starter", "rye", "salt", "黑麦", "酵种"} <= set(lexicon.terms.values())
    assert not {"number", "bake", "report"} & set(lexicon.terms.values())
    assert len(lexicon.refrains) >= 1


def test_the_longest_name_wins_and_none_reaches_across_a_comma() -> None:
    known = {name_key(name) for name in ("rice", "flour", "rice flour", "检索", "检索增强")}

    assert names_in("Rice flour, or rice, flour; 检索增强", known) == ["rice flour", "rice", "flour", "检 索 增 强"]


def test_a_newer_stance_closes_the_older_one_and_both_stay() -> None:
    for_it, against = Statement("uses", "rye", "I use rye."), Statement("avoids", "rye", "I never use rye.")
    graph = Graph([at(9, "late", against), at(1, "early", for_it), at(4, "again", for_it)])

    first, second = graph.stances("rye")

    assert (first.kind, first.sources, first.valid_to) == ("uses", ("early", "again"), second.valid_from)
    assert (second.kind, second.sources, second.valid_to) == ("avoids", ("late",), None)
    assert first.head == TWIN_OF


def test_an_edge_holds_until_its_question_is_answered_anew() -> None:
    graph = Graph([at(1, "old", asks="open?", also=("shop", "Hexham")), at(5, "new", asks="open?", also=("shop",))])

    (edge,) = graph.around("shop")

    assert (edge.tail, edge.sources, edge.valid_to) == ("hexham", ("old",), NOON + timedelta(days=5))
    assert graph.versions("old") == ("old", "new")


def test_how_two_things_are_connected() -> None:
    graph = Graph([at(1, "a", also=("Gladys", "rye")), at(2, "b", also=("rye", "Lyon")), at(3, "c", also=("Oslo",))])

    assert [edge.sources for edge in graph.path("gladi", "lyon")] == [("a",), ("b",)]
    assert graph.path("gladi", "oslo") == []


def test_a_short_name_is_the_long_one_while_only_one_fits() -> None:
    anke = at(1, "a", also=("Anke Voss",)), at(2, "b", also=("Anke",))
    graph = Graph(anke)
    assert graph.entity("Anke") == graph.entity("Anke Voss")

    graph.add(at(3, "c", also=("Anke Meyer",)))

    assert graph.entity("Anke") != graph.entity("Anke Voss")


def everything(graph: Graph) -> tuple:
    return graph.entities(), graph.edges()


def test_a_graph_that_grew_shrank_and_changed_is_as_one_made_at_once() -> None:
    """Of names that share words, aliases that come and go, and questions answered again."""
    rng = random.Random(7)
    names = ("Anke", "Anke Voss", "Anke Meyer", "anke", "Voss", "RAG", "rye", "Rye", "salt", "黑麦", "oven")
    pairs = (("RAG", "rye"), ("黑麦", "rye"), ("salt", "oven"), ("Voss", "salt"))
    grown, kept = Graph(), {}
    for step in range(300):
        source = f"s{rng.randrange(25)}"
        mentions = tuple(map(Mention, rng.sample(names, k=rng.randrange(1, 6))))
        said = (Statement(rng.choice(("uses", "avoids")), mentions[0].name, f"{step}"),)
        asks = rng.choice(("", "open?", "price?"))
        aliases = tuple(rng.sample(pairs, k=rng.randrange(3)))
        kept[source] = Reading(source, NOON + timedelta(days=step), asks, mentions, aliases, said)
        grown.add(kept[source])
        if step % 3 == 0:
            grown.drop(gone := rng.choice(list(kept)))
            del kept[gone]

        assert everything(grown) == everything(Graph(kept.values()))


def test_the_graph_grows_with_each_write_and_is_the_same_when_made_again(journal: Journal) -> None:
    store = GraphStore(journal)
    for n in range(12):
        remember(
            journal, [exchange_event(taught(f"What about rye {n}?", f"I use rye in Lyon, {n} g."))], creator=CREATOR
        )
        store.drain_all()
    remember(journal, [passage_event(piece("guide.md", 0, "Gladys came from Lyon. I bake with rye."))], creator=CREATOR)
    store.drain_all()
    grown = everything(store.graph)

    fresh = GraphStore(journal)
    fresh.rebuild()

    assert everything(fresh.graph) == grown
    lyon = store.graph.entity("Lyon")
    assert lyon
    assert len(lyon.sources) == 13


def test_another_process_sees_what_this_one_read(sqlite_journal: Journal) -> None:
    here, there = GraphStore(sqlite_journal), GraphStore(sqlite_journal)
    remember(sqlite_journal, [exchange_event(taught("Where?", "I went to Lyon."))], creator=CREATOR)
    assert here.drain_all() > 0

    there.drain_all()

    assert everything(there.graph) == everything(here.graph)
    assert there.graph.entity("Lyon")


def test_topics_outlive_the_process_and_follow_what_is_written_later(sqlite_journal: Journal) -> None:
    told = [taught(f"How is it {n}?", f"Bread is #rye, #salt and #starter {n}.") for n in range(8)]
    remember(sqlite_journal, map(exchange_event, told), creator=CREATOR)
    first = GraphStore(sqlite_journal)
    first.drain_all()
    (topic,) = first.topics()
    later = [taught(f"Later {n}?", f"Add #spelt to #rye and #salt, {n}.") for n in range(2)]
    remember(sqlite_journal, map(exchange_event, later), creator=CREATOR)
    GraphStore(sqlite_journal).drain_all()

    kept = first._state("topics")
    (now,) = GraphStore(sqlite_journal).topics()

    assert {name_key("#spelt")} == set(now.members) - set(topic.members)
    assert now.sources == topic.sources + 2
    assert [each["topic"]["sources"] for each in kept["communities"] if each["topic"]] == [now.sources]


def test_nobody_who_asks_waits_for_whoever_finds_the_topics(sqlite_journal: Journal) -> None:
    store, found = GraphStore(sqlite_journal), threading.Event()

    def ask() -> None:
        store.catch_up()
        with store.reading() as graph:
            assert graph.ids() == []
        found.set()

    with store._lock:  # as whoever drains or finds topics holds it, for seconds in a large memory
        threading.Thread(target=ask, daemon=True).start()
        assert found.wait(5)


def test_what_is_forgotten_is_gone_from_the_graph_and_its_lexicon(journal: Journal) -> None:
    from_bob = [
        replace(
            taught(f"Is quinoa good {n}?", f"Quinoa is for Zanzibar, I never use quinoa {n}."),
            asker=BOB,
            question_source=Source.TELEGRAM_DIRECT,
        )
        for n in range(3)
    ]
    own = [taught(f"Rye {n}?", f"I use rye, {n} g come from Lyon.") for n in range(10)]
    remember(journal, map(exchange_event, [*from_bob, *own]), creator=CREATOR)
    store = GraphStore(journal)
    store.drain_all()
    store.topics()
    assert "quinoa" in dumps(store._state("topics"))
    assert "quinoa" in store.lexicon().terms

    forget(journal, Selection(person=BOB.key), creator=CREATOR, now=NOON)
    store.drain_all()

    assert store.graph.entity("quinoa") is None
    assert store.graph.entity("Zanzibar") is None
    assert store.graph.entity("Lyon")
    kept = store._rows("SELECT payload FROM graph_readings UNION ALL SELECT payload FROM graph_state")
    assert not [row for row in kept if "quinoa" in row["payload"].casefold() or "Zanzibar" in row["payload"]]
