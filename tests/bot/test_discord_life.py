"""The life of the connection to Discord: start, loss, return, stop, and what settings can get wrong."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from bot import discord_client, discord_platform, running
from infra.errors import UserMistake
from memory.messages import Message, Person, Source
from memory.remember import message_event, remember
from tests.bot.discord_stage import KNOWN, SAYS, UNKNOWN, on_discord
from tests.bot.stage import Script
from tests.bot.test_discord_listening import listening, paired, talked

SLOW = "one two three four five six seven eight nine ten"


async def test_an_intent_that_is_not_switched_on_is_explained(tmp_path: Path) -> None:
    async with on_discord(tmp_path, words=True, start=False) as at:
        at.discord.intents_allowed = 0
        with pytest.raises(UserMistake, match="Message Content Intent on the Bot page"):
            await at.start()


async def test_a_wrong_token_is_explained(tmp_path: Path) -> None:
    async with on_discord(tmp_path, start=False) as at:
        at.discord.world.token = "another one"
        with pytest.raises(UserMistake, match=r"discord\.token"):
            await at.start()


async def test_a_start_waits_for_discord(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discord_client, "LOGIN_AGAIN_S", 0.05)
    async with on_discord(tmp_path, start=False) as at:
        at.discord.fail_next("GET", "/users/@me$", 503, times=2)
        await at.start()
        await at.asked(KNOWN)
        await at.answer()


async def test_a_bot_of_many_servers_is_sharded(tmp_path: Path) -> None:
    async with on_discord(tmp_path, start=False, sharded=True) as at:
        at.discord.shards = 2
        others = [at.discord.guild(str(number)) for number in range(3)]
        channels = [at.discord.channel(guild) for guild in others]
        await at.start()
        assert at.discord.gateway_server.identifies == 2

        for channel in channels:
            await at.asked(KNOWN, who=at.ada, where=channel)
            await at.answer(channel)


async def test_a_dropped_socket_loses_no_question(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        await at.discord.drop_sockets(1011)
        await at.asked(KNOWN)
        await at.answer()

        assert at.discord.gateway_server.resumes == 1


async def test_a_lost_session_loses_no_question(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        await at.asked(KNOWN)
        await at.answer()
        at.discord.gateway_server.sessions.clear()
        await at.asked("Which flour do you use for baguettes?")
        await at.discord.drop_sockets(1011)
        await at.answer(count=2)

        assert at.discord.gateway_server.identifies == 2


async def test_asked_to_stop_the_twin_finishes_what_it_says(tmp_path: Path) -> None:
    async with on_discord(tmp_path, voice=Script(SLOW, pace_s=0.05)) as at:
        await at.asked(KNOWN)
        await at.discord.until(lambda: at.voice.asked)
        await at.stop()

        assert any(SLOW in m.content for m in at.discord.said_by_bot(at.channel))


async def test_a_question_that_outlives_the_patience_is_answered_after_the_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with on_discord(tmp_path, voice=Script(SLOW, pace_s=60)) as at:
        monkeypatch.setattr(running, "DRAIN_S", 0.1)
        await at.asked(KNOWN)
        await at.discord.until(lambda: at.voice.asked)
        await at.stop()
        assert not at.discord.said_by_bot(at.channel)

        at.voice.pace_s = 0
        await at.start()
        assert SLOW in (await at.answer()).content


async def test_what_was_asked_while_the_twin_was_down_is_answered(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        await at.asked(KNOWN)
        await at.answer()
        await at.discord.dm(at.bob, KNOWN)
        await at.answer(at.discord.dm_channel(at.bob))
        await at.stop()
        asked = [await at.asked(KNOWN), await at.discord.dm(at.bob, KNOWN)]
        await at.start()

        answers = [await at.answer(count=2), await at.answer(at.discord.dm_channel(at.bob), count=2)]
        assert [each.reply_to for each in answers] == asked


async def test_what_was_said_while_the_twin_was_down_is_heard(tmp_path: Path) -> None:
    async with on_discord(tmp_path, words=True) as at:
        await listening(at)
        await at.stop()
        at.stopping = asyncio.Event()
        asked = await at.discord.say(at.bob, at.channel, UNKNOWN)
        await at.discord.say(at.ada, at.channel, "Charlie did.", reply_to=asked)
        await at.start()

        await at.discord.until(lambda: paired(at))


async def test_what_was_answered_is_not_answered_again_after_a_restart(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        await at.asked(KNOWN)
        await at.answer()
        await at.restart()
        await at.asked("Which flour do you use for baguettes?")
        await at.answer(count=2)

        assert len(at.discord.said_by_bot(at.channel)) == 2


async def test_what_was_erased_does_not_come_back_with_a_restart(tmp_path: Path) -> None:
    async with on_discord(tmp_path, words=True) as at:
        await listening(at)
        asked, said = await talked(at)
        question = await at.asked(KNOWN)
        await at.answer(containing="stand-in")
        sure = (await at.slash("memory", who=at.ada, action="purge")).replies[0]
        await at.pressed(sure, "purge", who=at.ada)
        await at.slash("listen", who=at.ada, state="on")
        await at.restart()
        await at.asked("Which flour do you use for baguettes?")
        await at.answer(count=2)

        assert [at.heard(each) for each in (asked, said, question)] == [None] * 3
        assert at.stage.community.members.places("discord")


async def test_an_answer_that_was_written_and_not_sent_is_sent_once(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        at.discord.fail_next("POST", "/messages$", 429, retry_after=0.2, times=50)
        asked = await at.asked(KNOWN)
        await at.discord.until(
            lambda: at.stage.journal.unshown("discord", since=datetime.now(UTC) - timedelta(hours=1))
        )
        await at.platform._running.cancel()
        await at.stop()
        at.discord.server.failures.clear()
        at.stage.operations.silence(on=True)
        await at.start()
        await at.settled()
        assert not at.discord.said_by_bot()

        at.stage.operations.silence(on=False)
        assert (await at.answer()).reply_to == asked
        await at.settled()
        assert len(at.discord.said_by_bot(at.channel)) == 1


async def test_the_first_start_answers_nothing_from_before(tmp_path: Path) -> None:
    async with on_discord(tmp_path, start=False) as at:
        asked = await at.asked(KNOWN)
        bob = Person("discord", str(at.bob), "Bob")
        message = Message(str(asked), bob, at.place(), datetime.now(UTC), KNOWN)
        remember(at.stage.journal, [message_event(message, Source.DISCORD_API)], creator=frozenset())
        await at.start()
        await at.settled()

        assert not at.discord.said_by_bot()


async def test_failures_are_logged_without_a_word_of_what_was_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def broken(*_: object, **__: object) -> None:
        raise ValueError(f"cannot read {KNOWN!r} of Bob")

    async with on_discord(tmp_path) as at:
        monkeypatch.setattr(discord_platform, "asking", SimpleNamespace(ask=broken))
        asked = await at.asked(KNOWN)
        await at.settled()

        assert f"message {asked} (ValueError" in caplog.text
        assert not [word for word in (KNOWN, "Bob", SAYS, at.discord.token) if word in caplog.text]


async def test_the_token_stays_out_of_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with on_discord(tmp_path) as at:
        at.discord.fail_next("POST", "/messages$", 500)
        await at.asked(KNOWN)
        await at.answer()
        await at.slash("ask", question=KNOWN)

        secrets = [at.discord.token, *(each.token for each in at.discord.interactions.by_id.values())]
        assert not [secret for secret in secrets if secret in caplog.text]
