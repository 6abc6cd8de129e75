"""Kill -9 of the process that answers: taught, swapped, amid answers; and of who asked for the swap."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest

from infra.adapters import GGUF
from infra.cli.compose import adapter_store, open_journal
from infra.cli.run import answering, api_child
from infra.errors import ServiceTrouble
from infra.processes import Supervisor
from infra.remote import Remote
from infra.settings import Settings, child_environment, load_settings
from infra.voice.chat import Piece, Sampling, Turn
from infra.voice.client import MovingVoice
from infra.voice.weights import Weights
from memory.elsewhere import RecallElsewhere
from memory.messages import Kind
from tests.endless import ENDLESS
from tests.infra.running import lend_weights, understudy
from tests.weights import write_adapter

KILLS = 3
VERSIONS = ("20260101T000000Z-aaaaaaaa", "20260102T000000Z-bbbbbbbb")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, weights: Weights) -> Settings:
    """A home whose base model is prepared and whose store has two voices that may speak."""
    home = tmp_path_factory.mktemp("killed")
    understudy(home, "init", "--yes", "--creator", "Ada")
    lend_weights(home, weights)
    found = load_settings(home)
    store = adapter_store(found)
    for seed, version in enumerate(VERSIONS):
        write_adapter(weights, store.stage(version) / GGUF, seed=seed)
        store.publish(version, {"verdict": {"passed": True, "reasons": []}})
    return found


@contextmanager
def serving(settings: Settings) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """The API as a process of its own; whoever uses it may kill it."""
    address = settings.data_folder / "run" / "api.json"
    address.unlink(missing_ok=True)
    log = settings.home / "serve.log"
    command = [sys.executable, "-m", "infra.cli.main", "serve", "--home", str(settings.home), "--port", "0"]
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=child_environment())
    try:
        while not address.exists():
            assert process.poll() is None, log.read_text(encoding="utf-8")
            time.sleep(0.05)
        yield json.loads(address.read_text(encoding="utf-8"))["url"], process
    finally:
        process.kill()
        process.wait()


@dataclass
class Talkers:
    """Two who talk to the API until it is gone: the creator teaches, a member says thanks again until it is heard."""

    taught: list[int] = field(default_factory=list)
    tried: int = 0
    thanked: list[int] = field(default_factory=list)

    def teach(self, url: str) -> None:
        self.tried += 1
        body = {"question": f"How warm is oven {self.tried}?", "answer": f"{self.tried} degrees."}
        httpx.post(f"{url}/api/teach", json=body, timeout=10).raise_for_status()
        self.taught.append(self.tried)

    def thank(self, url: str) -> None:
        number = len(self.thanked)
        body = {"question": "Thanks!", "conversation": "drill", "message": f"thanks-{number}"}
        heard = httpx.post(f"{url}/api/ask", json=body, timeout=10)
        if '"answer"' in heard.text:
            self.thanked.append(number)

    def until_it_is_gone(self, url: str) -> list[threading.Thread]:
        def repeat(act: Any) -> None:
            try:
                while True:
                    act(url)
            except httpx.HTTPError:
                return

        threads = [threading.Thread(target=repeat, args=(act,)) for act in (self.teach, self.thank)]
        for thread in threads:
            thread.start()
        return threads


@pytest.mark.timeout(600)
def test_what_the_api_acknowledged_survives_its_death_and_nothing_is_doubled(settings: Settings) -> None:
    rng, talkers = random.Random(5), Talkers()

    for _ in range(KILLS):
        with serving(settings) as (url, process):
            threads = talkers.until_it_is_gone(url)
            time.sleep(rng.uniform(0.3, 1.5))
            process.kill()
            for thread in threads:
                thread.join()

    journal = open_journal(settings)
    questions = [exchange.question for exchange in journal.exchanges()]
    said = [event for _, event in journal.events(kind=Kind.MESSAGE, limit=10**5)]
    thanks = [event.message_id for event in said if event.message_id.startswith("thanks-")]
    journal.close()
    assert len(talkers.taught) > KILLS
    assert len(questions) == len(set(questions)) <= talkers.tried
    assert {f"How warm is oven {number}?" for number in talkers.taught} <= set(questions)
    assert {f"thanks-{number}" for number in talkers.thanked} <= set(thanks)
    assert len(thanks) == len(set(thanks))
    with serving(settings) as (url, _):
        last = httpx.get(f"{url}/api/recall", params={"question": f"How warm is oven {talkers.taught[-1]}?"}).json()
    assert last["notes"][0]["text"] == f"{talkers.taught[-1]} degrees."


def spoken(url: str) -> str:
    """What the API says its voice is, after it has said a word with it."""
    body = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 4}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).raise_for_status().json()
    return str(answer["model"])


def promoting(url: str, version: str) -> "subprocess.Popen[bytes]":
    """A process like the worker's that asks for a swap."""
    program = f"import httpx; httpx.post('{url}/admin/voices/promote', json={{'version': '{version}'}}, timeout=60)"
    return subprocess.Popen([sys.executable, "-c", program], env=child_environment(), stderr=subprocess.DEVNULL)


@pytest.mark.timeout(600)
def test_an_api_killed_during_a_swap_comes_back_with_a_whole_voice(settings: Settings) -> None:
    rng, store = random.Random(6), adapter_store(settings)
    allowed: set[str | None] = {None}

    for number in range(KILLS):
        with serving(settings) as (url, process):
            assert store.current() in allowed
            assert (store.current() or "") in spoken(url)
            allowed = {store.current(), VERSIONS[number % 2]}
            asking = threading.Thread(target=swap_until_it_is_gone, args=(url, VERSIONS[number % 2]))
            asking.start()
            time.sleep(rng.uniform(0.0, 0.4))
            process.kill()
            asking.join()

    with serving(settings) as (url, _):
        assert store.current() in allowed
        swap_until_it_is_gone(url, VERSIONS[0])
        assert store.current() == VERSIONS[0]
        assert VERSIONS[0] in spoken(url)


def swap_until_it_is_gone(url: str, version: str) -> None:
    try:
        httpx.post(f"{url}/admin/voices/promote", json={"version": version}, timeout=60)
    except httpx.HTTPError:
        return


@pytest.mark.timeout(300)
def test_a_worker_killed_while_it_waits_for_the_swap_leaves_a_voice_that_speaks(settings: Settings) -> None:
    rng, store = random.Random(7), adapter_store(settings)

    with serving(settings) as (url, _):
        for number in range(KILLS):
            worker = promoting(url, VERSIONS[number % 2])
            time.sleep(rng.uniform(0.2, 0.6))
            os.kill(worker.pid, signal.SIGKILL)
            worker.wait()

            # A swap that had begun goes on, on a busy machine for seconds: then what speaks is what the pointer says.
            deadline = time.monotonic() + 20
            while (store.current() or "") not in spoken(url):
                assert time.monotonic() < deadline
                time.sleep(0.2)


@contextmanager
def supervised(settings: Settings) -> Iterator[list[str]]:
    """The API as `up` keeps it running; what `up` says of it."""
    said: list[str] = []
    api = api_child(settings, port=0)
    supervisor = Supervisor([api], say=said.append)
    (settings.data_folder / "run" / "api.json").unlink(missing_ok=True)
    answering(settings, api)
    supervisor.open()
    try:
        yield said
    finally:
        supervisor.close()


@pytest.mark.timeout(300)
async def test_whoever_waits_for_a_voice_that_is_killed_is_answered_by_the_next(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has heard something is told that it broke off; who has not, a recall too, asks where it comes back, once."""
    monkeypatch.setenv("UNDERSTUDY_VOICE__STREAMS", "1")
    asked = [Turn("user", "Tell me about bread.")]
    voice = MovingVoice(lambda: Remote.find(settings), model="tiny")
    memory = RecallElsewhere(lambda: Remote.find(settings))

    async def whole() -> list[Piece]:
        return [piece async for piece in voice.stream(asked, Sampling(max_tokens=8))]

    with supervised(settings) as said:
        await asyncio.to_thread(memory.recall, "How warm?")
        address = settings.data_folder / "run" / "api.json"
        killed = json.loads(address.read_text(encoding="utf-8"))
        async with aclosing(voice.stream(asked, replace(ENDLESS, max_tokens=1000))) as speaking:
            await anext(speaking)
            waiting = asyncio.create_task(whole())
            while not (await asyncio.to_thread(httpx.get, f"{killed['url']}/readyz")).json()["waiting"]:
                await asyncio.sleep(0.01)
            os.kill(killed["pid"], signal.SIGKILL)
            with pytest.raises(ServiceTrouble, match="broke off"):
                _ = [piece async for piece in speaking]
        await asyncio.to_thread(memory.recall, "How warm is the oven?")
        pieces = await waiting
        assert json.loads(address.read_text(encoding="utf-8"))["pid"] != killed["pid"]

    assert [piece.finish is not None for piece in pieces].count(True) == 1
    assert said == ["api ended with status -9; starting it again."]
    assert not address.exists()
