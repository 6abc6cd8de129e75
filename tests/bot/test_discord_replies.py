"""Replies on Discord while they grow, when they are long, and when Discord, the voice or memory is in trouble."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from bot import delivery, twin
from bot.discord_show import MOST_TEXT, PREVIEW_S
from infra.errors import ServiceTrouble
from infra.voice.chat import EVERYBODY, Audience, Piece, Sampling, Turn
from memory.recall import Recall
from tests.bot.discord_stage import KNOWN, SAYS, DiscordStage, Permission, actions, on_discord
from tests.bot.stage import Script

SLOW = "one two three four five six seven eight nine ten"
LONG = " ".join(f"Sentence {number} about bread and its many ways." for number in range(120))


class Stalling(Script):
    """Says two words and then nothing more."""

    async def stream(
        self, turns: Sequence[Turn], sampling: Sampling, *, conversation: str = "", audience: Audience = EVERYBODY
    ) -> AsyncGenerator[Piece, None]:
        yield Piece("Keep it ")
        yield Piece("at 24")
        await asyncio.sleep(60)


def shown_at(at: DiscordStage, channel: int) -> list[float]:
    """When the twin's previews in a channel were shown: sends and edits, but not the finals."""
    writes = [r for r in at.discord.requests if r.method in {"POST", "PATCH"} and f"/channels/{channel}/" in r.path]
    texts = [r for r in writes if isinstance(r.body, dict) and "content" in r.body]
    return [r.time for r in texts if "stand-in" not in r.body["content"]]


async def test_an_answer_is_typed_and_grows(tmp_path: Path) -> None:
    async with on_discord(tmp_path, voice=Script(SLOW, pace_s=0.05)) as at:
        await at.asked(KNOWN)
        answer = await at.answer()
        texts = [text for _, text in answer.edits]

        assert at.discord.typing
        assert any(SLOW.startswith(text) for text in texts)
        assert texts == sorted(texts, key=len)
        assert len(at.discord.said_by_bot(at.channel)) == 1


async def test_previews_keep_the_real_pace(tmp_path: Path) -> None:
    async with on_discord(tmp_path, voice=Script(SLOW, pace_s=0.4)) as at:
        at.platform._pace.interval_s = PREVIEW_S
        await at.asked(KNOWN)
        await at.answer()

        times = shown_at(at, at.channel)
        assert len(times) >= 3
        assert all(later - earlier >= PREVIEW_S - 0.01 for earlier, later in pairwise(times))


async def test_replies_in_one_channel_share_one_pace_and_none_starves(tmp_path: Path) -> None:
    async with on_discord(tmp_path, voice=Script(" ".join([SLOW] * 3), pace_s=0.1)) as at:
        at.platform._pace.interval_s = 0.3
        carol = at.discord.user("Carol")
        at.discord.member(at.guild, carol)
        await at.asked(KNOWN)
        await at.asked(KNOWN, who=carol)
        first, second = await at.answer(), await at.answer(count=2)

        times = shown_at(at, at.channel)
        assert all(later - earlier >= 0.28 for earlier, later in pairwise(times))
        assert first.edits
        assert second.edits


async def test_a_preview_that_meets_a_limit_costs_only_time(tmp_path: Path) -> None:
    async with on_discord(tmp_path, voice=Script(SLOW, pace_s=0.02)) as at:
        at.discord.fail_next("POST", "/messages$", 429, retry_after=0.3)
        at.discord.fail_next("PATCH", "/messages/", 429, retry_after=0.2)
        await at.asked(KNOWN)

        assert SLOW in (await at.answer()).content
        assert len(at.discord.said_by_bot(at.channel)) == 1


async def test_a_final_that_meets_a_limit_arrives_later(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        at.discord.fail_next("POST", "/messages$", 429, retry_after=0.2, times=2)
        await at.asked(KNOWN)

        assert SAYS in (await at.answer()).content


async def test_a_limit_too_long_for_the_library_is_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def rest(seconds: float) -> None:
        waits.append(seconds)

    async with on_discord(tmp_path) as at:
        at.discord.fail_next("POST", "/messages$", 429, retry_after=280.4, times=2)
        monkeypatch.setattr(delivery, "asyncio", Sleepless(rest))
        await at.asked(KNOWN)

        assert SAYS in (await at.answer()).content
        assert 281 in waits


class Sleepless:
    """asyncio with another sleep."""

    def __init__(self, sleep: object) -> None:
        self.sleep = sleep

    def __getattr__(self, name: str) -> object:
        return getattr(asyncio, name)


@pytest.mark.parametrize("status", [502, 0])
async def test_an_answer_lost_on_its_way_back_is_not_said_twice(tmp_path: Path, status: int) -> None:
    async with on_discord(tmp_path) as at:
        at.discord.fail_next("POST", "/messages$", status, after=True)
        await at.asked(KNOWN)
        answer = await at.answer()

        assert len(at.discord.said_by_bot(at.channel)) == 1
        assert actions(answer) == ["up", "down"]


async def test_a_server_error_on_the_final_edit_is_tried_again(tmp_path: Path) -> None:
    async with on_discord(tmp_path, voice=Script(SLOW, pace_s=0.02)) as at:
        at.discord.fail_next("PATCH", "/messages/", 503)
        at.discord.fail_next("PATCH", "/messages/", 503)
        await at.asked(KNOWN)

        assert SLOW in (await at.answer()).content


async def test_a_command_survives_server_errors_too(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        at.discord.fail_next("PATCH", "/webhooks/", 500)
        await at.discord.slash(at.bob, at.channel, "ask", question=KNOWN)

        assert SAYS in (await at.answer()).content


async def test_a_command_whose_token_died_is_answered_in_the_channel(tmp_path: Path) -> None:
    async with on_discord(tmp_path, voice=Script(SLOW, pace_s=0.05)) as at:
        at.discord.interactions.token_lives_s = 0.2
        await at.discord.slash(at.bob, at.channel, "ask", question=KNOWN)

        answer = await at.answer()
        assert SLOW in answer.content
        assert answer.reply_to is None


async def test_a_preview_that_a_moderator_deleted_does_not_take_the_answer_with_it(tmp_path: Path) -> None:
    async with on_discord(tmp_path, voice=Script(SLOW, pace_s=0.1)) as at:
        await at.asked(KNOWN)
        (preview, *_) = await at.discord.until(lambda: at.discord.said_by_bot(at.channel))
        await at.discord.delete(preview.id)

        assert SLOW in (await at.answer()).content


async def test_a_question_deleted_meanwhile_is_answered_without_a_reference(tmp_path: Path) -> None:
    async with on_discord(tmp_path, voice=Script(SLOW, pace_s=0.1)) as at:
        at.platform._pace.interval_s = 60
        at.platform._pace.promise(at.channel)
        asked = await at.asked(KNOWN)
        await at.discord.until(lambda: at.voice.asked)
        await at.discord.delete(asked)

        assert (await at.answer()).reply_to is None


async def test_without_the_right_to_read_history_the_answer_is_a_plain_message(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        at.discord.deny(at.channel, Permission.READ_MESSAGE_HISTORY)
        await at.asked(KNOWN)

        assert (await at.answer()).reply_to is None


async def test_where_the_twin_may_not_speak_nothing_else_breaks(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        silent = at.discord.channel(at.guild, "announcements")
        at.discord.deny(silent, Permission.SEND_MESSAGES)
        await at.asked(KNOWN, where=silent)
        await at.asked(KNOWN)

        assert SAYS in (await at.answer()).content


async def test_a_long_answer_comes_whole_in_several_messages(tmp_path: Path) -> None:
    async with on_discord(tmp_path, voice=Script(LONG)) as at:
        await at.asked(KNOWN)
        last = await at.answer()
        parts = at.discord.said_by_bot(at.channel)

        assert len(parts) > 1
        assert all(len(part.content) <= MOST_TEXT for part in parts)
        assert "Sentence 0 " in parts[0].content
        assert "Sentence 119 " in last.content
        assert [bool(part.components) for part in parts] == [*([False] * (len(parts) - 1)), True]


async def test_a_reply_to_any_part_goes_on_with_the_answer(tmp_path: Path) -> None:
    async with on_discord(tmp_path, voice=Script(LONG)) as at:
        await at.asked(KNOWN)
        last = await at.answer()
        await at.discord.say(at.bob, at.channel, KNOWN, reply_to=last.id)
        await at.answer(count=2)

        assert any("Sentence 0 " in turn.content for turn in at.voice.asked[-1] if turn.role == "assistant")


async def test_a_code_block_that_is_cut_is_whole_on_both_sides(tmp_path: Path) -> None:
    code = "\n".join(f"line_{number} = {number}" for number in range(250))
    async with on_discord(tmp_path, voice=Script(f"Look:\n```python\n{code}\n```\nThat is it.")) as at:
        await at.asked(KNOWN)
        await at.answer()
        parts = at.discord.said_by_bot(at.channel)

        assert len(parts) > 1
        assert all(part.content.count("```") % 2 == 0 for part in parts)


async def test_a_command_answers_in_several_messages_too(tmp_path: Path) -> None:
    async with on_discord(tmp_path, voice=Script(LONG)) as at:
        interaction = await at.discord.slash(at.bob, at.channel, "ask", question=KNOWN)
        await at.answer()

        assert len(interaction.replies) > 1
        assert interaction.replies[-1].components


async def test_a_voice_that_stalls_leaves_what_it_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twin, "STALL_S", 0.1)
    async with on_discord(tmp_path, voice=Stalling()) as at:
        await at.asked(KNOWN)

        assert "Keep it at 24…" in (await at.answer()).content


async def test_a_voice_that_breaks_off_leaves_what_it_said(tmp_path: Path) -> None:
    async with on_discord(tmp_path, voice=Script(SLOW, breaks_after=3)) as at:
        await at.asked(KNOWN)

        assert "one two three…" in (await at.answer()).content


async def test_a_voice_that_is_down_is_said_and_the_question_is_kept(tmp_path: Path) -> None:
    async with on_discord(tmp_path, voice=Script(breaks_after=0)) as at:
        await at.asked(KNOWN)

        assert "could not finish" in (await at.answer(containing="could not")).content
        assert [item.question for item in at.stage.journal.inbox()] == [KNOWN]


async def test_a_memory_that_is_down_is_said_and_the_question_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ServiceTrouble("The index is locked.")

    monkeypatch.setattr(Recall, "recall", broken)
    async with on_discord(tmp_path) as at:
        await at.asked(KNOWN)

        assert "could not finish" in (await at.answer(containing="could not")).content
        assert [item.question for item in at.stage.journal.inbox()] == [KNOWN]


async def test_in_bad_weather_every_question_is_answered_once(tmp_path: Path) -> None:
    async with on_discord(tmp_path, voice=Script(SLOW, pace_s=0.01)) as at:
        at.discord.error_rate = 0.1
        asked = [await at.asked(KNOWN) for _ in range(6)]
        await at.answer(count=6)

        assert sorted(m.reply_to for m in at.discord.said_by_bot(at.channel)) == asked
