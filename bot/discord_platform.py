"""The twin on Discord: its events become calls of the neutral modules, and their screens become messages.

In this order: life, asking, listening, what `bot.platform.Platform` asks for, what was missed while away. Commands,
menus, buttons and forms are in `bot/discord_interactions.py`. Names, texts and tokens are never logged.
"""

import asyncio
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import discord
import yarl

from bot import asking, discord_missed, hearing, presses
from bot.asking import Draw
from bot.community import Community
from bot.discord_client import client_for, connect, log_in
from bot.discord_commands import command_tree, sync
from bot.discord_follow import Follower
from bot.discord_interactions import Interactions
from bot.discord_missed import Heartbeat
from bot.discord_show import ChannelOutlet, Pace, parts_of, post, translated, view_of
from bot.discord_values import PLATFORM, Channel, is_for, is_talk, message_of, person_of, place_of, writer_of
from bot.rounds import rounds
from bot.running import Running, report
from bot.screens import Caller, Screen
from infra.errors import ServiceTrouble
from infra.settings import DiscordSettings
from infra.spool import Spool
from memory.messages import Message, Place, Source

REACTIONS = {"👍": "up", "👎": "down"}


class DiscordPlatform:
    """A `bot.platform.Platform` over one connection to Discord. `state` is the folder for what it alone remembers."""

    name = PLATFORM

    # Life

    def __init__(self, settings: DiscordSettings, community: Community, *, state: Path) -> None:
        self._settings, self._community, self._state = settings, community, state
        self._heartbeat = Heartbeat(state / "discord-heartbeat")
        self._pace, self._running = Pace(), Running()
        self._client = client_for(settings)
        self._follower = Follower(community, self, Spool(community.journal.engine, PLATFORM), self._running)
        interactions = Interactions(
            community,
            client=self._client,
            pace=self._pace,
            running=self._running,
            follower=self._follower,
            words=settings.message_content,
        )
        self._tree = command_tree(
            self._client, slash=interactions.slash, ask=interactions.menu_ask, teach=interactions.menu_teach
        )
        # Events are taken in their order, or a deletion could overtake the message that it deletes.
        self._in_order = asyncio.Lock()
        self._inbox: Place | None = None
        # Since when events may be missing; None while none are.
        self._away: datetime | None = None
        self._client.event(interactions.on_interaction)
        self._listen_to_events()

    def _listen_to_events(self) -> None:
        """The library calls its client's methods, by these names."""
        events: tuple[Any, ...] = (
            self.setup_hook,
            self.on_ready,
            self.on_disconnect,
            self.on_resumed,
            self.on_error,
            self.on_message,
            self.on_raw_message_edit,
            self.on_raw_message_delete,
            self.on_raw_bulk_message_delete,
            self.on_raw_reaction_add,
            self.on_guild_remove,
        )
        for event in events:
            self._client.event(event)

    async def run(self, stopping: asyncio.Event) -> None:
        """Be on Discord until asked to stop, and finish the replies that are under way.

        Raises UserMistake when Discord refuses what the settings say.
        """
        discord.http.Route.BASE = self._settings.api.rstrip("/")
        discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(self._settings.gateway)
        self._away = self._heartbeat.last()
        async with self._client:
            if not await log_in(self._client, self._settings, stopping):
                return
            connected, stopped = asyncio.create_task(connect(self._client)), asyncio.create_task(stopping.wait())
            self._running.chore(self._go_round(stopping), "the rounds")
            self._running.chore(self._beat(), "the heartbeat")
            try:
                await asyncio.wait([connected, stopped], return_when=asyncio.FIRST_COMPLETED)
                if not connected.done():
                    await self._running.drain()
                    self._note_alive()
            finally:
                stopped.cancel()
                await self._running.cancel()
        await connected

    async def _go_round(self, stopping: asyncio.Event) -> None:
        await self._client.wait_until_ready()
        await rounds(self._community, self, stopping)

    async def _beat(self) -> None:
        while True:
            await asyncio.to_thread(self._note_alive)
            await asyncio.sleep(discord_missed.BEAT_S)

    def _note_alive(self) -> None:
        if self._client.is_ready() and self._away is None:
            self._heartbeat.beat(self._community.clock())

    async def setup_hook(self) -> None:
        """Before the first event: what an earlier process owes, and the commands if they changed."""
        owed = asking.catch_up(self._community, PLATFORM, self._outlet)
        self._running.chore(owed, "sending answers that an earlier process wrote")
        self._running.chore(self._follower.resume(), "going on with runs that an earlier process followed")
        try:
            await sync(self._tree, self._state / "discord-commands")
        except (discord.HTTPException, ServiceTrouble) as error:
            report("telling Discord the commands", error)  # the twin can still be asked

    async def on_ready(self) -> None:
        since, self._away = self._away, None
        self._running.chore(self._come_back(since), "looking for what was missed")

    async def on_disconnect(self) -> None:
        if self._client.is_ready():
            self._away = self._away or self._community.clock()

    async def on_resumed(self) -> None:
        """Discord has told again what was missed."""
        self._away = None

    async def on_error(self, event: str, *args: Any, **kwargs: Any) -> None:
        if (error := sys.exc_info()[1]) is not None:
            report(f"the event {event}", error)

    # Asking

    async def on_message(self, message: discord.Message) -> None:
        if message.author.id != self._me and is_talk(message):
            self._running.reply(self._take(message), f"message {message.id}")

    async def _take(self, message: discord.Message) -> None:
        """What a message is: an answer to a card, a question, or something to hear."""
        async with self._in_order:
            value = await self._value(message)
            screen = await hearing.answers_card(self._community, value, writer_of(self._community, message, value))
            if screen is None and not is_for(message, self._me):
                await hearing.hear(self._community, value, Source.DISCORD_API)
                return
        if screen is not None:
            await self.send(value.place, screen, reply_to=value.id)
        elif value.person.role != "bot":
            await self._ask(message, value)

    async def _ask(self, message: discord.Message, value: Message) -> None:
        """Answer a message in words; say that others cannot be read."""
        if message.guild is not None and await self._community.silenced():
            return
        if value.text:
            # An answer is named after its question as first asked, also when that was edited before it was read.
            question = replace(value, revision=0)
            space = str(message.guild.id) if message.guild else ""
            await asking.ask(self._community, question, self._outlet, source=Source.DISCORD_API, space=space)
        elif message.attachments or message.stickers:
            writer = writer_of(self._community, message, value)
            await self.send(value.place, self._community.screen("only_text", writer), reply_to=value.id)

    def _outlet(self, message: Message, draw: Draw) -> ChannelOutlet:
        """Where the answer to a message goes. What was asked in private through a menu is not answered in public."""
        if not message.id.isdigit():
            raise ServiceTrouble("The private answer that it was for is gone.", permanent=True)
        channel = self._messageable(message.place)
        return ChannelOutlet(channel, message, draw, self._pace.turn(channel.id))

    # Listening

    async def on_raw_message_edit(self, event: discord.RawMessageUpdateEvent) -> None:
        """Only what a person changed: Discord also tells of links that it unfolded."""
        if event.data.get("edited_timestamp") and event.message.author.id != self._me:
            self._running.reply(self._edited(event.message), f"edit of {event.message_id}")

    async def _edited(self, message: discord.Message) -> None:
        async with self._in_order:
            value = await self._value(message)
            if message.content or self._settings.message_content or is_for(message, self._me):
                await hearing.edited(self._community, value)
            else:
                # What it says now is kept from us, so what we hold is no longer what its author says.
                await hearing.deleted(self._community, value.place, value.id)

    async def on_raw_message_delete(self, event: discord.RawMessageDeleteEvent) -> None:
        deletion = self._deleted(event.channel_id, event.guild_id, {event.message_id})
        self._running.reply(deletion, f"deletion of {event.message_id}")

    async def on_raw_bulk_message_delete(self, event: discord.RawBulkMessageDeleteEvent) -> None:
        deletions = self._deleted(event.channel_id, event.guild_id, event.message_ids)
        self._running.reply(deletions, f"deletion of {len(event.message_ids)} messages in {event.channel_id}")

    async def _deleted(self, channel_id: int, guild_id: int | None, messages: set[int]) -> None:
        async with self._in_order:
            place = place_of(await self._channel(channel_id, guild_id))
            for message_id in sorted(messages):
                await hearing.deleted(self._community, place, str(message_id))

    async def on_guild_remove(self, guild: discord.Guild) -> None:
        self._running.reply(hearing.left(self._community, PLATFORM, str(guild.id)), f"leaving server {guild.id}")

    async def on_raw_reaction_add(self, event: discord.RawReactionActionEvent) -> None:
        """A thumb under an answer is a vote like a pressed button."""
        if event.user_id != self._me and event.emoji.name in REACTIONS:
            vote = self._voted(event, REACTIONS[event.emoji.name])
            self._running.reply(vote, f"reaction to {event.message_id}")

    async def _voted(self, event: discord.RawReactionActionEvent, verb: str) -> None:
        place = place_of(await self._channel(event.channel_id, event.guild_id))
        answer = await asyncio.to_thread(self._community.journal.answer_shown_as, place, str(event.message_id))
        unnamed = self._community.person(PLATFORM, str(event.user_id), "")
        person = person_of(self._community, event.member) if event.member else unnamed
        if answer is not None and answer.outcome == "answered" and person.role != "bot":
            caller = Caller(person, place, self._community.persona.language)
            await presses.press(self._community, f"{verb}:{answer.id}", caller)

    # What `bot.platform.Platform` asks for

    async def send(self, place: Place, screen: Screen, *, reply_to: str = "") -> str:
        """The id is that of the last message, the one with the buttons."""
        channel, parts, sent = self._messageable(place), parts_of(screen), ""
        for part in parts:
            answers = reply_to if part.number == 0 else ""
            file = screen.file if part is parts[-1] else None
            with translated():
                sent = str((await post(channel, part, reply_to=answers, file=file)).id)
        return sent

    async def edit(self, place: Place, message_id: str, screen: Screen) -> None:
        message = self._messageable(place).get_partial_message(int(message_id))
        last = parts_of(screen)[-1]
        with translated():
            await message.edit(content=last.text, view=view_of(last.buttons))

    async def direct(self, person_id: str) -> Place:
        with translated():
            return place_of(await self._client.create_dm(discord.Object(int(person_id))))

    async def inbox(self) -> Place | None:
        if self._inbox is None:
            self._inbox = await self._find_inbox()
        return self._inbox

    async def _find_inbox(self) -> Place | None:
        if self._settings.inbox_channel:
            with translated():
                return place_of(await self._channel(int(self._settings.inbox_channel)))
        creator = min((key for key in self._community.creator if key.startswith(f"{PLATFORM}:")), default="")
        return await self.direct(creator.removeprefix(f"{PLATFORM}:")) if creator else None

    @property
    def _me(self) -> int:
        assert self._client.user is not None, "events come after the login"
        return self._client.user.id

    async def _value(self, message: discord.Message) -> Message:
        """A message as a value; a thread that the library has not met yet is asked for."""
        channel = message.channel
        if isinstance(channel, discord.PartialMessageable) and message.guild is not None:
            message.channel = await self._channel(channel.id, message.guild.id)  # type: ignore[assignment]
        return message_of(self._community, message, me=self._me)

    async def _channel(self, channel_id: int, guild_id: int | None = 0) -> Channel:
        """A channel or thread by its id; one that is in no server is a private chat, met before or not."""
        if (known := self._client.get_channel(channel_id)) is not None:
            return known
        if guild_id is None:
            return self._client.get_partial_messageable(channel_id, type=discord.ChannelType.private)
        return await self._client.fetch_channel(channel_id)

    def _messageable(self, place: Place) -> discord.PartialMessageable:
        return self._client.get_partial_messageable(int(place.thread or place.id))

    # What was missed while away

    async def _come_back(self, since: datetime | None) -> None:
        """Forget the servers that sent the twin away, and take what was said since it was here last."""
        here = {str(guild.id) for guild in self._client.guilds}
        places = await asyncio.to_thread(self._community.members.places, PLATFORM)
        for space in {space for _, space in places} - here - {""}:
            await hearing.left(self._community, PLATFORM, space)
        if since is None:
            return
        now = self._community.clock()
        since = max(since, now - discord_missed.LOOK_BACK)
        for place in await asyncio.to_thread(discord_missed.conversations, self._community, now=now):
            try:
                await self._look_into(place, since)
            except ServiceTrouble as trouble:
                report(f"looking for what was missed in {place.key}", trouble)

    async def _look_into(self, place: Place, since: datetime) -> None:
        """Hear and answer what came into one conversation since `since`, and what was being answered then."""
        after = since - discord_missed.UNDER_WAY
        with translated():
            channel = await self._channel(int(place.thread or place.id))
            assert isinstance(channel, discord.abc.Messageable), "people have talked in it"
            history = channel.history(limit=discord_missed.MOST_MESSAGES, after=after, oldest_first=True)
            messages = [message async for message in history]
        done = discord_missed.answered_in(messages, self._me)
        for message in messages:
            if message.author.id == self._me or not is_talk(message):
                continue
            if message.edited_at is not None:
                await self._edited(message)
            missed = message.created_at >= since or is_for(message, self._me)
            if missed and message.id not in done:
                self._running.reply(self._take(message), f"missed message {message.id}")
