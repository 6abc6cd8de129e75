"""The connection to Discord: what it asks for, how it begins, and what ends it for good."""

import asyncio
import logging

import aiohttp
import discord

from infra.errors import ServiceTrouble, UserMistake
from infra.settings import DiscordSettings

log = logging.getLogger(__name__)

LOGIN_AGAIN_S = 10.0
# How long the library waits for the last server before it calls itself ready.
GUILD_READY_S = 2.0
# The least that the library allows; a longer wait is ours to decide on.
MOST_WAIT_S = 30.0


def client_for(settings: DiscordSettings) -> discord.Client:
    """A client that pings nobody and asks for no more than it needs."""
    intents = discord.Intents.none()
    intents.guilds = intents.guild_messages = intents.dm_messages = True
    intents.guild_reactions = intents.dm_reactions = True
    intents.message_content = settings.message_content
    kind = discord.AutoShardedClient if settings.sharded else discord.Client
    return kind(
        intents=intents,
        allowed_mentions=discord.AllowedMentions.none(),
        max_messages=None,
        max_ratelimit_timeout=MOST_WAIT_S,
        guild_ready_timeout=GUILD_READY_S,
    )


async def log_in(client: discord.Client, settings: DiscordSettings, stopping: asyncio.Event) -> bool:
    """Log in, as often as it takes Discord to come back; False when asked to stop before.

    Raises UserMistake for a wrong token.
    """
    assert settings.token is not None, "who starts the platform has a token for it"
    while not stopping.is_set():
        try:
            await client.login(settings.token.get_secret_value())
            return True
        except discord.LoginFailure as error:
            raise UserMistake(
                "Discord refuses discord.token. Make a new one on the Bot page of its developer portal."
            ) from error
        except (aiohttp.ClientError, OSError, discord.HTTPException) as error:
            log.warning("Discord cannot be reached (%s); trying again.", type(error).__name__)
            await forget_session(client)
            await pause(stopping, LOGIN_AGAIN_S)
    return False


async def connect(client: discord.Client) -> None:
    """Stay connected. Raises UserMistake for what Discord's developer portal or the settings must change."""
    try:
        await client.connect()
    except discord.PrivilegedIntentsRequired as error:
        raise UserMistake(
            "Discord does not give this bot the words of messages. Switch on Message Content Intent on the Bot page of "
            "its developer portal, or set discord.message_content = false."
        ) from error
    except (discord.ConnectionClosed, discord.GatewayNotFound) as error:
        raise ServiceTrouble(f"Discord closed the connection for good ({type(error).__name__}).") from error


async def forget_session(client: discord.Client) -> None:
    """Close what a failed login leaves open; the library makes another session, but only if it has no connector."""
    await client.http.close()
    client.http.connector = discord.utils.MISSING


async def pause(stopping: asyncio.Event, seconds: float) -> None:
    """Sleep, or less when asked to stop."""
    waiting = asyncio.create_task(stopping.wait())
    await asyncio.wait([waiting], timeout=seconds)
    waiting.cancel()
