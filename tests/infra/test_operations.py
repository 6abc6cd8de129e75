"""What admins set in motion, on the parts of an installation."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.cli.operations import House
from infra.settings import load_settings
from memory.journal import Journal
from tests.infra.running import understudy


@pytest.fixture
def house(home: Path) -> Iterator[House]:
    settings = load_settings(home)
    settings.data_folder.mkdir()
    journal = Journal.open(settings.journal_url)
    yield House(settings, journal)
    journal.close()


def test_the_kill_switch_is_one_for_every_process(house: House) -> None:
    elsewhere = Journal.open(house.settings.journal_url)
    house.silence(on=True)
    assert House(house.settings, elsewhere).silenced()

    understudy(house.settings.home, "silence", "off")
    assert not house.silenced()
    elsewhere.close()
