"""What people do in the chats: they join, write, edit, react, press buttons, block, and throw the bot out.

World building is synchronous and silent, acting tells the bot what it would be told.
"""

import itertools

from tests.fakes.telegram_markup import formatted
from tests.fakes.telegram_request import Upload
from tests.fakes.telegram_updates import UpdateQueue
from tests.fakes.telegram_world import (
    ADMINISTRATORS,
    ANONYMOUS,
    PRESENT,
    Callback,
    Chat,
    FakeMessage,
    Person,
    World,
)


class People:
    """Everything that is not the bot. `FakeTelegram` is this with a server around it."""

    privacy_mode: bool
    bot_id: int

    def __init__(self, world: World, queue: UpdateQueue) -> None:
        self.world = world
        self.queue = queue
        self._group_numbers = itertools.count(1)

    # World building.

    def user(
        self,
        name: str,
        language: str = "en",
        bot: bool = False,
        *,
        user_id: int | None = None,
        username: str | None = None,
    ) -> int:
        """A new person. Pass `username=""` for one who has none, as many have."""
        name_at = username if username is not None else "".join(filter(str.isalnum, name)).lower()
        return self.world.add_person(Person(user_id or self.world.new_id(), name, name_at, language, bot)).id

    def private(self, user: int) -> int:
        """The chat with one person; the bot may write there once they have started it."""
        return self.world.private(user).id

    def group(self, title: str = "Community", forum: bool = False, supergroup: bool = True) -> int:
        """A group with the bot as a plain member."""
        number = next(self._group_numbers)
        chat = Chat(-1_000_000_000_000 - number if supergroup else -4000 - number, "group", title)
        if supergroup:
            chat.kind, chat.forum = "supergroup", forum
        chat.members[self.bot_id] = "member"
        self.world.chats[chat.id] = chat
        return chat.id

    def join(self, chat: int, user: int, status: str = "member") -> None:
        """Give anybody a status: creator, administrator, member or left. The bot is not told."""
        self.world.chats[chat].members[user] = status

    def topic(self, chat: int, name: str) -> int:
        """A topic of a forum; its number is the number of the message that opened it."""
        forum = self.world.chats[chat]
        assert forum.forum, f"{forum.title} is no forum"
        creator = next((user for user, status in forum.members.items() if status == "creator"), ANONYMOUS)
        opening = self.world.post(
            forum, creator, formatted(""), service={"forum_topic_created": {"name": name, "icon_color": 7322096}}
        )
        opening.topic = opening.id
        forum.topics[opening.id] = name
        return opening.id

    # Acting.

    async def start(self, user: int, payload: str = "") -> int:
        """Open the private chat, which is what the Start button does."""
        return await self.say(user, self.private(user), f"/start {payload}".strip())

    async def say(
        self,
        user: int,
        chat: int,
        text: str,
        reply_to: int | None = None,
        topic: int | None = None,
        sender_chat: bool = False,
        forwarded_from: str = "",
    ) -> int:
        """Write a message, or forward one; `sender_chat` is an administrator who hides behind the group."""
        message = self._write(user, chat, text, reply_to=reply_to, topic=topic)
        if forwarded_from:
            origin = {"type": "hidden_user", "date": self.world.now(), "sender_user_name": forwarded_from}
            message.service = {"forward_origin": origin}
        if sender_chat:
            assert self.world.status(self.world.chat(chat), user) in ADMINISTRATORS, "only administrators can hide"
            message.author, message.sender_chat = ANONYMOUS, chat
        self._tell("message", message)
        return message.id

    async def send_document(self, user: int, chat: int, name: str, content: bytes, caption: str = "") -> int:
        upload = Upload(name, content)
        message = self._write(user, chat, caption, documents=[upload], file_id=self.world.keep_file(upload))
        self._tell("message", message)
        return message.id

    async def edit(self, message_id: int, chat: int, text: str) -> None:
        message = self._message(chat, message_id)
        content = formatted(text)
        message.text, message.entities, message.html = content.text, content.entities, text
        message.edits.append((self.world.clock(), content.text))
        self._tell("edited_message", message)

    async def delete(self, message_id: int, chat: int) -> None:
        """Telegram never tells a bot."""
        self._message(chat, message_id).deleted = True

    async def react(self, user: int, chat: int, message_id: int, emoji: str) -> None:
        """React, or take it back with an empty emoji. Only a bot that is an administrator is told."""
        message = self._message(chat, message_id)
        before = message.reactions.pop(user, "")
        if emoji:
            message.reactions[user] = emoji
        bot_status = self.world.chat(chat).members.get(self.bot_id)
        if before != emoji and bot_status in ADMINISTRATORS:
            self.queue.add("message_reaction", self._reaction(user, message, before, emoji))

    async def press(self, user: int, chat: int, message_id: int, callback_data: str) -> Callback:
        message = self._message(chat, message_id)
        offered = [button.get("callback_data") for button in message.buttons]
        if callback_data not in offered:
            raise LookupError(f"message {message_id} has no button {callback_data!r}, only {offered}")
        number = f"{self.world.new_id()}000000"
        callback = Callback(number, user, chat, message_id, callback_data, self.world.clock())
        self.world.callbacks[number] = callback
        shown = {
            "id": number,
            "from": self.world.user_json(user),
            "message": self.world.message_json(message),
            "chat_instance": str(chat),
            "data": callback_data,
        }
        self.queue.add("callback_query", shown)
        return callback

    async def block(self, user: int) -> None:
        self.world.people[user].blocked = True
        self._tell_membership(self.private(user), user, "member", "kicked")

    async def unblock(self, user: int) -> None:
        self.world.people[user].blocked = False
        self._tell_membership(self.private(user), user, "kicked", "member")

    async def add_bot(self, chat: int, by: int, status: str = "member") -> None:
        """Somebody adds the bot, or makes it an administrator; unlike `join`, the bot is told."""
        before = self.world.status(self.world.chats[chat], self.bot_id)
        self.world.chats[chat].members[self.bot_id] = status
        self._tell_membership(chat, by, before, status)

    async def kick(self, chat: int, by: int | None = None) -> None:
        before = self.world.status(self.world.chats[chat], self.bot_id)
        self.world.chats[chat].members[self.bot_id] = "kicked"
        self._tell_membership(chat, by or ANONYMOUS, before, "kicked")

    async def migrate(self, chat: int) -> int:
        """A small group becomes a supergroup, with another id."""
        old = self.world.chats[chat]
        assert old.kind == "group", f"{old.title} is a {old.kind} already"
        new = self.world.chats[self.group(old.title)]
        new.members = dict(old.members)
        self._tell_service(old, {"migrate_to_chat_id": new.id})
        self._tell_service(new, {"migrate_from_chat_id": old.id})
        old.migrated_to = new.id
        return new.id

    def _write(
        self,
        user: int,
        chat: int,
        text: str,
        *,
        reply_to: int | None = None,
        topic: int | None = None,
        documents: list[Upload] | None = None,
        file_id: str = "",
    ) -> FakeMessage:
        place, person = self.world.chat(chat), self.world.people[user]
        assert not (place.kind == "private" and person.blocked), f"{person.name} blocked the bot"
        assert self.world.status(place, user) in PRESENT, f"{person.name} is not in {place.title}"
        person.started = person.started or place.kind == "private"
        if reply_to and topic is None:
            topic = self._message(chat, reply_to).topic
        return self.world.post(
            place,
            user,
            formatted(text),
            html=text,
            reply_to=reply_to,
            topic=topic,
            documents=documents or [],
            file_id=file_id,
        )

    def _message(self, chat: int, message_id: int) -> FakeMessage:
        message = self.world.find(chat, message_id)
        if message is None:
            raise LookupError(f"there is no message {message_id} in {chat}")
        return message

    def _tell(self, kind: str, message: FakeMessage) -> None:
        if self.world.sees(message, privacy_mode=self.privacy_mode):
            self.queue.add(kind, self.world.message_json(message))

    def _tell_service(self, chat: Chat, service: dict[str, object]) -> None:
        self._tell("message", self.world.post(chat, ANONYMOUS, formatted(""), service=service))

    def _tell_membership(self, chat: int, by: int, before: str, after: str) -> None:
        self.queue.add("my_chat_member", self.world.membership_json(chat, by, before, after))

    def _reaction(self, user: int, message: FakeMessage, before: str, after: str) -> dict[str, object]:
        shown = [[{"type": "emoji", "emoji": emoji}] if emoji else [] for emoji in (before, after)]
        return {
            "chat": self.world.chat_json(message.chat),
            "message_id": message.id,
            "user": self.world.user_json(user),
            "date": self.world.now(),
            "old_reaction": shown[0],
            "new_reaction": shown[1],
        }
