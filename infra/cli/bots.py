"""The twin on Discord and Telegram, as one process: beside the API on this machine, or across the network from it."""

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from infra.cli.compose import manner, memory_of, now, open_journal, persona, settings_of, voice_of
from infra.cli.operations import House
from infra.errors import UserMistake
from infra.health import sign
from infra.processes import die_with_parent
from infra.remote import Remote
from infra.settings import Settings

if TYPE_CHECKING:
    from bot.community import Community
    from infra.voice.chat import Voice
    from memory.journal import Journal
    from memory.recall import Recaller


class Runnable(Protocol):
    """A platform that runs until it is asked to stop."""

    async def run(self, stopping: asyncio.Event) -> None: ...


PLATFORMS = ("discord", "telegram")


def configured(settings: Settings) -> tuple[str, ...]:
    """The platforms that have a token."""
    tokens = {"discord": settings.discord.token, "telegram": settings.telegram.token}
    return tuple(name for name in PLATFORMS if tokens[name] is not None)


def bot(home: Path | None, platform: str | None, *, parent: int | None) -> None:
    """Be on one platform, or on every one that has a token, until told to stop."""
    if parent is not None:
        die_with_parent(parent)
    settings = settings_of(home, part="bot")
    wanted = chosen(settings, platform)
    journal = open_journal(settings)
    try:
        asyncio.run(run(settings, journal, wanted))
    finally:
        journal.close()


def chosen(settings: Settings, platform: str | None) -> tuple[str, ...]:
    """The platforms to be on. Raises UserMistake for one that is unknown or has no token."""
    if platform is not None and platform not in PLATFORMS:
        raise UserMistake(f"The platform is one of {', '.join(PLATFORMS)}, not {platform!r}.")
    wanted = tuple(name for name in configured(settings) if platform in {None, name})
    if not wanted:
        names = [platform] if platform else PLATFORMS
        raise UserMistake(f"No token is set: {' or '.join(f'UNDERSTUDY_{n.upper()}__TOKEN' for n in names)}.")
    return wanted


async def run(settings: Settings, journal: "Journal", platforms: tuple[str, ...]) -> None:
    """Every platform at once in this process; SIGTERM and Ctrl-C let running replies end."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    community = open_community(settings, journal)
    state = settings.data_folder / "run"
    state.mkdir(parents=True, exist_ok=True)
    running = [on(name, settings, community, state) for name in platforms]
    results = await asyncio.gather(*(until_stopped(each, stopping) for each in running), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


def on(name: str, settings: Settings, community: "Community", state: Path) -> "Runnable":
    """The adapter of a platform; its library is imported only where it is used."""
    if name == "discord":
        from bot.discord_platform import DiscordPlatform

        return DiscordPlatform(settings.discord, community, state=state)
    from bot.telegram_platform import TelegramPlatform

    return TelegramPlatform(settings.telegram, community, state=state)


async def until_stopped(platform: "Runnable", stopping: asyncio.Event) -> None:
    """One platform; when it cannot go on, the others end in good order."""
    try:
        await platform.run(stopping)
    finally:
        stopping.set()


def open_community(settings: Settings, journal: "Journal") -> "Community":
    """The twin as a platform meets it; its memory and its voice are the running twin's."""
    from bot.community import Community
    from bot.twin import Twin
    from memory.members import Members

    house = House(settings, journal)
    teachers = frozenset(settings.creator.teachers)
    twin = Twin(
        journal,
        recaller(settings, journal),
        voice=voice(settings),
        manner=manner(settings, journal),
        creator=settings.creator_keys | teachers,
        silenced=house.silenced,
        clock=now,
    )
    return Community(
        twin=twin,
        journal=journal,
        members=Members(journal),
        operations=house,
        persona=persona(settings, journal),
        creator=settings.creator_keys,
        teachers=teachers,
        admins=frozenset(settings.creator.admins or settings.creator.ids),
        clock=now,
        alive=lambda: sign(settings, "bot"),
    )


def recaller(settings: Settings, journal: "Journal") -> "Recaller":
    """Memory: the API's, where it is named or holds the index, else this process' own view of a Qdrant server."""
    from memory.elsewhere import RecallElsewhere

    if settings.bot.api or not settings.index.url:
        return RecallElsewhere(lambda: Remote.find(settings))
    return memory_of(settings, journal).recall  # the twin's own process keeps the index up to date


def voice(settings: Settings) -> "Voice":
    """The voice of the running twin, wherever it is now, or the server that the settings name."""
    from infra.voice.client import MovingVoice

    if settings.voice.url:
        return voice_of(settings, None)
    return MovingVoice(lambda: Remote.find(settings), model=settings.models.base)
