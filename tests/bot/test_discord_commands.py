"""Commands on Discord: who sees them, who may use them, and what they do."""

import asyncio
import json
from pathlib import Path

import pytest

from bot import discord_follow, discord_interactions
from bot.commands import COMMANDS
from tests.bot.discord_stage import DEFAULT, KNOWN, UNKNOWN, Permission, actions, on_discord
from tests.fakes.discord import Limit, NotVisible

ADMIN = [command.name for command in COMMANDS if command.audience == "admin"]


async def test_every_command_and_menu_is_registered(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        names = {one["name"] for one in at.discord.commands}
        assert names == {*(command.name for command in COMMANDS), "Ask the twin", "Teach the twin"}


async def test_commands_are_told_again_only_when_they_changed(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        await at.restart()
        assert at.discord.command_syncs == 1

        (tmp_path / "discord-commands").write_text("another version's")
        await at.restart()
        assert at.discord.command_syncs == 2


async def test_commands_that_cannot_be_told_do_not_keep_the_twin_from_answering(tmp_path: Path) -> None:
    async with on_discord(tmp_path, start=False) as at:
        at.discord.fail_next("PUT", "/commands$", 403)
        await at.start()
        await at.asked(KNOWN)
        await at.answer()


async def test_commands_are_described_in_three_languages(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        about = next(one for one in at.discord.commands if one["name"] == "about")
        ask = next(one for one in at.discord.commands if one["name"] == "ask")

        assert set(about["description_localizations"]) == {"en-US", "zh-CN", "zh-TW"}
        assert about["description_localizations"]["zh-CN"] == "我是谁，靠什么运行"
        assert set(ask["options"][0]["description_localizations"]) == {"en-US", "zh-CN", "zh-TW"}
        assert not about["name_localizations"]


async def test_members_commands_are_offered_everywhere_and_admins_where_the_twin_is(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        contexts = {one["name"]: one["contexts"] for one in at.discord.commands}
        assert contexts["privacy"] == [0, 1, 2]
        assert contexts["retrain"] == [0, 1]


@pytest.mark.parametrize("name", ["status", "retrain", "pause"])
async def test_admins_commands_are_hidden_from_members(tmp_path: Path, name: str) -> None:
    async with on_discord(tmp_path) as at:
        with pytest.raises(NotVisible):
            await at.slash(name)


async def test_the_permission_without_the_list_is_not_enough(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        at.discord.member(at.guild, at.bob, DEFAULT | Permission.MANAGE_GUILD)
        assert await at.said("pause") == "Only the twin's admins can do that."
        assert not at.stage.operations.quiet


async def test_the_list_without_the_permission_is_not_enough(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        other = at.discord.guild("Elsewhere")
        at.discord.world.guilds[other].owner = at.bob
        at.discord.member(other, at.ada, DEFAULT)
        for name in ("pause", "retrain"):
            at.discord.grant(at.ada, name)
        channel = at.discord.channel(other)

        assert await at.said("pause", who=at.ada, where=channel) == "Only the twin's admins can do that."
        assert await at.said("retrain", who=at.ada, where=channel) == "Only the twin's admins can do that."


async def test_an_admin_may_do_it_in_a_private_chat(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        assert "answering" in await at.said("status", who=at.ada, where=at.dm)


async def test_what_a_command_says_is_for_one_pair_of_eyes(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        assert (await at.slash("privacy")).ephemeral
        assert (await at.slash("status", who=at.ada)).ephemeral
        assert not (await at.slash("privacy", where=at.discord.dm_channel(at.bob))).ephemeral


async def test_a_command_that_takes_long_is_deferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discord_interactions, "ACK_S", 0.0)
    async with on_discord(tmp_path) as at:
        shown = await at.slash("about")

        assert (shown.deferred, shown.ephemeral) == (True, True)
        assert "stand-in for Ada" in shown.replies[0].content


async def test_what_is_said_aloud_is_said_aloud_after_a_deferral_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discord_interactions, "ACK_S", 0.0)
    async with on_discord(tmp_path, words=True) as at:
        await at.discord.slash(at.ada, at.channel, "listen", state="on")

        assert not (await at.answer(containing="I listen in this place")).ephemeral


async def test_what_is_down_is_said(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        at.stage.operations.down = True
        assert "cannot reach" in await at.said("voices", who=at.ada)


async def test_a_member_gets_everything_that_is_kept_as_a_file(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        await at.asked(KNOWN)
        await at.answer()
        (file,) = (await at.slash("mydata")).replies[0].attachments

        assert file.name == "mydata.json"
        assert KNOWN in json.dumps(json.loads(file.data), ensure_ascii=False)


async def test_a_member_is_forgotten_after_a_second_word(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        asked = await at.asked(KNOWN)
        await at.answer()
        sure = (await at.slash("forget")).replies[0]
        assert actions(sure) == ["forget", "cancel"]
        assert at.heard(asked) == KNOWN

        assert "Receipt" in await at.pressed(sure, "forget")
        assert at.heard(asked) is None


async def test_a_member_may_think_better_of_it(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        sure = (await at.slash("forget")).replies[0]
        assert await at.pressed(sure, "cancel") == "Nothing was changed."


async def test_consent_holds_where_it_was_given(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        await at.slash("consent", choice="yes")
        person = f"discord:{at.bob}"

        assert at.stage.journal.consent(person, at.place().key)
        assert not at.stage.journal.consent(person, "discord:1")
        assert "Right now: yes" in await at.said("consent")


async def test_the_last_answer_is_reported_with_a_reason(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        assert "Reply to one of my answers" in await at.said("report")
        await at.asked(KNOWN)
        await at.answer()
        offered = (await at.slash("report")).replies[0]
        form = await (await at.button(offered, "report")).done(20)
        sent = await (await at.discord.submit(form, {"text": "It is wrong."})).done(20)

        assert "will see your report" in sent.replies[0].content
        assert "It is wrong." in (await at.card("An answer was reported")).content


async def test_the_twin_is_paused_and_resumed(tmp_path: Path) -> None:
    """Paused it is mute in channels, and tells only who asks in private or by a command."""
    async with on_discord(tmp_path) as at:
        await at.slash("pause", who=at.ada)
        asked = await at.asked(KNOWN)
        await at.discord.say(at.bob, at.channel, KNOWN, reply_to=asked)
        await at.discord.dm(at.bob, KNOWN)
        await at.answer(at.discord.dm_channel(at.bob), containing="has paused me")
        told = [await at.slash("ask", question=KNOWN)]
        told.append(await (await at.discord.menu(at.bob, at.channel, "Ask the twin", asked)).done(20))
        await at.settled()

        assert [(each.ephemeral, "has paused me" in each.replies[0].content) for each in told] == [(True, True)] * 2
        assert [each for each in at.discord.said_by_bot(at.channel) if not each.ephemeral] == []
        await at.slash("resume", who=at.ada)
        await at.asked(KNOWN)
        await at.answer()


async def test_memory_is_searched(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        assert "24 degrees" in await at.said("memory", who=at.ada, action="search", words="How warm?")


async def test_a_long_find_comes_in_several_messages(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        at.stage.teach("How is rye baked?", "Slowly, with patience and steam. " * 150)
        found = await at.slash("memory", who=at.ada, action="search", words="How is rye baked?")
        await at.settled()

        assert len(found.replies) > 1
        assert all(each.ephemeral for each in found.replies)


async def test_a_place_is_purged_after_a_second_word(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        asked = await at.asked(KNOWN)
        await at.answer()
        sure = (await at.slash("memory", who=at.ada, action="purge")).replies[0]

        assert "Receipt" in await at.pressed(sure, "purge", who=at.ada)
        assert at.heard(asked) is None


async def test_a_training_is_reported_confirmed_followed_and_rolled_back(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        plan = (await at.slash("retrain", who=at.ada)).replies[0]
        assert "60 exchanges may train" in plan.content
        begun = await (await at.button(plan, "retrain", who=at.ada)).done(20)
        assert "run0" in begun.replies[0].content

        at.stage.operations.run("run0").update(
            state="running", stage="train", progress={"done": 3, "total": 40, "text": "steps"}
        )
        await at.discord.until(lambda: "train 3/40 steps" in begun.original.content)
        at.stage.operations.succeed("run0")
        end = await at.card("NLL 3.50 → 3.00")

        assert end.attachments[0].name == "evalcard.png"
        assert "succeeded" in begun.original.content
        assert await at.pressed(end, "rollback", who=at.ada) == "Now speaking: tiny."


async def test_a_training_is_followed_over_restarts_in_a_message_of_its_own(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        plan = (await at.slash("retrain", who=at.ada)).replies[0]
        await at.pressed(plan, "retrain", who=at.ada)
        await at.settled()
        run = at.stage.operations.run("run0")
        for step in (3, 5):
            await at.restart()
            run.update(state="running", stage="train", progress={"done": step, "total": 40, "text": "steps"})
            shown = await at.card(f"train {step}/40 steps")
        assert len(at.discord.said_by_bot(at.dm)) == 1

        await at.stop()
        at.stage.operations.succeed("run0")
        await at.start()
        end = await at.card("NLL 3.50 → 3.00")
        await at.restart()
        await asyncio.sleep(0.2)

        assert end.attachments[0].name == "evalcard.png"
        assert at.discord.said_by_bot(at.dm) == [shown, end]
        assert await at.pressed(end, "rollback", who=at.ada) == "Now speaking: tiny."


async def test_two_trainings_at_once_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with on_discord(tmp_path) as at:
        monkeypatch.setattr(discord_follow, "FOLLOW_S", 60)
        plan = (await at.slash("retrain", who=at.ada)).replies[0]
        first = await at.pressed(plan, "retrain", who=at.ada)
        second = await at.pressed(plan, "retrain", who=at.ada)

        assert "has begun" in first
        assert "under way already" in second
        assert len(at.stage.operations.runs) == 1


async def test_a_training_that_outlives_the_token_ends_in_the_inbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discord_follow, "TOKEN_S", 0.1)
    async with on_discord(tmp_path) as at:
        plan = (await at.slash("retrain", who=at.ada)).replies[0]
        begun = await (await at.button(plan, "retrain", who=at.ada)).done(20)
        await asyncio.sleep(0.15)
        seen = begun.original.content
        at.stage.operations.succeed("run0")
        await at.card("NLL 3.50 → 3.00")

        assert begun.original.content == seen


async def test_too_little_to_train_from_is_said_with_the_reason(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        at.stage.operations.refusal = "12 of 40 exchanges are there."
        assert "12 of 40" in await at.said("retrain", who=at.ada)


async def test_a_confirmation_is_not_for_members(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        plan = (await at.slash("retrain", who=at.ada, where=at.channel)).replies[0]
        plan.only_for, plan.flags = None, 0

        assert await at.pressed(plan, "retrain") == "Only the twin's admins can do that."
        assert not at.stage.operations.runs


async def test_voices_are_listed_with_the_way_back(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        listed = (await at.slash("voices", who=at.ada)).replies[0]
        assert "▶ v1: passed its gate" in listed.content
        assert actions(listed) == ["rollback"]
        assert await at.said("rollback", who=at.ada) == "Now speaking: tiny."


async def test_a_canary_is_begun_watched_and_promoted(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        at.stage.operations.speaks = "tiny+test"
        assert "/canary VERSION" in await at.said("canary", who=at.ada)
        assert "no adapter 'v7'" in await at.said("canary", who=at.ada, version="v7")
        assert "above 0 and below 1" in await at.said("canary", who=at.ada, version="v0", share="2")
        assert "10 %" in await at.said("canary", who=at.ada, version="v0")

        await at.asked(KNOWN)
        await at.pressed(await at.answer(), "up")
        trial = (await at.slash("canary", who=at.ada)).replies[0]
        assert "tiny+test: 1 answers (0 failed), 👍 1, 👎 0\ntiny+v0: 0 answers (0 failed), 👍 0, 👎 0" in trial.content
        assert "🐤 v0" in await at.said("voices", who=at.ada)

        sure = (await (await at.button(trial, "canary:promote", who=at.ada)).done(20)).replies[0]
        assert at.stage.operations.speaks == "tiny+test"
        assert actions(sure) == ["promote", "cancel"]
        assert await at.pressed(sure, "promote", who=at.ada) == "Now speaking: tiny+v0."
        assert "not the canary" in await at.pressed(sure, "promote", who=at.ada)


async def test_a_canary_is_stopped_and_an_old_button_means_the_canary_it_stood_under(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        trial = (await at.slash("canary", who=at.ada, version="v0", share="0.25")).replies[0]
        assert "25 %" in trial.content
        sure = (await (await at.button(trial, "canary:stop", who=at.ada)).done(20)).replies[0]
        assert "has ended" in await at.pressed(sure, "stop", who=at.ada)
        assert at.stage.operations.trial is None

        at.stage.operations.trial = {"version": "v9"}
        assert "'v0' is not the canary" in await at.pressed(sure, "stop", who=at.ada)
        assert at.stage.operations.trial == {"version": "v9"}


async def test_a_canary_is_not_for_members(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        at.discord.member(at.guild, at.bob, DEFAULT | Permission.MANAGE_GUILD)
        assert await at.said("canary", version="v0") == "Only the twin's admins can do that."
        trial = (await at.slash("canary", who=at.ada, version="v0", where=at.channel)).replies[0]
        trial.only_for, trial.flags = None, 0

        assert await at.pressed(trial, "canary:promote") == "Only the twin's admins can do that."
        assert at.stage.operations.trial


async def test_many_commands_at_once_are_all_acknowledged(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        at.discord.limits["webhooks"] = Limit(5, 2.0)
        shown = [await at.discord.slash(at.bob, at.channel, "consent") for _ in range(10)]
        shown += [await at.discord.slash(at.bob, at.channel, "ask", question=UNKNOWN) for _ in range(3)]
        for each in shown:
            assert (await each.done(20)).error is None
