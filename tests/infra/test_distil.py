"""`understudy distil` as people and scripts run it, with the project's own voice API as teacher."""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from infra.adapters import AdapterStore
from infra.settings import Settings, child_environment, load_settings
from infra.voice.api import Voices, install, routes
from infra.voice.engine import Engine
from memory.journal import Journal
from tests.infra.running import served, understudy
from tests.trainer.imitating import in_manner, remembered
from tests.trainer.lecturing import lecturing
from tests.weights import small_base

TOKEN = "a-token-that-is-long-enough"


@pytest.fixture
def community(home: Path) -> Settings:
    """An installation that remembers the small community."""
    with (home / "understudy.toml").open("a", encoding="utf-8") as file:
        file.write("\n[training]\nleast_rows = 20\n")
    settings = load_settings(home)
    settings.data_folder.mkdir()
    journal = Journal.open(settings.journal_url)
    remembered(journal)
    journal.close()
    return settings


@pytest.fixture(scope="module")
def own_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The voice API, over one layer of the packaged model: its words are none, its protocol is whole."""
    engine = Engine(small_base(), base="small", base_sha256="0" * 64, waiting=64)
    app = FastAPI()
    install(app, token=TOKEN)
    app.include_router(routes(Voices(engine, AdapterStore(tmp_path_factory.mktemp("adapters")))))
    with served(app) as url:
        yield url
    engine.close()


def teach_with(home: Path, url: str, **more: Any) -> None:
    """Name a teacher in the settings."""
    path = home / "understudy.toml"
    told = {"url": url, "name": "small", "token": TOKEN, "per_minute": 0, "concurrency": 8, **more}
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in told.items())
    path.write_text(f"{path.read_text(encoding='utf-8')}\n[teacher]\n{lines}", encoding="utf-8")
    tomllib.loads(path.read_text(encoding="utf-8"))


def test_our_own_voice_api_is_a_teacher(community: Settings, own_api: str) -> None:
    """Every request is answered and counted; what one layer says is refused by the filters."""
    teach_with(community.home, f"{own_api}/v1")

    done = understudy(community.home, "distil", "--rows", "6", "--yes", "--json")

    found = json.loads(done.stdout)
    assert found["stopped"] == ""
    assert found["rows"] == 6
    assert found["kept"] + sum(found["excluded"].values()) == 6
    assert "not answered" not in found["excluded"]
    assert found["prompt_tokens"] > 6 * 100
    assert found["completion_tokens"] > 40
    assert f"go to {own_api}" in done.stderr.replace("\n", " ")


def test_it_asks_first_and_keeps_to_its_budget_and_its_rows_are_counted_in_a_dataset(community: Settings) -> None:
    home = community.home
    with lecturing(in_manner()) as lecturer:
        teach_with(home, lecturer.url, price_in=10.0, price_out=40.0)
        refused = understudy(home, "distil", "--rows", "30", "--json", code=1)
        assert "add --yes --resume" in refused.stderr
        assert "in money" in refused.stderr
        assert lecturer.asked == 0
        (run,) = [path.name for path in (community.data_folder / "distil").iterdir()]

        bounded = ("distil", "--resume", run, "--yes", "--json", "--budget-money")
        stopped = json.loads(understudy(home, *bounded, "0.05").stdout)
        assert "budget of 0.05" in stopped["stopped"]
        assert stopped["money"] <= 0.05
        whole = json.loads(understudy(home, *bounded, "5").stdout)
        assert (whole["run"], whole["stopped"]) == (run, "")
        assert whole["kept"] > 10
        assert whole["prompt_tokens"] == lecturer.asked * 100

    share = child_environment(UNDERSTUDY_TRAINING__SYNTHETIC_SHARE="0.2")
    counted = json.loads(understudy(home, "dataset", "build", "--dry-run", "--json", environment=share).stdout)
    assert counted["synthetic"] == round((counted["train"] - counted["synthetic"]) / 4)


def test_what_cannot_hold_is_said(community: Settings) -> None:
    prices = understudy(community.home, "distil", "--budget-money", "5", code=1).stderr
    assert "set teacher.price_in" in prices
    nothing = understudy(community.home, "distil", "--resume", "yesterday", code=1).stderr
    assert "There is no distillation 'yesterday'" in nothing
