"""Telegram's updates as the values that the twin works with: places, people, messages, callers. Sends nothing."""

from collections.abc import Sequence
from datetime import UTC

from telegram import Chat, MaybeInaccessibleMessage, Message, MessageEntity, User
from telegram.constants import ChatType

from bot.commands import Command, Options
from bot.community import Community
from bot.screens import Caller
from bot.wording import language_of
from memory.messages import Message as Said
from memory.messages import Person, Place

PLATFORM = "telegram"
TRADITIONAL = {"zh-hant", "zh-tw", "zh-hk", "zh-mo"}


def place_of(message: MaybeInaccessibleMessage) -> Place:
    """The chat, or the topic of a forum: replies in plain groups carry a thread too, which is no place."""
    chat, thread = message.chat, ""
    if isinstance(message, Message) and message.is_topic_message and message.message_thread_id:
        thread = str(message.message_thread_id)
    if chat.type == ChatType.PRIVATE:
        return Place(PLATFORM, str(chat.id), thread, visibility="private")
    return Place(PLATFORM, str(chat.id), thread, chat.title or "")


def private(person_id: str) -> Place:
    """The chat with one person: it has that person's number."""
    return Place(PLATFORM, person_id, visibility="private")


def person_of(community: Community, message: Message) -> Person:
    """Who wrote it. Who hides behind a group or channel is that group or channel."""
    if message.sender_chat:
        return community.person(PLATFORM, str(message.sender_chat.id), message.sender_chat.title or "")
    return user_of(community, message.from_user) if message.from_user else Person(PLATFORM, "nobody", role="bot")


def user_of(community: Community, user: User) -> Person:
    return community.person(PLATFORM, str(user.id), user.full_name, bot=user.is_bot)


def said_of(community: Community, message: Message, me: User) -> Said:
    """A message as memory keeps it, without the twin's name and the command that it was called by."""
    replied = replied_to(message)
    return Said(
        id=str(message.message_id),
        person=person_of(community, message),
        place=place_of(message),
        at=message.date.astimezone(UTC),
        text=words_of(message, me),
        reply_to=str(replied.message_id) if replied else None,
        mentions=mentions_of(message, me),
        revision=int(message.edit_date.timestamp()) if message.edit_date else 0,
        url=message.link or "",
    )


def is_own(message: Message) -> bool:
    """Whether its sender wrote it: neither forwarded from anybody nor made by a bot for them."""
    return message.forward_origin is None and message.via_bot is None


def replied_to(message: Message) -> Message | None:
    """What it answers. In a topic everything answers the message that opened it, and means nothing by that."""
    replied = message.reply_to_message
    if replied is None or (message.is_topic_message and replied.message_id == message.message_thread_id):
        return None
    return replied


def words_of(message: Message, me: User) -> str:
    """Text or caption, without the twin's @name and a command at the beginning."""
    text, entities = content_of(message)
    raw = text.encode("utf-16-le", "surrogatepass")
    for entity in sorted(entities, key=lambda each: -each.offset):
        if calls(entity, text, me) or (entity.type == MessageEntity.BOT_COMMAND and entity.offset == 0):
            begin, end = span(entity)
            raw = raw[:begin] + raw[end:]
    return raw.decode("utf-16-le", "replace").strip().lstrip(",，:：").strip()


def content_of(message: Message) -> tuple[str, Sequence[MessageEntity]]:
    if message.text is not None:
        return message.text, message.entities
    return message.caption or "", message.caption_entities


def calls(entity: MessageEntity, text: str, me: User) -> bool:
    """Whether an entity names the twin."""
    if entity.type == MessageEntity.TEXT_MENTION:
        return entity.user is not None and entity.user.id == me.id
    return entity.type == MessageEntity.MENTION and covered(entity, text).lower() == f"@{me.username}".lower()


def covered(entity: MessageEntity, text: str) -> str:
    """The words that an entity is about."""
    begin, end = span(entity)
    return text.encode("utf-16-le", "surrogatepass")[begin:end].decode("utf-16-le", "replace")


def span(entity: MessageEntity) -> tuple[int, int]:
    """Where an entity begins and ends, in bytes of UTF-16."""
    return 2 * max(entity.offset, 0), 2 * max(entity.offset + entity.length, 0)


def mentions_of(message: Message, me: User) -> tuple[str, ...]:
    """The keys of who is mentioned, as far as Telegram says who that is."""
    text, entities = content_of(message)
    keys = []
    for entity in entities:
        if calls(entity, text, me):
            keys.append(f"{PLATFORM}:twin")
        elif entity.type == MessageEntity.TEXT_MENTION and entity.user:
            keys.append(f"{PLATFORM}:{entity.user.id}")
    return tuple(keys)


def addressed(message: Message, me: User) -> bool:
    """Whether a message is meant for the twin: written to it, naming it, or replying to it."""
    text, entities = content_of(message)
    replied = replied_to(message)
    if message.chat.type == ChatType.PRIVATE or any(calls(entity, text, me) for entity in entities):
        return True
    return replied is not None and replied.from_user is not None and replied.from_user.id == me.id


def other_command(message: Message) -> bool:
    """Whether it begins with a command: one of ours would not have come this far, so another bot's."""
    return any(each.type == MessageEntity.BOT_COMMAND and each.offset == 0 for each in content_of(message)[1])


def language_for(user: User | None, default: str) -> str:
    """The language to speak with somebody: that of their app."""
    code = (user.language_code or "").lower() if user else ""
    if not code.startswith("zh"):
        return "en" if code else default
    traditional = any(code == each or code.startswith(f"{each}-") for each in TRADITIONAL)
    return "zh-TW" if traditional else "zh-CN"


def answering_language(text: str, spoken: str) -> str:
    """The question's language; of Chinese the kind that its author's app speaks."""
    found = language_of(text, spoken)
    return spoken if found[:2] == spoken[:2] else found


def caller_of(community: Community, message: Message, *, manages: bool) -> Caller:
    """Who uses a command."""
    replied = replied_to(message)
    return Caller(
        person_of(community, message),
        place_of(message),
        language_for(message.from_user, community.persona.language),
        manages=manages,
        space=str(message.chat.id),
        replied_to=str(replied.message_id) if replied else "",
        anonymous=message.sender_chat is not None,
    )


def options_of(command: Command, words: str) -> Options:
    """The words after a command as its options, in order; the last takes all that are left."""
    most = len(command.options) - 1
    values = words.split(maxsplit=most) if most >= 0 else []
    return {option.name: value for option, value in zip(command.options, values, strict=False)}


def is_group(chat: Chat) -> bool:
    return chat.type in {ChatType.GROUP, ChatType.SUPERGROUP}
