"""Listening on Discord: only where an admin said so, only from whom it is right, and never longer than it stands there."""

from dataclasses import replace
from pathlib import Path

import pytest

from memory.messages import Exchange
from memory.provenance import may_train
from tests.bot.discord_stage import KNOWN, UNKNOWN, DiscordStage, Permission, on_discord

ANSWER = "Charlie did, by a length."


async def listening(at: DiscordStage, channel: int = 0) -> None:
    await at.discord.slash(at.ada, channel or at.channel, "listen", state="on")
    await at.answer(channel, containing="I listen in this place")


async def talked(at: DiscordStage, channel: int = 0, *, who: int = 0) -> tuple[int, int]:
    """Bob asks and Ada, or another, replies."""
    channel = channel or at.channel
    asked = await at.discord.say(at.bob, channel, UNKNOWN)
    said = await at.discord.say(who or at.ada, channel, ANSWER, reply_to=asked)
    await at.settled()
    return asked, said


def paired(at: DiscordStage) -> list[Exchange]:
    return [each for each in at.stage.journal.exchanges() if each.pairing != "given"]


async def test_what_the_creator_answers_in_public_becomes_memory_and_does_not_train(tmp_path: Path) -> None:
    async with on_discord(tmp_path, words=True) as at:
        await listening(at)
        await talked(at)

        (exchange,) = paired(at)
        assert (exchange.question, exchange.answer) == (UNKNOWN, ANSWER)
        assert not may_train(exchange, consent=lambda *_: True).eligible


async def test_nothing_is_heard_where_nobody_said_so(tmp_path: Path) -> None:
    async with on_discord(tmp_path, words=True) as at:
        await listening(at)
        elsewhere = at.discord.channel(at.guild, "lounge")
        asked, _ = await talked(at, elsewhere)

        assert at.heard(asked, elsewhere) is None


async def test_threads_of_a_channel_are_heard_with_it(tmp_path: Path) -> None:
    async with on_discord(tmp_path, words=True) as at:
        await listening(at)
        await talked(at, at.discord.thread(at.channel, "Regattas"))

        assert len(paired(at)) == 1


async def test_listening_ends_when_an_admin_says_so(tmp_path: Path) -> None:
    async with on_discord(tmp_path, words=True) as at:
        await listening(at)
        await at.slash("listen", who=at.ada, state="off")
        asked, _ = await talked(at)

        assert at.heard(asked) is None


async def test_listening_without_the_intent_is_refused_with_the_reason(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        assert "discord.message_content" in await at.said("listen", who=at.ada, state="on")
        assert not at.stage.community.members.places("discord")


async def test_listening_where_the_twin_cannot_look_is_refused_with_the_reason(tmp_path: Path) -> None:
    async with on_discord(tmp_path, words=True) as at:
        at.discord.deny(at.channel, Permission.READ_MESSAGE_HISTORY)
        assert "may not view" in await at.said("listen", who=at.ada, state="on")


async def test_without_the_intent_everything_else_works(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        await at.asked(KNOWN)
        await at.answer()
        await at.discord.dm(at.bob, KNOWN)
        await at.answer(at.discord.dm_channel(at.bob))
        await at.slash("ask", question=KNOWN)
        said = await at.discord.say(at.ada, at.channel, ANSWER)
        form = await (await at.discord.menu(at.ada, at.channel, "Teach the twin", said)).done(20)
        await (await at.discord.submit(form, {"text": UNKNOWN})).done(20)

        assert at.heard(said) == ANSWER


async def test_what_teachers_answer_becomes_memory_too(tmp_path: Path) -> None:
    async with on_discord(tmp_path, words=True, start=False) as at:
        tess = at.discord.user("Tess")
        at.discord.member(at.guild, tess)
        keys = frozenset({f"discord:{tess}"})
        at.stage.community = replace(at.stage.community, teachers=keys)
        await at.start()
        await listening(at)
        await talked(at, who=tess)

        assert [each.author.role for each in paired(at)] == ["teacher"]


async def test_what_other_members_answer_does_not(tmp_path: Path) -> None:
    async with on_discord(tmp_path, words=True) as at:
        await listening(at)
        carol = at.discord.user("Carol")
        at.discord.member(at.guild, carol)
        await talked(at, who=carol)

        assert not paired(at)


async def test_who_wants_nothing_kept_is_not_heard(tmp_path: Path) -> None:
    async with on_discord(tmp_path, words=True) as at:
        await listening(at)
        await at.slash("consent", choice="off")
        asked, _ = await talked(at)

        assert at.heard(asked) is None
        assert not paired(at)


async def test_other_bots_are_not_heard(tmp_path: Path) -> None:
    async with on_discord(tmp_path, words=True) as at:
        await listening(at)
        robot = at.discord.user("Robot", bot=True)
        at.discord.member(at.guild, robot)
        said = await at.discord.say(robot, at.channel, "beep")
        await at.settled()

        assert at.heard(said) is None


async def test_an_edit_is_followed(tmp_path: Path) -> None:
    async with on_discord(tmp_path, words=True) as at:
        await listening(at)
        _, said = await talked(at)
        await at.discord.edit(said, "Nobody did.")
        await at.settled()

        assert at.heard(said) == "Nobody did."
        assert [each.answer for each in paired(at)] == ["Nobody did."]


async def test_the_last_edit_of_a_second_stands(tmp_path: Path) -> None:
    async with on_discord(tmp_path, words=True) as at:
        await listening(at)
        _, said = await talked(at)
        for text in ("Nobody.", "Somebody.", "Nobody did."):
            await at.discord.edit(said, text)
        await at.settled()

        assert at.heard(said) == "Nobody did."


async def test_a_link_that_unfolds_is_no_edit(tmp_path: Path) -> None:
    async with on_discord(tmp_path, words=True) as at:
        await listening(at)
        _, said = await talked(at)
        await at.discord.unfurl(said, {"title": "A page"})
        await at.settled()

        assert at.stage.journal.message(at.place(), str(said)).revision == 0


async def test_an_edited_question_is_followed_and_not_answered_again(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        asked = await at.asked(KNOWN)
        await at.answer()
        await at.discord.edit(asked, f"{at.me} How cold?")
        await at.settled()

        assert at.heard(asked) == "How cold?"
        assert len(at.discord.said_by_bot(at.channel)) == 1


async def test_a_question_edited_out_of_sight_is_not_kept_as_it_was(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        asked = await at.asked(KNOWN)
        await at.answer()
        await at.discord.edit(asked, "never mind")
        await at.settled()

        assert at.heard(asked) is None


async def test_a_deletion_is_followed(tmp_path: Path) -> None:
    async with on_discord(tmp_path, words=True) as at:
        await listening(at)
        _, said = await talked(at)
        await at.discord.delete(said)
        await at.settled()

        assert at.heard(said) is None
        assert not paired(at)


async def test_a_message_deleted_at_once_is_not_kept(tmp_path: Path) -> None:
    async with on_discord(tmp_path, words=True) as at:
        await listening(at)
        said = [await at.discord.say(at.bob, at.channel, f"oops {number}") for number in range(5)]
        for each in said:
            await at.discord.delete(each)
        await at.settled()

        assert [at.heard(each) for each in said] == [None] * 5


async def test_a_moderators_purge_is_followed(tmp_path: Path) -> None:
    async with on_discord(tmp_path, words=True) as at:
        await listening(at)
        asked, said = await talked(at)
        await at.discord.bulk_delete(at.channel, [asked, said])
        await at.settled()

        assert (at.heard(asked), at.heard(said)) == (None, None)
        assert not paired(at)


async def test_a_deletion_in_a_thread_is_followed(tmp_path: Path) -> None:
    async with on_discord(tmp_path, words=True) as at:
        await listening(at)
        thread = at.discord.thread(at.channel, "Regattas")
        _, said = await talked(at, thread)
        assert at.heard(said) == ANSWER
        await at.discord.delete(said)
        await at.settled()

        assert at.heard(said) is None


async def test_a_twin_that_is_sent_away_forgets_what_it_heard_there(tmp_path: Path) -> None:
    async with on_discord(tmp_path, words=True) as at:
        await listening(at)
        asked, _ = await talked(at)
        await at.discord.leave(at.guild)
        await at.discord.until(lambda: not at.stage.community.members.places("discord"))

        assert at.heard(asked) is None
        assert not paired(at)


async def test_a_twin_that_was_sent_away_while_it_was_down_forgets_too(tmp_path: Path) -> None:
    async with on_discord(tmp_path, words=True) as at:
        await listening(at)
        asked, _ = await talked(at)
        await at.stop()
        await at.discord.leave(at.guild)
        await at.start()
        await at.discord.until(lambda: not at.stage.community.members.places("discord"))

        assert at.heard(asked) is None


async def test_an_outage_of_a_server_is_no_reason_to_forget(tmp_path: Path) -> None:
    async with on_discord(tmp_path, words=True) as at:
        await listening(at)
        asked, _ = await talked(at)
        await at.discord.outage(at.guild)
        await at.discord.admit(at.guild)
        await at.settled()

        assert at.heard(asked) == UNKNOWN
        assert at.stage.community.members.places("discord")


@pytest.mark.parametrize("name", ["Community", "🥖 Bakery"])
async def test_the_place_is_remembered_by_its_name(tmp_path: Path, name: str) -> None:
    async with on_discord(tmp_path, words=True) as at:
        channel = at.discord.channel(at.guild, name)
        await listening(at, channel)

        assert [place.name for place, _ in at.stage.community.members.places("discord")] == [name]
