"""The double against the real python-telegram-bot: what is written, edited, streamed, pressed and sent along."""

import httpx
import pytest
from telegram import (
    BotCommand,
    BotCommandScopeAllGroupChats,
    BotCommandScopeAllPrivateChats,
    BotCommandScopeChatAdministrators,
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    MessageEntity,
    ReplyParameters,
)

from tests.fakes.staging import YES, refused, stage, told
from tests.fakes.telegram_markup import MarkupError, parse_html, utf16_slice

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
        "<blockquote expandable>q<u>u</u></blockquote>&#x27;&nbsp;&#0;"
    )

    assert [(entity["type"], utf16_slice(parsed.text, entity)) for entity in parsed.entities] == [
        ("text_link", "a"),
        ("spoiler", "s"),
        ("pre", "x"),
        ("expandable_blockquote", "qu"),
        ("underline", "u"),
    ]
    assert (parsed.entities[0]["url"], parsed.entities[2]["language"]) == ("https://a.b/?x=1&y", "py")
    assert parsed.text == "asxqu'&nbsp;&#0;"


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
