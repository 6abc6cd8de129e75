"""Discord's people, channels, messages and interactions as the twin's own values. Sends nothing."""

import re

import discord

from bot.community import Community
from bot.screens import Caller
from memory.messages import Message, Person, Place, Visibility

PLATFORM = "discord"

Channel = (
    discord.abc.GuildChannel
    | discord.Thread
    | discord.abc.PrivateChannel
    | discord.PartialMessageable
    | discord.DMChannel
    | discord.GroupChannel
)
Interaction = discord.Interaction[discord.Client]


def person_of(community: Community, user: discord.abc.User) -> Person:
    """Somebody, by the name they go by where they were met. Webhooks come as bots."""
    return community.person(PLATFORM, str(user.id), user.display_name, bot=user.bot)


def place_of(channel: Channel) -> Place:
    """A channel, a private chat, or a thread or forum post, which belongs to its channel."""
    seen, name = visibility_of(channel), getattr(channel, "name", None) or ""
    if isinstance(channel, discord.Thread):
        return Place(PLATFORM, str(channel.parent_id), thread=str(channel.id), name=name, visibility=seen)
    return Place(PLATFORM, str(channel.id), name=name, visibility=seen)


def visibility_of(channel: Channel) -> Visibility:
    """Public is what everybody in the server may read; of what is not known nothing is assumed."""
    if isinstance(channel, discord.Thread):
        return "private" if channel.is_private() or channel.parent is None else visibility_of(channel.parent)
    if not isinstance(channel, discord.abc.GuildChannel):
        return "private"
    return "public" if channel.permissions_for(channel.guild.default_role).view_channel else "private"


def message_of(community: Community, message: discord.Message, *, me: int) -> Message:
    """A message as the journal keeps it."""
    replied = message.reference.message_id if message.reference and message.type is discord.MessageType.reply else None
    return Message(
        id=str(message.id),
        person=person_of(community, message.author),
        place=place_of(message.channel),
        at=message.created_at,
        text=text_of(message, me=me),
        reply_to=str(replied) if replied else None,
        mentions=tuple(f"{PLATFORM}:{user.id}" for user in message.mentions),
        revision=int(message.edited_at.timestamp()) if message.edited_at else 0,
        url=message.jump_url,
    )


def text_of(message: discord.Message, *, me: int) -> str:
    """The words, without the mention of the twin; other people by handle, since a number means nothing to a reader.

    The name that they go by in a server may be a sentence, and would be put into the mouth of who mentions them.
    """
    names = {user.id: user.name for user in message.mentions}
    text = re.sub(rf"(?<![ \t])[ \t]*<@!?{me}>[ \t]*", " ", message.content)
    return re.sub(r"<@!?(\d{1,20})>", lambda found: f"@{names.get(int(found[1]), 'somebody')}", text).strip()


def is_talk(message: discord.Message) -> bool:
    """Whether somebody wrote it: Discord announces pins, new members and threads as messages of theirs."""
    return message.type in {discord.MessageType.default, discord.MessageType.reply}


def is_for(message: discord.Message, me: int) -> bool:
    """Whether a message is meant for the twin: a private chat, a mention, a reply. A role or @everyone is not."""
    if message.guild is None or any(user.id == me for user in message.mentions):
        return True
    replied = message.reference.resolved if message.reference else None
    return isinstance(replied, discord.Message) and replied.author.id == me


def me_in(interaction: Interaction) -> int:
    """The twin's own id, which is not always its application's."""
    assert interaction.client.user is not None, "interactions come after the login"
    return interaction.client.user.id


def caller_of(community: Community, interaction: Interaction) -> Caller:
    """Who uses a command, button or form, and what the server lets them do there."""
    rights = interaction.permissions
    channel = interaction.channel
    assert channel is not None, "an interaction of a kind we register happens in a channel"
    return Caller(
        person_of(community, interaction.user),
        place_of(channel),
        language_of_locale(str(interaction.locale)),
        manages=interaction.guild_id is None or rights.manage_guild or rights.administrator,
        space=str(interaction.guild_id or ""),
    )


def writer_of(community: Community, message: discord.Message, value: Message) -> Caller:
    """Who wrote a message, as a caller. What they may do in a server is not known from it."""
    guild = message.guild
    language = language_of_locale(str(guild.preferred_locale)) if guild else community.persona.language
    return Caller(value.person, value.place, language, manages=guild is None, space=str(guild.id) if guild else "")


def language_of_locale(locale: str) -> str:
    """One of our languages for one of Discord's."""
    if locale in {"zh-TW", "zh-HK"}:
        return "zh-TW"
    return "zh-CN" if locale.startswith("zh") else "en"
