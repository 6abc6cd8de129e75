"""Being asked on Discord: every way to ask, and what comes back."""

from pathlib import Path

import pytest

from infra.voice.chat import Audience
from tests.bot.discord_stage import KNOWN, SAYS, UNKNOWN, actions, on_discord
from tests.bot.stage import Script
from tests.fakes.discord import DEFAULT, Permission
from tests.fakes.discord_world import FORUM


async def test_a_mention_is_answered_by_a_reply(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        asked = await at.asked(KNOWN)
        answer = await at.answer()

        assert SAYS in answer.content
        assert answer.reply_to == asked
        assert at.heard(asked) == KNOWN
        assert at.voice.audiences == [Audience(f"discord:{at.guild}", "en")]


async def test_a_direct_message_is_answered(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        await at.discord.dm(at.bob, KNOWN)

        assert SAYS in (await at.answer(at.discord.dm_channel(at.bob))).content
        assert at.voice.audiences == [Audience(language="en")]


async def test_a_reply_to_the_twin_is_answered_with_what_was_said_before(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        await at.asked(KNOWN)
        first = await at.answer()
        await at.discord.say(at.bob, at.channel, "And how warm in winter?", reply_to=first.id)
        await at.answer(count=2)

        turns = [turn.content for turn in at.voice.asked[-1]]
        assert any(KNOWN in turn for turn in turns)
        assert any(SAYS in turn for turn in turns)
        assert "And how warm in winter?" in turns[-1]


async def test_a_reply_without_a_ping_is_answered_where_the_twin_may_read(tmp_path: Path) -> None:
    async with on_discord(tmp_path, words=True) as at:
        await at.asked(KNOWN)
        first = await at.answer()
        await at.discord.say(at.bob, at.channel, KNOWN, reply_to=first.id, ping=False)

        assert SAYS in (await at.answer(count=2)).content


async def test_the_ask_command_is_answered_for_everybody(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        interaction = await at.slash("ask", question=KNOWN)
        answer = await at.answer()

        assert SAYS in answer.content
        assert (interaction.deferred, interaction.ephemeral) == (True, False)
        assert at.voice.audiences == [Audience(f"discord:{at.guild}", "en")]


async def test_a_reply_to_the_answer_of_a_command_goes_on_with_it(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        await at.slash("ask", question=KNOWN)
        answer = await at.answer()
        await at.discord.say(at.bob, at.channel, KNOWN, reply_to=answer.id)
        await at.answer(count=2)

        assert any(SAYS in turn.content for turn in at.voice.asked[-1])


async def test_a_message_can_be_asked_about_in_private(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        theirs = await at.discord.say(at.ada, at.channel, KNOWN)
        chosen = await (await at.discord.menu(at.bob, at.channel, "Ask the twin", theirs)).done(20)
        answer = await at.answer()

        assert SAYS in answer.content
        assert (chosen.ephemeral, answer.only_for) == (True, at.bob)


async def test_what_was_asked_in_private_is_not_offered_to_be_answered_in_public(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        theirs = await at.discord.say(at.ada, at.channel, UNKNOWN)
        await at.discord.menu(at.bob, at.channel, "Ask the twin", theirs)

        assert actions(await at.answer()) == ["dm"]


async def test_a_message_delivered_twice_is_answered_once(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        asked = await at.asked(KNOWN)
        at.discord.talk.tell("MESSAGE_CREATE", at.discord.messages[asked])
        await at.answer()
        at.discord.talk.tell("MESSAGE_CREATE", at.discord.messages[asked])
        await at.settled()

        assert len(at.discord.said_by_bot(at.channel)) == 1


@pytest.mark.parametrize("text", ["How warm?", "@everyone how warm?", "<@&77> how warm?"])
async def test_what_is_not_meant_for_the_twin_is_left_alone(tmp_path: Path, text: str) -> None:
    async with on_discord(tmp_path, words=True) as at:
        at.discord.member(at.guild, at.bob, DEFAULT | Permission.MENTION_EVERYONE)
        await at.discord.say(at.bob, at.channel, text)
        await at.settled()

        assert not at.discord.said_by_bot()


async def test_other_bots_are_ignored(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        robot = at.discord.user("Robot", bot=True)
        at.discord.member(at.guild, robot)
        await at.asked(KNOWN, who=robot)
        await at.settled()

        assert not at.discord.said_by_bot()


async def test_a_thread_is_answered_inside_and_is_one_conversation(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        thread = at.discord.thread(at.channel, "Baking")
        await at.asked(KNOWN, where=thread)
        await at.answer(thread)
        await at.asked("Which flour do you use for baguettes?", where=thread)
        await at.answer(thread, count=2)

        assert any(KNOWN in turn.content for turn in at.voice.asked[-1])
        assert not at.discord.said_by_bot(at.channel)


async def test_a_forum_post_is_answered_inside(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        forum = at.discord.channel(at.guild, "questions", FORUM)
        post = at.discord.thread(forum, "Warmth", owner=at.bob)
        asked = await at.asked(KNOWN, where=post)

        assert (await at.answer(post)).reply_to == asked
        assert at.stage.journal.message(at.place(forum), str(asked)).place.thread == str(post)


async def test_a_channel_is_no_single_conversation(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        await at.asked(KNOWN)
        await at.answer()
        await at.asked("Which flour do you use for baguettes?")
        await at.answer(count=2)

        assert not any(KNOWN in turn.content for turn in at.voice.asked[-1])


async def test_a_channel_that_not_everybody_sees_is_private(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        hidden = at.discord.channel(at.guild, "team")
        at.discord.hide(hidden)
        asked = [await at.asked(KNOWN, where=where) for where in (hidden, at.channel)]
        await at.answer(hidden)
        await at.answer()

        seen = [at.stage.journal.message(at.place(c), str(m)) for c, m in zip((hidden, at.channel), asked, strict=True)]
        assert [each.place.visibility for each in seen] == ["private", "public"]


async def test_a_picture_alone_is_answered_with_what_the_twin_can_read(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        await at.discord.say(at.bob, at.channel, at.me, files={"bread.png": b"png"})

        assert (await at.answer(containing="only read text")).reply_to


async def test_an_unknown_question_is_not_guessed_at(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        await at.asked(UNKNOWN)
        answer = await at.answer()

        assert "I won't guess" in answer.content
        assert actions(answer) == ["ask", "dm"]
        assert not at.voice.asked


async def test_sources_are_links_that_do_not_unfold(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        await at.asked(KNOWN)
        mentioned = await at.answer()
        await at.slash("ask", question=KNOWN)
        commanded = await at.answer(count=2)

        assert f"[{KNOWN}](https://ada.example/faq)" in mentioned.content
        assert mentioned.flags & 1 << 2
        assert f"[{KNOWN}](<https://ada.example/faq>)" in commanded.content


async def test_the_twin_introduces_itself_once(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        for _ in range(2):
            await at.asked(KNOWN)
        first, second = await at.answer(), await at.answer(count=2)
        await at.asked(KNOWN)
        third = await at.answer(count=3)

        assert "I am an AI that stands in for Ada" in first.content + second.content
        assert "I am an AI that stands in for Ada" not in third.content


async def test_nothing_the_twin_says_pings_anybody(tmp_path: Path) -> None:
    async with on_discord(tmp_path, voice=Script("@everyone @here <@&5> ask <@9>")) as at:
        await at.asked(KNOWN)
        await at.slash("ask", question=KNOWN)

        for answer in (await at.answer(), await at.answer(count=2)):
            assert "@everyone" in answer.content
            assert (answer.mentions, answer.everyone, answer.pings_author) == ([], False, False)


async def test_other_people_are_read_by_handle(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        asked = await at.asked(f"does <@{at.ada}> bake?")
        await at.answer()

        assert at.heard(asked) == "does @ada bake?"


async def test_the_question_says_where_it_can_be_read(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        asked = await at.asked(KNOWN)
        await at.answer()

        url = f"https://discord.com/channels/{at.guild}/{at.channel}/{asked}"
        assert at.stage.journal.message(at.place(), str(asked)).url == url


@pytest.mark.parametrize(("locale", "says"), [("zh-CN", "替身"), ("zh-TW", "替身"), ("de", "stand-in")])
async def test_a_command_is_answered_in_the_members_language(tmp_path: Path, locale: str, says: str) -> None:
    async with on_discord(tmp_path) as at:
        carol = at.discord.user("Carol", locale=locale)
        at.discord.member(at.guild, carol)

        assert says in await at.said("about", who=carol)


async def test_a_question_in_chinese_is_answered_in_chinese(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        await at.asked("谁赢了1907年的赛艇比赛？")

        assert "替身" in (await at.answer(containing="替身")).content


async def test_who_asks_too_much_is_told_once(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        for number in range(14):
            await at.asked(f"hello{'!' * number}")
        await at.answer(containing="a lot of questions")
        await at.settled()

        told = [m for m in at.discord.said_by_bot(at.channel) if "a lot of questions" in m.content]
        assert len(told) == 1
        assert len(at.discord.said_by_bot(at.channel)) == 11


async def test_a_command_that_is_one_too_many_does_not_think_for_ever(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        asked = [
            await at.discord.slash(at.bob, at.channel, "ask", question=f"hello{'!' * number}") for number in range(12)
        ]
        for each in asked:
            await each.done(20)
        await at.settled()

        assert sum(each.original.deleted for each in asked) == 1
