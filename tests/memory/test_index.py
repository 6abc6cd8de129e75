"""A new embedder: the index before answers and learns until the new one is complete, also through a kill."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from infra.errors import UserMistake
from memory.bench import Drawn
from memory.encode import Encoder
from memory.index import BATCH, Index
from memory.journal import Journal
from memory.messages import Exchange
from memory.ranking import THRESHOLD
from memory.recall import Recall
from memory.remember import exchange_event, remember
from memory.vectors import Current, EdgeStore, ServerStore, Store, collection_name
from tests.memory.making import taught, tiny_embedder
from tests.people import CREATOR
from tests.weights import EMBEDDER

MANY = 3 * BATCH


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """A second embedder: a BERT of one small layer with random weights, saved as sentence-transformers does."""
    return Encoder(str(tiny_embedder(tmp_path_factory.mktemp("embedder"))))


@pytest.fixture(params=["edge", "server"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return EdgeStore(tmp_path / "index") if request.param == "edge" else ServerStore(":memory:")


class Held:
    """An embedder that encodes nothing before it is let go, so that what happens meanwhile can be seen."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder, self.name, self.dimension = encoder, encoder.name, encoder.dimension
        self.go, self.encoded = Event(), 0

    def dense(self, texts: list[str]) -> np.ndarray:
        assert self.go.wait(30)
        self.encoded += len(texts)
        return self._encoder.dense(texts)


def known(number: int) -> Exchange:
    return taught(f"How warm is oven number {number}?", f"{number} degrees.")


def filled(journal: Journal, store: Store, encoder: Encoder, many: int = 3) -> None:
    """An index of exchanges that `encoder` has made and that is closed again."""
    remember(journal, [exchange_event(known(number)) for number in range(many)], creator=CREATOR)
    index = Index(journal, store, encoder)
    index.drain_all()
    index.close()


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def loading(*encoders: Encoder) -> Callable[[str], Encoder]:
    """Loads those that are loaded already, as a process that has the memory for both would."""
    return {each.name: each for each in encoders}.__getitem__


def test_the_index_before_answers_and_learns_until_the_new_one_is_complete(
    sqlite_journal: Journal, store: Store, encoder: Encoder, tiny: Encoder
) -> None:
    filled(sqlite_journal, store, encoder, many=20)
    held = Held(tiny)
    index = Index(sqlite_journal, store, held, load=loading(encoder))
    recall = Recall(sqlite_journal, index)

    (note,) = recall.recall("How warm is oven number 7?", limit=1).notes
    assert note.text == "7 degrees."
    assert (store.current(), index.filling.total) == (Current(collection_name(EMBEDDER, 384), EMBEDDER), 20)

    held.go.set()
    remember(sqlite_journal, [exchange_event(taught("Who mills the spelt?", "Bob does."))], creator=CREATOR)
    index.drain_all()
    asked = 0
    while asked == 0 or index.filling is not None:
        (note,) = recall.recall("Who mills the spelt?", limit=1).notes
        assert note.text == "Bob does."
        asked += 1

    assert store.current() == Current(collection_name(tiny.name, 32), tiny.name)
    assert index.collection.count() == 21
    assert recall.recall("Who mills the spelt?", limit=1).notes[0].text == "Bob does."
    index.close()


def test_what_is_forgotten_while_the_new_index_fills_is_in_neither(
    sqlite_journal: Journal, store: Store, encoder: Encoder, tiny: Encoder
) -> None:
    filled(sqlite_journal, store, encoder)
    held = Held(tiny)
    index = Index(sqlite_journal, store, held, load=loading(encoder))
    with sqlite_journal.writing() as writer:
        writer.drop_exchange(known(1).id)
    assert index.drain_all() == 1
    assert index.collection.count() == 2

    held.go.set()
    until(lambda: index.filling is None)

    assert index.collection.known([known(number).id for number in range(3)]) == {known(0).id, known(2).id}
    index.close()


def test_with_the_embedder_before_gone_memory_answers_by_words(
    sqlite_journal: Journal, store: Store, encoder: Encoder, tiny: Encoder
) -> None:
    filled(sqlite_journal, store, encoder, many=20)
    held = Held(tiny)

    def gone(name: str) -> Encoder:
        raise UserMistake(f"There is no embedder at {name!r}.")

    index = Index(sqlite_journal, store, held, load=gone)
    remember(sqlite_journal, [exchange_event(taught("Who mills the spelt?", "Bob does."))], creator=CREATOR)
    with index.answering() as side:
        assert side.encoder is None
    held.go.set()
    index.drain_all()
    until(lambda: index.filling is None)
    assert index.collection.count() == 21
    index.close()


def test_by_words_alone_it_still_knows_what_it_knows(sqlite_journal: Journal, store: Store, encoder: Encoder) -> None:
    filled(sqlite_journal, store, encoder, many=20)
    index = Index(sqlite_journal, store, encoder)
    index._answers.encoder = None
    remember(sqlite_journal, [exchange_event(taught("Who mills the spelt?", "Bob does."))], creator=CREATOR)
    index.drain_all()
    recall = Recall(sqlite_journal, index)

    found = recall.recall("Who mills the spelt?", limit=1)
    assert (found.notes[0].text, found.confidence > THRESHOLD) == ("Bob does.", True)
    assert recall.recall("Who won the election?").confidence < THRESHOLD
    index.close()


def test_a_search_under_way_ends_before_its_collection_goes(
    sqlite_journal: Journal, store: Store, encoder: Encoder, tiny: Encoder
) -> None:
    filled(sqlite_journal, store, encoder)
    held = Held(tiny)
    index = Index(sqlite_journal, store, held, load=loading(encoder))
    with index.answering() as side:
        held.go.set()
        until(lambda: store.current().embedder == tiny.name)
        assert side.collection.count() == 3
        until(lambda: index.filling is None)
    until(lambda: not index._filler.is_alive())
    index.close()


KILLED = """
import os, signal, sys
from pathlib import Path
from memory.bench import Drawn
from memory.index import Index
from memory.journal import Journal
from memory.vectors import EdgeStore

class Mortal(Drawn):
    batches = 0

    def dense(self, texts):
        self.batches += 1
        if self.batches == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().dense(texts)

url, folder = sys.argv[1:]
Index(Journal.open(url), EdgeStore(Path(folder)), Mortal(), load=lambda name: Drawn())._filler.join()
"""


def test_a_kill_half_way_leaves_the_index_before_and_what_was_done(
    sqlite_journal: Journal, tmp_path: Path, tiny: Encoder
) -> None:
    """The embedder that is changed to is one that needs no model, as the process that is killed has nothing else to load."""
    store = EdgeStore(tmp_path / "index")
    filled(sqlite_journal, store, tiny, many=MANY)

    url = f"sqlite:///{tmp_path / 'own.db'}"
    done = subprocess.run([sys.executable, "-c", KILLED, url, str(tmp_path / "index")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert store.current().embedder == tiny.name

    held = Held(Drawn())
    index = Index(sqlite_journal, store, held, load=loading(tiny))
    assert index.filling.done == BATCH
    assert Recall(sqlite_journal, index).recall("How warm is oven number 7?", limit=1).notes[0].text == "7 degrees."
    held.go.set()
    until(lambda: index.filling is None)
    assert (index.collection.count(), held.encoded) == (MANY, MANY - BATCH)
    index.close()
    assert [path.name for path in (tmp_path / "index").iterdir() if path.is_dir()] == [store.current().name]


def test_a_half_filled_index_that_missed_changes_is_not_filled_on(
    sqlite_journal: Journal, tmp_path: Path, encoder: Encoder, tiny: Encoder
) -> None:
    """Who goes back to the embedder before drops the half that no longer learns."""
    store = EdgeStore(tmp_path / "index")
    filled(
        sqlite_journal,
        store,
        encoder,
    )
    store.open(collection_name(tiny.name, tiny.dimension), tiny.dimension).close()

    Index(sqlite_journal, store, encoder).close()

    assert [path.name for path in (tmp_path / "index").iterdir() if path.is_dir()] == [store.current().name]


def test_a_change_of_schema_is_filled_behind_the_index_before_as_well(
    sqlite_journal: Journal, store: Store, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(sqlite_journal, store, encoder)
    before = store.current().name
    monkeypatch.setattr("memory.vectors.SCHEMA", 99)

    held = Held(encoder)
    index = Index(sqlite_journal, store, held, load=loading())
    assert store.current().name == before
    held.go.set()
    until(lambda: index.filling is None)

    assert store.current().name == collection_name(EMBEDDER, 384) != before
    index.close()


def test_a_first_start_after_an_import_encodes_everything_once(
    sqlite_journal: Journal, store: Store, tiny: Encoder
) -> None:
    remember(sqlite_journal, [exchange_event(known(number)) for number in range(20)], creator=CREATOR)
    counted = Held(tiny)
    counted.go.set()

    index = Index(sqlite_journal, store, counted)

    assert (index.drain_all(), index.collection.count(), counted.encoded) == (0, 20, 20)
    index.close()


def test_a_question_asked_again_is_not_encoded_again(sqlite_journal: Journal, store: Store, tiny: Encoder) -> None:
    counted = Held(tiny)
    counted.go.set()
    filled(sqlite_journal, store, counted)
    index = Index(sqlite_journal, store, counted)
    recall, before = Recall(sqlite_journal, index), counted.encoded

    with ThreadPoolExecutor(4) as threads:
        found = [each.notes for each in threads.map(recall.recall, ["How warm?", "how warm?"] * 20)]

    assert counted.encoded - before <= 8  # four threads may meet at each of the two
    assert found[2:] == found[:-2]
    index.close()
