"""The double against the real python-telegram-bot: updates, faults, and who may see and write what."""

import asyncio
from typing import Any

import httpx
import pytest
from telegram import (
    Update,
)
from telegram.error import (
    ChatMigrated,
    Conflict,
    EndPointNotFound,
    Forbidden,
    InvalidToken,
    NetworkError,
)
from telegram.ext import ApplicationBuilder, TypeHandler

from tests.fakes.staging import (
    bot_on,
    forget,
    free_port,
    polling,
    quietly,
    refused,
    retry_after,
    stage,
    texts_in,
    told,
)
from tests.fakes.telegram_flood import Limits

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
        await on.telegram.say(on.ada, on.group, "see a/ask, or write to us@twin_bot")
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


async def test_the_bot_is_told_when_somebody_changes_its_place() -> None:
    async with stage() as on:
        await on.telegram.add_bot(on.group, on.ada, "administrator")
        await on.telegram.block(on.ada)
        await on.telegram.unblock(on.ada)

        changes = [update.my_chat_member for update in await told(on) if update.my_chat_member]
        assert [change.new_chat_member.status for change in changes] == ["administrator", "kicked", "member"]
        assert await on.bot.send_message(on.ada, "Welcome back")


async def test_a_bot_that_dies_in_its_poll_leaves_no_conflict_behind() -> None:
    async with stage() as on, bot_on(on.telegram) as twin:
        await forget(on)
        poll = asyncio.create_task(on.bot.get_updates(timeout=30))
        await asyncio.sleep(0.05)
        poll.cancel()
        await on.telegram.until(lambda: on.telegram.requests[-1].status == 499)

        assert await twin.get_updates(timeout=0) == ()


async def test_a_mistake_of_the_double_is_a_violation() -> None:
    async with stage() as on:
        await refused(on.bot.do_api_request("setMyCommands", {"commands": [{"command": "ask"}]}), NetworkError)

        assert "the double itself failed on setMyCommands" in on.telegram.violations.pop()
