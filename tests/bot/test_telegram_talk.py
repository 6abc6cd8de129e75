"""What people do with the twin on Telegram beyond asking: votes, the inbox, forms, commands, listening."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bot.inbox import answer_question
from memory.journal import Judged
from memory.messages import Exchange, Kind, Person, Place, Source
from memory.provenance import may_train
from memory.remember import remember
from memory.trial import Ending, Worse, trial_event
from tests.bot.telegram_stage import ADA, SAYS, UNKNOWN, WARM, Scene, scene
from tests.fakes.telegram_world import FakeMessage

ANSWER = "Ulaanbaatar, said Ada."
FLOUR = "Which flour do you use for baguettes?"


def learned(on: Scene, question: str) -> list[Exchange]:
    return [each for each in on.stage.journal.exchanges() if question in each.question]


def trains(on: Scene, exchange: Exchange) -> bool:
    return may_train(exchange, consent=on.stage.journal.consent).eligible


async def passed_on(on: Scene, *, how: str = "ask", chat: int | None = None) -> FakeMessage:
    """Bob asks what nobody knows and has it passed on; returns the card."""
    asked = await (on.public(f"@twin_bot {UNKNOWN}") if chat else on.private(UNKNOWN))
    await on.press(on.bob, await on.answered(chat or on.bob, asked), f"{how}:")
    return await on.card()


async def fill(on: Scene, prompt: FakeMessage, text: str, *, user: int = ADA) -> int:
    await on.settled()
    return await on.telegram.say(user, prompt.chat, text, reply_to=prompt.id)


# Votes and reports.


async def test_a_vote_is_noted_in_a_window_over_the_chat(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        answer = await on.answered(on.bob, await on.private(WARM))

        assert await on.press(on.bob, answer, "up:") == "Noted, thank you."
        assert [each["value"] for each in on.events("vote")] == ["good"]
        assert len(on.said(on.bob)) == 1


async def test_a_vote_counts_after_a_restart(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        answer = await on.answered(on.bob, await on.private(WARM))
        await on.stop()
        on.start()

        assert await on.press(on.bob, answer, "down:") == ""
        assert [each["value"] for each in on.events("vote")] == ["bad"]


async def test_a_bad_vote_in_a_group_offers_a_report_privately_and_ada_sees_it(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        answer = await on.answered(on.group, await on.public(f"@twin_bot {WARM}"))
        await on.press(on.bob, answer, "down:")
        noted = await on.reply(on.bob, "Noted")
        await on.press(on.bob, noted, "report:")
        await fill(on, await on.reply(on.bob, "What is wrong with it?"), "far too warm", user=on.bob)

        report = await on.reply(ADA, "An answer was reported")
        assert "far too warm" in report.text
        assert SAYS in report.text
        assert len(on.said(on.group)) == 1


async def test_the_report_command_is_used_as_a_reply(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        answer = await on.answered(on.bob, await on.private(WARM))
        await on.private("/report", reply_to=answer.id)
        await on.press(on.bob, await on.reply(on.bob, "Report this answer"), "report:")

        assert await on.reply(on.bob, "What is wrong with it?")


async def test_a_press_on_something_long_gone_is_answered(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        card = await passed_on(on)
        await on.press(ADA, card, "dismiss:")
        card.reply_markup = {"inline_keyboard": [[{"text": "x", "callback_data": "use:99"}]]}

        assert await on.press(ADA, card, "use:") == "That is no longer there."


# From a question that nobody could answer to its answer.


async def test_a_question_passed_on_is_answered_by_reply_and_bob_is_told_where_he_asked(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        card = await passed_on(on, chat=on.group)
        assert on.labels(card) == ["Answer", "Use draft", "Edit draft", "Dismiss"]
        await on.private(ANSWER, user=ADA, reply_to=card.id)

        told = await on.reply(on.group, ANSWER)

        assert told.reply_to is not None
        assert UNKNOWN in on.telegram.messages[on.group, told.reply_to].text
        assert await on.reply(ADA, "Remembered")
        await on.telegram.until(lambda: "Answered." in card.text)
        assert card.buttons == []


async def test_who_asked_is_told_when_the_twin_may_speak_again(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        card = await passed_on(on, chat=on.group)
        on.stage.operations.silence(on=True)
        await on.private(ANSWER, user=ADA, reply_to=card.id)
        await on.telegram.until(lambda: "Answered." in card.text)
        assert not [each for each in on.said(on.group) if ANSWER in each.text]

        on.stage.operations.silence(on=False)
        assert await on.reply(on.group, ANSWER)


async def test_the_answer_is_known_from_then_on(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        card = await passed_on(on)
        await on.private(ANSWER, user=ADA, reply_to=card.id)
        await on.reply(on.bob, ANSWER)
        await on.telegram.until(lambda: not on.stage.journal.outbox(1))

        assert SAYS in (await on.answered(on.bob, await on.private(UNKNOWN + "?"))).text


async def test_who_wants_to_be_told_privately_is(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        card = await passed_on(on, how="dm", chat=on.group)
        await on.private(ANSWER, user=ADA, reply_to=card.id)

        assert await on.reply(on.bob, ANSWER)
        assert not [each for each in on.said(on.group) if ANSWER in each.text]


async def test_only_who_asked_can_pass_a_question_on(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        answer = await on.answered(on.group, await on.public(f"@twin_bot {UNKNOWN}"))

        assert await on.press(ADA, answer, "ask:") == "Only who asked can do that."
        assert on.inbox() == []


async def test_the_answer_button_asks_for_the_answer(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        await on.press(ADA, await passed_on(on), "answer:")
        await fill(on, await on.reply(ADA, "Your answer"), ANSWER)

        assert await on.reply(on.bob, ANSWER)


async def test_a_form_is_known_after_a_restart_and_filled_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        await on.press(ADA, await passed_on(on), "answer:")
        prompt = await on.reply(ADA, "Your answer")
        await on.stop()
        on.start()
        await fill(on, prompt, ANSWER)
        await on.reply(on.bob, ANSWER)
        await fill(on, prompt, "And another thing")
        await on.settled()

        assert len(learned(on, UNKNOWN)) == 1


async def test_nobody_else_fills_a_form(tmp_path: Path) -> None:
    async with scene(tmp_path, settings={"inbox_chat": "0"}, begin=False) as on:
        on.settings["inbox_chat"] = str(on.group)
        on.telegram.world.people[ADA].started = False
        on.start()
        asked = await on.private(UNKNOWN)
        await on.press(on.bob, await on.answered(on.bob, asked), "ask:")
        card = await on.card(chat=on.group)
        assert await on.press(on.bob, card, "answer:") == "Only Ada can do that."
        await on.press(ADA, card, "answer:")
        prompt = await on.reply(on.group, "Your answer")
        await fill(on, prompt, "Bielefeld", user=on.bob)
        await fill(on, prompt, ANSWER)

        assert await on.reply(on.bob, ANSWER)
        assert [each.answer for each in learned(on, UNKNOWN)] == [ANSWER]


async def test_a_draft_that_is_right_is_used_as_it_is(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        await on.press(ADA, await passed_on(on), "use:")

        assert SAYS in (await on.reply(on.bob, "has answered your question")).text
        assert on.events("preference") == []


async def test_an_edited_draft_is_kept_beside_the_draft(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        await on.press(ADA, await passed_on(on), "edit:")
        prompt = await on.reply(ADA, "Your answer")
        assert SAYS in prompt.text
        assert "pre" in {each["type"] for each in prompt.entities}
        await fill(on, prompt, ANSWER)
        await on.reply(on.bob, ANSWER)
        await on.settled()

        kept = on.events("preference")
        assert [(each["edited"], SAYS in each["draft"]) for each in kept] == [(ANSWER, True)]


async def test_a_dismissed_question_goes_and_its_card_says_so(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        card = await passed_on(on)
        assert await on.press(ADA, card, "dismiss:") == "Dismissed."

        await on.telegram.until(lambda: "Dismissed." in card.text)
        assert on.inbox() == []


async def test_cards_go_to_the_chat_that_the_settings_name(tmp_path: Path) -> None:
    async with scene(tmp_path, begin=False) as on:
        desk = on.telegram.group("Desk")
        on.telegram.join(desk, ADA)
        on.settings["inbox_chat"] = str(desk)
        on.start()
        asked = await on.private(UNKNOWN)
        await on.press(on.bob, await on.answered(on.bob, asked), "ask:")
        card = await on.card(chat=desk)
        await on.telegram.say(ADA, desk, ANSWER, reply_to=card.id)

        assert await on.reply(on.bob, ANSWER)


async def test_a_card_in_a_forum_is_answered_from_any_of_its_topics(tmp_path: Path) -> None:
    async with scene(tmp_path, begin=False) as on:
        forum = on.telegram.group("Desk", forum=True)
        on.telegram.join(forum, ADA, "creator")
        topic = on.telegram.topic(forum, "Answers")
        on.settings["inbox_chat"] = str(forum)
        on.start()
        asked = await on.private(UNKNOWN)
        await on.press(on.bob, await on.answered(on.bob, asked), "ask:")
        card = await on.card(chat=forum)
        await on.telegram.say(ADA, forum, ANSWER, reply_to=card.id, topic=topic)

        assert await on.reply(on.bob, ANSWER)


async def test_members_are_told_although_adas_chat_is_closed(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        card = await passed_on(on)
        await on.telegram.block(ADA)
        now = on.stage.community.clock()
        item = on.inbox()[0]
        second = await on.private("Who is the mayor of Ulaanbaatar?")
        await on.press(on.bob, await on.answered(on.bob, second), "ask:")
        ada = Person("own", "creator", "Ada", role="creator")
        await asyncio.to_thread(answer_question, on.stage.journal, item.number, answer=ANSWER, creator=ada, now=now)

        assert await on.reply(on.bob, ANSWER)
        assert card.text


# Teaching.


async def test_teach_makes_memory_of_a_message_and_no_training(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        said = await on.public("The rye starter wants 28 degrees.")
        await on.public("/teach", user=ADA, reply_to=said)
        await fill(on, await on.reply(ADA, "The question it answers"), "How warm does rye starter want it?")
        await on.reply(ADA, "Remembered, and usable at once.")

        taught = learned(on, "rye starter")
        assert [(each.answer, each.source) for each in taught] == [
            ("The rye starter wants 28 degrees.", Source.TELEGRAM_GROUP)
        ]
        assert taught[0].url.startswith("https://t.me/c/")
        assert not trains(on, taught[0])


async def test_only_the_creator_teaches(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        said = await on.public("The rye starter wants 28 degrees.", user=ADA)
        await on.public("/teach", reply_to=said)

        assert await on.reply(on.bob, "Only Ada can do that.")


async def test_what_somebody_wants_kept_nowhere_is_not_taught(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        await on.private("/consent off")
        await on.reply(on.bob, "Understood")
        said = await on.public("The rye starter wants 28 degrees.")
        await on.public("/teach", user=ADA, reply_to=said)

        assert await on.reply(ADA, "Reply with /teach")


async def test_consent_lets_a_direct_question_train_with_adas_answer(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        card = await passed_on(on)
        await on.private(ANSWER, user=ADA, reply_to=card.id)
        await on.reply(on.bob, ANSWER)
        exchange = learned(on, UNKNOWN)[0]
        before = trains(on, exchange)
        await on.private("/consent yes")
        await on.reply(on.bob, "Thank you")

        assert (before, trains(on, exchange)) == (False, True)


async def test_consent_in_one_chat_is_none_in_another(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        card = await passed_on(on, chat=on.group)
        await on.private(ANSWER, user=ADA, reply_to=card.id)
        await on.reply(on.group, ANSWER)
        await on.private("/consent yes")
        await on.reply(on.bob, "Thank you")

        assert not trains(on, learned(on, UNKNOWN)[0])


# Listening.


async def listening(on: Scene) -> None:
    await on.public("/listen on", user=ADA)
    await on.reply(on.group, "I listen in this place")


async def chat(on: Scene, question: str, answer: str, *, by: int = ADA) -> tuple[int, int]:
    asked = await on.public(question)
    return asked, await on.public(answer, user=by, reply_to=asked)


async def test_where_it_listens_the_creators_answers_become_memory_that_never_trains(tmp_path: Path) -> None:
    async with scene(tmp_path, privacy_mode=False) as on:
        await listening(on)
        await chat(on, "How long does rye rest?", "Sixteen hours in the cellar.")
        await on.telegram.until(lambda: learned(on, "rye rest"))

        exchange = learned(on, "rye rest")[0]
        assert exchange.answer == "Sixteen hours in the cellar."
        assert not trains(on, exchange)
        assert exchange.url.startswith("https://t.me/c/")


async def test_what_the_creator_forwards_is_not_heard_as_theirs(tmp_path: Path) -> None:
    async with scene(tmp_path, privacy_mode=False) as on:
        await listening(on)
        await on.public("How long does rye rest?")
        await on.public("Five minutes on the stove.", user=ADA, forwarded_from="Mallory")
        await chat(on, "How long does spelt rest?", "Two hours.")
        await on.telegram.until(lambda: learned(on, "spelt rest"))

        heard = [event.payload["text"] for _, event in on.stage.journal.events(kind=Kind.MESSAGE, limit=100)]
        assert "How long does rye rest?" in heard
        assert "Five minutes on the stove." not in heard


async def test_where_it_does_not_listen_nothing_is_kept(tmp_path: Path) -> None:
    async with scene(tmp_path, privacy_mode=False) as on:
        asked, _ = await chat(on, "How long does rye rest?", "Sixteen hours.")
        await listening(on)
        await on.public("/listen off", user=ADA)
        await on.reply(on.group, "I no longer listen")
        later, _ = await chat(on, "How long does spelt rest?", "Two hours.")
        await on.settled()

        here = Place("telegram", str(on.group))
        assert on.stage.journal.message(here, str(asked)) is None
        assert on.stage.journal.message(here, str(later)) is None


async def test_listening_is_refused_while_privacy_mode_hides_everything(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        await on.public("/listen on", user=ADA)

        assert "BotFather" in (await on.reply(ADA, "I cannot read messages here")).text
        assert not on.stage.community.members.listening(f"telegram:{on.group}")


async def test_as_an_administrator_it_can_listen_in_privacy_mode(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        on.telegram.join(on.group, on.telegram.bot_id, "administrator")

        await listening(on)


async def test_an_edit_is_followed(tmp_path: Path) -> None:
    async with scene(tmp_path, privacy_mode=False) as on:
        await listening(on)
        _, answer = await chat(on, "How long does rye rest?", "Sixteen hours.")
        await on.telegram.until(lambda: learned(on, "rye rest"))
        await on.telegram.edit(answer, on.group, "Eighteen hours.")

        await on.telegram.until(lambda: learned(on, "rye rest")[0].answer == "Eighteen hours.")


async def test_the_last_edit_of_a_second_stands(tmp_path: Path) -> None:
    """Telegram dates edits by the second; all but the first of one were dropped."""
    async with scene(tmp_path, privacy_mode=False) as on:
        await listening(on)
        _, answer = await chat(on, "How long does rye rest?", "Sixteen hours.")
        await on.telegram.until(lambda: learned(on, "rye rest"))
        for hours in ("Seventeen", "Eighteen", "Sixteen", "Twenty"):
            await on.telegram.edit(answer, on.group, f"{hours} hours.")
        await on.settled()

        assert [each.answer for each in learned(on, "rye rest")] == ["Twenty hours."]


async def test_an_edited_question_is_not_answered_again(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        asked = await on.private(WARM)
        await on.answered(on.bob, asked)
        await on.telegram.edit(asked, on.bob, FLOUR)
        await on.settled()

        assert len(on.said(on.bob)) == 1


async def test_who_says_off_is_not_remembered(tmp_path: Path) -> None:
    async with scene(tmp_path, privacy_mode=False) as on:
        await listening(on)
        await on.private("/consent off")
        await on.reply(on.bob, "Understood")
        asked, _ = await chat(on, "How long does rye rest?", "Sixteen hours.")
        await on.settled()

        assert on.stage.journal.message(Place("telegram", str(on.group)), str(asked)) is None
        assert learned(on, "rye rest") == []


async def test_what_a_teacher_answers_is_memory(tmp_path: Path) -> None:
    async with scene(tmp_path, privacy_mode=False, teachers=frozenset({"telegram:8"})) as on:
        on.telegram.user("Grace", user_id=8)
        on.telegram.join(on.group, 8)
        await listening(on)
        await chat(on, "How long does rye rest?", "Sixteen hours.", by=8)

        await on.telegram.until(lambda: learned(on, "rye rest"))
        assert not trains(on, learned(on, "rye rest")[0])


async def test_thrown_out_it_forgets_what_it_heard(tmp_path: Path) -> None:
    async with scene(tmp_path, privacy_mode=False) as on:
        await listening(on)
        asked, _ = await chat(on, "How long does rye rest?", "Sixteen hours.")
        await on.telegram.until(lambda: learned(on, "rye rest"))
        await on.telegram.kick(on.group, ADA)

        await on.telegram.until(lambda: not on.stage.community.members.listening(f"telegram:{on.group}"))
        assert learned(on, "rye rest") == []
        assert on.stage.journal.message(Place("telegram", str(on.group)), str(asked)) is None


async def test_in_a_group_that_moved_it_goes_on_listening(tmp_path: Path) -> None:
    async with scene(tmp_path, privacy_mode=False) as on:
        small = on.telegram.group("Small", supergroup=False)
        on.telegram.join(small, ADA, "creator")
        on.telegram.join(small, on.bob)
        await on.telegram.say(ADA, small, "/listen on")
        await on.reply(small, "I listen in this place")
        new = await on.telegram.migrate(small)

        await on.telegram.until(lambda: on.stage.community.members.listening(f"telegram:{new}"))
        assert not on.stage.community.members.listening(f"telegram:{small}")


# Commands.


async def test_start_says_that_it_is_an_ai_and_what_it_can_be_asked(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        await on.telegram.start(on.bob)

        hello = await on.reply(on.bob)
        assert hello.text.startswith("I am an AI")
        assert "/privacy" in hello.text


@pytest.mark.parametrize(("language", "words"), [("en", "What I keep"), ("zh-hans", "我保存"), ("zh-hk", "我保存")])
async def test_privacy_is_answered_in_the_readers_language(tmp_path: Path, language: str, words: str) -> None:
    async with scene(tmp_path) as on:
        mei = on.telegram.user("Mei", language=language)
        await on.private("/privacy", user=mei)

        assert words in (await on.reply(mei)).text


async def test_a_private_answer_to_a_command_in_a_group_goes_to_the_private_chat(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        await on.public("/privacy@twin_bot")

        assert await on.reply(on.bob, "What I keep")
        assert on.said(on.group) == []


async def test_who_has_opened_no_private_chat_is_answered_in_the_group(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        on.telegram.world.people[on.bob].started = False
        asked = await on.public("/privacy")

        assert (await on.reply(on.group, "What I keep")).reply_to == asked


async def test_somebodys_data_is_never_shown_in_a_group(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        await on.answered(on.group, await on.public(f"@twin_bot {WARM}"))
        on.telegram.world.people[on.bob].started = False
        await on.public("/mydata")

        assert "Write to me privately" in (await on.reply(on.group, "eyes only")).text


async def test_mydata_comes_as_a_file(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        await on.answered(on.bob, await on.private(WARM))
        await on.private("/mydata")

        document = (await on.reply(on.bob, "What I have kept")).documents[0]
        assert document.name == "mydata.json"
        assert WARM in document.content.decode()
        assert json.loads(document.content)


async def test_forget_asks_first_and_then_deletes(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        asked = await on.private(WARM)
        await on.answered(on.bob, asked)
        await on.private("/forget")
        sure = await on.reply(on.bob, "Sure?")
        await on.press(on.bob, sure, "forget:")

        await on.telegram.until(lambda: "Receipt" in sure.text)
        assert sure.buttons == []
        assert on.stage.journal.message(Place("telegram", str(on.bob)), str(asked)) is None


async def test_cancelling_changes_nothing(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        await on.private("/forget")
        sure = await on.reply(on.bob, "Sure?")
        await on.press(on.bob, sure, "cancel:")

        await on.telegram.until(lambda: sure.text == "Nothing was changed.")


async def test_admin_commands_need_the_list_and_the_rights(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        on.telegram.join(on.group, on.bob, "administrator")
        await on.public("/pause")
        await on.reply(on.bob, "Only the twin's admins")
        on.telegram.join(on.group, ADA, "member")
        await on.public("/pause", user=ADA)
        await on.reply(ADA, "Only the twin's admins")
        assert not on.stage.operations.quiet

        on.telegram.join(on.group, ADA, "administrator")
        await on.public("/pause", user=ADA)
        await on.reply(ADA, "Paused")
        assert on.stage.operations.quiet


async def test_an_anonymous_administrator_is_refused(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        await on.public("/pause", user=ADA, sender_chat=True)

        assert await on.reply(on.group, "I cannot tell who an anonymous admin is")
        assert not on.stage.operations.quiet


async def test_paused_it_says_so_and_resumed_it_answers(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        await on.private("/pause", user=ADA)
        await on.reply(ADA, "Paused")
        silent = await on.answered(on.bob, await on.private(WARM))
        await on.private("/resume", user=ADA)
        await on.reply(ADA, "answering again")
        spoken = await on.answered(on.bob, await on.private(WARM))

        assert "has paused me" in silent.text
        assert SAYS in spoken.text


async def test_paused_it_is_mute_in_groups_and_tells_who_used_a_command_in_private(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        carol = on.telegram.user("Carol")
        on.telegram.join(on.group, carol)
        on.stage.operations.silence(on=True)
        await on.public(f"@twin_bot {WARM}")
        for user in (on.bob, carol):  # Carol has no private chat with the twin
            await on.public(f"/ask {WARM}", user=user)
        told = await on.reply(on.bob, "has paused me")
        await on.settled()

        assert on.said(on.bob) == [told]
        assert on.said(on.group) == []


async def test_status_voices_and_about_survive_a_voice_that_is_down(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        on.stage.operations.down = True
        await on.private("/status", user=ADA)
        await on.private("/voices", user=ADA)

        assert "cannot be reached" in (await on.reply(ADA, "Voice:")).text
        assert await on.reply(ADA, "I cannot reach that part of me")


async def test_memory_is_searched_by_what_follows(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        await on.private("/memory search how warm should sourdough be", user=ADA)

        assert SAYS in (await on.reply(ADA)).text


async def test_purging_from_the_private_chat_purges_the_group_that_it_was_asked_in(tmp_path: Path) -> None:
    async with scene(tmp_path, privacy_mode=False) as on:
        await listening(on)
        await chat(on, "How long does rye rest?", "Sixteen hours.")
        await on.telegram.until(lambda: learned(on, "rye rest"))
        await on.public("/memory purge", user=ADA)
        sure = await on.reply(ADA, "Sure?")
        await on.press(ADA, sure, "purge:")

        await on.telegram.until(lambda: "from this place" in sure.text and "Receipt" in sure.text)
        assert learned(on, "rye rest") == []


async def test_a_canary_is_begun_watched_and_promoted(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        on.stage.operations.speaks = "tiny+test"
        await on.private("/canary", user=ADA)
        await on.reply(ADA, "/canary VERSION")
        await on.private("/canary v7", user=ADA)
        await on.reply(ADA, "no adapter 'v7'")
        await on.private("/canary v0 2", user=ADA)
        await on.reply(ADA, "above 0 and below 1")
        await on.private("/canary v0", user=ADA)
        await on.reply(ADA, "10 %")

        await on.press(on.bob, await on.answered(on.bob, await on.private(WARM)), "up:")
        await on.private("/canary", user=ADA)
        trial = await on.reply(
            ADA, "tiny+test: 1 answers (0 failed), 👍 1, 👎 0\ntiny+v0: 0 answers (0 failed), 👍 0, 👎 0"
        )
        assert on.labels(trial) == ["Promote", "Stop"]

        await on.press(ADA, trial, "canary:promote")
        await on.telegram.until(lambda: "Sure?" in trial.text)
        assert on.stage.operations.speaks == "tiny+test"
        await on.press(ADA, trial, "promote:")
        await on.telegram.until(lambda: trial.text == "Now speaking: tiny+v0.")
        assert trial.buttons == []


async def test_a_canary_is_stopped_and_an_old_button_means_the_canary_it_stood_under(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        await on.private("/canary v0 0.25", user=ADA)
        trial = await on.reply(ADA, "25 %")
        await on.private("/canary", user=ADA)
        second = await on.reply(ADA, "25 %", count=2)
        await on.press(ADA, trial, "canary:stop")
        await on.press(ADA, trial, "stop:")
        await on.telegram.until(lambda: "has ended" in trial.text)
        assert on.stage.operations.trial is None

        on.stage.operations.trial = {"version": "v9"}
        await on.press(ADA, second, "canary:stop")
        await on.press(ADA, second, "stop:")
        await on.telegram.until(lambda: "'v0' is not the canary" in second.text)
        assert on.stage.operations.trial == {"version": "v9"}


async def test_ada_is_told_once_why_a_trial_ended_by_itself(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        now, judged = datetime.now(UTC), Judged()
        for version, age in (("v1", timedelta()), ("v0", timedelta(days=8))):
            ending = Ending(version, f"since {version}", now - age, Worse("median", 4_200, 1_000, 40, 300))
            event = trial_event(ending, reason="slow", canary=judged, current=judged)
            remember(on.stage.journal, [event], creator=frozenset())

        told = await on.reply(ADA, "ended by itself")
        assert "of v1 has ended" in told.text
        assert "took 4.2 s or more to begin, the current voice's 300 took 1.0 s." in told.text
        await on.stop()
        on.start()
        await on.answered(on.bob, await on.private(WARM))
        assert len([each for each in on.said(ADA) if "ended by itself" in each.text]) == 1


async def test_ada_is_told_once_why_a_training_failed(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        now = datetime.now(UTC)
        for run, age, state in (("r1", 0, "failed"), ("r2", 8, "failed"), ("r3", 0, "refused")):
            ended = (now - timedelta(days=age)).isoformat()
            on.stage.operations.runs.append({"id": run, "state": state, "ended": ended, "error": "No disk left."})

        told = await on.reply(ADA, "has failed")
        assert told.text == "Training r1 has failed and is not tried again: No disk left."
        await on.stop()
        on.start()
        await on.answered(on.bob, await on.private(WARM))
        assert len([each for each in on.said(ADA) if "has failed" in each.text]) == 1


async def test_a_canary_is_not_for_members(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        on.telegram.join(on.group, on.bob, "administrator")
        await on.public("/canary v0")
        await on.reply(on.bob, "Only the twin's admins")
        assert on.stage.operations.trial is None


# Training.


async def retraining(on: Scene) -> FakeMessage:
    await on.private("/retrain", user=ADA)
    report = await on.reply(ADA, "60 exchanges may train")
    await on.press(ADA, report, "retrain:")
    return report


async def test_retrain_reports_first_and_starts_when_confirmed(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        await on.private("/retrain", user=ADA)
        report = await on.reply(ADA, "60 exchanges may train")
        assert "Left out: 3, too short" in report.text
        assert on.stage.operations.runs == []

        await on.press(ADA, report, "retrain:")

        await on.telegram.until(lambda: "run0" in report.text)
        assert report.buttons == []


async def test_too_little_to_train_on_is_said(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        on.stage.operations.refusal = "only 3 exchanges may train"
        await on.private("/retrain", user=ADA)

        assert await on.reply(ADA, "Not yet: only 3 exchanges may train")


async def test_progress_is_edited_and_the_end_is_a_new_message_with_figures(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        report = await retraining(on)
        on.stage.operations.runs[0].update(state="running", stage="train", progress={"done": 3, "total": 9})
        await on.telegram.until(lambda: "train 3/9" in report.text)
        on.stage.operations.succeed("run0")

        ended = await on.reply(ADA, "NLL 3.50 → 3.00")
        assert ended.id != report.id
        assert ended.photos
        assert on.labels(ended) == ["Roll back"]


async def test_a_run_is_followed_over_a_restart(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        await retraining(on)
        await on.telegram.until(lambda: on.stage.operations.runs)
        await on.settled()
        await on.stop()
        on.start()
        on.stage.operations.succeed("run0")

        await on.reply(ADA, "NLL 3.50 → 3.00")
        await asyncio.sleep(0.2)
        assert len([each for each in on.said(ADA) if "NLL" in each.text]) == 1


async def test_a_second_training_is_shown_the_first(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        await retraining(on)
        await on.telegram.until(lambda: on.stage.operations.runs)
        on.stage.operations.runs[0].update(state="running", stage="train")
        await on.private("/retrain", user=ADA)
        second = await on.reply(ADA, "60 exchanges may train")
        await on.press(ADA, second, "retrain:")

        await on.telegram.until(lambda: "run0" in second.text)
        assert len(on.stage.operations.runs) == 1


async def test_a_voice_is_rolled_back_by_the_button_of_its_figures(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        await retraining(on)
        await on.telegram.until(lambda: on.stage.operations.runs)
        on.stage.operations.succeed("run0")
        await on.press(ADA, await on.reply(ADA, "NLL"), "rollback:")

        assert await on.reply(ADA, "Now speaking: tiny.")
