"""The double against the real python-telegram-bot: what the library cannot parse or would not be told, fails here."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from telegram import (
    Bot,
    BotCommand,
    BotCommandScopeAllGroupChats,
    BotCommandScopeAllPrivateChats,
    BotCommandScopeChatAdministrators,
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    MessageEntity,
    ReplyParameters,
    Update,
)
from telegram.error import (
    BadRequest,
    ChatMigrated,
    Conflict,
    EndPointNotFound,
    Forbidden,
    InvalidToken,
    NetworkError,
    RetryAfter,
)
from telegram.ext import Application, ApplicationBuilder, TypeHandler

from tests.fakes.telegram import FakeTelegram
from tests.fakes.telegram_flood import Limits
from tests.fakes.telegram_markup import MarkupError, parse_html, utf16_slice

YES = InlineKeyboardMarkup([[InlineKeyboardButton("Yes", callback_data="yes")]])


@dataclass
class Clock:
    now: float = 1_770_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Stage:
    """A Telegram, a bot on it, and Ada, who started it."""

    telegram: FakeTelegram
    bot: Bot
    clock: Clock
    ada: int
    group: int
    seen: list[Update] = field(default_factory=list)


@asynccontextmanager
async def stage(**options: Any) -> AsyncIterator[Stage]:
    clock = Clock()
    async with FakeTelegram(clock=clock, limits=options.pop("limits", Limits.none()), **options) as telegram:
        ada = telegram.user("Ada")
        await telegram.start(ada)
        group = telegram.group("Bakery")
        telegram.join(group, ada, "creator")
        bot = bot_on(telegram)
        async with bot:
            yield Stage(telegram, bot, clock, ada, group)
        assert telegram.violations == []


def bot_on(telegram: FakeTelegram, token: str = "") -> Bot:
    return Bot(token or telegram.token, base_url=f"{telegram.api}/bot", base_file_url=f"{telegram.api}/file/bot")


@asynccontextmanager
async def polling(
    on: Stage, allowed: list[str] | None = None
) -> AsyncIterator[Application[Any, Any, Any, Any, Any, Any]]:
    """The library's own application, that writes down every update."""
    builder = ApplicationBuilder().token(on.telegram.token)
    app = builder.base_url(f"{on.telegram.api}/bot").base_file_url(f"{on.telegram.api}/file/bot").build()

    async def note(update: Update, _: Any) -> None:
        on.seen.append(update)

    app.add_handler(TypeHandler(Update, note))
    async with app:
        await app.start()
        assert app.updater
        await app.updater.start_polling(timeout=5, poll_interval=0, allowed_updates=allowed)
        yield app
        await app.updater.stop()
        await app.stop()


async def told(on: Stage) -> list[Update]:
    """What waits for the bot now; asking again would tell it again."""
    return list(await on.bot.get_updates(timeout=0, allowed_updates=Update.ALL_TYPES))


async def forget(on: Stage) -> None:
    """Acknowledge everything."""
    await on.bot.get_updates(offset=(await told(on))[-1].update_id + 1, timeout=0)


async def refused(call: Any, error: type[Exception] = BadRequest) -> str:
    with pytest.raises(error) as caught:
        await call
    return str(caught.value)


# Start-up and updates.


async def test_a_real_application_starts_hears_and_answers() -> None:
    async with stage() as on, polling(on) as app:
        await on.telegram.until(lambda: on.seen)

        await app.bot.send_message(on.ada, "Hello, Ada")

        assert on.seen[0].message
        assert on.seen[0].message.text == "/start"
        assert [message.text for message in on.telegram.said_by_bot(on.ada)] == ["Hello, Ada"]
        assert on.telegram.calls("deleteWebhook")


async def test_the_bot_learns_from_get_me_that_it_does_not_read_everything() -> None:
    async with stage() as on:
        assert (await on.bot.get_me()).can_read_all_group_messages is False

        on.telegram.privacy_mode = False

        assert (await on.bot.get_me()).can_read_all_group_messages is True


@pytest.mark.parametrize(("token", "status"), [("4242:" + "x" * 35, 401), ("nonsense", 404)])
async def test_a_wrong_token_is_unauthorized_and_a_broken_one_is_not_found(token: str, status: int) -> None:
    async with stage() as on, httpx.AsyncClient() as client:
        answer = await client.get(f"{on.telegram.api}/bot{token}/getMe")
        stranger = bot_on(on.telegram, token)
        await refused(stranger.initialize(), InvalidToken)
        await stranger.shutdown()

        assert (answer.status_code, answer.json()["error_code"]) == (status, status)


async def test_an_update_comes_again_until_it_is_acknowledged() -> None:
    async with stage() as on:
        first = await told(on)
        again = await told(on)
        after = await on.bot.get_updates(offset=first[-1].update_id + 1, timeout=0)

        assert [update.update_id for update in first] == [update.update_id for update in again]
        assert after == ()


async def test_an_update_is_lost_after_a_day() -> None:
    async with stage() as on:
        on.clock.now += 86401

        assert await told(on) == []


async def test_a_poll_waits_until_something_happens() -> None:
    async with stage() as on:
        await forget(on)
        poll = asyncio.create_task(on.bot.get_updates(timeout=5))
        await asyncio.sleep(0.05)
        assert not poll.done()

        await on.telegram.say(on.ada, on.ada, "now")

        assert [update.message and update.message.text for update in await poll][-1] == "now"


async def test_the_second_poll_ends_the_first() -> None:
    async with stage() as on, bot_on(on.telegram) as twin:
        await forget(on)
        first = asyncio.create_task(on.bot.get_updates(timeout=5))
        await asyncio.sleep(0.05)

        await twin.get_updates(timeout=0)

        assert "terminated by other getUpdates request" in await refused(first, Conflict)


async def test_only_the_kinds_that_were_asked_for_are_kept() -> None:
    async with stage() as on:
        await on.bot.get_updates(offset=-1, allowed_updates=["callback_query"], timeout=0)
        before = len(await on.bot.get_updates(timeout=0))

        await on.telegram.say(on.ada, on.ada, "not for you")

        assert len(await on.bot.get_updates(timeout=0)) == before


async def test_a_webhook_is_pushed_to_with_its_secret_and_ends_polling() -> None:
    async with stage() as on:
        app = ApplicationBuilder().token(on.telegram.token).base_url(f"{on.telegram.api}/bot").build()

        async def note(update: Update, _: Any) -> None:
            on.seen.append(update)

        app.add_handler(TypeHandler(Update, note))
        async with app:
            await app.start()
            assert app.updater
            port = free_port()
            url = f"http://127.0.0.1:{port}/hook"
            await app.updater.start_webhook("127.0.0.1", port, "hook", secret_token="s3cret", webhook_url=url)
            await on.telegram.until(lambda: on.seen)
            conflict = await refused(on.bot.get_updates(timeout=0), Conflict)
            url_set = (await on.bot.get_webhook_info()).url
            await app.updater.stop()
            await app.stop()

        assert on.telegram.webhook.delivered == 1
        assert "while webhook is active" in conflict
        assert url_set == url


async def test_an_update_waits_while_nobody_answers_at_the_webhook() -> None:
    async with stage() as on:
        await on.bot.set_webhook(f"http://127.0.0.1:{free_port()}/nobody", secret_token="x")

        await on.telegram.until(lambda: on.telegram.webhook.last_error)

        info = await on.bot.get_webhook_info()
        assert info.pending_update_count == 1
        assert "Connection failed" in str(info.last_error_message)


async def test_an_unknown_method_is_not_found_and_remembered() -> None:
    async with stage() as on:
        await refused(on.bot.do_api_request("sendTelepathy"), EndPointNotFound)

        assert on.telegram.violations == ["unknown method sendTelepathy"]
        on.telegram.violations.clear()


# Text.


async def test_html_is_shown_as_text_with_entities_counted_in_utf16() -> None:
    async with stage() as on:
        sent = await on.bot.send_message(on.ada, "🥐 <b>24 °C</b> &amp; <i>warm</i>", parse_mode="HTML")

        assert sent.text == "🥐 24 °C & warm"
        assert [(entity.type, entity.offset, entity.length) for entity in sent.entities] == [
            ("bold", 3, 5),
            ("italic", 11, 4),
        ]
        assert on.telegram.said_by_bot()[0].html == "🥐 <b>24 °C</b> &amp; <i>warm</i>"


@pytest.mark.parametrize(
    ("html", "reason"),
    [
        ("<p>x</p>", 'Unsupported start tag "p" at byte offset 0'),
        ("é <b>x", 'Can\'t find end tag corresponding to start tag "b"'),
        ("é<b><i>x</b></i>", 'Unmatched end tag at byte offset 9, expected "</i>", found "</b>"'),
        ("x</b>", "Unexpected end tag at byte offset 1"),
        ("1 < 2", 'Unsupported start tag "" at byte offset 2'),
        ("1 <2", "Unclosed start tag at byte offset 2"),
        ('<span class="red">x</span>', 'Tag "span" must have class "tg-spoiler" at byte offset 0'),
    ],
)
def test_broken_html_is_refused_in_telegrams_words(html: str, reason: str) -> None:
    with pytest.raises(MarkupError) as caught:
        parse_html(html)

    assert str(caught.value) == reason


def test_all_of_telegrams_html_is_read() -> None:
    parsed = parse_html(
        '<a href="https://a.b/?x=1&amp;y">a</a><tg-spoiler>s</tg-spoiler><pre><code class="language-py">x</code></pre>'
        "<blockquote expandable>q<u>u</u></blockquote>&#x27;&nbsp;"
    )

    assert [(entity["type"], utf16_slice(parsed.text, entity)) for entity in parsed.entities] == [
        ("text_link", "a"),
        ("spoiler", "s"),
        ("pre", "x"),
        ("expandable_blockquote", "qu"),
        ("underline", "u"),
    ]
    assert (parsed.entities[0]["url"], parsed.entities[2]["language"]) == ("https://a.b/?x=1&y", "py")
    assert parsed.text == "asxqu'&nbsp;"


async def test_broken_html_reaches_the_bot_as_a_bad_request() -> None:
    async with stage() as on:
        reason = await refused(on.bot.send_message(on.ada, "<b>x", parse_mode="HTML"))

        assert reason.lower().startswith("can't parse entities: can't find end tag")


async def test_the_length_is_counted_in_utf16_and_after_the_markup() -> None:
    async with stage() as on:
        await on.bot.send_message(on.ada, f"<b>{'x' * 4096}</b>", parse_mode="HTML")

        assert "essage is too long" in await refused(on.bot.send_message(on.ada, "🥐" * 2049))


async def test_text_of_nothing_but_space_is_empty() -> None:
    async with stage() as on:
        assert "essage text is empty" in await refused(on.bot.send_message(on.ada, " <b> </b>\n", parse_mode="HTML"))


async def test_mentions_and_commands_of_people_are_marked() -> None:
    async with stage() as on:
        await on.telegram.say(on.ada, on.group, "/ask@twin_bot 🥐 @twin_bot?")

        message = (await told(on))[-1].message
        assert message
        assert message.parse_entities([MessageEntity.MENTION, MessageEntity.BOT_COMMAND]) == {
            message.entities[0]: "/ask@twin_bot",
            message.entities[1]: "@twin_bot",
        }


# Editing.


async def test_an_edit_that_changes_nothing_is_refused_even_with_more_space() -> None:
    async with stage() as on:
        sent = await on.bot.send_message(on.ada, "Warm")
        await sent.edit_text("Warm and")

        assert "essage is not modified" in await refused(sent.edit_text("Warm and\n"))
        assert [text for _, text in on.telegram.said_by_bot()[0].edits] == ["Warm and"]


async def test_an_edit_without_the_buttons_removes_them() -> None:
    async with stage() as on:
        sent = await on.bot.send_message(on.ada, "Sure?", reply_markup=YES)

        await sent.edit_text("Sure!")

        assert on.telegram.said_by_bot()[0].reply_markup is None


async def test_only_own_and_present_messages_can_be_edited() -> None:
    async with stage() as on:
        others = await on.telegram.say(on.ada, on.ada, "mine")
        sent = await on.bot.send_message(on.ada, "Warm")
        await sent.delete()

        assert "can't be edited" in await refused(on.bot.edit_message_text("x", on.ada, others))
        assert "to edit not found" in await refused(sent.edit_text("x"))
        assert "to delete not found" in await refused(sent.delete())


# Drafts and typing.


async def test_a_draft_streams_in_private_and_the_message_replaces_it() -> None:
    async with stage() as on:
        for text in ("", "Wa", "Warm"):
            await on.bot.send_message_draft(on.ada, 7, text)
        shown = on.telegram.shown_draft(on.ada)
        await on.bot.send_message(on.ada, "Warm")

        assert [draft.text for draft in on.telegram.drafts] == ["", "Wa", "Warm"]
        assert shown
        assert shown.text == "Warm"
        assert on.telegram.shown_draft(on.ada) is None


async def test_a_draft_fades_after_half_a_minute() -> None:
    async with stage() as on:
        await on.bot.send_message_draft(on.ada, 7, "Wa")

        on.clock.now += 31

        assert on.telegram.shown_draft(on.ada) is None


async def test_a_draft_is_for_private_chats_and_needs_an_id() -> None:
    async with stage() as on:
        assert "peer_invalid" in (await refused(on.bot.send_message_draft(on.group, 7, "x"))).lower()
        assert "non-zero" in await refused(on.bot.send_message_draft(on.ada, 0, "x"))


async def test_typing_is_noted() -> None:
    async with stage() as on:
        await on.bot.send_chat_action(on.ada, "typing")

        assert [(chat, action) for chat, action, _ in on.telegram.actions] == [(on.ada, "typing")]


# Floods and faults.


async def test_a_private_chat_takes_a_burst_and_then_one_a_second() -> None:
    async with stage(limits=Limits()) as on:
        for number in range(5):
            await on.bot.send_message(on.ada, f"{number}")
        wait = await retry_after(on.bot.send_message_draft(on.ada, 1, "x"))
        on.clock.now += wait
        await on.bot.send_message(on.ada, "later")

        assert wait == 5


async def test_a_group_takes_twenty_a_minute_and_useless_edits_count() -> None:
    async with stage(limits=Limits(chat_burst=100, overall_per_second=100)) as on:
        sent = await on.bot.send_message(on.group, "0")
        for _ in range(19):
            await refused(sent.edit_text("0"))

        assert await retry_after(sent.edit_text("1")) == 60


async def test_one_chat_in_flood_does_not_hold_up_another() -> None:
    async with stage(limits=Limits(chat_burst=1)) as on:
        await on.bot.send_message(on.ada, "1")
        await retry_after(on.bot.send_message(on.ada, "2"))

        assert await on.bot.send_message(on.group, "1")


async def test_a_planned_fault_hits_the_named_method_so_many_times() -> None:
    async with stage() as on:
        on.telegram.fail_next("sendMessage", 429, retry_after=7, times=2)
        waits = [await retry_after(on.bot.send_message(on.ada, "x")) for _ in range(2)]

        assert await on.bot.send_message(on.ada, "x")
        assert waits == [7, 7]
        assert [request.status for request in on.telegram.calls("sendMessage")] == [429, 429, 200]


async def test_a_lost_answer_leaves_the_message_and_a_cut_line_does_not() -> None:
    async with stage() as on:
        on.telegram.fail_next("sendMessage", 502, applied=True)
        await refused(on.bot.send_message(on.ada, "shown"), NetworkError)
        on.telegram.fail_next("sendMessage", 0)
        await refused(on.bot.send_message(on.ada, "lost"), NetworkError)

        assert [message.text for message in on.telegram.said_by_bot()] == ["shown"]


async def test_random_faults_come_from_the_seed() -> None:
    async def statuses() -> list[int]:
        async with stage(seed=3) as on:
            on.telegram.error_rate = 0.5
            for _ in range(8):
                await quietly(on.bot.send_message(on.ada, "x"))
            return [request.status for request in on.telegram.calls("sendMessage")]

    first = await statuses()
    assert first == await statuses()
    assert 200 in first
    assert max(first) >= 500


# Who sees what, who may write where.


async def test_privacy_mode_hides_what_is_not_meant_for_the_bot() -> None:
    async with stage() as on:
        mine = (await on.bot.send_message(on.group, "Warm")).message_id
        await on.telegram.say(on.ada, on.group, "hidden")
        await on.telegram.say(on.ada, on.group, "/other@another_bot")
        for text in ("/ask", "hi @twin_bot"):
            await on.telegram.say(on.ada, on.group, text)
        await on.telegram.say(on.ada, on.group, "why?", reply_to=mine)

        assert texts_in(on.group, await told(on)) == ["/ask", "hi @twin_bot", "why?"]


async def test_an_administrator_bot_sees_everything_but_other_bots() -> None:
    async with stage() as on:
        on.telegram.join(on.group, on.telegram.bot_id, "administrator")
        robot = on.telegram.user("Robot", bot=True)
        on.telegram.join(on.group, robot)
        await on.telegram.say(on.ada, on.group, "chatter")
        await on.telegram.say(robot, on.group, "/ask")

        assert texts_in(on.group, await told(on)) == ["chatter"]


async def test_an_edit_by_a_person_is_told() -> None:
    async with stage() as on:
        asked = await on.telegram.say(on.ada, on.ada, "How?")
        await on.telegram.edit(asked, on.ada, "How warm?")

        edited = (await told(on))[-1].edited_message
        assert edited
        assert (edited.text, edited.message_id) == ("How warm?", asked)
        assert edited.edit_date


async def test_a_hidden_administrator_speaks_as_the_group() -> None:
    async with stage() as on:
        await on.telegram.say(on.ada, on.group, "/retrain", sender_chat=True)

        message = (await told(on))[-1].message
        assert message
        assert message.from_user
        assert message.sender_chat
        assert (message.from_user.id, message.sender_chat.id) == (1087968824, on.group)


async def test_the_bot_may_not_write_first_nor_to_who_blocked_it() -> None:
    async with stage() as on:
        stranger = on.telegram.private(on.telegram.user("Bob"))
        await on.telegram.block(on.ada)

        assert "can't initiate" in await refused(on.bot.send_message(stranger, "x"), Forbidden)
        assert "bot was blocked by the user" in await refused(on.bot.send_message(on.ada, "x"), Forbidden)
        assert "hat not found" in await refused(on.bot.send_message(99999, "x"))
        change = (await told(on))[-1].my_chat_member
        assert change
        assert (change.old_chat_member.status, change.new_chat_member.status) == ("member", "kicked")


async def test_a_bot_that_was_thrown_out_or_left_may_not_write() -> None:
    async with stage() as on:
        other = on.telegram.group("Other")
        await on.telegram.kick(on.group, on.ada)
        await on.bot.leave_chat(other)

        assert "kicked from the supergroup chat" in await refused(on.bot.send_message(on.group, "x"), Forbidden)
        assert "not a member of the supergroup" in await refused(on.bot.send_message(other, "x"), Forbidden)
        changes = [update.my_chat_member for update in await told(on) if update.my_chat_member]
        assert [change.new_chat_member.status for change in changes] == ["kicked", "left"]


async def test_a_group_that_moved_names_its_new_id() -> None:
    async with stage() as on:
        small = on.telegram.group("Small", supergroup=False)
        new = await on.telegram.migrate(small)

        with pytest.raises(ChatMigrated) as moved:
            await on.bot.send_message(small, "x")
        assert moved.value.new_chat_id == new
        assert await on.bot.send_message(new, "x")
        assert [update.message.migrate_to_chat_id for update in await told(on) if update.message][-2:] == [new, None]


async def test_chats_and_members_are_told_apart() -> None:
    async with stage() as on:
        bob = on.telegram.user("Bob")
        statuses = [(await on.bot.get_chat_member(on.group, user)).status for user in (on.ada, bob, on.bot.id)]

        assert statuses == ["creator", "left", "member"]
        assert (await on.bot.get_chat(on.group)).title == "Bakery"
        assert [one.user.id for one in await on.bot.get_chat_administrators(on.group)] == [on.ada]
        assert "user not found" in (await refused(on.bot.get_chat_member(on.group, 99999))).lower()


# Replies and topics.


async def test_a_reply_to_nothing_is_refused_unless_that_is_allowed() -> None:
    async with stage() as on:
        asked = await on.telegram.say(on.ada, on.group, "/ask")
        answered = await on.bot.send_message(on.group, "x", reply_parameters=ReplyParameters(asked))
        loose = ReplyParameters(999, allow_sending_without_reply=True)

        assert answered.reply_to_message
        assert answered.reply_to_message.message_id == asked
        assert (await on.bot.send_message(on.group, "x", reply_parameters=loose)).reply_to_message is None
        lost = on.bot.send_message(on.group, "x", reply_parameters=ReplyParameters(999))
        assert "to be replied not found" in await refused(lost)


async def test_an_answer_in_a_topic_stays_there() -> None:
    async with stage() as on:
        forum = on.telegram.group("Forum", forum=True)
        on.telegram.join(forum, on.ada)
        bread = on.telegram.topic(forum, "Bread")
        await on.telegram.say(on.ada, forum, "/ask", topic=bread)
        asked = (await told(on))[-1].message
        assert asked

        answered = await asked.reply_text("Warm")

        assert (asked.is_topic_message, asked.message_thread_id) == (True, bread)
        assert asked.reply_to_message
        assert asked.reply_to_message.forum_topic_created
        assert answered.message_thread_id == bread
        assert "thread not found" in await refused(on.bot.send_message(forum, "x", message_thread_id=999))


async def test_a_thread_of_replies_is_no_topic_that_one_can_write_to() -> None:
    async with stage() as on:
        asked = await on.telegram.say(on.ada, on.group, "/ask")
        answered = await on.bot.send_message(on.group, "x", reply_parameters=ReplyParameters(asked))

        assert (answered.message_thread_id, answered.is_topic_message) == (asked, None)
        assert "not a forum topic" in await refused(on.bot.send_message(on.group, "x", message_thread_id=asked))


# Buttons and reactions.


async def test_a_press_is_answered_once_and_in_time() -> None:
    async with stage() as on:
        sent = await on.bot.send_message(on.ada, "Sure?", reply_markup=YES)
        callback = await on.telegram.press(on.ada, on.ada, sent.message_id, "yes")
        query = (await told(on))[-1].callback_query
        assert query
        assert query.message
        await query.answer("Done", show_alert=True)
        late = await on.telegram.press(on.ada, on.ada, sent.message_id, "yes")
        on.clock.now += 16

        assert (query.data, query.message.message_id) == ("yes", sent.message_id)
        assert (callback.answered, callback.text, callback.show_alert) == (True, "Done", True)
        assert "uery is too old" in await refused(query.answer())
        assert "uery is too old" in await refused(on.bot.answer_callback_query(late.id))


async def test_nobody_can_press_what_is_not_there() -> None:
    async with stage() as on:
        sent = await on.bot.send_message(on.ada, "Sure?", reply_markup=YES)
        await sent.edit_reply_markup(None)

        with pytest.raises(LookupError, match="no button 'yes'"):
            await on.telegram.press(on.ada, on.ada, sent.message_id, "yes")


@pytest.mark.parametrize("data", ["", "é" * 33])
async def test_a_button_carries_one_to_sixty_four_bytes(data: str) -> None:
    async with stage() as on:
        markup = InlineKeyboardMarkup([[InlineKeyboardButton("Yes", callback_data=data)]])

        assert "button_data_invalid" in (await refused(on.bot.send_message(on.ada, "x", reply_markup=markup))).lower()


async def test_reactions_reach_only_an_administrator_that_asked_for_them() -> None:
    async with stage() as on:
        sent = (await on.bot.send_message(on.group, "Warm")).message_id
        await told(on)
        await on.telegram.react(on.ada, on.group, sent, "👎")
        on.telegram.join(on.group, on.bot.id, "administrator")
        await on.telegram.react(on.ada, on.group, sent, "👍")
        await on.bot.get_updates(timeout=0, allowed_updates=[])
        await on.telegram.react(on.ada, on.group, sent, "🔥")

        changes = [update.message_reaction for update in await told(on) if update.message_reaction]
        assert [(len(change.old_reaction), change.new_reaction[0].to_dict()["emoji"]) for change in changes] == [
            (1, "👍")
        ]


async def test_the_bot_reacts_with_telegrams_emoji_only() -> None:
    async with stage() as on:
        asked = await on.telegram.say(on.ada, on.ada, "Thanks")
        await on.bot.set_message_reaction(on.ada, asked, "❤")

        assert on.telegram.messages[on.ada, asked].reactions == {on.bot.id: "❤"}
        assert "reaction_invalid" in (await refused(on.bot.set_message_reaction(on.ada, asked, "✅"))).lower()


# Menus, texts and files.


async def test_the_narrowest_menu_in_the_persons_language_is_shown() -> None:
    async with stage() as on:
        chen, everybody = on.telegram.user("Chen", "zh"), BotCommandScopeAllGroupChats()
        on.telegram.join(on.group, chen)
        await on.bot.set_my_commands([BotCommand("ask", "Ask")], everybody)
        await on.bot.set_my_commands([BotCommand("ask", "问")], everybody, "zh")
        await on.bot.set_my_commands([BotCommand("retrain", "Train")], BotCommandScopeChatAdministrators(on.group))

        assert on.telegram.menu(on.group, chen) == [("ask", "问")]
        assert on.telegram.menu(on.group, on.ada) == [("retrain", "Train")]
        assert on.telegram.menu(on.ada, on.ada) == []
        assert [command.description for command in await on.bot.get_my_commands(everybody, "zh")] == ["问"]
        await on.bot.delete_my_commands(everybody, "zh")
        assert on.telegram.menu(on.group, chen) == [("ask", "Ask")]


async def test_command_names_are_checked() -> None:
    async with stage() as on:
        wrong = on.bot.set_my_commands([("Ask-Me", "x")], BotCommandScopeAllPrivateChats())
        many = on.bot.set_my_commands([(f"c{number}", "x") for number in range(101)])

        assert "bot_command_invalid" in (await refused(wrong)).lower()
        assert "bot_commands_too_much" in (await refused(many)).lower()


async def test_the_description_is_kept_by_language() -> None:
    async with stage() as on:
        await on.bot.set_my_description("An AI twin")
        await on.bot.set_my_short_description("AI", language_code="zh")

        assert (await on.bot.get_my_description("de")).description == "An AI twin"
        assert (await on.bot.get_my_short_description("zh")).short_description == "AI"


async def test_a_document_arrives_as_it_was_sent() -> None:
    async with stage() as on:
        sent = await on.bot.send_document(
            on.ada, b'{"a": 1}', caption="<b>Yours</b>", filename="me.json", parse_mode="HTML"
        )

        document = on.telegram.said_by_bot()[0].documents[0]
        assert (document.name, document.content) == ("me.json", b'{"a": 1}')
        assert sent.document
        assert (sent.caption, sent.document.file_name) == ("Yours", "me.json")
        assert "no text in the message" in await refused(sent.edit_text("x"))


async def test_a_photo_and_a_long_caption() -> None:
    async with stage() as on:
        sent = await on.bot.send_photo(on.ada, b"\x89PNG", caption="x" * 1024)

        assert on.telegram.said_by_bot()[0].photos[0].content == b"\x89PNG"
        assert await on.bot.send_photo(on.ada, sent.photo[0].file_id)
        assert "caption is too long" in await refused(on.bot.send_photo(on.ada, b"\x89PNG", caption="x" * 1025))


async def test_a_file_of_a_person_can_be_fetched() -> None:
    async with stage() as on:
        await on.telegram.send_document(on.ada, on.ada, "faq.md", b"# Bread", "for you")
        message = (await told(on))[-1].message
        assert message
        assert message.document

        file = await message.document.get_file()

        assert bytes(await file.download_as_bytearray()) == b"# Bread"
        assert message.caption == "for you"
        assert "nvalid file_id" in await refused(on.bot.get_file("nonsense"))


async def test_plain_http_with_json_works_too() -> None:
    async with stage() as on, httpx.AsyncClient() as client:
        url = f"{on.telegram.api}/bot{on.telegram.token}/sendMessage"
        answer = await client.post(url, json={"chat_id": on.ada, "text": "Hi"})

        assert answer.json()["result"]["text"] == "Hi"
        assert on.telegram.calls("sendmessage")[0].params == {"chat_id": on.ada, "text": "Hi"}


async def test_waiting_for_what_never_happens_names_the_last_calls() -> None:
    async with stage() as on:
        with pytest.raises(TimeoutError, match="getMe -> 200"):
            await on.telegram.until(lambda: False, timeout_s=0.02)


async def retry_after(call: Any) -> int:
    with pytest.raises(RetryAfter) as caught:
        await call
    return int(caught.value._retry_after.total_seconds())


async def quietly(call: Any) -> None:
    try:
        await call
    except NetworkError:
        return


def texts_in(chat: int, updates: list[Update]) -> list[str | None]:
    return [update.message.text for update in updates if update.message and update.message.chat_id == chat]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
