"""What admins set in motion, on the parts of an installation."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from infra.cli.compose import adapter_store
from infra.cli.operations import House
from infra.errors import Refused
from infra.settings import load_settings
from memory.journal import Journal
from memory.remember import exchange_event, remember
from tests.infra.running import understudy
from tests.memory.making import taught
from tests.people import BOB, CREATOR


@pytest.fixture
def house(home: Path) -> Iterator[House]:
    settings = load_settings(home)
    settings.data_folder.mkdir()
    journal = Journal.open(settings.journal_url)
    yield House(settings, journal)
    journal.close()


def test_a_voice_that_learned_what_was_forgotten_speaks_no_more(house: House) -> None:
    store = adapter_store(house.settings)
    bobs = replace(taught("Bob's oven?", "Hot."), asker=BOB)
    remember(house.journal, [exchange_event(bobs)], creator=CREATOR)
    store.stage("v1")
    store.publish("v1", {"verdict": {"passed": True}, "examples": [bobs.id], "forgotten": 0})
    store.point("v1")

    understudy(house.settings.home, "forget", "--author", BOB.key)

    assert store.current() is None
    with pytest.raises(Refused, match="tainted"):
        store.point("v1")


def test_the_kill_switch_is_one_for_every_process(house: House) -> None:
    elsewhere = Journal.open(house.settings.journal_url)
    house.silence(on=True)
    assert House(house.settings, elsewhere).silenced()

    understudy(house.settings.home, "silence", "off")
    assert not house.silenced()
    elsewhere.close()
