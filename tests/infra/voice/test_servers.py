"""Servers that are not ours: a vLLM, as its documentation and its answers have it, and any OpenAI-compatible one.

The vLLM double keeps to what vLLM does with its dynamic LoRA API: plain text for success, an error object with 400 for
what is loaded already or not to be found, 404 for what it cannot unload, and no such page at all where it was started
without VLLM_ALLOW_RUNTIME_LORA_UPDATING.
"""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from infra.adapters import GGUF, AdapterStore, Aim
from infra.cli.compose import open_fleet
from infra.errors import ServiceTrouble
from infra.settings import load_settings
from infra.voice import fleet as fleet_module
from infra.voice.api import install, routes
from infra.voice.chat import Sampling, Turn
from infra.voice.engine import lot
from infra.voice.fleet import Fleet
from tests.infra.running import served

BASE = "smollm2-135m-instruct"
SERVED = "org/served-base"


def refusal(message: str, status: int) -> JSONResponse:
    found = {"message": message, "type": "BadRequestError", "param": None, "code": status}
    return JSONResponse({"error": found}, status_code=status)


class Vllm:
    """One vLLM server: what it has loaded, and what it was asked."""

    def __init__(self, *, dynamic: bool = True) -> None:
        self.loaded: dict[str, str] = {}
        self.asked: list[dict[str, Any]] = []
        self.app = FastAPI()
        self.app.include_router(self._speaking())
        if dynamic:
            self.app.include_router(self._adapters())

    def _speaking(self) -> APIRouter:
        router = APIRouter()

        @router.get("/v1/models")
        def models() -> dict[str, Any]:
            return {"object": "list", "data": [{"id": name, "object": "model"} for name in (SERVED, *self.loaded)]}

        @router.post("/v1/chat/completions")
        async def complete(request: Request) -> Response:
            body = await request.json()
            self.asked.append(body)
            name = body["model"]
            if name not in {SERVED, *self.loaded}:
                return refusal(f"The model `{name}` does not exist.", 404)
            if not body.get("stream"):
                return JSONResponse({"model": name, "choices": [{"message": {"content": "A"}}]})
            chunk = {"model": name, "choices": [{"delta": {"content": "Warm."}, "finish_reason": "stop"}]}
            return PlainTextResponse(f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n", media_type="text/event-stream")

        return router

    def _adapters(self) -> APIRouter:
        router = APIRouter()

        @router.post("/v1/load_lora_adapter")
        async def load(request: Request) -> Response:
            asked = await request.json()
            name, path = asked["lora_name"], asked["lora_path"]
            if name in self.loaded:
                return refusal(f"The lora adapter '{name}' has already been loaded.", 400)
            if not (Path(path) / "adapter_config.json").is_file():
                return refusal(f"Loading lora {name} failed: No adapter found for {path}", 404)
            self.loaded[name] = path
            return PlainTextResponse(f"Success: LoRA adapter '{name}' added successfully.")

        @router.post("/v1/unload_lora_adapter")
        async def unload(request: Request) -> Response:
            name = (await request.json())["lora_name"]
            if name not in self.loaded:
                return refusal(f"The lora adapter '{name}' cannot be found.", 404)
            del self.loaded[name]
            return PlainTextResponse(f"Success: LoRA adapter '{name}' removed successfully.")

        return router


@pytest.fixture
def store(home: Path) -> AdapterStore:
    made = AdapterStore(home / "data" / "adapters")
    for version in ("v1", "v2", "v3", "torn"):
        staged = made.stage(version)
        (staged / GGUF).write_bytes(version.encode())
        (staged / "peft").mkdir()
        if version != "torn":
            (staged / "peft" / "adapter_config.json").write_text("{}", encoding="utf-8")
        made.publish(version, {"verdict": {"passed": True}})
    return made


@contextmanager
def speaking_through(home: Path, urls: list[str], more: str = "") -> Iterator[Fleet]:
    with (home / "understudy.toml").open("a", encoding="utf-8") as file:
        file.write(f'[voice]\nurls = {json.dumps(urls)}\nname = "{SERVED}"\n{more}')
    fleet = open_fleet(load_settings(home))
    try:
        yield fleet
    finally:
        fleet.close()


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[list[Vllm], list[str]]]:
    monkeypatch.setattr(fleet_module, "CHECK_S", 0.05)
    servers = [Vllm(), Vllm()]
    with served(servers[0].app) as first, served(servers[1].app) as second:
        yield servers, [first, second]


def heard(fleet: Fleet, conversation: str = "") -> str:
    async def listen() -> str:
        pieces = fleet.speaker().stream([Turn("user", "How warm?")], Sampling(), conversation=conversation)
        *_, last = [piece async for piece in pieces]
        return last.voice or last.finish.voice

    return asyncio.run(listen())


def test_vllm_loads_everywhere_and_is_asked_for_the_adapter_by_name(
    home: Path, store: AdapterStore, two: tuple[list[Vllm], list[str]]
) -> None:
    servers, urls = two
    with speaking_through(home, urls, f'vllm = "{home}/data/adapters"\n') as fleet:
        assert heard(fleet) == SERVED
        fleet.promote("v1")

        assert [server.loaded for server in servers] == [{f"{BASE}+v1": f"{home}/data/adapters/v1/peft"}] * 2
        assert {heard(fleet) for _ in range(4)} == {f"{BASE}+v1"}
        fleet.promote("v2")
        assert {heard(fleet) for _ in range(4)} == {f"{BASE}+v2"}
        fleet.rollback()
        assert heard(fleet) == f"{BASE}+v1"
        fleet.promote("v3")
        fleet.promote("v2")

    assert [set(server.loaded) for server in servers] == [{f"{BASE}+v2", f"{BASE}+v3"}] * 2


def test_vllm_has_a_canary_answer_its_share(home: Path, store: AdapterStore, two: tuple[list[Vllm], list[str]]) -> None:
    tried = next(str(n) for n in range(100) if lot(f"{BASE}+v2", str(n)) < 0.5)
    others = next(str(n) for n in range(100) if lot(f"{BASE}+v2", str(n)) > 0.5)
    with speaking_through(home, two[1], f'vllm = "{home}/data/adapters"\n') as fleet:
        fleet.promote("v1")
        fleet.start_canary("v2", 0.5, now=datetime.now(UTC))

        assert [heard(fleet, name) for name in (tried, others)] == [f"{BASE}+v2", f"{BASE}+v1"]
        assert fleet.listing()["canary"]["voice"] == f"{BASE}+v2"
        fleet.stop_canary("v2")
        assert heard(fleet, tried) == f"{BASE}+v1"


def test_vllm_that_cannot_find_an_adapter_leaves_all_as_they_were(
    home: Path, store: AdapterStore, two: tuple[list[Vllm], list[str]]
) -> None:
    servers, urls = two
    with speaking_through(home, urls, f'vllm = "{home}/data/adapters"\n') as fleet:
        fleet.promote("v1")
        with pytest.raises(ServiceTrouble, match=r"No adapter found.*VLLM_ALLOW_RUNTIME_LORA_UPDATING"):
            fleet.promote("torn")

        assert (heard(fleet), store.current()) == (f"{BASE}+v1", "v1")
        assert [set(server.loaded) for server in servers] == [{f"{BASE}+v1"}] * 2


def test_vllm_that_was_restarted_gets_its_adapter_again_before_it_is_asked(
    home: Path, store: AdapterStore, two: tuple[list[Vllm], list[str]]
) -> None:
    servers, urls = two
    with speaking_through(home, urls, f'vllm = "{home}/data/adapters"\n') as fleet:
        fleet.promote("v1")
        servers[0].loaded.clear()

        assert {heard(fleet) for _ in range(6)} == {f"{BASE}+v1"}
        deadline = datetime.now(UTC).timestamp() + 20
        while not servers[0].loaded and datetime.now(UTC).timestamp() < deadline:
            heard(fleet)
        assert set(servers[0].loaded) == {f"{BASE}+v1"}


def test_vllm_without_its_dynamic_api_refuses_in_a_sentence(home: Path, store: AdapterStore) -> None:
    with (
        served(Vllm(dynamic=False).app) as url,
        speaking_through(home, [url], f'vllm = "{home}/data/adapters"\n') as fleet,
        pytest.raises(ServiceTrouble, match="HTTP status 404.*VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"),
    ):
        fleet.promote("v1")


def test_somebody_elses_server_speaks_but_takes_no_adapter(home: Path, store: AdapterStore) -> None:
    with served(Vllm().app) as url, speaking_through(home, [url]) as fleet:
        with pytest.raises(ServiceTrouble, match=f"{url}: it takes no adapters"):
            fleet.promote("v1")

        assert (heard(fleet), store.current()) == (SERVED, None)
        app = FastAPI()
        install(app, token=None)
        app.include_router(routes(fleet))
        with served(app) as twin:
            found = httpx.get(f"{twin}/readyz").json()
            refused = httpx.post(f"{twin}/admin/voices/promote", json={"version": "v1"})
        assert (found["status"], found["servers"][0]["state"]) == ("ready", "answers")
        assert (refused.status_code, "takes no adapters" in refused.text) == (503, True)


def test_a_twin_without_a_server_that_answers_is_not_ready(home: Path, store: AdapterStore) -> None:
    with speaking_through(home, ["http://127.0.0.1:9"]) as fleet:
        app = FastAPI()
        install(app, token=None)
        app.include_router(routes(fleet))
        with served(app) as twin:
            found = httpx.get(f"{twin}/readyz")
        assert (found.status_code, found.json()["servers"][0]["state"]) == (503, "rests")
        with pytest.raises(ServiceTrouble, match="No voice server answers"):
            fleet.promote("v1")
        assert store.aim() == Aim()
