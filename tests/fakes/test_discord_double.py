"""The double of Discord, with the real client library on the other side of the socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Any

import aiohttp
import discord
import pytest
import yarl
from discord import app_commands

from tests.fakes.discord import DEFAULT, FakeDiscord, Intent, Limit, NotVisible, Permission
from tests.fakes.discord_commands import check_commands
from tests.fakes.discord_http import Bucket
from tests.fakes.discord_limits import Refusal


class Twin(discord.Client):
    """The library with everything it hears written down."""

    def __init__(self, intents: discord.Intents | None = None, **options: Any) -> None:
        options.setdefault("allowed_mentions", discord.AllowedMentions.none())
        super().__init__(intents=intents or discord.Intents.default(), guild_ready_timeout=0.05, **options)
        self.heard: list[tuple[str, Any]] = []
        self.tree = app_commands.CommandTree(self)

    async def before_identify_hook(self, shard_id: int | None, *, initial: bool = False) -> None:
        """The library would wait five seconds."""

    def dispatch(self, event: str, /, *args: Any, **kwargs: Any) -> None:
        self.heard.append((event, args))
        super().dispatch(event, *args, **kwargs)

    def told(self, event: str) -> list[Any]:
        return [args[0] if args else None for name, args in self.heard if name == event]


@asynccontextmanager
async def running(double: FakeDiscord, client: discord.Client | None = None) -> AsyncIterator[Any]:
    twin = client or Twin()
    task = asyncio.create_task(twin.start(double.token))
    try:
        await double.until(lambda: task.done() or twin.is_ready())
        yield twin
    finally:
        await twin.close()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def double(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeDiscord]:
    """Whoever expects a violation takes it away."""
    async with FakeDiscord() as one:
        monkeypatch.setattr(discord.http.Route, "BASE", one.api)
        monkeypatch.setattr(discord.gateway.DiscordWebSocket, "DEFAULT_GATEWAY", yarl.URL(one.gateway))
        yield one
        assert one.violations == []


class Place:
    """Ada's community with Bob in it."""

    def __init__(self, double: FakeDiscord) -> None:
        self.guild = double.guild(locale="de")
        self.channel = double.channel(self.guild)
        self.bob = double.user("Bob", locale="zh-CN")
        double.member(self.guild, self.bob)


@pytest.fixture
def place(double: FakeDiscord) -> Place:
    return Place(double)


def message_of(twin: Twin) -> discord.Message:
    (message,) = twin.told("message")
    return message


async def refused(code: int, doing: Any) -> discord.HTTPException:
    with pytest.raises(discord.HTTPException) as caught:
        await doing
    assert caught.value.code == code
    return caught.value


# The gateway


async def test_the_library_gets_ready_and_knows_the_server(double: FakeDiscord, place: Place) -> None:
    async with running(double) as twin:
        guild = twin.get_guild(place.guild)

        assert (guild.name, guild.me.id, str(guild.preferred_locale)) == ("Community", double.bot_id, "de")
        assert guild.get_channel(place.channel).permissions_for(guild.me).value == DEFAULT


async def test_what_is_built_later_is_told(double: FakeDiscord) -> None:
    async with running(double) as twin:
        guild = double.guild("Later")
        channel = double.channel(guild, "forum", kind=15)
        thread = double.thread(channel, "How warm?")

        await double.until(lambda: twin.told("thread_create"))
        assert twin.get_channel(thread).parent == twin.get_channel(channel)


async def test_a_privileged_intent_that_is_switched_off_closes_the_socket(double: FakeDiscord) -> None:
    intents = discord.Intents.default()
    intents.message_content = True

    async with Twin(intents) as twin:
        with pytest.raises(discord.PrivilegedIntentsRequired):
            await twin.start(double.token)


async def test_a_wrong_token_is_refused_and_counts_as_invalid(double: FakeDiscord) -> None:
    async with Twin() as twin:
        with pytest.raises(discord.LoginFailure):
            await twin.login("somebody else's")

    assert double.invalid_requests == 1


async def test_a_dropped_socket_is_resumed_and_hears_what_it_missed(double: FakeDiscord, place: Place) -> None:
    async with running(double) as twin:
        await double.drop_sockets(1011)
        await double.say(place.bob, place.channel, f"<@{double.bot_id}> are you back?")

        await double.until(lambda: twin.told("resumed"))
        assert message_of(twin).content.endswith("are you back?")
        assert (double.gateway_server.identifies, double.gateway_server.resumes) == (1, 1)


async def test_a_client_asked_to_reconnect_resumes(double: FakeDiscord) -> None:
    async with running(double) as twin:
        await double.reconnect()
        await double.until(lambda: twin.told("resumed"))


async def test_an_invalidated_session_identifies_anew(double: FakeDiscord) -> None:
    async with running(double):
        await double.invalidate_sessions()
        await double.until(lambda: double.gateway_server.identifies == 2)


async def test_a_session_that_is_gone_cannot_be_resumed(double: FakeDiscord) -> None:
    async with running(double):
        double.gateway_server.sessions.clear()
        await double.drop_sockets()
        await double.until(lambda: double.gateway_server.identifies == 2)
        assert double.gateway_server.resumes == 0


async def test_heartbeats_are_answered(double: FakeDiscord) -> None:
    double.gateway_server.heartbeat_s = 0.1
    async with running(double) as twin:
        await double.until(lambda: double.gateway_server.heartbeats >= 3)
        assert twin.latency < 1


async def test_each_shard_hears_of_its_own_servers(double: FakeDiscord) -> None:
    double.shards = 2
    guilds = [double.guild(str(number)) for number in range(4)]

    class Sharded(Twin, discord.AutoShardedClient):
        pass

    async with running(double, Sharded()) as twin:
        await double.until(lambda: len(twin.guilds) == 4)
        assert {twin.get_guild(one).shard_id for one in guilds} == {0, 1}


async def test_members_are_told_only_with_their_intent(double: FakeDiscord, place: Place) -> None:
    double.intents_allowed = Intent.GUILD_MEMBERS
    intents = discord.Intents.default()
    intents.members = True
    async with running(double, Twin(intents)) as twin:
        assert twin.get_guild(place.guild).get_member(place.bob).name == "bob"
    async with running(double) as twin:
        assert twin.get_guild(place.guild).get_member(place.bob) is None


async def test_a_bot_thrown_out_hears_it_and_then_nothing_more(double: FakeDiscord, place: Place) -> None:
    async with running(double) as twin:
        await double.leave(place.guild)
        await double.say(place.bob, place.channel, "Is it gone?")

        await double.until(lambda: twin.told("guild_remove"))
        assert not twin.told("message")


async def test_an_outage_is_not_a_farewell(double: FakeDiscord, place: Place) -> None:
    async with running(double) as twin:
        await double.outage(place.guild)
        await double.admit(place.guild)

        await double.until(lambda: twin.told("guild_available")[1:])
        assert not twin.told("guild_remove")


# Words and who may read them


@pytest.mark.parametrize(("text", "readable"), [("hello", False), ("<@{}> hello", True)])
async def test_without_the_intent_only_mentions_have_words(
    double: FakeDiscord, place: Place, text: str, readable: bool
) -> None:
    async with running(double) as twin:
        said = text.format(double.bot_id)
        message = await double.say(place.bob, place.channel, said)
        await double.until(lambda: twin.told("message"))

        assert message_of(twin).content == (said if readable else "")
        fetched = await twin.get_channel(place.channel).fetch_message(message)
        assert fetched.content == (said if readable else "")


async def test_with_the_intent_everything_has_words(double: FakeDiscord, place: Place) -> None:
    double.intents_allowed = Intent.MESSAGE_CONTENT
    intents = discord.Intents.default()
    intents.message_content = True
    async with running(double, Twin(intents)) as twin:
        await double.say(place.bob, place.channel, "hello")
        await double.until(lambda: twin.told("message"))
        assert message_of(twin).content == "hello"


@pytest.mark.parametrize("ping", [True, False])
async def test_a_reply_has_words_if_it_pings_but_what_it_quotes_has_none(
    double: FakeDiscord, place: Place, ping: bool
) -> None:
    async with running(double) as twin:
        asked = await double.say(place.bob, place.channel, "how warm?")
        answer = await twin.get_channel(place.channel).send("28 degrees")
        await double.say(place.bob, place.channel, "really?", reply_to=answer.id, ping=ping)
        await double.until(lambda: len(twin.told("message")) == 3)

        reply = twin.told("message")[-1]
        assert reply.content == ("really?" if ping else "")
        assert reply.reference.resolved.content == "28 degrees"
        history = [one async for one in twin.get_channel(place.channel).history()]
        assert [one.content for one in history if one.id == asked] == [""]


async def test_a_direct_message_has_words_and_no_server(double: FakeDiscord, place: Place) -> None:
    async with running(double) as twin:
        await double.dm(place.bob, "just us")
        await double.until(lambda: twin.told("message"))
        message = message_of(twin)

        assert (message.content, message.guild) == ("just us", None)
        await message.reply("yes")
        assert [one.content for one in double.said_by_bot(double.dm_channel(place.bob))] == ["yes"]


async def test_edits_deletions_and_reactions_are_told(double: FakeDiscord, place: Place) -> None:
    async with running(double) as twin:
        first, second, third = [await double.say(place.bob, place.channel, text) for text in "abc"]
        await double.edit(first, f"<@{double.bot_id}> edited")
        await double.react(place.bob, first, "👍")
        await double.delete(first)
        await double.bulk_delete(place.channel, [second, third])

        await double.until(lambda: twin.told("raw_bulk_message_delete"))
        assert twin.told("raw_message_edit")[0].data["content"].endswith("edited")
        assert str(twin.told("raw_reaction_add")[0].emoji) == "👍"
        assert twin.told("raw_message_delete")[0].message_id == first
        assert twin.told("raw_bulk_message_delete")[0].message_ids == {second, third}


async def test_a_channel_the_bot_cannot_view_is_silent_and_closed(double: FakeDiscord, place: Place) -> None:
    double.deny(place.channel, Permission.VIEW_CHANNEL)
    async with running(double) as twin:
        await double.say(place.bob, place.channel, f"<@{double.bot_id}> psst")
        await refused(50001, twin.get_channel(place.channel).send("hello"))
        assert not twin.told("message")


async def test_a_hidden_channel_is_open_to_its_members_and_not_to_everybody(double: FakeDiscord, place: Place) -> None:
    hidden = double.channel(place.guild, "team")
    double.hide(hidden)
    async with running(double) as twin:
        guild = twin.get_guild(place.guild)
        everybody = guild.default_role

        assert guild.get_channel(place.channel).permissions_for(everybody).view_channel
        assert not guild.get_channel(hidden).permissions_for(everybody).view_channel
        assert guild.get_channel(hidden).permissions_for(guild.me).value == DEFAULT


async def test_history_pages_from_the_newest(double: FakeDiscord, place: Place) -> None:
    said = [await double.say(place.bob, place.channel, str(number)) for number in range(6)]
    async with running(double) as twin:
        channel = twin.get_channel(place.channel)

        async def page(**options: Any) -> list[int]:
            return [said.index(one.id) async for one in channel.history(**options)]

        assert await page(limit=2) == [5, 4]
        assert await page(limit=2, before=discord.Object(said[3])) == [2, 1]
        assert await page(limit=2, after=discord.Object(said[3])) == [4, 5]
        assert await page(limit=3, around=discord.Object(said[3])) == [4, 3, 2]


# What the bot says


async def test_a_message_goes_out_with_parts_and_files_and_is_edited(double: FakeDiscord, place: Place) -> None:
    async with running(double) as twin:
        view = discord.ui.View().add_item(discord.ui.Button(label="👍", custom_id="fb:up"))
        file = discord.File(BytesIO(b"notes"), "notes.txt")
        sent = await twin.get_channel(place.channel).send("hello", file=file, view=view, nonce="once")
        assert await sent.attachments[0].read() == b"notes"
        await sent.edit(content="hello again")

        (message,) = double.said_by_bot(place.channel)
        assert (message.content, message.nonce) == ("hello again", "once")
        assert [text for _, text in message.edits] == ["hello again"]
        assert [(one.name, one.data) for one in message.attachments] == [("notes.txt", b"notes")]
        assert message.components[0]["components"][0]["custom_id"] == "fb:up"


async def test_a_nonce_makes_a_repeated_send_one_message(double: FakeDiscord, place: Place) -> None:
    async with running(double) as twin:
        double.fail_next("POST", "/messages$", 502, after=True)
        await twin.get_channel(place.channel).send("hello", nonce="7")
        assert len(double.said_by_bot(place.channel)) == 1


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"content": "x" * 2001}, 50035),
        ({"content": " \n "}, 50006),
        ({"embed": discord.Embed(description="x" * 4097)}, 50035),
        ({"embeds": [discord.Embed(description="x" * 4000)] * 2}, 50035),
        ({"view": discord.ui.View().add_item(discord.ui.Button(label="x" * 81))}, 50035),
    ],
)
async def test_what_breaks_a_limit_is_refused(
    double: FakeDiscord, place: Place, message: dict[str, Any], code: int
) -> None:
    async with running(double) as twin:
        await refused(code, twin.get_channel(place.channel).send(**message))


async def test_permissions_are_asked_before_anything_is_said(double: FakeDiscord, place: Place) -> None:
    bobs = await double.say(place.bob, place.channel, "mine")
    double.deny(place.channel, Permission.SEND_MESSAGES)
    double.close_dms(place.bob)
    async with running(double) as twin:
        channel = twin.get_channel(place.channel)
        await refused(50013, channel.send("hello"))
        await refused(50005, channel.get_partial_message(bobs).edit(content="yours"))
        await refused(50013, channel.get_partial_message(bobs).delete())
        await refused(50007, (await twin.fetch_user(place.bob)).send("hello"))
        await refused(10008, channel.fetch_message(1))
        await refused(10003, twin.fetch_channel(1))


async def test_a_reply_to_what_is_deleted_is_refused(double: FakeDiscord, place: Place) -> None:
    async with running(double) as twin:
        await double.say(place.bob, place.channel, f"<@{double.bot_id}> forget it")
        await double.until(lambda: twin.told("message"))
        await double.delete(message_of(twin).id)

        await refused(50035, message_of(twin).reply("too late"))


async def test_a_text_that_would_ping_everybody_is_held_against_the_bot(double: FakeDiscord, place: Place) -> None:
    async with running(double, Twin(allowed_mentions=None)) as twin:
        await twin.get_channel(place.channel).send("@everyone look")

        assert len(double.violations) == 1
        assert double.violations.pop().startswith("ping: ")


async def test_an_edit_is_judged_by_its_own_allowed_mentions(double: FakeDiscord, place: Place) -> None:
    async with running(double, Twin(allowed_mentions=None)) as twin:
        quiet = discord.AllowedMentions.none()
        sent = await twin.get_channel(place.channel).send(f"<@{place.bob}>", allowed_mentions=quiet)
        await sent.edit(view=discord.ui.View())
        assert double.violations == []
        await sent.edit(content=f"<@{place.bob}> and more")
        assert double.violations.pop().startswith("ping: ")


async def test_a_mention_that_is_not_allowed_reaches_nobody(double: FakeDiscord, place: Place) -> None:
    async with running(double) as twin:
        await twin.get_channel(place.channel).send(f"@everyone and <@{place.bob}>")
        assert double.said_by_bot()[0].mentions == []


async def test_threads_can_be_started_joined_and_spoken_in(double: FakeDiscord, place: Place) -> None:
    forum = double.channel(place.guild, "questions", kind=15)
    post = double.thread(forum, "How warm?", owner=place.bob)
    assert await double.say(place.bob, post, "the dough, I mean") == post
    async with running(double) as twin:
        await twin.get_channel(post).send("28 degrees")
        question = await twin.get_channel(place.channel).send("And the water?")
        thread = await question.create_thread(name="Water")
        await thread.send("cold")

        assert (thread.id, double.messages[post].content) == (question.id, "the dough, I mean")
        assert [one.content for one in double.said_by_bot(thread.id)] == ["cold"]


async def test_the_bot_reacts_and_takes_it_back(double: FakeDiscord, place: Place) -> None:
    message = await double.say(place.bob, place.channel, "thanks")
    async with running(double) as twin:
        target = twin.get_channel(place.channel).get_partial_message(message)
        await target.add_reaction("👍")
        assert double.messages[message].reactions == {"👍": [double.bot_id]}
        await target.remove_reaction("👍", twin.user)
        assert double.messages[message].reactions == {}


async def test_members_are_fetched_with_their_permissions(double: FakeDiscord, place: Place) -> None:
    double.member(place.guild, place.bob, DEFAULT | Permission.MANAGE_GUILD)
    async with running(double) as twin:
        member = await twin.get_guild(place.guild).fetch_member(place.bob)
        assert member.guild_permissions.manage_guild
        await refused(10007, twin.get_guild(place.guild).fetch_member(1))


async def test_files_of_people_can_be_read(double: FakeDiscord, place: Place) -> None:
    async with running(double) as twin:
        await double.say(place.bob, place.channel, f"<@{double.bot_id}>", files={"log.txt": b"it broke"})
        await double.until(lambda: twin.told("message"))
        assert await message_of(twin).attachments[0].read() == b"it broke"


async def test_a_preview_of_a_link_is_no_edit(double: FakeDiscord, place: Place) -> None:
    async with running(double) as twin:
        message = await double.say(place.bob, place.channel, "https://example.org")
        await double.unfurl(message, {"title": "Example"})
        await double.until(lambda: twin.told("raw_message_edit"))
        assert twin.told("raw_message_edit")[0].data["edited_timestamp"] is None


async def test_typing_is_seen(double: FakeDiscord, place: Place) -> None:
    async with running(double) as twin:
        async with twin.get_channel(place.channel).typing():
            pass
        assert [channel for channel, _ in double.typing] == [place.channel]


async def test_an_unknown_route_is_a_violation(double: FakeDiscord, place: Place) -> None:
    async with running(double) as twin:
        with pytest.raises(discord.NotFound):
            await twin.get_channel(place.channel).webhooks()

    assert double.violations.pop() == f"unknown route: GET /channels/{place.channel}/webhooks"


# Trouble on the way


async def test_sends_and_edits_in_a_channel_share_a_bucket(double: FakeDiscord, place: Place) -> None:
    double.limits["messages"] = Limit(3, 0.4)
    async with running(double) as twin:
        sent = await twin.get_channel(place.channel).send("0")
        for number in range(1, 4):
            await sent.edit(content=str(number))

    texts = double.requests[-4:]
    assert texts[-1].time - texts[0].time >= 0.35
    assert [one.status for one in texts] == [200] * 4


async def test_a_client_that_ignores_its_bucket_is_slowed_down(double: FakeDiscord, place: Place) -> None:
    """Two clients know nothing of each other's bucket."""
    double.limits["messages"] = Limit(1, 0.3)
    async with running(double) as one, running(double) as other:
        await asyncio.gather(*(each.get_channel(place.channel).send("hello") for each in (one, other)))

    assert [each.status for each in double.requests if each.path.endswith("/messages")] == [200, 429, 200]
    assert double.invalid_requests == 1


async def test_all_requests_together_have_a_limit(double: FakeDiscord, place: Place) -> None:
    async with running(double) as twin:
        double.server.everything = Bucket(Limit(2, 0.2))
        await asyncio.gather(*(twin.fetch_user(place.bob) for _ in range(4)))

    assert 429 in [one.status for one in double.requests]
    assert [one.status for one in double.requests].count(200) == 6


async def test_an_ordered_429_is_waited_out_and_a_shared_one_is_not_counted(double: FakeDiscord, place: Place) -> None:
    async with running(double) as twin:
        double.fail_next("POST", "/messages$", 429, retry_after=0.05, shared=True)
        await twin.get_channel(place.channel).send("hello")

    assert double.invalid_requests == 0
    assert len(double.said_by_bot()) == 1


async def test_a_429_from_in_front_of_discord_raises_at_once(double: FakeDiscord, place: Place) -> None:
    async with running(double) as twin:
        double.fail_next("POST", "/messages$", 429, retry_after=0.05, via=False)
        with pytest.raises(discord.HTTPException):
            await twin.get_channel(place.channel).send("hello")


async def test_too_many_invalid_requests_get_the_address_banned(double: FakeDiscord, place: Place) -> None:
    double.server.most_invalid = 3
    double.deny(place.channel, Permission.SEND_MESSAGES)
    async with running(double) as twin:
        for _ in range(3):
            await refused(50013, twin.get_channel(place.channel).send("hello"))
        with pytest.raises(discord.HTTPException) as caught:
            await twin.fetch_user(place.bob)

    assert caught.value.status == 429
    assert double.violations.pop().startswith("banned: ")


async def test_errors_by_chance_come_from_a_seed(double: FakeDiscord) -> None:
    async def statuses(seed: int) -> list[int]:
        double.requests.clear()
        double.seed = seed
        async with aiohttp.ClientSession(headers={"Authorization": f"Bot {double.token}"}) as session:
            for _ in range(12):
                await (await session.get(f"{double.api}/users/@me")).read()
        return [one.status for one in double.requests]

    double.error_rate = 0.5
    assert await statuses(1) == await statuses(1) != await statuses(2)


async def test_a_cut_connection_is_an_error_of_the_network(double: FakeDiscord, place: Place) -> None:
    async with running(double) as twin:
        double.fail_next("POST", "/messages$", 0)
        with pytest.raises(aiohttp.ClientError):
            await twin.get_channel(place.channel).send("hello")


# Commands


def with_commands(twin: Twin) -> Twin:
    """A command for everybody, a hidden group, a menu, a button and a form."""

    @twin.tree.command(description="Ask the twin")
    async def ask(interaction: discord.Interaction, question: str, who: discord.User | None = None) -> None:
        await interaction.response.defer()
        name = who.name if who else interaction.user.name
        await interaction.edit_original_response(content=f"{name} asked {question!r} in {interaction.locale}")
        await interaction.followup.send("only you see this", ephemeral=True)

    memory = app_commands.Group(
        name="memory", description="Memory", default_permissions=discord.Permissions(manage_guild=True)
    )

    @memory.command(description="Search")
    async def search(interaction: discord.Interaction, words: str) -> None:
        await interaction.response.send_message(f"nothing about {words}", ephemeral=True)

    @twin.tree.context_menu(name="Ask the twin")
    async def about(interaction: discord.Interaction, message: discord.Message) -> None:
        await interaction.response.send_message(f"you chose {message.content!r}", ephemeral=True)

    @twin.tree.command(description="Say what is wrong")
    async def report(interaction: discord.Interaction) -> None:
        await interaction.response.send_modal(Report())

    @twin.tree.command(description="Think first")
    async def slow(interaction: discord.Interaction) -> None:
        await asyncio.sleep(0.1)
        await interaction.response.send_message("there")

    @twin.tree.command(description="Answer later")
    async def later(interaction: discord.Interaction) -> None:
        await interaction.response.defer(ephemeral=True)
        await interaction.followup.send("now")

    @twin.tree.error
    async def quiet(interaction: discord.Interaction, error: app_commands.AppCommandError) -> None:
        twin.heard.append(("command_error", (error,)))

    twin.tree.add_command(memory)
    return twin


class Report(discord.ui.Modal, title="Report"):
    what = discord.ui.TextInput[Any](label="What is wrong?", custom_id="what", min_length=3)

    async def on_submit(self, interaction: discord.Interaction) -> None:
        await interaction.response.send_message(f"noted: {self.what.value}", ephemeral=True)


@asynccontextmanager
async def commanding(double: FakeDiscord) -> AsyncIterator[Twin]:
    twin = with_commands(Twin())
    async with running(double, twin):
        await twin.tree.sync()
        yield twin


async def test_commands_are_registered_and_keep_their_ids(double: FakeDiscord) -> None:
    async with commanding(double) as twin:
        before = {one["name"]: one["id"] for one in double.commands}
        await twin.tree.sync()

        assert set(before) == {"ask", "memory", "report", "slow", "later", "Ask the twin"}
        assert {one["name"]: one["id"] for one in double.commands} == before
        assert double.command_syncs == 2
        assert len(await twin.tree.fetch_commands()) == 6


async def test_a_command_is_deferred_answered_and_followed_up(double: FakeDiscord, place: Place) -> None:
    async with commanding(double):
        asked = await double.slash(place.bob, place.channel, "ask", question="how warm?", who=double.owner_id)
        await asked.done()
        await double.until(lambda: len(asked.replies) == 2)

        assert [one.content for one in asked.replies] == ["ada asked 'how warm?' in zh-CN", "only you see this"]
        assert [one.ephemeral for one in asked.replies] == [False, True]
        assert (asked.acknowledged, asked.deferred) == (True, True)


async def test_a_command_works_in_a_direct_message(double: FakeDiscord, place: Place) -> None:
    async with commanding(double):
        asked = await double.slash(place.bob, double.dm_channel(place.bob), "ask", question="?")
        assert (await asked.done()).replies[0].content.startswith("bob asked")


async def test_a_hidden_command_is_offered_to_whom_it_is_for(double: FakeDiscord, place: Place) -> None:
    carol = double.user("Carol")
    double.member(place.guild, carol, DEFAULT | Permission.MANAGE_GUILD)
    async with commanding(double):
        with pytest.raises(NotVisible):
            await double.slash(place.bob, place.channel, "memory search", words="dough")
        found = await (await double.slash(carol, place.channel, "memory search", words="dough")).done()
        assert found.ephemeral

        double.grant(place.bob, "memory")
        await (await double.slash(place.bob, place.channel, "memory search", words="dough")).done()


@pytest.mark.parametrize("options", [{}, {"question": 3}, {"question": "?", "colour": "red"}])
async def test_a_command_takes_only_the_options_it_has(
    double: FakeDiscord, place: Place, options: dict[str, Any]
) -> None:
    async with commanding(double):
        with pytest.raises(NotVisible):
            await double.slash(place.bob, place.channel, "ask", **options)


async def test_choosing_a_message_shows_its_words(double: FakeDiscord, place: Place) -> None:
    message = await double.say(place.bob, place.channel, "not for bots")
    async with commanding(double):
        chosen = await double.menu(place.bob, place.channel, "Ask the twin", message)
        assert (await chosen.done()).replies[0].content == "you chose 'not for bots'"


async def test_a_form_is_opened_and_sent(double: FakeDiscord, place: Place) -> None:
    async with commanding(double):
        opened = await (await double.slash(place.bob, place.channel, "report")).done()
        with pytest.raises(NotVisible):
            await double.submit(opened, {"what": "no"})
        sent = await (await double.submit(opened, {"what": "too warm"})).done()
        assert sent.replies[0].content == "noted: too warm"


async def test_an_answer_after_three_seconds_meets_an_unknown_interaction(double: FakeDiscord, place: Place) -> None:
    async with commanding(double) as twin:
        asked = await double.slash(place.bob, place.channel, "slow")
        double.pass_time(3.1)
        await double.until(lambda: twin.told("command_error"))

        assert twin.told("command_error")[0].original.code == 10062
        assert asked.error == "The application did not respond"
        assert double.violations.pop() == "late: /slow was not acknowledged in 3 s"


async def test_silence_is_noticed_without_any_answer(double: FakeDiscord, place: Place) -> None:
    async with commanding(double):
        double.interactions.ack_within_s = 0.02
        asked = await double.slash(place.bob, place.channel, "slow")
        with pytest.raises(AssertionError, match="did not respond"):
            await asked.done()

    assert double.violations.pop().startswith("late: ")


async def test_an_interaction_is_answered_once(double: FakeDiscord, place: Place) -> None:
    async with commanding(double) as twin:
        await (await double.slash(place.bob, place.channel, "slow")).done()
        (interaction,) = twin.told("interaction")
        interaction.response._response_type = None

        await refused(40060, interaction.response.send_message("again"))


async def test_a_token_is_worth_nothing_after_fifteen_minutes(double: FakeDiscord, place: Place) -> None:
    async with commanding(double) as twin:
        await (await double.slash(place.bob, place.channel, "slow")).done()
        (interaction,) = twin.told("interaction")
        await interaction.followup.send("in time")
        double.pass_time(901)

        await refused(50027, interaction.followup.send("too late"))


async def test_a_button_is_pressed_by_those_who_see_it(double: FakeDiscord, place: Place) -> None:
    class Vote(discord.ui.View):
        @discord.ui.button(label="👍", custom_id="fb:up")
        async def up(self, interaction: discord.Interaction, button: discord.ui.Button[Any]) -> None:
            button.disabled = True
            await interaction.response.edit_message(content="thanks", view=self)

    async with running(double) as twin:
        sent = await twin.get_channel(place.channel).send("was it good?", view=Vote())
        with pytest.raises(NotVisible, match="only \\['fb:up'\\]"):
            await double.click(place.bob, sent.id, "fb:down")
        await (await double.click(place.bob, sent.id, "fb:up")).done()

        assert double.messages[sent.id].content == "thanks"
        with pytest.raises(NotVisible, match="disabled"):
            await double.click(place.bob, sent.id, "fb:up")


async def test_an_answer_for_one_person_is_seen_by_nobody_else(double: FakeDiscord, place: Place) -> None:
    async with commanding(double) as twin:
        asked = await (await double.slash(place.bob, place.channel, "report")).done()
        noted = (await (await double.submit(asked, {"what": "too warm"})).done()).replies[0]

        assert noted.only_for == place.bob
        await refused(10008, twin.get_channel(place.channel).fetch_message(noted.id))
        # Discord tells it as if it were a direct message.
        await double.until(lambda: twin.told("message"))
        assert message_of(twin).guild is None


async def test_the_first_follow_up_takes_the_place_of_a_deferral(double: FakeDiscord, place: Place) -> None:
    async with commanding(double) as twin:
        asked = await double.slash(place.bob, place.channel, "later")
        await asked.done()

        assert [(one.content, one.ephemeral) for one in asked.replies] == [("now", True)]
        await double.until(lambda: twin.told("raw_message_edit"))
        assert twin.told("raw_message_edit")[0].message_id == asked.replies[0].id


@pytest.mark.parametrize(
    "command",
    [
        {"name": "Ask", "description": "capital"},
        {"name": "ask", "description": ""},
        {"name": "ask", "description": "x" * 101},
        {"name": "ask", "description": "x", "name_localizations": {"xx": "frag"}},
    ],
)
def test_a_command_that_breaks_a_rule_is_refused(command: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as caught:
        check_commands([command])
    assert caught.value.code == 50035


async def test_waiting_in_vain_says_what_was_seen(double: FakeDiscord, place: Place) -> None:
    await double.say(place.bob, place.channel, "anybody?")
    with pytest.raises(AssertionError, match=r"Bob: 'anybody\?'"):
        await double.until(lambda: False, timeout_s=0.01)
