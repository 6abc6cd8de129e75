"""What a model reads beside the rules: parsed strictly, sourced, in the background, and never lost to a failure."""

import json
from collections.abc import Callable, Iterator

import pytest
from fastapi import FastAPI

from infra.errors import ServiceTrouble, UserMistake
from infra.voice.api import Voices, install, routes
from infra.voice.chat import Sampling, Turn
from infra.voice.client import HttpVoice, said_whole
from infra.voice.engine import Engine
from infra.voice.weights import Weights
from memory.forget import forget
from memory.graph import Graph
from memory.graph_model import MOST_TOKENS, Found, ModelReader, parsed
from memory.graph_store import GraphStore
from memory.journal import Journal
from memory.messages import Exchange
from memory.remember import exchange_event, remember
from memory.selection import Selection
from tests.infra.running import served
from tests.memory.making import taught
from tests.people import CREATOR, NOON

ANSWER = "My sourdough lives in a banneton. I would not be without my banneton."
REPLY = {
    "things": [{"name": "banneton", "kind": "tool"}, {"name": "Dutch oven", "kind": "tool"}],
    "stances": [
        {"stance": "prefers", "about": "banneton", "quote": "I would not be without my banneton."},
        {"stance": "avoids", "about": "banneton", "quote": "I hate my banneton."},
        {"stance": "prefers", "about": "sourdough", "quote": "I would not be without my banneton."},
    ],
}


def replying(reply: object = REPLY, asked: list | None = None) -> Callable[[list[Turn], dict], str]:
    def ask(turns: list[Turn], schema: dict) -> str:
        assert schema["required"] == ["things", "stances"]
        if asked is not None:
            asked.append(turns[-1].content)
        return reply if isinstance(reply, str) else json.dumps(reply)

    return ask


def told(journal: Journal, *exchanges: Exchange) -> GraphStore:
    """A graph that has read these by the rules."""
    remember(journal, map(exchange_event, exchanges), creator=CREATOR)
    store = GraphStore(journal)
    store.drain_all()
    return store


def test_what_stands_in_the_text_joins_the_graph_and_nothing_else_does(journal: Journal) -> None:
    exchange = taught("Where does it rise?", ANSWER)
    store = told(journal, exchange)
    assert store.graph.entity("banneton") is None

    assert ModelReader(journal, replying(), name="m").read_some() == 1
    store.drain_all()

    banneton = store.graph.entity("banneton")
    assert banneton
    assert (banneton.kind, banneton.sources) == ("tool", (exchange.id,))
    (stance,) = store.graph.stances(banneton.id)
    assert (stance.kind, stance.quote) == ("prefers", "I would not be without my banneton.")
    assert store.graph.entity("Dutch oven") is None


RYE = '"things": [{"name": "rye", "kind": "tool"}]'


@pytest.mark.parametrize(
    "reply", ["", "no", "[]", f"{{{RYE}}}", f'{{{RYE}, "stances": [], "x": 1}}', json.dumps(REPLY)[:-1]]
)
def test_a_reply_that_is_not_what_was_asked_for_found_nothing(reply: str) -> None:
    assert parsed(reply) == Found(things=[], stances=[])


def test_each_text_is_asked_about_once_also_by_the_next_process(sqlite_journal: Journal) -> None:
    asked: list[str] = []
    store = told(sqlite_journal, *(taught(f"Where {n}?", f"In my banneton {n}.") for n in range(6)))
    ModelReader(sqlite_journal, replying(asked=asked), name="m").read_some()
    store.drain_all()
    resumed = ModelReader(sqlite_journal, replying(asked=asked), name="m")
    for _ in range(5):
        resumed.read_some()
        store.drain_all()
    store.rebuild()
    resumed.read_some()

    assert len(asked) == len(set(asked)) == 6
    banneton = store.graph.entity("banneton")
    assert banneton
    assert len(banneton.sources) == 6
    assert ModelReader(sqlite_journal, replying(asked=asked), name="another").read_some() > 0


def test_a_model_that_fails_leaves_the_rules_graph_and_others_go_first(sqlite_journal: Journal) -> None:
    good, bad = taught("Where?", "In #lyon, in a banneton."), taught("Poison?", "In #oslo.", days=1)
    store = told(sqlite_journal, good, bad)
    before = store.graph.edges(), store.graph.entities()
    asked: list[str] = []

    def ask(turns: list[Turn], schema: dict) -> str:
        if "Poison" in turns[-1].content:
            raise ServiceTrouble("The model is gone.")
        return replying(asked=asked)(turns, schema)

    reader = ModelReader(sqlite_journal, ask, name="m")
    for _ in range(3):
        try:
            reader.read_some()
        except ServiceTrouble:
            store.drain_all()
            assert asked or (store.graph.edges(), store.graph.entities()) == before

    assert len(asked) == 1
    store.drain_all()
    assert store.graph.entity("banneton")
    assert store.graph.entity("#oslo")


def test_a_text_that_is_too_much_for_the_model_is_not_asked_about_again(sqlite_journal: Journal) -> None:
    asked: list[str] = []
    told(sqlite_journal, taught("Where?", "In #lyon."))

    def ask(turns: list[Turn], schema: dict) -> str:
        asked.append(turns[-1].content)
        raise UserMistake("The prompt is too long.")

    reader = ModelReader(sqlite_journal, ask, name="m")

    assert [reader.read_some(), reader.read_some()] == [1, 0]
    assert len(asked) == 1


def test_what_is_forgotten_is_gone_from_what_the_model_found(sqlite_journal: Journal) -> None:
    exchange = taught("Where does it rise?", ANSWER)
    store = told(sqlite_journal, exchange)
    ModelReader(sqlite_journal, replying(), name="m").read_some()
    store.drain_all()

    forget(sqlite_journal, Selection(exchange=exchange.id), creator=CREATOR, now=NOON)
    store.drain_all()

    assert store.graph.entities() == []
    assert store._rows("SELECT * FROM graph_found") == []


@pytest.fixture(scope="module")
def url(weights: Weights) -> Iterator[str]:
    """Our own server with the packaged model."""
    engine = Engine(weights.path, base="tiny", base_sha256=weights.sha256, streams=1, waiting=4, context_tokens=1024)
    app = FastAPI()
    install(app, token=None)
    app.include_router(routes(Voices(engine, None)))
    with served(app) as address:
        yield address
    engine.close()


def test_even_the_packaged_model_says_only_what_can_be_parsed_and_sourced(sqlite_journal: Journal, url: str) -> None:
    exchange = taught("What do you bake in?", "I bake in a cast iron pot from Lyon. I would never use glass.")
    store = told(sqlite_journal, exchange)
    by_rules = set(store.graph.ids())
    replies: list[str] = []

    def ask(turns: list[Turn], schema: dict) -> str:
        sampling = Sampling(temperature=0, max_tokens=MOST_TOKENS, schema=json.dumps(schema))
        replies.append(said_whole(HttpVoice(url, model="tiny"), turns, sampling))
        return replies[-1]

    assert ModelReader(sqlite_journal, ask, name="tiny").read_some() == 1
    store.drain_all()

    assert Found.model_validate_json(replies[0])
    assert by_rules <= set(store.graph.ids())
    text = f"{exchange.question} {exchange.answer}".casefold()
    assert all(entity.name.casefold() in text for entity in store.graph.entities())
    assert all(edge.sources == (exchange.id,) for edge in store.graph.edges())
    assert isinstance(store.graph, Graph)
