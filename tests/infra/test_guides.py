"""docs/discord.md and docs/telegram.md, followed step by step by somebody who has neither account nor patience.

What stands in the guides' code blocks is what is typed here; only tokens and ids are put in, and the platforms' own
pages (the portal, BotFather) are the doubles' switches.
"""

import asyncio
import re
import tomllib
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest
import tomli_w

from infra.cli.compose import open_journal
from infra.settings import child_environment, load_settings
from infra.voice.weights import Weights
from memory.messages import Exchange
from tests.fakes.discord import DEFAULT, FakeDiscord, FakeMessage, Intent
from tests.fakes.telegram import FakeTelegram
from tests.fakes.telegram_world import FakeMessage as TelegramMessage
from tests.infra.running import QA, eventually, lend_weights, running, understudy

Said = TypeVar("Said", FakeMessage, TelegramMessage)

DOCS = Path(__file__).parents[2] / "docs"
WARM, UNKNOWN = "How warm should the dough be?", "Who won the regatta in 1987?"
FEEDS, CHARLIE = "Who feeds the starter on Sundays?", "Charlie feeds the starter on Sundays, before eight."
ANSWER = "Charlie won the regatta in 1987, by a length."


class Guide:
    """A guide's code blocks, and its settings as they stand in its text."""

    def __init__(self, name: str) -> None:
        self.text = (DOCS / name).read_text(encoding="utf-8")
        indented = re.findall(r"(?:^(?: {4}| {7})\S.*\n)+", self.text, flags=re.MULTILINE)
        self.blocks = [re.sub(r"^ +", "", block, flags=re.MULTILINE) for block in indented]

    def block(self, containing: str) -> str:
        (found,) = [block for block in self.blocks if containing in block]
        return found

    def secret(self, token: str) -> str:
        """The line for `.env`."""
        name, _, _ = self.block("UNDERSTUDY_").partition("=")
        return f"{name}={token}\n"

    def creator(self, identity: int) -> dict[str, Any]:
        """The settings that say who the creator is."""
        return tomllib.loads(re.sub(r":\d+", f":{identity}", self.block("[creator]")))["creator"]

    def commands(self, containing: str) -> list[list[str]]:
        lines = self.block(containing).splitlines()
        return [line.partition("#")[0].split()[1:] for line in lines]


def write(home: Path, settings: dict[str, Any]) -> None:
    (home / "understudy.toml").write_text(tomli_w.dumps(settings), encoding="utf-8")


def heard(home: Path) -> list[Exchange]:
    """What became memory because the creator answered in public."""
    journal = open_journal(load_settings(home))
    try:
        return [exchange for exchange in journal.exchanges() if exchange.pairing == "reply"]
    finally:
        journal.close()


def with_words(said: Sequence[Said], words: str) -> list[Said]:
    return [each for each in said if words in (each.content if isinstance(each, FakeMessage) else each.text)]


async def shown(home: Path, said: Callable[[], Sequence[Said]], containing: str) -> Said:
    """The newest message with these words, as soon as there is one."""
    await eventually(lambda: bool(with_words(said(), containing)), home)
    return with_words(said(), containing)[-1]


async def answered(home: Path, said: Callable[[], Sequence[Said]], asking: Awaitable[object]) -> None:
    """Ask, and wait until one more finished answer is there than before: each is signed by the stand-in."""
    before = len(with_words(said(), "stand-in"))
    await asking
    await eventually(lambda: len(with_words(said(), "stand-in")) > before, home)


def button(message: FakeMessage, verb: str) -> str:
    buttons = [each["custom_id"] for row in message.components for each in row["components"]]
    return next(each for each in buttons if each.startswith(verb))


@pytest.mark.timeout(500)
async def test_who_follows_the_guides_is_answered_asked_and_heard(tmp_path: Path, weights: Weights) -> None:
    on_discord, on_telegram = Guide("discord.md"), Guide("telegram.md")
    async with FakeDiscord() as discord, FakeTelegram() as telegram:
        # Who there is: Ada made both bots, and has a server and a group.
        ada, bob, carl = telegram.user("Ada"), telegram.user("Bob"), discord.user("Carl")
        guild = discord.guild()
        channel = discord.channel(guild)
        discord.member(guild, carl, DEFAULT)
        group = telegram.group("Bakery")
        telegram.join(group, ada, "creator")
        telegram.join(group, bob)

        def in_channel() -> list[FakeMessage]:
            return discord.said_by_bot(channel)

        def in_private() -> list[TelegramMessage]:
            return telegram.said_by_bot(bob)

        environment = child_environment(
            UNDERSTUDY_DISCORD__API=discord.api,
            UNDERSTUDY_DISCORD__GATEWAY=discord.gateway,
            UNDERSTUDY_TELEGRAM__API=telegram.api,
        )

        # Steps 1 to 3: the tokens, the invitation, the creator.
        assert on_discord.commands("init") == on_telegram.commands("init")
        init, take_in = on_discord.commands("init")
        (tmp_path / "qa.csv").write_text(QA, encoding="utf-8")
        understudy(tmp_path, *init, "--yes")
        lend_weights(tmp_path, weights)
        understudy(tmp_path, take_in[0], str(tmp_path / take_in[1]))
        with (tmp_path / ".env").open("a", encoding="utf-8") as env:
            env.write(on_discord.secret(discord.token) + on_telegram.secret(telegram.token))
        (permissions,) = re.findall(r"permissions=(\d+)", on_discord.block("oauth2/authorize"))
        discord.member(guild, discord.bot_id, int(permissions))
        settings = tomllib.loads((tmp_path / "understudy.toml").read_text(encoding="utf-8"))
        creator = on_discord.creator(discord.owner_id)
        settings["creator"] |= creator | {"ids": creator["ids"] + on_telegram.creator(ada)["ids"]}
        write(tmp_path, settings)

        # Step 4: what is said there about starting.
        assert on_discord.commands("doctor") == on_telegram.commands("doctor") == [["doctor"], ["up"]]
        await asyncio.to_thread(understudy, tmp_path, "doctor", environment=environment)
        async with running(tmp_path, environment, "up", "--port", "0"):
            await eventually(lambda: bool(discord.commands) and bool(telegram.commands), tmp_path)
            await telegram.start(ada)  # "Press Start in the private chat with it once"
            await telegram.start(bob)
            await answered(tmp_path, in_private, telegram.say(bob, telegram.private(bob), WARM))
            await answered(tmp_path, in_channel, discord.say(carl, channel, f"<@{discord.bot_id}> {WARM}"))

            # "What it does not know it offers to pass on", and the creator answers in private.
            await discord.say(carl, channel, f"<@{discord.bot_id}> {UNKNOWN}")
            refusal = await shown(tmp_path, in_channel, "won't guess")
            await (await discord.click(carl, refusal.id, button(refusal, "ask"))).done(20)
            card = await shown(tmp_path, lambda: discord.said_by_bot(discord.dm_channel(discord.owner_id)), UNKNOWN)
            form = await (await discord.click(discord.owner_id, card.id, button(card, "answer"))).done(20)
            await (await discord.submit(form, {"text": ANSWER})).done(20)
            await shown(tmp_path, in_channel, ANSWER)

        # Step 5, and 4 on Telegram: listening.
        assert "`discord.message_content = true`" in on_discord.text
        settings["discord"] = {"message_content": True}
        write(tmp_path, settings)
        discord.intents_allowed = Intent.MESSAGE_CONTENT
        telegram.privacy_mode = False
        async with running(tmp_path, environment, "up", "--port", "0"):
            await telegram.say(ada, group, "/listen on")
            await shown(tmp_path, lambda: telegram.said_by_bot(group), "I listen in this place")
            # When it answers, it is there, and will see a command.
            await answered(tmp_path, in_channel, discord.say(carl, channel, f"<@{discord.bot_id}> {WARM}"))
            await discord.slash(discord.owner_id, channel, "listen", state="on")
            await shown(tmp_path, in_channel, "I listen in this place")

            asked = await discord.say(carl, channel, FEEDS)
            await discord.say(discord.owner_id, channel, CHARLIE, reply_to=asked)
            wondered = await telegram.say(bob, group, "What is a poolish?")
            await telegram.say(ada, group, "Equal weights of flour and water, and a pinch of yeast.", reply_to=wondered)

            # Each is asked for on the other platform: there is one memory.
            await eventually(lambda: len(heard(tmp_path)) == 2, tmp_path)
            await answered(tmp_path, in_private, telegram.say(bob, telegram.private(bob), FEEDS))
            await answered(tmp_path, in_channel, discord.say(carl, channel, f"<@{discord.bot_id}> What is a poolish?"))

        assert discord.violations == []
        assert telegram.violations == []
    journal = open_journal(load_settings(tmp_path))
    unshown = [journal.unshown(name, since=datetime(2026, 1, 1, tzinfo=UTC)) for name in ("discord", "telegram")]
    journal.close()
    assert unshown == [[], []]
