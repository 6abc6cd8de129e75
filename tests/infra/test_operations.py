"""What admins set in motion, on the parts of an installation."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from infra.adapters import AdapterStore
from infra.cli.compose import adapter_store
from infra.cli.operations import House
from infra.errors import Refused
from infra.settings import load_settings
from memory.journal import Journal
from memory.messages import Exchange
from memory.remember import exchange_event, remember
from tests.infra.running import understudy
from tests.memory.making import taught
from tests.people import BOB, CREATOR, NOON


@pytest.fixture
def house(home: Path) -> Iterator[House]:
    settings = load_settings(home)
    settings.data_folder.mkdir()
    journal = Journal.open(settings.journal_url)
    yield House(settings, journal)
    journal.close()


def published(house: House, version: str, *examples: str) -> AdapterStore:
    store = adapter_store(house.settings)
    store.stage(version)
    store.publish(version, {"verdict": {"passed": True}, "examples": examples, "forgotten": 0})
    return store


@pytest.fixture
def bobs(house: House) -> Exchange:
    """What Bob asked."""
    asked = replace(taught("Bob's oven?", "Hot."), asker=BOB)
    remember(house.journal, [exchange_event(asked)], creator=CREATOR)
    return asked


def test_a_voice_that_learned_what_was_forgotten_speaks_no_more(house: House, bobs: Exchange) -> None:
    store = published(house, "v1", bobs.id)
    store.point("v1")

    understudy(house.settings.home, "forget", "--author", BOB.key, "--yes")

    assert store.current() is None
    with pytest.raises(Refused, match="tainted"):
        store.point("v1")


def test_a_canary_that_learned_what_was_forgotten_ends(house: House, bobs: Exchange) -> None:
    store = published(house, "v1", "another")
    published(house, "v2", bobs.id)
    store.point("v1")
    store.try_out("v2", 0.5, now=NOON)

    understudy(house.settings.home, "forget", "--author", BOB.key, "--yes")

    assert (store.current(), store.canary()) == ("v1", None)


def test_the_kill_switch_is_one_for_every_process(house: House) -> None:
    elsewhere = Journal.open(house.settings.journal_url)
    house.silence(on=True)
    assert House(house.settings, elsewhere).silenced()

    understudy(house.settings.home, "silence", "off")
    assert not house.silenced()
    elsewhere.close()
