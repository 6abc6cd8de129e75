"""The twin on the double of Discord: a staged community, the real platform on the real library, in one loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import discord as library
import pytest

from bot import discord_client, discord_follow, rounds, running
from bot.discord_platform import DiscordPlatform
from infra.settings import DiscordSettings
from memory.messages import Place
from tests.bot.stage import Script, Stage, staged
from tests.fakes.discord import DEFAULT, FakeDiscord, FakeMessage, Intent, Interaction, Limit, Permission

KNOWN = "How warm should the sourdough be?"
UNKNOWN = "Who won the regatta of 1907?"
SAYS = "Keep it at 24 degrees, friend. Trust the dough."


@dataclass
class DiscordStage:
    """Ada's server with Bob in it, and the twin that answers there."""

    discord: FakeDiscord
    stage: Stage
    folder: Path
    settings: DiscordSettings
    guild: int = 0
    channel: int = 0
    bob: int = 0
    ada: int = 0
    platform: DiscordPlatform | None = None
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    @property
    def voice(self) -> Script:
        return self.stage.voice

    @property
    def me(self) -> str:
        return f"<@{self.discord.bot_id}>"

    @property
    def dm(self) -> int:
        """Ada's private chat, where her inbox is."""
        return self.discord.dm_channel(self.ada)

    async def start(self) -> None:
        self.stopping = asyncio.Event()
        self.platform = DiscordPlatform(self.settings, self.stage.community, state=self.folder)
        self.task = asyncio.create_task(self.platform.run(self.stopping))
        client = self.platform._client
        await self.discord.until(lambda: self.task.done() or client.is_ready(), timeout_s=15)
        if self.task.done():
            await self.task

    async def stop(self) -> None:
        """Ask it to stop, and wait until it has."""
        self.stopping.set()
        await asyncio.wait_for(self.task, 30)

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def asked(self, text: str, *, who: int = 0, where: int = 0) -> int:
        """Somebody mentions the twin."""
        return await self.discord.say(who or self.bob, where or self.channel, f"{self.me} {text}")

    async def answer(self, where: int = 0, count: int = 1, containing: str = "stand-in") -> FakeMessage:
        """The `count`th finished message of the twin's in a channel: previews have no label yet."""
        where = where or self.channel

        def finished() -> list[FakeMessage]:
            return [m for m in self.discord.said_by_bot(where) if containing in m.content]

        await self.discord.until(lambda: len(finished()) >= count, timeout_s=20)
        await self.settled()  # what is shown is journalled a moment later
        return finished()[count - 1]

    async def button(self, message: FakeMessage, verb: str, *, who: int = 0) -> Interaction:
        """Press the button whose action begins with `verb`."""
        return await self.discord.click(who or self.bob, message.id, action(message, verb))

    async def pressed(self, message: FakeMessage, verb: str, *, who: int = 0) -> str:
        """The same, and what it said."""
        return (await (await self.button(message, verb, who=who)).done(20)).replies[0].content

    async def slash(self, name: str, *, who: int = 0, where: int = 0, **options: str) -> Interaction:
        interaction = await self.discord.slash(who or self.bob, where or self.channel, name, **options)
        return await interaction.done(20)

    async def said(self, name: str, *, who: int = 0, where: int = 0, **options: str) -> str:
        """What a command said."""
        return (await self.slash(name, who=who, where=where, **options)).replies[0].content

    async def card(self, containing: str = "", count: int = 1) -> FakeMessage:
        """A card in Ada's inbox."""
        return await self.answer(self.dm, count, containing=containing or "asked by")

    def place(self, channel: int = 0) -> Place:
        return Place("discord", str(channel or self.channel))

    def heard(self, message: int, channel: int = 0) -> str | None:
        """A message as the journal has it."""
        found = self.stage.journal.message(self.place(channel), str(message))
        return found.text if found else None

    async def settled(self) -> None:
        """Everything that happened has reached the platform, and nothing that it began is still under way."""
        await self.discord.until(self.told_everything, timeout_s=20)
        await asyncio.sleep(0.01)  # what was told begins in a task of its own
        await self.discord.until(lambda: not self.platform._running._replies, timeout_s=20)

    def told_everything(self) -> bool:
        sessions = [each for each in self.discord.gateway_server.sessions.values() if each.connection is not None]
        socket = self.platform._client.ws
        return len(sessions) != 1 or socket is None or socket.sequence == len(sessions[0].history)


def action(message: FakeMessage, verb: str) -> str:
    actions = [each["custom_id"] for row in message.components for each in row["components"]]
    return next(each for each in actions if each.startswith(verb))


def actions(message: FakeMessage) -> list[str]:
    return [each["custom_id"].partition(":")[0] for row in message.components for each in row["components"]]


@asynccontextmanager
async def on_discord(
    folder: Path,
    *,
    voice: Script | None = None,
    words: bool = False,
    teachers: tuple[str, ...] = (),
    start: bool = True,
    **options: Any,
) -> AsyncIterator[DiscordStage]:
    """`words` switches the privileged intent on, in the portal and in the settings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(discord_client, "GUILD_READY_S", 0.05)
        patch.setattr(rounds, "ROUND_S", 0.05)
        patch.setattr(rounds, "TROUBLE_S", 0.2)
        patch.setattr(discord_follow, "FOLLOW_S", 0.05)
        patch.setattr(running, "DRAIN_S", 10.0)
        patch.setattr(library.Client, "before_identify_hook", no_wait)
        # What `run` sets for the whole process is set back.
        patch.setattr(library.http.Route, "BASE", library.http.Route.BASE)
        gateway = library.gateway.DiscordWebSocket
        patch.setattr(gateway, "DEFAULT_GATEWAY", gateway.DEFAULT_GATEWAY)
        async with FakeDiscord(intents_allowed=Intent.MESSAGE_CONTENT if words else 0) as double:
            for name in double.limits:
                double.limits[name] = Limit(1000, 1.0)
            ada, keys = double.owner_id, frozenset(f"discord:{each}" for each in teachers)
            async with staged(folder, creator=f"discord:{ada}", teachers=keys, voice=voice) as stage:
                settings = DiscordSettings(
                    token=double.token, message_content=words, api=double.api, gateway=double.gateway, **options
                )
                place = DiscordStage(double, stage, folder, settings, ada=ada)
                place.guild = double.guild()
                place.channel = double.channel(place.guild)
                place.bob = double.user("Bob")
                double.member(place.guild, place.bob)
                try:
                    if start:
                        await place.start()
                        place.platform._pace.interval_s = 0.02
                    yield place
                finally:
                    if place.task is not None and not place.task.done():
                        await place.stop()
        assert double.violations == []


async def no_wait(client: library.Client, shard_id: int | None, *, initial: bool = False) -> None:
    """The library would wait five seconds before it identifies again."""


__all__ = ["DEFAULT", "KNOWN", "SAYS", "UNKNOWN", "DiscordStage", "Permission", "action", "actions", "on_discord"]
