"""The process on Telegram: how it starts, what it registers, and that whatever dies, each update is handled once."""

import asyncio
import logging
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr

from bot.telegram_platform import outline
from infra.database import connect
from infra.errors import ServiceTrouble, UserMistake
from infra.spool import Spool
from tests.bot.stage import Script
from tests.bot.telegram_stage import ADA, SAYS, UNKNOWN, WARM, Scene, scene
from tests.fakes.staging import free_port

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def slow() -> Script:
    return Script(SAYS, pace_s=0.1)


async def ready(on: Scene) -> None:
    await on.telegram.until(lambda: on.telegram.calls("getUpdates"))


# Starting.


async def test_a_wrong_token_is_refused_in_a_sentence_without_it(tmp_path: Path) -> None:
    async with scene(tmp_path, begin=False) as on:
        wrong = f"{on.telegram.bot_id}:{'x' * 35}"
        on.settings["token"] = SecretStr(wrong)
        on.start()

        with pytest.raises(UserMistake, match=r"telegram\.token") as caught:
            await on.ended()
        assert wrong not in str(caught.value)


async def test_no_token_is_said(tmp_path: Path) -> None:
    async with scene(tmp_path, begin=False) as on:
        on.settings["token"] = None
        on.start()

        with pytest.raises(UserMistake, match="BotFather"):
            await on.ended()


async def test_a_telegram_that_is_down_is_tried_until_it_is_there(tmp_path: Path) -> None:
    async with scene(tmp_path, begin=False) as on:
        on.telegram.fail_next("getMe", 502)
        asked = await on.private(WARM)
        on.start()

        assert SAYS in (await on.answered(on.bob, asked)).text


async def test_it_can_be_stopped_while_telegram_is_down(tmp_path: Path) -> None:
    async with scene(tmp_path, begin=False) as on:
        on.telegram.fail_next("getMe", 502, times=1000)
        on.start()
        await on.telegram.until(lambda: on.telegram.calls("getMe"))

        await asyncio.wait_for(on.stop(), 2)


async def test_polling_survives_a_telegram_that_fails_meanwhile(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        await ready(on)
        on.telegram.fail_next("getUpdates", 500, times=2)
        on.telegram.queue.end_poll("over")
        asked = await on.private(WARM)

        assert SAYS in (await on.answered(on.bob, asked)).text


async def test_only_what_it_understands_is_asked_for(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        await ready(on)

        asked = on.telegram.calls("getUpdates")[-1].params["allowed_updates"]
        assert asked == ["message", "edited_message", "callback_query", "my_chat_member"]


# Menus.


async def registered(on: Scene) -> None:
    await on.telegram.until((on.folder / "state" / "telegram-commands").exists)


def offered(on: Scene, chat: int, user: int) -> list[str]:
    return [name for name, _ in on.telegram.menu(chat, user)]


async def test_members_groups_and_administrators_are_offered_their_commands(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        await registered(on)

        assert offered(on, on.bob, on.bob)[:3] == ["ask", "about", "privacy"]
        assert "retrain" not in offered(on, on.bob, on.bob)
        assert offered(on, on.group, on.bob) == ["ask", "about", "privacy"]
        assert {"ask", "retrain", "listen", "teach"} <= set(offered(on, on.group, ADA))
        assert {"ask", "forget", "retrain", "teach"} <= set(offered(on, ADA, ADA))


async def test_menus_are_in_the_language_of_the_reader(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        mei = on.telegram.user("Mei", language="zh")
        await registered(on)

        assert dict(on.telegram.menu(mei, mei))["ask"] == "提一个问题"
        assert dict(on.telegram.menu(on.bob, on.bob))["ask"] == "Ask a question"


async def test_menus_are_registered_again_only_when_they_changed(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        await registered(on)
        first = len(on.telegram.calls("setMyCommands"))
        await on.stop()
        on.start()
        await on.answered(on.bob, await on.private(WARM))
        assert len(on.telegram.calls("setMyCommands")) == first

        await on.stop()
        (on.folder / "state" / "telegram-commands").write_text("older")
        on.start()
        await on.telegram.until(lambda: len(on.telegram.calls("setMyCommands")) == 2 * first)


async def test_menus_that_telegram_refuses_for_now_come_later(tmp_path: Path) -> None:
    async with scene(tmp_path, begin=False) as on:
        on.telegram.fail_next("setMyCommands", 429, retry_after=1)
        on.start()

        await registered(on)


async def test_an_admin_whose_chat_is_new_gets_the_menu_with_start(tmp_path: Path) -> None:
    async with scene(tmp_path, begin=False) as on:
        on.telegram.world.people[ADA].started = False
        on.start()
        await registered(on)
        on.telegram.commands.clear()
        await on.telegram.start(ADA)
        await on.reply(ADA, "I am an AI")

        assert "retrain" in offered(on, ADA, ADA)


# Webhooks.


async def test_updates_are_posted_where_the_settings_say_with_their_secret(tmp_path: Path) -> None:
    async with scene(tmp_path, begin=False) as on:
        port = free_port()
        on.settings |= {
            "webhook_url": f"http://127.0.0.1:{port}/telegram",
            "webhook_secret": SecretStr("s3cret-s3cret-s3cret"),
            "webhook_port": port,
        }
        on.start()
        asked = await on.private(WARM)

        assert SAYS in (await on.answered(on.bob, asked)).text
        assert on.telegram.calls("getUpdates") == []
        assert on.telegram.webhook.secret == "s3cret-s3cret-s3cret"
        async with aiohttp.ClientSession() as session, session.post(on.settings["webhook_url"], json={}) as answer:
            assert answer.status == 403


# Once.


async def test_an_update_that_comes_twice_is_answered_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        asked = await on.private(WARM)
        update = on.telegram.queue.pending()[-1]
        await on.answered(on.bob, asked)
        on.telegram.queue._waiting.append(update)
        on.telegram.queue._arrived.set()
        on.telegram.queue._wake("")
        await on.answered(on.bob, await on.private("thanks"))

        assert len([each for each in on.said(on.bob) if SAYS in each.text]) == 1


async def test_an_update_is_kept_until_its_reply_is_there_and_then_its_words_go(tmp_path: Path) -> None:
    async with scene(tmp_path, voice=slow()) as on:
        await on.private(WARM)
        await on.telegram.until(lambda: on.stage.voice.asked)
        while_answering = on.waiting()
        await on.reply(on.bob, "Sources")
        await on.settled()

        assert (while_answering, on.waiting()) == (1, 0)


async def test_killed_between_update_and_answer_it_answers_after_the_restart(tmp_path: Path) -> None:
    async with scene(tmp_path, voice=slow()) as on:
        asked = await on.private(WARM)
        await on.telegram.until(lambda: on.stage.voice.asked and not on.telegram.queue.pending())
        await on.kill()
        assert on.said(on.bob) == []
        on.start()

        assert SAYS in (await on.answered(on.bob, asked)).text
        await on.settled()
        assert len(on.said(on.bob)) == 1


async def test_killed_in_the_middle_of_many_it_answers_every_one_once(tmp_path: Path) -> None:
    async with scene(tmp_path, voice=slow()) as on:
        people = [on.telegram.user(f"Guest {number}") for number in range(8)]
        asked = [(each, await on.private(WARM, user=each)) for each in people]
        for _ in range(3):
            await asyncio.sleep(0.35)
            await on.kill()
            on.start()
        for person, question in asked:
            await on.answered(person, question)
        await on.settled()

        assert [len(on.said(person)) for person in people] == [1] * 8


async def test_killed_after_writing_the_answer_it_sends_that_answer(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        on.telegram.fail_next("sendMessage", 500, times=1000)
        asked = await on.private(WARM)
        await on.telegram.until(lambda: on.telegram.calls("sendMessage"))
        await on.kill()
        on.telegram._faults.clear()
        on.start()

        assert SAYS in (await on.answered(on.bob, asked)).text
        await on.settled()
        assert len(on.stage.voice.asked) == 1
        assert len(on.said(on.bob)) == 1


async def test_asked_to_stop_it_finishes_its_replies(tmp_path: Path) -> None:
    async with scene(tmp_path, voice=slow()) as on:
        asked = [await on.private(WARM), await on.public(f"@twin_bot {WARM}")]
        await on.telegram.until(lambda: len(on.stage.voice.asked) == 2)
        await on.stop()

        assert [on.said(chat)[0].reply_to for chat in (on.bob, on.group)] == asked
        assert "Sources" in on.said(on.group)[0].text
        assert on.waiting() == 0


async def test_a_reply_that_takes_too_long_to_finish_is_given_after_the_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.telegram_platform.DRAIN_S", 0.1)
    async with scene(tmp_path, voice=Script(SAYS, stalls_after=1)) as on:
        asked = await on.private(WARM)
        await on.telegram.until(lambda: on.stage.voice.asked)
        await asyncio.wait_for(on.stop(), 5)
        assert on.waiting() == 1
        on.stage.voice.stalls_after = -1
        on.start()

        assert SAYS in (await on.answered(on.bob, asked)).text


async def test_while_the_database_is_down_nothing_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(tmp_path) as on:
        await ready(on)
        put, failed = Spool.put, []

        def sometimes(self: Spool, *rest: Any, **named: Any) -> bool:
            if len(failed) < 2:
                failed.append(1)
                raise ServiceTrouble("The disk is full.")
            return put(self, *rest, **named)

        monkeypatch.setattr(Spool, "put", sometimes)
        asked = await on.private(WARM)

        assert SAYS in (await on.answered(on.bob, asked, timeout_s=15)).text
        assert len(failed) == 2


# People and chats that go.


async def test_who_blocked_the_twin_costs_nothing_but_their_own_answer(tmp_path: Path) -> None:
    async with scene(tmp_path, voice=slow()) as on:
        await on.private(WARM)
        await on.telegram.until(lambda: on.stage.voice.asked)
        await on.telegram.block(on.bob)
        await on.settled()

        assert SAYS in (await on.answered(ADA, await on.private(WARM, user=ADA))).text
        assert on.said(on.bob) == []


async def test_a_group_that_moves_while_it_is_answered_gets_its_answer(tmp_path: Path) -> None:
    async with scene(tmp_path, voice=slow()) as on:
        small = on.telegram.group("Small", supergroup=False)
        on.telegram.join(small, on.bob)
        await on.telegram.say(on.bob, small, f"@twin_bot {WARM}")
        await on.telegram.until(lambda: on.stage.voice.asked)
        new = await on.telegram.migrate(small)

        assert SAYS in (await on.reply(new, "Sources")).text
        again = await on.telegram.say(on.bob, new, f"@twin_bot {WARM}")
        assert SAYS in (await on.answered(new, again)).text


async def test_a_notice_reaches_a_group_that_moved(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        small = on.telegram.group("Small", supergroup=False)
        on.telegram.join(small, on.bob)
        asked = await on.telegram.say(on.bob, small, f"@twin_bot {UNKNOWN}")
        await on.press(on.bob, await on.answered(small, asked), "ask:")
        card = await on.card()
        new = await on.telegram.migrate(small)
        await on.private("Ulaanbaatar.", user=ADA, reply_to=card.id)

        assert (await on.reply(new, "Ulaanbaatar.")).reply_to is None


# The log.


async def test_the_log_has_neither_words_nor_names_nor_the_token(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError(WARM)

    with caplog.at_level(logging.INFO):
        async with scene(tmp_path) as on:
            on.telegram.fail_next("sendMessage", 400, "Bad Request: chat not found")
            await on.private(WARM)
            await on.settled()
            monkeypatch.setattr(on.stage.community.twin, "_recall", None)
            monkeypatch.setattr("bot.asking.ask", broken)
            await on.private(WARM)
            await on.settled()

    ours = [record.getMessage() for record in caplog.records if record.name.startswith(("bot", "infra"))]
    assert len([line for line in ours if line.startswith("update 7")]) == 2
    assert any("ValueError" in line for line in ours)
    everything = caplog.text
    assert not any(word in everything for word in (WARM, "Bob", on.telegram.token))


def test_an_exception_is_outlined_by_its_kind_and_our_line() -> None:
    with pytest.raises(UserMistake) as caught:
        connect("secret words")

    assert re.fullmatch(r"UserMistake in infra\.database:\d+", outline(caught.value))


# The spool.


def test_the_spool_takes_an_update_once_and_forgets_its_words(tmp_path: Path) -> None:
    spool = Spool(connect(f"sqlite:///{tmp_path / 'x.db'}"), "telegram")

    assert spool.put("1", "first", now=NOW)
    assert not spool.put("1", "again", now=NOW)
    assert spool.put("2", "second", now=NOW)
    spool.done("1")

    assert spool.waiting() == [("2", "second")]
    assert not spool.put("1", "repeated", now=NOW)


def test_the_spool_knows_a_handled_update_for_a_day(tmp_path: Path) -> None:
    spool = Spool(connect(f"sqlite:///{tmp_path / 'x.db'}"), "telegram")
    spool.put("1", "first", now=NOW)
    spool.done("1")

    spool.put("2", "second", now=NOW + timedelta(days=2))

    assert spool.put("1", "a year later", now=NOW + timedelta(days=2))


def test_platforms_share_the_spool_and_see_their_own(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path / 'x.db'}")
    telegram, discord = Spool(engine, "telegram"), Spool(engine, "discord")
    telegram.put("1", "first", now=NOW)
    telegram.mean("telegram:1", "5", {"fills": "answer:1"}, now=NOW)

    assert discord.waiting() == []
    assert discord.meaning("telegram:1", "5") == {}
    assert telegram.meaning("telegram:1", "5") == {"fills": "answer:1"}


def test_a_meaning_is_replaced_and_taken_back(tmp_path: Path) -> None:
    spool = Spool(connect(f"sqlite:///{tmp_path / 'x.db'}"), "telegram")
    spool.mean("telegram:1", "5", {"fills": "answer:1"}, now=NOW)
    spool.mean("telegram:1", "5", {"fills": "answer:2"}, now=NOW)
    assert spool.meanings() == [("telegram:1", "5", {"fills": "answer:2"})]

    spool.mean("telegram:1", "5", {}, now=NOW)

    assert spool.meanings() == []
