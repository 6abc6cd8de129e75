"""Every way of asking the twin on Telegram, and what an answer looks like."""

from itertools import pairwise
from pathlib import Path

import pytest

import bot.telegram_line
from infra.errors import ServiceTrouble
from infra.voice.chat import Audience
from memory.messages import Place, Source
from tests.bot.stage import Script
from tests.bot.telegram_stage import ADA, SAYS, UNKNOWN, WARM, Scene, scene
from tests.fakes.telegram_flood import Limits

LONG = " ".join(f"word{number}" for number in range(24))
EMOJI = "👩‍🍳"


def source_of(on: Scene, question: int, chat: int) -> Source:
    known = on.stage.journal.said(Place("telegram", str(chat)), str(question))
    assert known is not None
    return known[1]


def links(entities: list[dict]) -> list[str]:
    return [each["url"] for each in entities if each["type"] == "text_link"]


# Ways of asking.


async def test_a_private_question_is_answered_with_votes_under_it(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        asked = await on.private(WARM)

        answer = await on.answered(on.bob, asked)

        assert SAYS in answer.text
        assert on.labels(answer) == ["👍", "👎"]
        assert source_of(on, asked, on.bob) is Source.TELEGRAM_DIRECT


async def test_the_first_answer_says_that_it_is_an_ai_and_the_second_does_not_repeat_it(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        first = await on.answered(on.bob, await on.private(WARM))
        second = await on.answered(on.bob, await on.private("Which flour do you use for baguettes?"))

        assert first.text.startswith("I am an AI that stands in for Ada")
        assert "I am an AI" not in second.text
        assert "AI stand-in for Ada" in second.text


async def test_a_mention_in_a_group_is_answered_as_a_reply(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        asked = await on.public(f"@twin_bot {WARM}")

        answer = await on.answered(on.group, asked)

        assert SAYS in answer.text
        assert source_of(on, asked, on.group) is Source.TELEGRAM_DIRECT
        assert on.stage.voice.asked[-1][-1].content.endswith(WARM)
        assert on.stage.voice.audiences == [Audience(f"telegram:{on.group}", "en")]


async def test_the_name_is_cut_from_the_question_wherever_it_stands(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        await on.answered(on.group, await on.public("👩‍🍳 How warm should @Twin_Bot the sourdough be?"))

        assert "twin" not in on.stage.voice.asked[-1][-1].content.lower()


async def test_a_reply_to_the_twin_in_a_group_is_a_question(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        first = await on.answered(on.group, await on.public(f"@twin_bot {WARM}"))

        second = await on.answered(
            on.group, await on.public("Which flour do you use for baguettes?", reply_to=first.id)
        )

        assert SAYS in second.text


async def test_a_reply_chain_is_told_to_the_voice_with_who_spoke(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        first = await on.answered(on.group, await on.public(f"@twin_bot {WARM}"))
        await on.answered(on.group, await on.public("How warm should the sourdough be at night?", reply_to=first.id))

        turns = on.stage.voice.asked[-1]
        assert [turn.role for turn in turns[-3:]] == ["user", "assistant", "user"]
        assert turns[-3].content == f"A member: {WARM}"
        assert SAYS in turns[-2].content


@pytest.mark.parametrize("command", ["/ask", "/ask@twin_bot"])
async def test_the_ask_command_asks_what_follows_it(tmp_path: Path, command: str) -> None:
    async with scene(tmp_path) as on:
        asked = await on.public(f"{command} {WARM}")

        assert SAYS in (await on.answered(on.group, asked)).text
        assert source_of(on, asked, on.group) is Source.TELEGRAM_DIRECT


async def test_ask_as_a_reply_asks_what_was_said_there_and_never_trains_on_it(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        said = await on.public(WARM, user=ADA)
        asked = await on.public("/ask", reply_to=said)

        answer = await on.answered(on.group, asked)

        assert SAYS in answer.text
        assert source_of(on, asked, on.group) is Source.TELEGRAM_GROUP


async def test_ask_alone_asks_back_for_the_question(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        await on.public("/ask")
        prompt = await on.reply(on.group, "What you want to know")

        answer = await on.answered(on.group, await on.public(WARM, reply_to=prompt.id))

        assert SAYS in answer.text


async def test_a_command_for_another_bot_is_left_to_it(tmp_path: Path) -> None:
    async with scene(tmp_path, privacy_mode=False) as on:
        await on.public(f"/ask@another_bot {WARM}")
        await on.settled()

        assert on.said(on.group) == []


async def test_privacy_mode_keeps_chatter_from_the_twin(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        await on.public(WARM)
        await on.answered(on.group, await on.public(f"@twin_bot {WARM}"))

        assert len(on.said(on.group)) == 1


async def test_chatter_that_it_can_read_is_not_answered(tmp_path: Path) -> None:
    async with scene(tmp_path, privacy_mode=False) as on:
        await on.public(WARM)
        await on.settled()

        assert on.said(on.group) == []


async def test_other_bots_are_ignored(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        robot = on.telegram.user("Robot", bot=True)
        on.telegram.join(on.group, robot)
        message = on.telegram._write(robot, on.group, f"@twin_bot {WARM}")
        on.telegram.queue.add("message", on.telegram.world.message_json(message))
        await on.settled()

        assert on.said(on.group) == []


async def test_a_question_in_a_topic_is_answered_in_that_topic(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        forum = on.telegram.group("Forum", forum=True)
        on.telegram.join(forum, on.bob)
        topic = on.telegram.topic(forum, "Bread")
        asked = await on.telegram.say(on.bob, forum, f"@twin_bot {WARM}", topic=topic)

        answer = await on.answered(forum, asked)

        assert (answer.topic, answer.reply_to) == (topic, asked)
        assert on.stage.voice.asked[-1][-1].content.endswith(WARM)


async def test_a_topic_is_one_conversation(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        forum = on.telegram.group("Forum", forum=True)
        on.telegram.join(forum, on.bob)
        topic = on.telegram.topic(forum, "Bread")
        for words in (WARM, "Which flour do you use for baguettes?"):
            await on.answered(forum, await on.telegram.say(on.bob, forum, f"@twin_bot {words}", topic=topic))

        assert WARM in [turn.content for turn in on.stage.voice.asked[-1]]


async def test_a_reply_in_a_plain_group_is_no_topic(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        said = await on.public("hello", user=ADA)
        answer = await on.answered(on.group, await on.public(f"@twin_bot {WARM}", reply_to=said))

        assert answer.topic is None


async def test_an_attachment_without_words_is_told_that_words_are_needed(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        await on.telegram.send_document(on.bob, on.telegram.private(on.bob), "oven.pdf", b"hot")

        assert "I can only read text" in (await on.reply(on.bob)).text


async def test_a_caption_is_a_question(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        await on.telegram.send_document(on.bob, on.telegram.private(on.bob), "oven.pdf", b"hot", caption=WARM)

        assert SAYS in (await on.reply(on.bob)).text


async def test_a_chinese_question_is_answered_in_chinese(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        answer = await on.answered(on.bob, await on.private("酵母放冰箱能活多久？"))

        assert "出处" in answer.text


async def test_a_traditional_reader_is_spoken_to_in_traditional(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        mei = on.telegram.user("Mei", language="zh-hant")
        answer = await on.answered(mei, await on.private("酵母放冰箱能活多久？", user=mei))

        assert "出處" in answer.text
        assert on.stage.voice.audiences == [Audience(language="zh-TW")]


# What an answer looks like.


async def test_sources_are_links(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        answer = await on.answered(on.bob, await on.private(WARM))

        assert "https://ada.example/faq" in links(answer.entities)
        assert "](" not in answer.text


async def test_markdown_arrives_as_styles(tmp_path: Path) -> None:
    async with scene(tmp_path, voice=Script("Use **T65** flour and `hydrate` well")) as on:
        answer = await on.answered(on.bob, await on.private(WARM))

        assert "Use T65 flour and hydrate well" in answer.text
        assert {"bold", "code"} <= {each["type"] for each in answer.entities}


async def test_money_and_underscores_stay_as_they_are(tmp_path: Path) -> None:
    async with scene(tmp_path, voice=Script("It is $5 and $6 with max_tokens_here")) as on:
        answer = await on.answered(on.bob, await on.private(WARM))

        assert "It is $5 and $6 with max_tokens_here" in answer.text


async def test_a_long_answer_comes_whole_in_parts_that_fit(tmp_path: Path) -> None:
    words = " ".join([EMOJI * 8] * 300)
    async with scene(tmp_path, voice=Script(words)) as on:
        asked = await on.private(WARM)
        await on.answered(on.bob, asked)
        await on.reply(on.bob, "Sources")

        parts = on.said(on.bob)
        assert len(parts) > 1
        assert sum(part.text.count("👩") for part in parts) == 2400
        assert all(len(part.text.encode("utf-16-le")) <= 2 * 4096 for part in parts)
        assert [bool(part.buttons) for part in parts] == [False] * (len(parts) - 1) + [True]
        assert [part.reply_to for part in parts] == [asked] + [None] * (len(parts) - 1)


async def test_a_long_code_block_is_code_in_every_part(tmp_path: Path) -> None:
    lines = "\n".join(f"print({number})" for number in range(700))
    async with scene(tmp_path, voice=Script(f"Look:\n```python\n{lines}\n```\ndone")) as on:
        await on.answered(on.bob, await on.private(WARM))
        await on.reply(on.bob, "Sources")

        parts = on.said(on.bob)
        assert len(parts) > 1
        assert all(any(each["type"] == "pre" for each in part.entities) for part in parts)
        assert "```" not in "".join(part.text for part in parts)


async def test_refused_styles_are_left_out_and_the_words_arrive(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        on.telegram.fail_next("sendMessage", 400, "Bad Request: can't parse entities: no")

        answer = await on.answered(on.bob, await on.private(WARM))

        assert SAYS in answer.text
        assert links(answer.entities) == []


async def test_link_previews_are_off(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        await on.answered(on.bob, await on.private(WARM))

        assert on.telegram.calls("sendMessage")[-1].params["link_preview_options"] == {"is_disabled": True}


# While it is being written.


async def test_a_private_answer_grows_as_a_draft_and_ends_as_a_message(tmp_path: Path) -> None:
    async with scene(tmp_path, voice=Script(LONG, pace_s=0.02)) as on:
        await on.answered(on.bob, await on.private(WARM))

        drafts = on.telegram.drafts
        assert len(drafts) >= 3
        assert len({draft.draft_id for draft in drafts}) == 1
        assert drafts[0].draft_id != 0
        assert [len(draft.text) for draft in drafts] == sorted(len(draft.text) for draft in drafts)
        assert len(on.said(on.bob)) == 1
        assert not on.said(on.bob)[0].edits


async def test_typing_is_shown_before_the_first_word(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        await on.answered(on.bob, await on.private(WARM))

        assert (on.bob, "typing") in [(chat, action) for chat, action, _ in on.telegram.actions]


async def test_a_group_answer_grows_by_edits_at_the_pace_of_the_group(tmp_path: Path) -> None:
    async with scene(tmp_path, voice=Script(LONG, pace_s=0.03)) as on:
        answer = await on.answered(on.group, await on.public(f"@twin_bot {WARM}"))

        times = [answer.time, *(at for at, _ in answer.edits)]
        assert len(times) >= 4
        assert min(later - earlier for earlier, later in pairwise(times)) >= 0.095
        assert on.telegram.drafts == []
        assert on.labels(answer) == ["👍", "👎"]


async def test_edits_are_three_seconds_apart_in_earnest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with scene(tmp_path, voice=Script(LONG, pace_s=0.18)) as on:
        monkeypatch.setattr(bot.telegram_line, "GROUP_S", 3.0)
        answer = await on.answered(on.group, await on.public(f"@twin_bot {WARM}"), timeout_s=20)

        times = [answer.time, *(at for at, _ in answer.edits)]
        assert len(times) >= 2
        assert min(later - earlier for earlier, later in pairwise(times)) >= 2.99


async def test_two_answers_in_one_group_share_its_pace(tmp_path: Path) -> None:
    async with scene(tmp_path, voice=Script(LONG, pace_s=0.03)) as on:
        asked = [await on.public(f"@twin_bot {WARM}"), await on.public(f"@twin_bot {WARM}", user=ADA)]
        answers = [await on.answered(on.group, each) for each in asked]

        previews = sorted(at for answer in answers for at, text in answer.edits if "Sources" not in text)
        assert previews
        assert all(later - earlier >= 0.095 for earlier, later in pairwise(previews))
        assert all("Sources" in answer.text for answer in answers)


async def test_a_quick_answer_in_a_group_is_one_message(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        answer = await on.answered(on.group, await on.public(f"@twin_bot {WARM}"))

        assert answer.edits == []


async def test_a_flood_pauses_the_drafts_and_the_answer_arrives(tmp_path: Path) -> None:
    async with scene(tmp_path, voice=Script(LONG, pace_s=0.02)) as on:
        on.telegram.fail_next("sendMessageDraft", 429, retry_after=1)

        answer = await on.answered(on.bob, await on.private(WARM))

        assert LONG in answer.text
        assert len(on.telegram.calls("sendMessageDraft")) == 1
        assert on.telegram.calls("editMessageText") == []


async def test_a_flood_on_an_edit_does_not_cost_the_answer(tmp_path: Path) -> None:
    async with scene(tmp_path, voice=Script(LONG, pace_s=0.03)) as on:
        on.telegram.fail_next("editMessageText", 429, retry_after=1)

        answer = await on.answered(on.group, await on.public(f"@twin_bot {WARM}"))

        assert LONG in answer.text
        assert len(on.said(on.group)) == 1


async def test_a_flood_on_the_final_message_only_delays_it(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        on.telegram.fail_next("sendMessage", 429, retry_after=1)

        assert SAYS in (await on.answered(on.bob, await on.private(WARM))).text


async def test_the_real_limits_of_a_group_leave_room_for_every_answer(tmp_path: Path) -> None:
    limits = Limits(chat_burst=100, group_per_minute=20, minute_s=2.0)
    async with scene(tmp_path, voice=Script(LONG, pace_s=0.02), limits=limits) as on:
        people = [on.telegram.user(f"Guest {number}") for number in range(6)]
        for person in people:
            on.telegram.join(on.group, person)
        asked = [await on.public(f"@twin_bot {WARM}", user=person) for person in people]

        answers = [await on.answered(on.group, each, timeout_s=20) for each in asked]

        assert all(LONG in answer.text for answer in answers)


async def test_broken_previews_do_not_cost_the_answer(tmp_path: Path) -> None:
    async with scene(tmp_path, voice=Script(LONG, pace_s=0.02)) as on:
        on.telegram.fail_next("sendMessageDraft", 500, times=50)

        assert LONG in (await on.answered(on.bob, await on.private(WARM))).text


@pytest.mark.parametrize("status", [500, 502, 0])
async def test_a_failing_telegram_gets_the_answer_again(tmp_path: Path, status: int) -> None:
    async with scene(tmp_path) as on:
        on.telegram.fail_next("sendMessage", status, times=2)

        answer = await on.answered(on.bob, await on.private(WARM))

        assert SAYS in answer.text
        assert len(on.said(on.bob)) == 1


async def test_a_preview_that_was_deleted_is_replaced_by_a_new_message(tmp_path: Path) -> None:
    async with scene(tmp_path, voice=Script(LONG, pace_s=0.03)) as on:
        asked = await on.public(f"@twin_bot {WARM}")
        preview = await on.reply(on.group)
        preview.deleted = True

        assert LONG in (await on.answered(on.group, asked)).text


async def test_a_question_that_was_deleted_is_answered_without_a_reply(tmp_path: Path) -> None:
    async with scene(tmp_path, voice=Script(LONG, pace_s=0.01)) as on:
        asked = await on.private(WARM)
        await on.telegram.until(lambda: on.stage.voice.asked)
        await on.telegram.delete(asked, on.bob)

        assert (await on.reply(on.bob, LONG)).reply_to is None


async def test_a_voice_that_breaks_off_leaves_what_it_said(tmp_path: Path) -> None:
    async with scene(tmp_path, voice=Script("Keep it warm and dry", breaks_after=3)) as on:
        answer = await on.answered(on.bob, await on.private(WARM))

        assert "Keep it warm…" in answer.text


async def test_a_voice_that_stalls_is_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.twin.STALL_S", 0.2)
    async with scene(tmp_path, voice=Script(SAYS, pace_s=0.0)) as on:
        on.stage.voice.pace_s = 0.15
        on.stage.voice.stalls_after = 3
        answer = await on.answered(on.bob, await on.private(WARM))

        assert "Keep it at…" in answer.text


async def test_a_voice_that_is_down_is_said_and_the_question_waits(tmp_path: Path) -> None:
    async with scene(tmp_path, voice=Script(SAYS, breaks_after=0)) as on:
        answer = await on.answered(on.bob, await on.private(WARM))

        assert "Something went wrong on my side" in answer.text
        assert [item.question for item in on.inbox()] == [WARM]


async def test_a_memory_that_is_down_is_said_and_the_question_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(tmp_path) as on:

        def broken(*_: object, **__: object) -> None:
            raise ServiceTrouble("The index is gone.")

        monkeypatch.setattr(on.stage.community.twin._recall, "recall", broken)
        answer = await on.answered(on.bob, await on.private(WARM))

        assert "Something went wrong on my side" in answer.text
        assert [item.question for item in on.inbox()] == [WARM]


async def test_too_many_questions_are_told_so_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        for _ in range(14):
            await on.private("thanks")
        await on.settled()

        assert len([each for each in on.said(on.bob) if "a lot of questions" in each.text]) == 1
        assert len(on.said(on.bob)) == 11


async def test_one_slow_reply_holds_up_nobody_else(tmp_path: Path) -> None:
    async with scene(tmp_path, voice=Script(LONG, pace_s=0.15)) as on:
        await on.private(WARM)
        await on.telegram.until(lambda: on.stage.voice.asked)

        thanks = await on.answered(ADA, await on.private("thanks", user=ADA), timeout_s=2)

        assert "welcome" in thanks.text
        assert on.said(on.bob) == []


async def test_what_it_does_not_know_it_offers_to_pass_on(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        answer = await on.answered(on.bob, await on.private(UNKNOWN))

        assert "I don't know that" in answer.text
        assert on.labels(answer) == ["Pass it on", "Pass it on, tell me privately"]
        assert on.inbox() == []
