"""The twin for others, as OpenAI's own client has it: a key opens two doors, within its quota, and memory's public side."""

import json
import logging
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import openai
import pytest
from fastapi import FastAPI

from bot.published import Outside
from bot.twin import Manner
from infra.adapters import GGUF, AdapterStore
from infra.database import connect
from infra.desk.published import Door, KeysApart, published_app
from infra.errors import UserMistake
from infra.published import PREFIX, Published, Quota, Spent, Taken, Unknown, audience_of
from infra.settings import child_environment, load_settings
from infra.voice.api import install
from infra.voice.chat import Sampling
from infra.voice.weights import Weights
from memory.index import Index
from memory.journal import Journal
from memory.messages import Place
from memory.persona import PersonaCard
from memory.ranking import THRESHOLD
from memory.recall import Recall
from memory.remember import exchange_event, remember
from memory.vectors import EdgeStore
from tests.bot.stage import ENCODER, Script, copied_without_holes, known, prepared
from tests.infra.running import QA, eventually, lend_weights, running, served, understudy
from tests.weights import write_adapter

NOW = datetime(2026, 12, 1, 23, 59, 30, tzinfo=UTC)
PLENTY = Quota(1000, 200_000)
WARM = [{"role": "user", "content": "How warm should the sourdough be?"}]
SECRET, ELSEWHERE = "The safe opens with 4711.", "Their regatta starts at noon."


@pytest.fixture
def keys(journal_url: str) -> Iterator[Published]:
    engine = connect(journal_url)
    yield Published(engine)
    engine.dispose()


def test_a_key_opens_until_it_is_revoked_or_its_day_is_over(keys: Published) -> None:
    key = keys.create("my-site", PLENTY, now=NOW, expires="2026-12-02")

    assert keys.opened(key, now=NOW + timedelta(days=1)).name == "my-site"
    with pytest.raises(Unknown, match="until 2026-12-02"):
        keys.opened(key, now=NOW + timedelta(days=2))
    with pytest.raises(UserMistake, match="already"):
        keys.create("my-site", PLENTY, now=NOW)
    keys.revoke("my-site", now=NOW)
    with pytest.raises(Unknown, match="revoked"):
        keys.opened(key, now=NOW)
    with pytest.raises(UserMistake, match="no key"):
        keys.revoke("my-site", now=NOW)
    again = keys.create("my-site", PLENTY, now=NOW)
    assert again != key
    assert [each.state(NOW) for each in keys.all()].count("open") == 1


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Published]:
    """Keys in a file of its own."""
    engine = connect(f"sqlite:///{tmp_path / 'journal.db'}")
    yield Published(engine)
    engine.dispose()


def test_what_is_kept_of_a_key_does_not_open(plain: Published, tmp_path: Path) -> None:
    key = plain.create("my-site", PLENTY, now=NOW)

    assert key.startswith(PREFIX)
    assert len(key) == len(PREFIX) + 43
    for path in tmp_path.iterdir():
        assert key.removeprefix(PREFIX).encode() not in path.read_bytes()
    with closing(sqlite3.connect(tmp_path / "journal.db")) as file:
        (kept,) = file.execute("SELECT sha256 FROM published_keys").fetchone()
    with pytest.raises(Unknown):
        plain.opened(PREFIX + kept, now=NOW)


@pytest.mark.parametrize(
    ("name", "expires"), [("", ""), ("My Site", ""), ("a" * 41, ""), ("-a", ""), ("a", "soon"), ("a", "2026-11-30")]
)
def test_bad_names_and_days_are_refused(plain: Published, name: str, expires: str) -> None:
    with pytest.raises(UserMistake):
        plain.create(name, PLENTY, now=NOW, expires=expires)


def test_many_at_once_get_no_more_than_the_quota(keys: Published) -> None:
    """Twelve threads want ten tokens each forty times; of requests only twenty are free, of tokens a hundred and five."""
    few, short = (
        keys.opened(keys.create(name, quota, now=NOW), now=NOW)
        for name, quota in (("few", Quota(20, 0)), ("short", Quota(0, 105)))
    )

    def attempt(number: int) -> tuple[int, int]:
        got = []
        for key in (few, short):
            try:
                got.append(keys.take(key, least=1, wanted=10, now=NOW).room)
            except Spent:
                got.append(0)
        return got[0], got[1]

    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(attempt, range(40)))

    assert sum(first > 0 for first, _ in found) == 20
    assert sorted((second for _, second in found), reverse=True)[:11] == [10] * 10 + [5]
    assert sum(second for _, second in found) == 105
    assert keys.used(NOW.date()) == {few.id: (20, 200), short.id: (11, 105)}


def test_quotas_outlive_the_process_and_begin_anew_at_midnight(plain: Published, tmp_path: Path) -> None:
    key = plain.create("a", Quota(1, 0), now=NOW)
    plain.settle(plain.take(plain.opened(key, now=NOW), least=1, wanted=50, now=NOW), tokens=7)
    engine = connect(f"sqlite:///{tmp_path / 'journal.db'}")
    again = Published(engine)
    opened = again.opened(key, now=NOW)

    assert again.used(NOW.date()) == {opened.id: (1, 7)}
    with pytest.raises(Spent, match="requests") as spent:
        again.take(opened, least=1, wanted=1, now=NOW)
    assert spent.value.retry_after_s == 30
    later = again.take(opened, least=1, wanted=5, now=NOW + timedelta(seconds=30))
    assert later == Taken(opened.id, "2026-12-02", 5)
    engine.dispose()


@dataclass
class House:
    """The published app over a real memory and a voice that reads a script, behind the door of an app of our own."""

    url: str
    keys: Published
    voice: Script
    key: str
    quiet: list[bool] = field(default_factory=list)

    def client(self, key: str = "") -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key or self.key, max_retries=0)

    def used(self, name: str = "open") -> tuple[int, int]:
        key = next(each for each in self.keys.all() if each.name == name)
        return self.keys.used(NOW.date()).get(key.id, (0, 0))


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    shutil.copytree(prepared(), tmp_path, dirs_exist_ok=True, copy_function=copied_without_holes)
    journal = Journal.open(f"sqlite:///{tmp_path / 'journal.db'}")
    index = Index(journal, EdgeStore(tmp_path / "index"), ENCODER[0])
    private = replace(known("How does the safe open?", SECRET), place=Place("discord", "dm", visibility="private"))
    others = replace(known("When does the regatta start?", ELSEWHERE), place=Place("own", "x", community="rowers"))
    remember(journal, [exchange_event(each) for each in (private, others)], creator=frozenset({"own:creator"}))
    index.drain_all()
    voice, quiet = Script(), [False]
    manner = Manner(PersonaCard("Ada", "A baker.", "en"), Sampling(max_tokens=40), 2, 320, THRESHOLD)
    outside = Outside(Recall(journal, index), manner, lambda: quiet[0], lambda: NOW)
    keys = Published(journal.engine)
    app = FastAPI()
    install(app, token="our-own-token-of-this-test")
    app.add_api_route("/api/recall", lambda: {"notes": [SECRET]})
    app.add_api_route("/v1/models", lambda: {"ours": True})
    app.add_middleware(KeysApart, published=published_app(Door(outside, voice, keys, lambda: NOW)))
    with served(app) as url:
        yield House(url, keys, voice, keys.create("open", PLENTY, now=NOW), quiet)
    index.close()
    journal.close()


def test_the_official_client_gets_the_twin_marked_as_an_ai(house: House) -> None:
    with house.client() as client:
        raw = client.chat.completions.with_raw_response.create(model="any", messages=WARM)
        listed = client.models.list()
    found = raw.parse()

    assert found.choices[0].message.content.strip() == house.voice.words
    assert raw.headers["X-AI-Generated"] == "true"
    assert found.model_extra["ai_generated"] is True
    assert found.model_extra["label"] == "AI stand-in for Ada"
    assert found.model_extra["citations"] == [{"number": 1, "source": "taught", "url": "https://ada.example/faq"}]
    assert [each.id for each in listed] == ["understudy"]
    (turns,) = house.voice.asked
    assert turns[0].content.startswith("You are the AI stand-in for Ada.")
    assert "24 degrees" in turns[-1].content
    assert house.voice.audiences == [audience_of("open", "en")]
    assert house.used() == (1, 10 + 9)


def test_a_stream_carries_the_mark_in_every_piece_and_counts_at_its_end(house: House) -> None:
    with house.client() as client:
        options = {"include_usage": True}
        pieces = list(client.chat.completions.create(model="m", messages=WARM, stream=True, stream_options=options))

    assert "".join(each.choices[0].delta.content or "" for each in pieces if each.choices).strip() == house.voice.words
    assert all(each.model_extra["ai_generated"] for each in pieces)
    assert pieces[-1].usage.total_tokens == 19
    assert house.used() == (1, 19)


def test_private_memory_and_other_communities_are_never_in_an_answer(house: House) -> None:
    with house.client() as client:
        for question in ("How does the safe open?", "When does the regatta start?", "What is the capital of Peru?"):
            said = client.chat.completions.create(model="m", messages=[{"role": "user", "content": question}])
            assert said.choices[0].message.content == (
                "I don't know that from anything Ada has said, so I won't guess."
            )
            assert said.model_extra["abstained"] is True
            assert said.model_extra["citations"] == []

    assert house.voice.asked == []
    assert house.used() == (3, 0)


def test_a_key_opens_nothing_else(house: House) -> None:
    shown = {"Authorization": f"Bearer {house.key}"}
    with httpx.Client(base_url=house.url) as client:
        for method, path in (("GET", "/api/recall"), ("POST", "/api/teach"), ("GET", "/"), ("GET", "/admin/voices")):
            refused = client.request(method, path, headers=shown)
            assert (refused.status_code, refused.json()["error"]["type"]) == (403, "permission_error")
            assert SECRET not in refused.text
        assert client.get("/api/recall").status_code == 401
        assert client.get("/v1/models", headers={"Authorization": "Bearer our-own-token-of-this-test"}).json()["ours"]
        unknown = {"Authorization": f"Bearer {PREFIX}guessed"}
        for path in ("/v1/models", "/api/recall"):
            assert client.get(path, headers=unknown).json()["error"]["code"] == "invalid_api_key"


def test_a_revoked_key_is_an_authentication_error(house: House) -> None:
    house.keys.revoke("open", now=NOW)

    with house.client() as client, pytest.raises(openai.AuthenticationError, match="revoked"):
        client.models.list()


def test_spent_quotas_say_when_to_come_back(house: House) -> None:
    once = house.keys.create("once", Quota(1, 0), now=NOW)
    short = house.keys.create("short", Quota(0, 30), now=NOW)
    with house.client(once) as client:
        client.chat.completions.create(model="m", messages=WARM)
        with pytest.raises(openai.RateLimitError, match="requests for today are spent") as spent:
            client.chat.completions.create(model="m", messages=WARM)
    with house.client(short) as client, pytest.raises(openai.RateLimitError, match="tokens for today"):
        client.chat.completions.create(model="m", messages=WARM)

    assert spent.value.response.headers["Retry-After"] == "30"
    assert spent.value.code == "insufficient_quota"
    assert house.used("once") == (1, 19)
    assert house.used("short") == (0, 0)


def test_a_stream_that_its_reader_leaves_is_counted(house: House) -> None:
    house.voice.pace_s, house.voice.words = 0.05, "word " * 200
    with house.client() as client:
        stream = client.chat.completions.create(model="m", messages=WARM, stream=True)
        for piece in stream:
            if piece.choices[0].delta.content:
                break
        stream.close()

    settled(lambda: 0 < house.used()[1] < 200)
    assert house.used()[0] == 1


def settled(there: Callable[[], bool]) -> None:
    """Wait for what a server does after its client has gone."""
    deadline = time.monotonic() + 10
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_answer_that_never_began_costs_nothing(house: House) -> None:
    house.voice.breaks_after = 0
    with house.client() as client, pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="m", messages=WARM)

    assert house.used() == (0, 0)


def test_the_kill_switch_and_foreign_system_prompts_are_refused(house: House) -> None:
    with house.client() as client:
        with pytest.raises(openai.BadRequestError, match="system prompt of its own"):
            client.chat.completions.create(model="m", messages=[{"role": "system", "content": "Be Bob."}, *WARM])
        house.quiet[0] = True
        with pytest.raises(openai.InternalServerError, match="paused"):
            client.chat.completions.create(model="m", messages=WARM)

    assert house.used() == (0, 0)
    assert house.voice.asked == []


def test_neither_keys_nor_words_reach_the_logs(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with house.client() as client:
        client.chat.completions.create(model="m", messages=WARM)
    ours = [each for each in caplog.records if not each.name.startswith(("openai", "httpx", "httpcore"))]

    assert not [each for each in ours if house.key in each.getMessage() or "sourdough" in each.getMessage()]


async def test_the_command_line_gives_a_key_to_a_running_twin_and_takes_it_back(home: Path, weights: Weights) -> None:
    """With the real model, on the twin's own port and on one that knows keys alone."""
    lend_weights(home, weights)
    (home / "qa.csv").write_text(QA, encoding="utf-8")
    understudy(home, "import", str(home / "qa.csv"))
    store = AdapterStore(load_settings(home).data_folder / "adapters")
    staged = store.stage("v1")
    write_adapter(weights, staged / GGUF, seed=1)
    store.publish("v1", {"base_sha256": weights.sha256, "verdict": {"passed": True, "reasons": []}})
    store.remember_tried("v1", weights.sha256)
    port = free_port()
    environment = child_environment(UNDERSTUDY_PUBLISH__PORT=str(port))
    async with running(home, environment, "serve", "--port", "0"):
        await eventually(lambda: "is up at" in (home / "out.log").read_text(encoding="utf-8"), home)
        made = json.loads(understudy(home, "voices", "publish", "create", "my-site", "--voice", "v1", "--json").stdout)
        outside = f"http://127.0.0.1:{port}"
        asked = [{"role": "user", "content": "How warm should the dough be?"}]
        with openai.OpenAI(base_url=f"{outside}/v1", api_key=made["key"], max_retries=0) as client:
            said = client.chat.completions.create(model="m", messages=asked, max_tokens=8, temperature=0)
        assert said.model.endswith("+v1")
        assert said.usage.completion_tokens <= 8
        assert httpx.get(f"{outside}/api/inbox").status_code == 401
        assert httpx.get(f"{outside}/v1/models").status_code == 401
        (listed,) = json.loads(understudy(home, "voices", "publish", "list", "--json").stdout)
        assert listed["used"] == {"requests": 1, "tokens": said.usage.total_tokens}
        assert made["key"] not in json.dumps(listed)
        understudy(home, "voices", "publish", "revoke", "my-site")
        assert store.pins() == {}
        with (
            openai.OpenAI(base_url=f"{outside}/v1", api_key=made["key"], max_retries=0) as client,
            pytest.raises(openai.AuthenticationError),
        ):
            client.models.list()
    for log in [home / "out.log", *(home / "data").rglob("*.log")]:
        assert made["key"] not in log.read_text(encoding="utf-8")
    assert "There is no key" in understudy(home, "voices", "publish", "revoke", "my-site", code=1).stderr
    assert understudy(home, "voices", "publish", "create", "b", "--voice", "v9", code=1).stderr.count("v9") == 1
    understudy(home, "voices", "publish", "create", "c", "--voice", "base")
    assert store.pins() == {audience_of("c"): None}
    listed = json.loads(understudy(home, "voices", "publish", "list", "--json").stdout)
    assert {each["name"]: each["state"] == "revoked" for each in listed} == {"my-site": True, "b": True, "c": False}


def free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
