"""The voice over HTTP, as OpenAI's own client sees it, on a real socket."""

import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import openai
import pytest
from fastapi import FastAPI

from infra.adapters import CARD, GGUF, AdapterStore
from infra.cli.operations import House
from infra.errors import ServiceTrouble, UserMistake
from infra.files import write_json
from infra.remote import announce
from infra.settings import load_settings
from infra.voice.api import Voices, install, routes
from infra.voice.chat import Audience
from infra.voice.engine import Engine, lot
from infra.voice.llama import Context
from infra.voice.weights import Weights
from memory.journal import Journal
from memory.messages import Answer, Kind, Message, Place
from memory.remember import answer_event, remember
from memory.trial import Worse
from tests.infra.running import served, understudy
from tests.people import BOB, CREATOR
from tests.weights import write_adapter
from trainer.card import MEASURES, EvalCard, Interval, Item, System, to_json
from trainer.evalpicture import picture
from trainer.gate import decide

TOKEN = "a-token-of-this-test"


def measured() -> EvalCard:
    """An eval card of one held-out exchange."""
    half = dict.fromkeys(MEASURES, 0.5)
    before, after = (System(name, [Item("words", half)], ability=0.5) for name in ("base", "candidate"))
    against = {"base": dict.fromkeys(MEASURES, Interval(0, 0, 0))}
    return EvalCard(["q"], ["a"], after, before, None, against, style_auc=0.8, seed=1, wall_s=1, dataset="d")


@pytest.fixture(scope="module")
def store(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> AdapterStore:
    made = AdapterStore(tmp_path_factory.mktemp("store"))
    for version, passed in (("v1", True), ("v2", True), ("refused", False)):
        staged = made.stage(version)
        write_adapter(weights, staged / GGUF, seed=len(version) + int(passed))
        reasons = [] if passed else ["NLL is worse"]
        if version == "v1":
            write_json(staged / CARD, to_json(measured()))
        made.publish(version, {"base_sha256": weights.sha256, "verdict": {"passed": passed, "reasons": reasons}})
        made.remember_tried(version, weights.sha256)
    return made


@pytest.fixture(scope="module")
def url(weights: Weights, store: AdapterStore) -> Iterator[str]:
    engine = Engine(weights.path, base="tiny", base_sha256=weights.sha256, streams=2, waiting=1, context_tokens=512)
    app = FastAPI()
    install(app, token=TOKEN)
    app.include_router(routes(Voices(engine, store)))
    with served(app) as address:
        yield address
    engine.close()


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=TOKEN, max_retries=0) as made:
        yield made


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60) as made:
        yield made


ASKED = [{"role": "user", "content": "Name a bread."}]


def test_the_official_client_gets_a_whole_answer(client: openai.OpenAI) -> None:
    found = client.chat.completions.create(model="tiny", messages=ASKED, max_tokens=12, temperature=0)

    assert found.choices[0].message.content
    assert found.choices[0].finish_reason in {"stop", "length"}
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens


@pytest.fixture
def warm(client: openai.OpenAI) -> None:
    """Let the engine compute the prompt's beginning once: a shared one rounds differently from a computed one."""
    for _ in range(3):
        client.chat.completions.create(model="tiny", messages=ASKED, max_tokens=1)


@pytest.mark.usefixtures("warm")
def test_the_official_client_streams_the_same_words_with_usage(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="tiny", messages=ASKED, max_tokens=12, temperature=0)
    chunks = list(
        client.chat.completions.create(
            model="tiny",
            messages=ASKED,
            max_tokens=12,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )

    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert streamed == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


@pytest.mark.usefixtures("warm")
def test_stop_and_seed_are_kept(client: openai.OpenAI) -> None:
    def ask(**more):
        found = client.chat.completions.create(model="tiny", messages=ASKED, max_tokens=24, temperature=1.0, **more)
        return found.choices[0].message.content

    assert ask(seed=5) == ask(seed=5)
    assert " " not in ask(seed=5, stop=[" "])


def test_models_lists_the_base_and_its_voices(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny", "tiny+refused", "tiny+v1", "tiny+v2"]


def test_without_the_token_nothing_is_answered(url: str) -> None:
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()
    assert httpx.get(f"{url}/healthz").json() == {"status": "alive"}


@pytest.mark.parametrize(
    "body",
    [
        {"messages": []},
        {"messages": [{"role": "wizard", "content": "x"}]},
        {"messages": ASKED, "temperature": 9},
        {"messages": ASKED, "n": 2},
        {"messages": ASKED, "tools": [{"type": "function"}]},
        {"messages": ASKED, "max_tokens": 0},
        {"messages": [{"role": "user", "content": "word " * 900}]},
    ],
)
def test_what_cannot_be_done_is_refused_in_openais_shape(http: httpx.Client, body: dict) -> None:
    found = http.post("/v1/chat/completions", json=body)

    assert found.status_code == 400
    assert found.json()["error"]["type"] == "invalid_request_error"
    assert found.json()["error"]["message"]


def test_broken_json_is_refused(http: httpx.Client) -> None:
    found = http.post("/v1/chat/completions", content=b"{", headers={"Content-Type": "application/json"})

    assert found.status_code == 400


def test_too_many_at_once_are_told_when_to_come_back(url: str) -> None:
    statuses, after = [], []

    def ask() -> None:
        body = {"messages": ASKED, "max_tokens": 120, "temperature": 1.5}
        found = httpx.post(
            f"{url}/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60
        )
        statuses.append(found.status_code)
        after.extend([found.headers["Retry-After"]] if found.status_code == 429 else [])

    threads = [threading.Thread(target=ask) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert set(statuses) == {200, 429}
    assert all(int(seconds) > 0 for seconds in after)


def test_a_request_with_a_deadline_is_refused_when_it_has_passed(http: httpx.Client) -> None:
    def ask(**more: float) -> httpx.Response:
        body = {"messages": ASKED, "max_tokens": 300, "temperature": 1.5, **more}
        return http.post("/v1/chat/completions", json=body)

    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(ask) for _ in range(2)]
        deadline = time.monotonic() + 5
        while http.get("/readyz").json()["running"] < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        late = ask(timeout=0.01)

        assert [each.result().status_code for each in running] == [200, 200]
    assert (late.status_code, "within 0.01 seconds" in late.json()["error"]["message"]) == (429, True)
    assert ask(timeout=0).status_code == 400


def test_readiness_says_what_was_not_computed_again(http: httpx.Client) -> None:
    before = http.get("/readyz").json()["reuse"]
    found = http.post("/v1/chat/completions", json={"messages": ASKED, "max_tokens": 1}).json()

    after = http.get("/readyz").json()["reuse"]
    saved = sum(after[kind] - before[kind] for kind in ("shared_tokens", "continued_tokens"))
    assert after["prompt_tokens"] - before["prompt_tokens"] == found["usage"]["prompt_tokens"]
    assert saved == found["usage"]["prompt_tokens_details"]["cached_tokens"]


def test_a_client_that_leaves_frees_its_place(http: httpx.Client) -> None:
    body = {"messages": ASKED, "max_tokens": 400, "temperature": 1.5, "stream": True}
    with http.stream("POST", "/v1/chat/completions", json=body) as response:
        next(response.iter_lines())

    deadline = time.monotonic() + 5
    while http.get("/readyz").json()["running"] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert http.get("/readyz").json()["running"] == 0


def test_promote_and_rollback_act_at_once_and_are_remembered(http: httpx.Client, store: AdapterStore) -> None:
    assert http.post("/admin/voices/promote", json={"version": "v1"}).json()["voice"] == "tiny+v1"
    assert http.post("/admin/voices/promote", json={"version": "v2"}).json()["voice"] == "tiny+v2"
    assert (store.current(), store.previous()) == ("v2", "v1")

    assert http.post("/admin/voices/rollback").json()["voice"] == "tiny+v1"
    assert store.current() == "v1"
    assert http.post("/admin/voices/promote", json={"version": "base"}).json()["voice"] == "tiny"


def test_the_picture_of_an_eval_card_reaches_a_bot_on_another_machine(url: str, home: Path) -> None:
    with (home / "understudy.toml").open("a", encoding="utf-8") as settings:
        settings.write(f'[bot]\napi = "{url}"\n[api]\ntoken = "{TOKEN}"\n')
    journal = Journal.open(f"sqlite:///{home / 'journal.db'}")
    apart = House(load_settings(home), journal)

    assert apart.picture("v1") == picture(measured(), decide(measured()))
    with pytest.raises(UserMistake, match="'v2' has no eval card"):
        apart.picture("v2")
    journal.close()


def test_a_canary_answers_its_users_until_it_is_stopped(
    http: httpx.Client, client: openai.OpenAI, store: AdapterStore
) -> None:
    def voice_for(user: str) -> str:
        return client.chat.completions.create(model="tiny", messages=ASKED, max_tokens=1, user=user).model

    tried = next(str(n) for n in range(100) if lot("tiny+v1", str(n)) < 0.5)
    others = next(str(n) for n in range(100) if lot("tiny+v1", str(n)) > 0.5)
    assert http.post("/admin/voices/canary", json={"version": "v1", "share": 0.5}).json()["canary"] == "v1"

    assert [voice_for(user) for user in (tried, others, tried)] == ["tiny+v1", "tiny", "tiny+v1"]
    listed = http.get("/admin/voices").json()
    assert (listed["voice"], listed["canary"]["voice"], listed["canary"]["speaks"]) == ("tiny", "tiny+v1", True)

    assert http.post("/admin/voices/canary/stop", json={"version": "v1"}).json() == {"stopped": "v1", "voice": "tiny"}
    assert voice_for(tried) == "tiny"
    assert (store.canary(), http.get("/admin/voices").json()["canary"]) == (None, None)


@pytest.fixture
def house(home: Path, url: str, store: AdapterStore) -> Iterator[House]:
    """Operations on the machine of the running voice."""
    settings = load_settings(home)
    (home / "data").mkdir()
    (home / "data" / "adapters").symlink_to(store.folder("v1").parent)
    announce(settings, url=url, token=TOKEN, pid=os.getpid())
    journal = Journal.open(settings.journal_url)
    yield House(settings, journal)
    journal.close()


def journalled(house: House, voice: str, *, answers: int, failed: int = 0) -> None:
    """Answers that a voice gave just now, the first of which failed."""
    now, place = datetime.now(UTC), Place("telegram", "100")
    for n in range(answers):
        found = Answer(f"{voice} {n}", str(n), "24 °C.", "answered", "fits", (), voice, "hash", {"first_token": 9.0})
        if n < failed:
            found = replace(found, outcome="failed", timings_ms={})
        event = answer_event(found, Message(str(n), BOB, place, now, "How warm?"), at=now)
        remember(house.journal, [event], creator=CREATOR)


def died(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_canary_that_does_badly_is_stopped_and_it_is_said_why(house: House, store: AdapterStore) -> None:
    house.start_canary("v1", 0.1)
    journalled(house, "tiny", answers=60)
    journalled(house, "tiny+v1", answers=19, failed=19)
    assert house.watch_canary() is None
    assert house.voices()["canary"]["speaks"]

    journalled(house, "tiny+v1", answers=25, failed=25)
    ended = house.watch_canary()

    assert ended is not None
    assert ended.worse == Worse("failed", 1.0, 0.0, 25, 60)
    assert (store.canary(), house.voices()["canary"], house.watch_canary()) == (None, None, None)
    listed = " ".join(understudy(house.settings.home, "voices", "list").stdout.split())
    assert "of v1 has ended by itself: 100 % of its 25 answers failed, and 0 % of the current voice's 60." in listed
    [(_, event)] = house.journal.events(kind=Kind.TRIAL)
    assert event.payload["figures"]["current"]["answers"] == 60


def test_a_trial_that_was_to_end_when_the_twin_died_ends_after_it_and_a_new_one_is_judged_anew(
    house: House, store: AdapterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.start_canary("v1", 0.1)
    journalled(house, "tiny", answers=60)
    journalled(house, "tiny+v1", answers=25, failed=25)
    with monkeypatch.context() as dying:
        dying.setattr(House, "stop_canary", died)
        with pytest.raises(KeyboardInterrupt):
            house.watch_canary()
    journalled(house, "tiny", answers=60)
    house.watch_canary()
    assert store.canary() is None
    assert len(house.journal.events(kind=Kind.TRIAL)) == 1

    house.start_canary("v1", 0.1)
    assert house.watch_canary() is None
    house.stop_canary("v1")


def test_a_canary_is_left_to_people_where_they_say_so(house: House, store: AdapterStore) -> None:
    house.start_canary("v1", 0.1)
    journalled(house, "tiny", answers=60)
    journalled(house, "tiny+v1", answers=25, failed=25)
    canary = house.settings.canary.model_copy(update={"stop": False})
    alone = House(house.settings.model_copy(update={"canary": canary}), house.journal)

    assert alone.watch_canary() is None
    house.stop_canary("v1")


def test_an_error_says_which_voice_failed(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(context: Context, rows: object) -> None:
        raise ServiceTrouble("no room")

    monkeypatch.setattr(Context, "decode", full)
    failed = http.post("/v1/chat/completions", json={"messages": ASKED})

    assert failed.status_code == 503
    assert (failed.json()["error"]["message"], failed.json()["error"]["voice"]) == ("no room", "tiny")


def test_a_canary_that_is_tainted_by_now_can_be_stopped(http: httpx.Client, store: AdapterStore) -> None:
    http.post("/admin/voices/canary", json={"version": "v1", "share": 0.5})
    store.taint("v1", "somebody was forgotten")

    assert http.post("/admin/voices/canary/stop", json={"version": "v1"}).json() == {"stopped": "v1", "voice": "tiny"}
    store.folder("v1").with_name("v1.tainted.json").unlink()


def test_another_share_is_the_same_trial_and_promoting_ends_it(http: httpx.Client, store: AdapterStore) -> None:
    http.post("/admin/voices/canary", json={"version": "v1", "share": 0.5})
    begun = store.on_trial().since
    http.post("/admin/voices/canary", json={"version": "v1", "share": 0.2})
    assert (store.on_trial().share, store.on_trial().since) == (0.2, begun)

    assert http.post("/admin/voices/canary/promote", json={"version": "v2"}).status_code == 400
    assert http.post("/admin/voices/canary/promote", json={"version": "v1"}).json()["voice"] == "tiny+v1"
    assert (store.current(), store.canary()) == ("v1", None)
    assert "not the canary" in http.post("/admin/voices/canary/promote", json={"version": "v1"}).text
    assert http.post("/admin/voices/promote", json={"version": "base"}).json()["voice"] == "tiny"


SERVER = {"community": "discord:1"}


def test_a_pinned_voice_answers_its_community_or_language_until_it_is_unpinned(
    http: httpx.Client, client: openai.OpenAI, store: AdapterStore
) -> None:
    def voice_for(**metadata: str) -> str:
        return client.chat.completions.create(model="tiny", messages=ASKED, max_tokens=1, metadata=metadata).model

    assert http.post("/admin/voices/pin", json={"version": "v1", **SERVER}).json()["to"] == "discord:1"
    http.post("/admin/voices/pin", json={"version": "v2", "language": "zh-CN"})

    assert voice_for(community="discord:1", language="zh-CN") == "tiny+v1"
    assert voice_for(community="discord:2", language="zh-CN", theirs="x") == "tiny+v2"
    assert voice_for(community="discord:2") == "tiny"
    listed = http.get("/admin/voices").json()["pinned"]
    assert [(each["community"], each["version"], each["speaks"]) for each in listed] == [
        ("discord:1", "v1", True),
        ("", "v2", True),
    ]
    memory = http.get("/readyz").json()["memory"]
    assert {each["voice"]: each["mib"] > 100 for each in memory["voices"]} == dict.fromkeys(
        ("tiny", "tiny+v1", "tiny+v2"), True
    )

    assert http.post("/admin/voices/unpin", json=SERVER).json() == {"unpinned": "v1", "voice": "tiny"}
    assert http.post("/admin/voices/unpin", json={"language": "zh-CN"}).json()["unpinned"] == "v2"
    assert voice_for(community="discord:1", language="zh-CN") == "tiny"
    assert store.pins() == {}
    assert "one is to: nobody" in http.post("/admin/voices/unpin", json=SERVER).json()["error"]["message"]


def test_a_voice_that_cannot_be_noted_leaves_the_one_before(
    http: httpx.Client, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In memory as on disk, which is full."""

    def full(self: AdapterStore, *args: object, **more: object) -> None:
        raise ServiceTrouble("The disk is full.")

    http.post("/admin/voices/pin", json={"version": "v1", **SERVER})
    http.post("/admin/voices/canary", json={"version": "v2", "share": 0.99})
    with monkeypatch.context() as patch:
        patch.setattr(AdapterStore, "pin", full)
        patch.setattr(AdapterStore, "try_out", full)
        assert http.post("/admin/voices/pin", json={"version": "base", **SERVER}).status_code == 503
        assert http.post("/admin/voices/canary", json={"version": "v2", "share": 0.1}).status_code == 503

    asked = {"model": "tiny", "messages": ASKED, "max_tokens": 1}
    assert client.chat.completions.create(**asked, metadata=SERVER).model == "tiny+v1"
    assert http.get("/admin/voices").json()["canary"]["speaks"]
    http.post("/admin/voices/unpin", json=SERVER)
    http.post("/admin/voices/canary/stop", json={})


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        ({"version": "v1"}, 400, "for which --community or --language"),
        ({"version": "v1", "community": "Bakery"}, 400, "PLATFORM:ID"),
        ({"version": "v1", "language": "fr"}, 400, "one of en, zh-CN, zh-TW"),
        ({"version": "nowhere", **SERVER}, 400, "no adapter"),
        ({"version": "refused", **SERVER}, 403, "did not pass its gate"),
        ({"version": "v2", **SERVER}, 400, "is on trial"),
    ],
)
def test_what_must_not_be_pinned_is_refused(http: httpx.Client, asked: dict, status: int, said: str) -> None:
    http.post("/admin/voices/canary", json={"version": "v2", "share": 0.5})

    found = http.post("/admin/voices/pin", json=asked)

    assert (found.status_code, said in found.json()["error"]["message"]) == (status, True)
    assert http.get("/admin/voices").json()["pinned"] == []
    http.post("/admin/voices/canary/stop", json={})


def test_a_pinned_voice_that_learned_what_was_forgotten_leaves_at_once(
    house: House, http: httpx.Client, store: AdapterStore
) -> None:
    for version, language in (("v1", "en"), ("v2", "zh-TW")):
        http.post("/admin/voices/pin", json={"version": version, "language": language})
    assert "is pinned" in http.post("/admin/voices/canary", json={"version": "v1"}).json()["error"]["message"]
    store.taint("v1", "somebody was forgotten")

    house.follow_forgotten()

    assert [each["version"] for each in house.voices()["pinned"]] == ["v2"]
    assert http.get("/readyz").json()["voices_loaded"] == 2
    http.post("/admin/voices/unpin", json={"language": "zh-TW"})
    store.folder("v1").with_name("v1.tainted.json").unlink()


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        ({"version": "v1", "share": 0}, 400, "above 0 and below 1"),
        ({"version": "v1", "share": 1}, 400, "above 0 and below 1"),
        ({"version": "base"}, 400, "bare base cannot be a canary"),
        ({"version": "nowhere"}, 400, "no adapter"),
        ({"version": "refused"}, 403, "did not pass its gate"),
        ({"version": "v2"}, 400, "current voice already"),
    ],
)
def test_what_must_not_be_a_canary_is_refused(http: httpx.Client, asked: dict, status: int, said: str) -> None:
    http.post("/admin/voices/promote", json={"version": "v2"})

    found = http.post("/admin/voices/canary", json=asked)

    assert (found.status_code, said in found.json()["error"]["message"]) == (status, True)
    assert http.get("/admin/voices").json()["canary"] is None
    http.post("/admin/voices/promote", json={"version": "base"})


@pytest.mark.parametrize(("version", "status"), [("refused", 403), ("nowhere", 400)])
def test_what_did_not_pass_or_is_not_there_cannot_speak(http: httpx.Client, version: str, status: int) -> None:
    found = http.post("/admin/voices/promote", json={"version": version})

    assert found.status_code == status
    assert http.get("/admin/voices").json()["voice"] == "tiny"


def test_an_adapter_changed_on_disk_cannot_speak(http: httpx.Client, store: AdapterStore) -> None:
    path = store.gguf("v2")
    kept = path.read_bytes()
    path.write_bytes(kept[:-1] + b"x")

    found = http.post("/admin/voices/promote", json={"version": "v2"})

    assert (found.status_code, "changed" in found.json()["error"]["message"]) == (503, True)
    path.write_bytes(kept)


def test_a_restart_resumes_the_stored_voice_or_falls_back(weights: Weights, store: AdapterStore) -> None:
    store.point("v1")
    store.point("v2")
    path: Path = store.gguf("v2")
    kept = path.read_bytes()
    for damaged, expected in ((False, "tiny+v2"), (True, "tiny+v1")):
        path.write_bytes(b"damaged" if damaged else kept)
        engine = Engine(weights.path, base="tiny", base_sha256=weights.sha256, streams=1, context_tokens=512)

        problems = Voices(engine, store).resume()

        assert (engine.voice, len(problems)) == (expected, int(damaged))
        engine.close()
    path.write_bytes(kept)


def test_a_restart_resumes_the_canary_or_serves_without_it(weights: Weights, store: AdapterStore) -> None:
    store.point(None)
    store.try_out("v1", 0.5, now=datetime.now(UTC))
    path: Path = store.gguf("v1")
    kept = path.read_bytes()
    for damaged, expected in ((False, "v1"), (True, None)):
        path.write_bytes(b"damaged" if damaged else kept)
        engine = Engine(weights.path, base="tiny", base_sha256=weights.sha256, streams=1, context_tokens=512)
        voices = Voices(engine, store)

        problems = voices.resume()

        assert (engine.voice, engine.canary) == ("tiny", expected)
        assert ["'v1' answers nobody" in each for each in problems] == [True] * damaged
        assert voices.listing()["canary"]["speaks"] is not damaged
        engine.close()
    path.write_bytes(kept)
    store.end_canary()


def test_a_restart_resumes_pinned_voices_or_serves_without_them(weights: Weights, store: AdapterStore) -> None:
    store.pin("v1", Audience("discord:1"))
    store.pin(None, Audience(language="zh-CN"))
    store.point("v2")
    path: Path = store.gguf("v1")
    kept = path.read_bytes()
    for damaged in (False, True):
        path.write_bytes(b"damaged" if damaged else kept)
        engine = Engine(weights.path, base="tiny", base_sha256=weights.sha256, streams=1, context_tokens=512)
        voices = Voices(engine, store)

        problems = voices.resume()

        own: dict[Audience, str | None] = {} if damaged else {Audience("discord:1"): "v1"}
        assert (engine.voice, engine.pinned) == ("tiny+v2", {**own, Audience(language="zh-CN"): None})
        assert ["'v1' does not speak to 'discord:1'" in each for each in problems] == [True] * damaged
        assert [each["speaks"] for each in voices.listing()["pinned"]] == [not damaged, True]
        engine.close()
    path.write_bytes(kept)
    for audience in store.pins():
        store.unpin(audience)
    store.point(None)


SCHEMA = {
    "type": "object",
    "properties": {
        "things": {
            "type": "array",
            "maxItems": 3,
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "maxLength": 12},
                    "kind": {"type": "string", "enum": ["tool", "place"]},
                },
                "required": ["name", "kind"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["things"],
    "additionalProperties": False,
}


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("seed", range(2))
def test_an_answer_fits_the_schema_that_was_asked_for_however_hot(client: openai.OpenAI, seed: int) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "things", "schema": SCHEMA}}

    answer = client.chat.completions.create(
        model="tiny", messages=ASKED, max_tokens=200, temperature=1.5, seed=seed, response_format=form
    )

    found = json.loads(answer.choices[0].message.content)
    assert list(found) == ["things"]
    assert len(found["things"]) <= 3
    assert {each["kind"] for each in found["things"]} <= {"tool", "place"}


@pytest.mark.parametrize(
    "form", [{"type": "json_schema"}, {"type": "json_schema", "json_schema": {"schema": {"a": 1}}}]
)
def test_a_schema_that_is_none_is_refused(client: openai.OpenAI, form: dict) -> None:
    with pytest.raises(openai.BadRequestError, match="schema"):
        client.chat.completions.create(model="tiny", messages=ASKED, max_tokens=20, response_format=form)
