"""A day of a community of ten thousand, or a fifth of it, at speed: chatter, questions, a platform that stumbles and lines that break.

Every question is answered exactly once, and everything that was said where the twin listens is in the journal.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from memory.messages import Place, Source
from memory.remember import listening_event
from tests.bot.discord_stage import KNOWN, DiscordStage, on_discord
from tests.bot.stage import Stage
from tests.bot.telegram_stage import ADA, Scene, scene
from tests.people import NOON

# A fifth of the day; all of it, with UNDERSTUDY_TEST_WHOLE_DAY set, takes two and a half minutes on two cores.
WHOLE = 5 if os.environ.get("UNDERSTUDY_TEST_WHOLE_DAY") else 1
MEMBERS = 2_000 * WHOLE
MESSAGES, QUESTIONS = 1_000 * WHOLE, 80 * WHOLE
# So many that none of them gets more questions a minute than a channel may.
CHANNELS = 40
ERROR_RATE = 0.02
DISCONNECTS = 5
CHATTER = (
    "morning all",
    "my crumb is tight again",
    "谁有面包篮？",
    "look at this crust 🥖",
    "thanks, that worked",
    "brb",
)


@dataclass
class Day:
    """What happens, in order: who says what where, and which of it is meant for the twin."""

    rng: random.Random

    def moments(self) -> list[tuple[int, int, bool]]:
        """(member, channel, asks) for each message; questions are spread evenly over channels."""
        asks = [True] * QUESTIONS + [False] * (MESSAGES - QUESTIONS)
        self.rng.shuffle(asks)
        channels = [number % CHANNELS for number in range(QUESTIONS)]
        self.rng.shuffle(channels)
        return [
            (self.rng.randrange(MEMBERS), channels.pop() if ask else self.rng.randrange(CHANNELS), ask) for ask in asks
        ]


async def listen_everywhere(stage: Stage, places: list[Place], *, space: str) -> None:
    for place in places:
        admin = stage.community.person(place.platform, "1", "Ada")
        await stage.community.remember(listening_event(place, admin, on=True, space=space, at=NOON))


def said_in(stage: Stage, platform: str) -> int:
    """How many messages of people the journal holds."""
    with stage.journal.engine.connect() as connection:
        counted = "SELECT count(*) FROM messages WHERE platform = ? AND source <> ?"
        return int(connection.exec_driver_sql(counted, (platform, str(Source.TWIN))).scalar() or 0)


async def patiently(done: Callable[[], bool]) -> None:
    """Wait without looking so often that nothing else gets on."""
    for _ in range(400):
        if done():
            return
        await asyncio.sleep(0.5)
    raise AssertionError("the day never ended")


def replies(messages: list[object]) -> Counter[int]:
    return Counter(message.reply_to for message in messages if message.reply_to)  # type: ignore[attr-defined]


async def discord_day(at: DiscordStage, day: Day) -> set[int]:
    """Everything said on Discord; the ids of the questions."""
    double = at.discord
    members = [double.user(f"member {number}") for number in range(MEMBERS)]
    for member in members:
        double.member(at.guild, member)
    channels = [double.channel(at.guild, f"channel-{number}") for number in range(CHANNELS)]
    await listen_everywhere(at.stage, [Place("discord", str(channel)) for channel in channels], space=str(at.guild))
    await at.start()
    double.error_rate = ERROR_RATE
    asked = set()
    for number, (member, channel, asks) in enumerate(day.moments()):
        text = f"{at.me} {KNOWN}" if asks else day.rng.choice(CHATTER)
        message = await double.say(members[member], channels[channel], text)
        asked |= {message} if asks else set()
        if number % (MESSAGES // DISCONNECTS) == MESSAGES // DISCONNECTS // 2:
            await double.drop_sockets()
        await asyncio.sleep(0)
    return asked


@pytest.mark.timeout(600)
async def test_a_day_on_discord(tmp_path: Path) -> None:
    async with on_discord(tmp_path, words=True, start=False) as at:
        asked = await discord_day(at, Day(random.Random(11)))

        def done() -> bool:
            said = at.discord.said_by_bot()
            # The stand-in label comes with the whole answer, after its previews.
            whole = all("stand-in" in message.content for message in said)
            return whole and set(replies(said)) >= asked and said_in(at.stage, "discord") >= MESSAGES

        await patiently(done)
        at.discord.error_rate = 0.0

        answered = replies(at.discord.said_by_bot())
        assert {message: answered[message] for message in asked if answered[message] != 1} == {}
        assert said_in(at.stage, "discord") == MESSAGES


async def telegram_day(on: Scene, day: Day) -> set[tuple[int, int]]:
    """Everything said on Telegram; chat and number of each question."""
    double = on.telegram
    double.privacy_mode = False
    members = [double.user(f"member {number}") for number in range(MEMBERS)]
    groups = [double.group(f"group {number}") for number in range(CHANNELS)]
    await listen_everywhere(on.stage, [Place("telegram", str(group)) for group in groups], space=str(groups[0]))
    on.start()
    double.error_rate = ERROR_RATE
    asked = set()
    for number, (member, channel, asks) in enumerate(day.moments()):
        double.join(groups[channel], members[member])
        text = f"@{double.bot_username} {KNOWN}" if asks else day.rng.choice(CHATTER)
        message = await double.say(members[member], groups[channel], text)
        asked |= {(groups[channel], message)} if asks else set()
        if number % (MESSAGES // DISCONNECTS) == MESSAGES // DISCONNECTS // 2:
            double.fail_next("getUpdates", status=0)
        await asyncio.sleep(0)
    return asked


@pytest.mark.timeout(600)
async def test_a_day_on_telegram(tmp_path: Path) -> None:
    async with scene(tmp_path, begin=False) as on:
        asked = await telegram_day(on, Day(random.Random(12)))

        def answers() -> Counter[tuple[int, int]]:
            return Counter((each.chat, each.reply_to) for each in on.telegram.said_by_bot() if each.reply_to)

        def done() -> bool:
            return set(answers()) >= asked and said_in(on.stage, "telegram") >= MESSAGES

        await patiently(done)
        on.telegram.error_rate = 0.0

        answered = answers()
        assert {message: answered[message] for message in asked if answered[message] != 1} == {}
        assert said_in(on.stage, "telegram") == MESSAGES
        assert ADA not in {chat for chat, _ in answered}
