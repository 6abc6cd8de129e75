"""Three voice servers as three processes on loopback, under one twin's orders: swaps, refusals, deaths and returns."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.adapters import GGUF, AdapterStore
from infra.cli.compose import open_fleet
from infra.cli.setup import check_voice_servers
from infra.errors import Refused, ServiceTrouble
from infra.files import sha256_of
from infra.settings import Settings, child_environment, load_settings
from infra.voice import fleet as fleet_module
from infra.voice.chat import Sampling, Turn
from infra.voice.engine import lot
from infra.voice.fleet import Fleet
from infra.voice.weights import Weights
from tests.people import NOON
from tests.weights import write_adapter

TOKEN = "a-token-of-these-three-hosts"
ASKED = [Turn("user", "Name a bread.")]
WAIT_S = 60.0


def soon(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@dataclass
class Host:
    """A machine with a voice server."""

    home: Path
    process: subprocess.Popen[bytes]
    url: str = ""

    @classmethod
    def start(cls, home: Path, port: int = 0) -> "Host":
        command = [sys.executable, "-m", "infra.cli.main", "serve", "--voice", "--port", str(port)]
        with (home / "out.log").open("ab") as log:
            process = subprocess.Popen([*command, "--home", str(home)], stdout=log, stderr=log, env=child_environment())
        return cls(home, process)

    def await_address(self) -> None:
        def announced() -> bool:
            assert self.process.poll() is None, (self.home / "out.log").read_text()
            address = self.home / "data" / "run" / "api.json"
            return address.exists() and json.loads(address.read_text())["pid"] == self.process.pid

        soon(announced)
        self.url = json.loads((self.home / "data" / "run" / "api.json").read_text())["url"]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def again(self) -> None:
        """Come back at the same address."""
        self.process = Host.start(self.home, port=int(self.url.rpartition(":")[2])).process

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        return httpx.request(
            method, self.url + path, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30, **options
        )

    @property
    def says(self) -> dict[str, Any]:
        return dict(self.call("GET", "/readyz").json())

    @property
    def store(self) -> AdapterStore:
        return AdapterStore(self.home / "data" / "adapters")


def settings_text(more: str) -> str:
    return f'[creator]\nname = "Ada"\n{more}'


def published(store: AdapterStore, weights: Weights, version: str, *, seed: int, base: str | None = None) -> Path:
    """A version that passed, and was tried on this machine."""
    path = write_adapter(weights, store.stage(version) / GGUF, seed=seed, base=base)
    store.publish(version, {"base_sha256": weights.sha256, "verdict": {"passed": True}})
    store.remember_tried(version, weights.sha256)
    return path


@pytest.fixture(scope="module")
def store(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> AdapterStore:
    """The twin's store."""
    made = AdapterStore(tmp_path_factory.mktemp("twin") / "data" / "adapters")
    for version, seed, base in (("v1", 1, None), ("v2", 2, None), ("alien", 3, "0" * 64)):
        published(made, weights, version, seed=seed, base=base)
    return made


@pytest.fixture(scope="module")
def hosts(weights: Weights, store: AdapterStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Host]]:
    """Three of them, which start at once, with one model file; the trials of the adapters are taken as done there."""
    made = []
    for name in ("one", "two", "three"):
        home = tmp_path_factory.mktemp(name)
        api = f'[api]\nhost = "0.0.0.0"\ntoken = "{TOKEN}"\n[voice]\nstreams = 2\nthreads = 1\ncontext_tokens = 1024\n'
        (home / "understudy.toml").write_text(settings_text(api), encoding="utf-8")
        settings = load_settings(home)
        models = settings.data_folder / "models" / settings.models.base
        shutil.copytree(weights.path.parent, models, copy_function=os.link)
        (settings.data_folder / "adapters").mkdir()
        for tried in store.folder("v1").parent.glob("*.tried.json"):
            shutil.copy(tried, settings.data_folder / "adapters")
        made.append(Host.start(home))
    for host in made:
        host.await_address()
    yield made
    for host in made:
        host.process.send_signal(signal.SIGTERM)
    for host in made:
        host.process.wait(20)


@pytest.fixture(scope="module")
def settings(store: AdapterStore, hosts: list[Host]) -> Settings:
    home = store.folder("v1").parent.parent.parent
    voice = f'[voice]\nurls = {json.dumps([host.url for host in hosts])}\ntoken = "{TOKEN}"\n'
    (home / "understudy.toml").write_text(settings_text(voice), encoding="utf-8")
    return load_settings(home)


@pytest.fixture
def fleet(settings: Settings, hosts: list[Host], monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """The servers as a twin that has just started sees them; all of them are up."""
    monkeypatch.setattr(fleet_module, "CHECK_S", 0.1)
    for host in hosts:
        if host.process.poll() is not None:
            host.again()
    opened = open_fleet(settings)
    soon(lambda: states(opened) == ["answers"] * 3)
    yield opened
    opened.close()


def states(fleet: Fleet) -> list[object]:
    return [server["state"] for server in fleet.ready()["servers"]]


def heard(fleet: Fleet, conversation: str = "") -> str:
    """Who answers."""

    async def listen() -> str:
        pieces = fleet.speaker().stream(ASKED, Sampling(temperature=0, max_tokens=4), conversation=conversation)
        *_, last = [piece async for piece in pieces]
        assert last.finish is not None
        return last.finish.voice

    return asyncio.run(listen())


def test_one_order_reaches_all_and_bytes_travel_once(fleet: Fleet, hosts: list[Host], store: AdapterStore) -> None:
    base = fleet.base
    fleet.promote("v1")

    assert [host.says["voice"] for host in hosts] == [f"{base}+v1"] * 3
    assert {sha256_of(host.store.gguf("v1")) for host in hosts} == {sha256_of(store.gguf("v1"))}
    assert [heard(fleet) for _ in range(3)] == [f"{base}+v1"] * 3
    assert not [path for host in hosts for path in host.store.received.iterdir()]
    there = [host.store.gguf("v1").stat().st_mtime_ns for host in hosts]

    fleet.rollback()
    assert [host.says["voice"] for host in hosts] == [base] * 3
    fleet.rollback()
    assert ([host.says["voice"] for host in hosts], store.current()) == ([f"{base}+v1"] * 3, "v1")
    assert [host.store.gguf("v1").stat().st_mtime_ns for host in hosts] == there


def test_a_canary_answers_the_same_conversations_on_every_server(fleet: Fleet, hosts: list[Host]) -> None:
    fleet.promote("v1")
    fleet.start_canary("v2", 0.5, now=NOON)

    on_trial = f"{fleet.base}+v2"
    tried = next(str(n) for n in range(100) if lot(on_trial, str(n)) < 0.5)
    others = next(str(n) for n in range(100) if lot(on_trial, str(n)) > 0.5)
    assert [host_voice(host, tried) for host in hosts] == [on_trial] * 3
    assert [host_voice(host, others) for host in hosts] == [f"{fleet.base}+v1"] * 3

    assert fleet.stop_canary("v2") == "v2"
    assert [(host.says["aim"]["canary"], host.store.canary()) for host in hosts] == [("", None)] * 3


def host_voice(host: Host, conversation: str) -> str:
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "user": conversation}
    return str(host.call("POST", "/v1/chat/completions", json=body).json()["model"])


def test_if_one_refuses_all_speak_on_as_before_and_it_is_said_who_and_why(
    fleet: Fleet, hosts: list[Host], weights: Weights
) -> None:
    fleet.promote("v1")
    shutil.rmtree(hosts[1].home / "data" / "adapters" / "v2", ignore_errors=True)
    published(hosts[1].store, weights, "v2", seed=99)

    with pytest.raises(ServiceTrouble, match="all speak on as before") as refusal:
        fleet.promote("v2")

    assert f"{hosts[1].url}: Here is another adapter named 'v2'" in str(refusal.value)
    assert hosts[0].url not in str(refusal.value)
    assert fleet.store.current() == "v1"
    assert [host.says["aim"] for host in hosts] == [{"version": "v1", "canary": "", "share": 0.0}] * 3
    assert states(fleet) == ["answers"] * 3
    shutil.rmtree(hosts[1].store.folder("v2"))


def test_an_adapter_for_another_base_reaches_nobody(fleet: Fleet, hosts: list[Host]) -> None:
    with pytest.raises(ServiceTrouble, match="trained on base"):
        fleet.promote("alien")

    assert not [host for host in hosts if "alien" in host.store.versions()]
    assert not [path for host in hosts for path in host.store.received.iterdir()]


def test_what_may_not_speak_is_not_even_sent(fleet: Fleet, store: AdapterStore, hosts: list[Host]) -> None:
    store.taint("alien", "somebody was forgotten")
    with pytest.raises(Refused, match="tainted"):
        fleet.promote("alien")
    (store.folder("alien").with_name("alien.tainted.json")).unlink()


def test_bytes_are_taken_only_under_their_own_hash_with_the_token_and_within_bounds(
    fleet: Fleet, hosts: list[Host], store: AdapterStore
) -> None:
    host, raw = hosts[0], store.gguf("v2").read_bytes()
    right = sha256_of(store.gguf("v2"))

    assert httpx.put(f"{host.url}/admin/adapters/{right}", content=raw).status_code == 401
    wrong = host.call("PUT", f"/admin/adapters/{'0' * 64}", content=raw)
    assert (wrong.status_code, "send them again" in wrong.text) == (400, True)
    assert host.call("PUT", f"/admin/adapters/{right}", content=raw[:-9]).status_code == 400
    assert host.call("PUT", "/admin/adapters/..%2f..%2fetc", content=raw).status_code in {400, 404}
    odd = {"version": "../v9", "sha256": right, "verdict": {"passed": True}}
    assert host.call("POST", "/admin/voices/prepare", json=odd).status_code == 400
    assert not list(host.store.received.iterdir())


def test_a_server_that_dies_between_the_phases_is_left_behind_and_brought_along_when_it_is_back(
    fleet: Fleet, hosts: list[Host], store: AdapterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.promote("v1")
    point = store.__class__.point

    def pointed_while_one_dies(self: AdapterStore, version: str | None) -> None:
        hosts[0].kill()
        point(self, version)

    monkeypatch.setattr(AdapterStore, "point", pointed_while_one_dies)
    fleet.promote("v2")
    monkeypatch.undo()
    monkeypatch.setattr(fleet_module, "CHECK_S", 0.1)

    assert [host.says["voice"] for host in hosts[1:]] == [f"{fleet.base}+v2"] * 2
    assert {heard(fleet) for _ in range(4)} == {f"{fleet.base}+v2"}
    assert hosts[0].store.current() == "v1"

    hosts[0].again()
    soon(lambda: states(fleet) == ["answers"] * 3)
    assert (hosts[0].says["voice"], hosts[0].store.current()) == (f"{fleet.base}+v2", "v2")


def test_a_server_killed_before_the_first_token_costs_no_answer(
    fleet: Fleet, hosts: list[Host], settings: Settings
) -> None:
    fleet.promote(None)
    os.kill(hosts[0].process.pid, signal.SIGSTOP)

    async def ask_and_kill() -> list[str]:
        asked = [asyncio.create_task(asyncio.to_thread(heard, fleet, str(n))) for n in range(6)]
        await asyncio.sleep(0.3)
        hosts[0].kill()
        return await asyncio.gather(*asked)

    assert asyncio.run(ask_and_kill()) == [fleet.base] * 6
    assert states(fleet)[0] == "rests"
    assert fleet.ready()["status"] == "ready"

    with pytest.raises(ServiceTrouble, match="2 of 3 answer") as said:
        check_voice_servers(settings)
    assert hosts[0].url in str(said.value)
