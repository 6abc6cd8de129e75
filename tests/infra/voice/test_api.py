"""The voice over HTTP, as OpenAI's own client sees it, on a real socket."""

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import openai
import pytest
from fastapi import FastAPI

from infra.adapters import CARD, GGUF, AdapterStore
from infra.cli.operations import House
from infra.errors import UserMistake
from infra.files import write_json
from infra.settings import load_settings
from infra.voice.api import Voices, install, routes
from infra.voice.engine import Engine, lot
from infra.voice.weights import Weights
from memory.journal import Journal
from tests.infra.running import served
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
