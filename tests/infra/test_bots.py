"""`understudy up` with both platforms as a user runs it: real processes, real libraries, the real voice and memory."""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from infra.cli.compose import open_journal
from infra.settings import child_environment, load_settings
from infra.voice.weights import Weights
from tests.fakes.discord import FakeDiscord
from tests.fakes.telegram import FakeTelegram
from tests.infra.running import QA, eventually, lend_weights, running, understudy

WARM = "How warm should the dough be?"


def settled(home: Path, weights: Weights, discord: FakeDiscord, telegram: FakeTelegram, *, ada: int) -> dict[str, str]:
    """A home whose creator is Ada on both, and the environment that points it at the doubles."""
    ids = ("--creator-id", f"discord:{discord.owner_id}", "--creator-id", f"telegram:{ada}")
    understudy(home, "init", "--yes", "--creator", "Ada", *ids)
    lend_weights(home, weights)
    (home / "qa.csv").write_text(QA, encoding="utf-8")
    understudy(home, "import", str(home / "qa.csv"))
    return child_environment(
        UNDERSTUDY_DISCORD__TOKEN=discord.token,
        UNDERSTUDY_DISCORD__API=discord.api,
        UNDERSTUDY_DISCORD__GATEWAY=discord.gateway,
        UNDERSTUDY_TELEGRAM__TOKEN=telegram.token,
        UNDERSTUDY_TELEGRAM__API=telegram.api,
    )


@pytest.mark.timeout(400)
async def test_a_bot_without_the_api_says_so_loses_nothing_and_comes_back_by_itself(
    tmp_path: Path, weights: Weights
) -> None:
    async with FakeDiscord() as discord, FakeTelegram() as telegram:
        ada, bob = telegram.user("Ada"), telegram.user("Bob")
        environment = settled(tmp_path, weights, discord, telegram, ada=ada)
        private = telegram.private(bob)
        async with running(tmp_path, environment, "bot", "--platform", "telegram"):
            await eventually(lambda: bool(telegram.commands), tmp_path)
            await telegram.start(bob)
            await telegram.say(bob, private, WARM)
            await eventually(lambda: any("went wrong" in each.text for each in telegram.said_by_bot(bob)), tmp_path)

            async with running(tmp_path, environment, "serve", "--port", "0"):
                await eventually((tmp_path / "data" / "run" / "api.json").exists, tmp_path)
                await telegram.say(bob, private, "How warm should dough be?")
                await eventually(
                    lambda: any("1 [" in each.text or "1 How" in each.text for each in telegram.said_by_bot(bob)),
                    tmp_path,
                )

        journal = open_journal(load_settings(tmp_path))
        waiting = [item.question for item in journal.inbox()]
        journal.close()
        assert waiting == [WARM]
        assert telegram.violations == []


def test_a_platform_without_a_token_is_said_in_a_sentence(home: Path) -> None:
    done = understudy(home, "bot", "--platform", "discord", code=1)

    assert "UNDERSTUDY_DISCORD__TOKEN" in done.stderr
    assert "Traceback" not in done.stderr


async def test_doctor_says_what_the_platforms_allow(tmp_path: Path, weights: Weights) -> None:
    async with FakeDiscord() as discord, FakeTelegram() as telegram:
        environment = settled(tmp_path, weights, discord, telegram, ada=telegram.user("Ada"))
        command = [sys.executable, "-m", "infra.cli.main", "doctor", "--home", str(tmp_path)]

        done = await asyncio.to_thread(subprocess.run, command, env=environment, capture_output=True, text=True)

        assert "everything but listening works" in done.stdout
        assert "privacy mode is on" in done.stdout
        environment["UNDERSTUDY_TELEGRAM__TOKEN"] = "4242:" + "x" * 35
        environment["UNDERSTUDY_DISCORD__MESSAGE_CONTENT"] = "true"
        done = await asyncio.to_thread(subprocess.run, command, env=environment, capture_output=True, text=True)
        assert done.returncode == 1
        assert "Message Content Intent is off" in done.stdout
        assert "Telegram does not know this token" in done.stdout
        assert "4242" not in done.stdout + done.stderr


@pytest.mark.timeout(200)
async def test_the_playground_answers_from_a_checkout_and_ctrl_c_ends_all_of_it(
    tmp_path: Path, weights: Weights
) -> None:
    understudy(tmp_path, "init", "--yes", "--creator", "Ada")
    lend_weights(tmp_path, weights)
    (tmp_path / "qa.csv").write_text(QA, encoding="utf-8")
    understudy(tmp_path, "import", str(tmp_path / "qa.csv"))
    address = tmp_path / "data" / "playground" / "run" / "api.json"

    async with running(tmp_path, child_environment(), "up", "--playground", "--port", "0", stop=signal.SIGINT):
        await eventually(address.exists, tmp_path)
        url = json.loads(address.read_text(encoding="utf-8"))["url"]
        with httpx.Client(base_url=f"{url}/playground/telegram") as page:
            await eventually(lambda: bool(page.get("view").json()["commands"]), tmp_path)
            seen = page.get("view").json()
            bob = next(each["id"] for each in seen["people"] if each["name"] == "Bob")
            page.post("say", json={"person": bob, "place": seen["place"], "text": f"@twin_bot {WARM}"})

            await eventually(lambda: "stand-in for Ada" in page.get("view").json()["messages"][-1]["text"], tmp_path)
            answer = page.get("view").json()["messages"][-1]["text"]
    assert f"1 {WARM.rstrip('?')}" in answer
    assert not address.exists()
