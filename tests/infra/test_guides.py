"""docs/discord.md and docs/telegram.md, followed step by step by somebody who has neither account nor patience.

What stands in the guides' code blocks is what is typed here; only tokens and ids are put in, and the platforms' own
pages (the portal, BotFather) are the doubles' switches.
"""

import asyncio
import re
import tomllib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
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
POOLISH = "What is a poolish?"
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


@dataclass
class Place:
    """Who there is where the guides are followed: Ada made both bots, and has a server and a group."""

    home: Path
    discord: FakeDiscord
    telegram: FakeTelegram

    def __post_init__(self) -> None:
        self.ada, self.bob = self.telegram.user("Ada"), self.telegram.user("Bob")
        self.carl, self.guild = self.discord.user("Carl"), self.discord.guild()
        self.channel = self.discord.channel(self.guild)
        self.discord.member(self.guild, self.carl, DEFAULT)
        self.group = self.telegram.group("Bakery")
        self.telegram.join(self.group, self.ada, "creator")
        self.telegram.join(self.group, self.bob)
        self.environment = child_environment(
            UNDERSTUDY_DISCORD__API=self.discord.api,
            UNDERSTUDY_DISCORD__GATEWAY=self.discord.gateway,
            UNDERSTUDY_TELEGRAM__API=self.telegram.api,
        )

    def in_channel(self) -> list[FakeMessage]:
        return self.discord.said_by_bot(self.channel)

    def in_private(self) -> list[TelegramMessage]:
        return self.telegram.said_by_bot(self.bob)

    def running(self) -> AbstractAsyncContextManager[object]:
        """The twin, as the guides start it."""
        return running(self.home, self.environment, "up", "--port", "0")

    async def answers_bob(self, question: str) -> None:
        asking = self.telegram.say(self.bob, self.telegram.private(self.bob), question)
        await answered(self.home, self.in_private, asking)

    async def answers_carl(self, question: str) -> None:
        await answered(self.home, self.in_channel, self.carl_asks(question))

    async def carl_asks(self, question: str) -> None:
        await self.discord.say(self.carl, self.channel, f"<@{self.discord.bot_id}> {question}")


def set_up(place: Place, on_discord: Guide, on_telegram: Guide, weights: Weights) -> dict[str, Any]:
    """Steps 1 to 3: the tokens, the invitation, the creator. Returns the settings."""
    home = place.home
    assert on_discord.commands("init") == on_telegram.commands("init")
    init, take_in = on_discord.commands("init")
    (home / "qa.csv").write_text(QA, encoding="utf-8")
    understudy(home, *init, "--yes")
    lend_weights(home, weights)
    understudy(home, take_in[0], str(home / take_in[1]))
    with (home / ".env").open("a", encoding="utf-8") as env:
        env.write(on_discord.secret(place.discord.token) + on_telegram.secret(place.telegram.token))
    (permissions,) = re.findall(r"permissions=(\d+)", on_discord.block("oauth2/authorize"))
    place.discord.member(place.guild, place.discord.bot_id, int(permissions))
    settings = tomllib.loads((home / "understudy.toml").read_text(encoding="utf-8"))
    creator = on_discord.creator(place.discord.owner_id)
    settings["creator"] |= creator | {"ids": creator["ids"] + on_telegram.creator(place.ada)["ids"]}
    write(home, settings)
    return settings


async def start(place: Place) -> None:
    """Step 4: what is said there about starting."""
    await eventually(lambda: bool(place.discord.commands) and bool(place.telegram.commands), place.home)
    await place.telegram.start(place.ada)  # "Press Start in the private chat with it once"
    await place.telegram.start(place.bob)
    await place.answers_bob(WARM)
    await place.answers_carl(WARM)


async def pass_on(place: Place) -> None:
    """ "What it does not know it offers to pass on", and the creator answers in private."""
    discord, home = place.discord, place.home
    await place.carl_asks(UNKNOWN)
    refusal = await shown(home, place.in_channel, "won't guess")
    await (await discord.click(place.carl, refusal.id, button(refusal, "ask"))).done(20)
    card = await shown(home, lambda: discord.said_by_bot(discord.dm_channel(discord.owner_id)), UNKNOWN)
    form = await (await discord.click(discord.owner_id, card.id, button(card, "answer"))).done(20)
    await (await discord.submit(form, {"text": ANSWER})).done(20)
    await shown(home, place.in_channel, ANSWER)


def allow_listening(place: Place, settings: dict[str, Any]) -> None:
    """Step 5, and 4 on Telegram: what is switched on before it may listen."""
    write(place.home, {**settings, "discord": {"message_content": True}})
    place.discord.intents_allowed = Intent.MESSAGE_CONTENT
    place.telegram.privacy_mode = False


async def listen(place: Place) -> None:
    """The same steps: an admin lets it listen on either platform."""
    await place.telegram.say(place.ada, place.group, "/listen on")
    await shown(place.home, lambda: place.telegram.said_by_bot(place.group), "I listen in this place")
    # When it answers, it is there, and will see a command.
    await place.answers_carl(WARM)
    await place.discord.slash(place.discord.owner_id, place.channel, "listen", state="on")
    await shown(place.home, place.in_channel, "I listen in this place")


async def overhear(place: Place) -> None:
    """What the creator answers in public is known on the other platform too: there is one memory."""
    discord, telegram = place.discord, place.telegram
    asked = await discord.say(place.carl, place.channel, FEEDS)
    await discord.say(discord.owner_id, place.channel, CHARLIE, reply_to=asked)
    wondered = await telegram.say(place.bob, place.group, POOLISH)
    await telegram.say(
        place.ada, place.group, "Equal weights of flour and water, and a pinch of yeast.", reply_to=wondered
    )

    await eventually(lambda: len(heard(place.home)) == 2, place.home)
    await place.answers_bob(FEEDS)
    await place.answers_carl(POOLISH)


@pytest.mark.timeout(500)
async def test_who_follows_the_guides_is_answered_asked_and_heard(tmp_path: Path, weights: Weights) -> None:
    on_discord, on_telegram = Guide("discord.md"), Guide("telegram.md")
    async with FakeDiscord() as discord, FakeTelegram() as telegram:
        place = Place(tmp_path, discord, telegram)
        settings = set_up(place, on_discord, on_telegram, weights)

        assert on_discord.commands("doctor") == on_telegram.commands("doctor") == [["doctor"], ["up"]]
        await asyncio.to_thread(understudy, tmp_path, "doctor", environment=place.environment)
        async with place.running():
            await start(place)
            await pass_on(place)

        assert "`discord.message_content = true`" in on_discord.text
        allow_listening(place, settings)
        async with place.running():
            await listen(place)
            await overhear(place)

        assert discord.violations == []
        assert telegram.violations == []
    journal = open_journal(load_settings(tmp_path))
    unshown = [journal.unshown(name, since=datetime(2026, 1, 1, tzinfo=UTC)) for name in ("discord", "telegram")]
    journal.close()
    assert unshown == [[], []]
