"""The flywheel on Discord: votes, questions passed on, the creator's cards, answers that reach who asked, teaching."""

from pathlib import Path

import pytest

from bot import rounds
from memory.messages import Exchange, Kind, Source
from memory.provenance import may_train
from tests.bot.discord_stage import KNOWN, UNKNOWN, DiscordStage, action, actions, on_discord

ANSWER = "Charlie did, by a length."


async def passed_on(at: DiscordStage, question: str = UNKNOWN, *, verb: str = "ask", card: int = 1) -> None:
    """Bob asks what nobody knows, has it passed on, and Ada's inbox shows it."""
    answers = len([m for m in at.discord.said_by_bot(at.channel) if "won't guess" in m.content])
    await at.asked(question)
    answer = await at.answer(count=answers + 1, containing="won't guess")
    await at.pressed(answer, verb)
    await at.card(count=card)


async def answered(at: DiscordStage, verb: str = "answer", text: str = ANSWER) -> str:
    """Ada fills the form of the card; what she is told."""
    form = await (await at.button(await at.card(), verb, who=at.ada)).done(20)
    return (await (await at.discord.submit(form, {"text": text})).done(20)).replies[0].content


def exchanges(at: DiscordStage, question: str) -> list[Exchange]:
    return [each for each in at.stage.journal.exchanges() if each.question == question]


def kept(at: DiscordStage, kind: Kind) -> list[dict]:
    return [event.payload for _, event in at.stage.journal.events(kind=kind)]


async def test_a_vote_is_noted_for_who_pressed(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        await at.asked(KNOWN)
        answer = await at.answer()
        noted = await (await at.button(answer, "up")).done(20)

        assert (noted.replies[0].content, noted.ephemeral) == ("Noted, thank you.", True)
        votes = at.stage.journal.votes(action(answer, "up").partition(":")[2])
        assert votes == {f"discord:{at.bob}": "good"}


async def test_a_vote_against_an_answer_may_become_a_report(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        await at.asked(KNOWN)
        noted = (await (await at.button(await at.answer(), "down")).done(20)).replies[0]
        form = await (await at.button(noted, "report")).done(20)
        await (await at.discord.submit(form, {"text": "too warm"})).done(20)

        assert "too warm" in (await at.card("An answer was reported")).content


async def test_buttons_outlive_the_process(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        await at.asked(KNOWN)
        answer = await at.answer()
        await at.restart()

        assert await at.pressed(answer, "down") == "Noted, thank you."


async def test_a_thumb_under_an_answer_is_a_vote(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        await at.asked(KNOWN)
        answer = await at.answer()
        await at.discord.react(at.bob, answer.id, "👎")
        identity = action(answer, "up").partition(":")[2]

        await at.discord.until(lambda: at.stage.journal.votes(identity) == {f"discord:{at.bob}": "bad"})


async def test_who_asked_is_told_when_the_twin_may_speak_again(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        await passed_on(at)
        at.stage.operations.silence(on=True)
        await answered(at)
        await at.card("Answered.")
        assert not [each for each in at.discord.said_by_bot(at.channel) if ANSWER in each.content]

        at.stage.operations.silence(on=False)
        await at.answer(containing=ANSWER)


async def test_a_button_in_a_private_chat_is_answered_there(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        await at.discord.dm(at.bob, KNOWN)
        noted = await (await at.button(await at.answer(at.discord.dm_channel(at.bob)), "up")).done(20)

        assert not noted.ephemeral


async def test_a_question_is_passed_on_answered_and_comes_back_to_where_it_was_asked(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        asked = await at.asked(UNKNOWN)
        assert "Passed on" in await at.pressed(await at.answer(), "ask")
        card = await at.card()
        assert UNKNOWN in card.content
        assert "Bob" in card.content

        assert "Remembered" in await answered(at)
        told = await at.answer(containing="has answered your question")
        assert ANSWER in told.content
        assert told.reply_to == asked
        await at.discord.until(lambda: "Answered." in card.content)
        assert not card.components


async def test_what_the_creator_answered_is_known_from_then_on(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        await passed_on(at)
        await answered(at)
        await at.answer(containing="has answered your question")
        await at.discord.until(lambda: not at.stage.journal.outbox(1))
        at.voice.words = ANSWER
        await at.asked(UNKNOWN)

        assert ANSWER in (await at.answer(containing="Sources")).content


async def test_a_member_may_be_told_privately(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        await passed_on(at, verb="dm")
        await answered(at)
        told = await at.answer(at.discord.dm_channel(at.bob), containing="has answered your question")

        assert ANSWER in told.content
        assert not [m for m in at.discord.said_by_bot(at.channel) if ANSWER in m.content]


async def test_a_member_whose_door_is_closed_does_not_stop_the_others(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        await passed_on(at, verb="dm")
        carol = at.discord.user("Carol")
        at.discord.member(at.guild, carol)
        await at.asked(UNKNOWN, who=carol)
        await at.pressed(await at.answer(count=2), "ask", who=carol)
        at.discord.close_dms(at.bob)
        await answered(at)

        assert ANSWER in (await at.answer(containing="has answered your question")).content


async def test_only_who_asked_may_pass_a_question_on(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        carol = at.discord.user("Carol")
        at.discord.member(at.guild, carol)
        await at.asked(UNKNOWN)

        assert await at.pressed(await at.answer(), "ask", who=carol) == "Only who asked can do that."
        assert not at.stage.journal.inbox()


async def test_a_dismissed_question_is_closed(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        await passed_on(at)
        card = await at.card()

        assert await at.pressed(card, "dismiss", who=at.ada) == "Dismissed."
        await at.discord.until(lambda: card.content.endswith("Dismissed."))
        assert not at.stage.journal.inbox()


async def test_a_draft_is_used_as_it_is(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        at.voice.words = "A draft."
        await passed_on(at)
        card = await at.card()
        assert "Draft: A draft." in card.content
        await at.pressed(card, "use", who=at.ada)

        assert "A draft." in (await at.answer(containing="has answered your question")).content


async def test_an_edited_draft_is_kept_as_a_preference(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        at.voice.words = "A draft."
        await passed_on(at)
        form = await (await at.button(await at.card(), "edit", who=at.ada)).done(20)
        assert form.modal["components"][0]["component"]["value"] == "A draft."
        await (await at.discord.submit(form, {"text": ANSWER})).done(20)

        assert kept(at, Kind.PREFERENCE) == [{"question": UNKNOWN, "draft": "A draft.", "edited": ANSWER}]


async def test_a_reply_to_the_card_is_the_answer(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        await passed_on(at)
        await at.discord.dm(at.ada, ANSWER, reply_to=(await at.card()).id)

        await at.answer(at.dm, containing="Remembered")
        assert ANSWER in (await at.answer(containing="has answered your question")).content


async def test_what_the_creator_writes_beside_the_cards_is_a_question(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        await passed_on(at)
        await at.discord.dm(at.ada, KNOWN)

        await at.answer(at.dm)
        assert at.stage.journal.inbox()


async def test_the_inbox_may_be_a_channel(tmp_path: Path) -> None:
    async with on_discord(tmp_path, start=False) as at:
        team = at.discord.channel(at.guild, "team")
        at.discord.hide(team)
        at.settings = at.settings.model_copy(update={"inbox_channel": str(team)})
        await at.start()
        await at.asked(UNKNOWN)
        await at.pressed(await at.answer(), "ask")
        card = await at.answer(team, containing="asked by")

        assert await at.pressed(card, "dismiss") == "Only Ada can do that."
        await at.discord.say(at.ada, team, ANSWER, reply_to=card.id)
        assert ANSWER in (await at.answer(containing="has answered your question")).content


async def test_a_card_in_a_thread_is_answered_by_a_reply_also_right_after_a_restart(tmp_path: Path) -> None:
    async with on_discord(tmp_path, start=False) as at:
        thread = at.discord.thread(at.channel, "inbox")
        at.settings = at.settings.model_copy(update={"inbox_channel": str(thread)})
        await at.start()
        await at.asked(UNKNOWN)
        await at.pressed(await at.answer(), "ask")
        card = await at.answer(thread, containing="asked by")
        await at.stop()
        with pytest.MonkeyPatch.context() as patch:
            for part in ("show_cards", "show_reports"):  # the inbox has not been looked for yet
                patch.setattr(rounds, part, nothing)
            await at.start()
            await at.discord.say(at.ada, thread, f"{at.me} {ANSWER}", reply_to=card.id)

            assert ANSWER in (await at.answer(containing="has answered your question")).content


async def nothing(*_: object) -> None:
    """A part of the rounds that is not there."""


async def test_cards_and_their_forms_outlive_the_process(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        await passed_on(at)
        form = await (await at.button(await at.card(), "answer", who=at.ada)).done(20)
        await at.restart()
        sent = await (await at.discord.submit(form, {"text": ANSWER})).done(20)

        assert "Remembered" in sent.replies[0].content
        assert len([m for m in at.discord.said_by_bot(at.dm) if m.content.startswith("**")]) == 1


async def test_the_same_question_counts_up_on_its_card(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        await passed_on(at)
        card = await at.card()
        await at.asked(UNKNOWN)
        await at.pressed(await at.answer(count=2, containing="won't guess"), "ask")

        await at.discord.until(lambda: "2 times" in card.content)


async def test_a_closed_card_says_so_to_late_hands(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        await passed_on(at)
        card = await at.card()
        buttons = card.components
        await at.pressed(card, "dismiss", who=at.ada)
        await at.discord.until(lambda: not card.components)
        card.components = buttons

        assert await at.pressed(card, "answer", who=at.ada) == "That is no longer there."


async def test_what_the_creator_taught_from_a_message_answers_and_does_not_train(tmp_path: Path) -> None:
    async with on_discord(tmp_path, words=True) as at:
        asked = await at.discord.say(at.bob, at.channel, "Who won in 1907?")
        said = await at.discord.say(at.ada, at.channel, ANSWER, reply_to=asked)
        form = await (await at.discord.menu(at.ada, at.channel, "Teach the twin", said)).done(20)
        sent = await (await at.discord.submit(form, {"text": UNKNOWN})).done(20)
        assert "Remembered" in sent.replies[0].content

        (exchange,) = exchanges(at, UNKNOWN)
        assert (exchange.answer, exchange.source) == (ANSWER, Source.DISCORD_API)
        assert not may_train(exchange, consent=lambda *_: True).eligible
        await at.discord.until(lambda: not at.stage.journal.outbox(1))
        await at.asked(UNKNOWN)
        assert "Sources" in (await at.answer(containing="stand-in")).content


async def test_the_form_for_teaching_begins_with_the_question_that_was_answered(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        asked = await at.asked(UNKNOWN)
        await at.answer()
        said = await at.discord.say(at.ada, at.channel, ANSWER, reply_to=asked)
        form = await (await at.discord.menu(at.ada, at.channel, "Teach the twin", said)).done(20)

        assert form.modal["components"][0]["component"]["value"] == UNKNOWN


async def test_a_form_for_teaching_outlives_the_process(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        said = await at.discord.say(at.ada, at.channel, ANSWER)
        form = await (await at.discord.menu(at.ada, at.channel, "Teach the twin", said)).done(20)
        await at.restart()
        sent = await (await at.discord.submit(form, {"text": UNKNOWN})).done(20)

        assert "Remembered" in sent.replies[0].content


async def test_teaching_is_for_the_creator(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        said = await at.discord.say(at.bob, at.channel, ANSWER)
        chosen = await (await at.discord.menu(at.bob, at.channel, "Teach the twin", said)).done(20)

        assert (chosen.replies[0].content, chosen.ephemeral) == ("Only Ada can do that.", True)
        assert at.heard(said) is None


async def test_who_wants_nothing_kept_is_not_taught_from(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        await at.slash("consent", choice="off")
        said = await at.discord.say(at.bob, at.channel, ANSWER)
        chosen = await (await at.discord.menu(at.ada, at.channel, "Teach the twin", said)).done(20)

        assert "asked me to keep nothing" in chosen.replies[0].content
        assert at.heard(said) is None


@pytest.mark.parametrize("verb", ["nothing", "up"])
async def test_a_button_that_means_nothing_any_more_says_so(tmp_path: Path, verb: str) -> None:
    async with on_discord(tmp_path) as at:
        await at.asked(KNOWN)
        answer = await at.answer()
        answer.components[0]["components"][0]["custom_id"] = f"{verb}:no-such-answer"

        assert await at.pressed(answer, verb) == "That is no longer there."
        assert actions(answer)[1] == "down"
