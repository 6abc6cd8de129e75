"""How the double's world looks on the wire: the JSON objects of API v10.

Content that the application has no intent for is blanked here and nowhere else, so that events, fetched history and
quoted messages obey the same rule.
"""

import mimetypes
from collections.abc import Callable

from tests.fakes.discord_limits import Json
from tests.fakes.discord_world import (
    DM,
    FakeChannel,
    FakeFile,
    FakeGuild,
    FakeMessage,
    FakeUser,
    Intent,
    Permission,
    World,
    created_at,
    ids,
    stamp,
)

Render = Callable[[int], Json]

REPLY = 19
# The portal's switches, told to the application as the flags of one that needs no review.
FLAGS = {Intent.GUILD_PRESENCES: 1 << 13, Intent.GUILD_MEMBERS: 1 << 15, Intent.MESSAGE_CONTENT: 1 << 19}
HIDDEN: Json = {"content": "", "embeds": [], "attachments": [], "components": []}


def user(one: FakeUser) -> Json:
    return {
        "id": str(one.id),
        "username": one.name.lower(),
        "global_name": None if one.bot else one.name,
        "discriminator": "0001" if one.bot else "0",
        "avatar": None,
        "bot": one.bot,
        "public_flags": 0,
    }


def member(guild: FakeGuild, who: int) -> Json:
    """A member without the user, as events about messages carry it."""
    return {
        "roles": ids([guild.roles[guild.members[who]]] if who in guild.members else []),
        "nick": None,
        "avatar": None,
        "joined_at": created_at(guild.id).isoformat(),
        "premium_since": None,
        "deaf": False,
        "mute": False,
        "pending": False,
        "flags": 0,
        "communication_disabled_until": None,
    }


def full_member(world: World, guild: FakeGuild, who: int) -> Json:
    return {**member(guild, who), "user": user(world.users[who])}


def application_flags(world: World) -> int:
    return sum(flag for intent, flag in FLAGS.items() if world.intents_allowed & intent)


def role(role_id: int, name: str, permissions: int, position: int) -> Json:
    return {
        "id": str(role_id),
        "name": name,
        "permissions": str(permissions),
        "position": position,
        "color": 0,
        "colors": {"primary_color": 0, "secondary_color": None, "tertiary_color": None},
        "hoist": False,
        "icon": None,
        "unicode_emoji": None,
        "managed": False,
        "mentionable": False,
        "flags": 0,
    }


def roles(guild: FakeGuild) -> list[Json]:
    """Everybody's role shows channels and grants nothing else: each member has one role with exactly the given bits."""
    given = [role(role_id, f"bits-{bits}", bits, at) for at, (bits, role_id) in enumerate(guild.roles.items(), 1)]
    return [role(guild.id, "@everyone", int(Permission.VIEW_CHANNEL), 0), *given]


def channel(world: World, one: FakeChannel) -> Json:
    if one.kind == DM:
        return _dm(world, one)
    common = {
        "id": str(one.id),
        "type": one.kind,
        "guild_id": str(one.guild),
        "name": one.name,
        "parent_id": None if one.parent is None else str(one.parent),
        "last_message_id": str(one.messages[-1]) if one.messages else None,
        "rate_limit_per_user": 0,
        "flags": 0,
    }
    return {**common, **(_thread_part(world, one) if one.is_thread else _channel_part(world, one))}


def _dm(world: World, one: FakeChannel) -> Json:
    assert one.recipient is not None
    return {
        "id": str(one.id),
        "type": DM,
        "last_message_id": str(one.messages[-1]) if one.messages else None,
        "recipients": [user(world.users[one.recipient])],
        "flags": 0,
    }


def _channel_part(world: World, one: FakeChannel) -> Json:
    return {
        "position": 0,
        "topic": None,
        "nsfw": False,
        "permission_overwrites": _overwrites(world, one),
        "available_tags": [],
        "default_reaction_emoji": None,
        "default_sort_order": None,
        "default_forum_layout": 0,
    }


def _overwrites(world: World, one: FakeChannel) -> list[Json]:
    """What is denied to whom; a hidden channel is denied to everybody's role and open to the members one by one."""
    view = int(Permission.VIEW_CHANNEL) if one.hidden else 0
    inside = world.guilds[one.guild].members if one.hidden and one.guild is not None else {}
    closed = [{"id": str(one.guild), "type": 0, "allow": "0", "deny": str(view)}] if one.hidden else []
    denied = {**dict.fromkeys(inside, 0), **one.denied}
    return closed + [
        {"id": str(who), "type": 1, "allow": str(view & ~bits), "deny": str(bits)} for who, bits in denied.items()
    ]


def _thread_part(world: World, one: FakeChannel) -> Json:
    born = created_at(one.id).isoformat()
    return {
        "owner_id": str(one.owner),
        "message_count": len(one.messages),
        "total_message_sent": len(one.messages),
        "member_count": len(one.members),
        "thread_metadata": {
            "archived": one.archived,
            "auto_archive_duration": 1440,
            "archive_timestamp": born,
            "locked": False,
            "create_timestamp": born,
        },
        **({"member": thread_member(one, world.bot_id)} if world.bot_id in one.members else {}),
    }


def thread_member(thread: FakeChannel, who: int) -> Json:
    joined = created_at(thread.id).isoformat()
    return {"id": str(thread.id), "user_id": str(who), "join_timestamp": joined, "flags": 0}


def guild(one: FakeGuild) -> Json:
    return {
        "id": str(one.id),
        "name": one.name,
        "owner_id": str(one.owner),
        "preferred_locale": one.locale,
        "roles": roles(one),
        **dict.fromkeys(("icon", "splash", "discovery_splash", "banner", "description", "vanity_url_code")),
        **dict.fromkeys(("afk_channel_id", "system_channel_id", "rules_channel_id", "public_updates_channel_id")),
        **dict.fromkeys(("verification_level", "mfa_level", "nsfw_level", "premium_tier", "system_channel_flags"), 0),
        **dict.fromkeys(("default_message_notifications", "explicit_content_filter", "afk_timeout"), 0),
        **{name: [] for name in ("emojis", "stickers", "features")},
        "application_id": None,
        "premium_progress_bar_enabled": False,
    }


def guild_create(world: World, one: FakeGuild, intents: int) -> Json:
    """What a bot learns on joining; other members only when it is told about members and presences alike."""
    everybody = intents & Intent.GUILD_MEMBERS and intents & Intent.GUILD_PRESENCES
    inside = [place for place in world.channels.values() if place.guild == one.id]
    return {
        **guild(one),
        "joined_at": created_at(one.id).isoformat(),
        "large": False,
        "unavailable": False,
        "member_count": len(one.members),
        "members": [full_member(world, one, who) for who in (one.members if everybody else [world.bot_id])],
        "channels": [channel(world, place) for place in inside if not place.is_thread],
        "threads": [channel(world, place) for place in inside if place.is_thread and world.bot_sees(place)],
        **{name: [] for name in ("presences", "voice_states", "stage_instances")},
        **{name: [] for name in ("guild_scheduled_events", "soundboard_sounds")},
    }


def attachment(world: World, where: FakeMessage, one: FakeFile) -> Json:
    url = f"{world.base}/attachments/{where.channel}/{where.id}/{one.name}"
    kind = mimetypes.guess_type(one.name)[0]
    size = len(one.data)
    return {
        "id": str(one.id),
        "filename": one.name,
        "size": size,
        "url": url,
        "proxy_url": url,
        **({"content_type": kind} if kind else {}),
    }


def readable(world: World, one: FakeMessage, intents: int) -> bool:
    """Whether a bot with these intents gets the words of this message."""
    if intents & Intent.MESSAGE_CONTENT or world.channels[one.channel].guild is None:
        return True
    return one.author == world.bot_id or world.bot_id in one.mentions


def message(world: World, one: FakeMessage, intents: int, *, quoted: bool = False) -> Json:
    """A message as REST returns it; `quoted` ones carry no message inside them."""
    body = {**_told(world, one), **_said(world, one)}
    if not readable(world, one, intents):
        body |= HIDDEN
    if one.reply_to is not None:
        body |= _reference(world, one, intents, quoted)
    return body


def _said(world: World, one: FakeMessage) -> Json:
    return {
        "content": one.content,
        "embeds": [{"type": "rich", **embed} for embed in one.embeds],
        "attachments": [attachment(world, one, item) for item in one.attachments],
        "components": one.components,
    }


def _told(world: World, one: FakeMessage) -> Json:
    """All but the words."""
    thread = world.channels.get(one.id)
    return {
        "id": str(one.id),
        "channel_id": str(one.channel),
        "type": one.kind,
        "author": user(world.users[one.author]),
        "timestamp": created_at(one.id).isoformat(),
        "edited_timestamp": None if one.edited_at is None else stamp(one.edited_at),
        "tts": False,
        "pinned": False,
        "mention_everyone": one.everyone,
        "mentions": [user(world.users[who]) for who in one.mentions if who in world.users],
        "mention_roles": ids(one.mentioned_roles),
        "flags": one.flags,
        **({"nonce": one.nonce} if one.nonce is not None else {}),
        **({"interaction_metadata": one.interaction} if one.interaction else {}),
        **({"thread": channel(world, thread)} if thread and thread.id != one.channel else {}),
        **(
            {"reactions": [_reaction(world, emoji, who) for emoji, who in one.reactions.items()]}
            if one.reactions
            else {}
        ),
    }


def _reaction(world: World, emoji: str, who: list[int]) -> Json:
    return {
        "count": len(who),
        "count_details": {"burst": 0, "normal": len(who)},
        "me": world.bot_id in who,
        "me_burst": False,
        "emoji": {"id": None, "name": emoji},
        "burst_colors": [],
    }


def _reference(world: World, one: FakeMessage, intents: int, quoted: bool) -> Json:
    where = world.channels[one.channel]
    pointer = {"type": 0, "message_id": str(one.reply_to), "channel_id": str(one.channel)}
    if where.guild is not None:
        pointer["guild_id"] = str(where.guild)
    if quoted:
        return {"message_reference": pointer}
    target = world.messages.get(one.reply_to or 0)
    shown = None if target is None or target.deleted else message(world, target, intents, quoted=True)
    return {"message_reference": pointer, "referenced_message": shown}


def message_event(world: World, one: FakeMessage, intents: int) -> Json:
    """A message as the gateway tells it. What only one person sees names no server, even inside one."""
    guild_here = world.guild_of(world.channels[one.channel])
    body = message(world, one, intents)
    if guild_here is None or one.ephemeral:
        return body
    for mentioned in body["mentions"]:
        mentioned["member"] = member(guild_here, int(mentioned["id"]))
    return {**body, "guild_id": str(guild_here.id), "member": member(guild_here, one.author)}


def reaction_event(world: World, who: int, to: FakeMessage, emoji: str) -> Json:
    body: Json = {
        "user_id": str(who),
        "channel_id": str(to.channel),
        "message_id": str(to.id),
        "message_author_id": str(to.author),
        "emoji": {"id": None, "name": emoji},
        "burst": False,
        "type": 0,
    }
    place = world.guild_of(world.channels[to.channel])
    return body if place is None else {**body, "guild_id": str(place.id), "member": full_member(world, place, who)}


def interaction_channel(world: World, where: FakeChannel, who: int) -> Json:
    bits = world.permissions(who, where)
    return {**channel(world, where), **({} if where.kind == DM else {"permissions": str(int(bits))})}


def acting_member(world: World, where: FakeChannel, who: int) -> Json:
    """The person in an interaction, with their permissions in that channel."""
    place = world.guild_of(where)
    assert place is not None
    return {**full_member(world, place, who), "permissions": str(int(world.permissions(who, where)))}


def app_permissions(world: World, where: FakeChannel) -> str:
    return str(int(world.permissions(world.bot_id, where)))
