"""The chats behind the Bot API: people, groups, messages, and how the API shows each of them as JSON.

It keeps and shows; what is allowed is decided in `telegram_messages` and `telegram_profile`.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.fakes.telegram_markup import Formatted, utf16_slice
from tests.fakes.telegram_request import Upload

Json = dict[str, Any]
ANONYMOUS = 1087968824  # GroupAnonymousBot, who speaks for administrators that hide
ADMINISTRATORS = ("creator", "administrator")
PRESENT = ("creator", "administrator", "member", "restricted")
NO_RIGHTS = (
    "can_be_edited is_anonymous can_manage_chat can_delete_messages can_manage_video_chats can_restrict_members "
    "can_promote_members can_change_info can_invite_users can_post_stories can_edit_stories can_delete_stories"
)


@dataclass
class Person:
    id: int
    name: str
    username: str = ""
    language: str = "en"
    bot: bool = False
    started: bool = False
    blocked: bool = False


@dataclass
class Chat:
    id: int
    kind: Literal["private", "group", "supergroup"]
    title: str
    forum: bool = False
    members: dict[int, str] = field(default_factory=dict)
    topics: dict[int, str] = field(default_factory=dict)
    migrated_to: int | None = None
    # A supergroup counts its messages alone; private chats and small groups share the bot's count.
    ids: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))


@dataclass
class FakeMessage:
    """A message as it stands. `html` is the text as it was sent, `text` what people read (a caption, too)."""

    chat: int
    id: int
    author: int
    time: float
    text: str = ""
    entities: list[Json] = field(default_factory=list)
    html: str = ""
    parse_mode: str = ""
    reply_to: int | None = None
    topic: int | None = None
    sender_chat: int | None = None
    reply_markup: Json | None = None
    # A request for a reply is seen by people; the API does not show it again.
    force_reply: Json | None = None
    edits: list[tuple[float, str]] = field(default_factory=list)
    deleted: bool = False
    documents: list[Upload] = field(default_factory=list)
    photos: list[Upload] = field(default_factory=list)
    file_id: str = ""
    reactions: dict[int, str] = field(default_factory=dict)
    service: Json = field(default_factory=dict)

    @property
    def buttons(self) -> list[Json]:
        rows = (self.reply_markup or {}).get("inline_keyboard", [])
        return [button for row in rows for button in row]


@dataclass(frozen=True)
class Draft:
    """One frame of a streamed answer; empty text shows as "Thinking…"."""

    chat: int
    draft_id: int
    text: str
    time: float
    html: str = ""
    topic: int | None = None


@dataclass
class Callback:
    """A press of a button, and what the bot answered."""

    id: str
    user: int
    chat: int
    message_id: int
    data: str
    time: float
    answered: bool = False
    text: str = ""
    show_alert: bool = False


class World:
    def __init__(self, bot: Person, clock: Callable[[], float]) -> None:
        self.bot = bot
        self.clock = clock
        self.people: dict[int, Person] = {bot.id: bot}
        self.chats: dict[int, Chat] = {}
        self.messages: dict[tuple[int, int], FakeMessage] = {}
        self.drafts: list[Draft] = []
        self.previews: dict[int, Draft] = {}
        self.actions: list[tuple[int, str, float]] = []
        self.callbacks: dict[str, Callback] = {}
        self.files: dict[str, Upload] = {}
        self._shared_ids = itertools.count(1)
        # Real ids do not fit into 32 bits.
        self._ids = itertools.count(5_100_000_001)
        self.add_person(Person(ANONYMOUS, "Group", "GroupAnonymousBot", bot=True))

    def now(self) -> int:
        return int(self.clock())

    def new_id(self) -> int:
        return next(self._ids)

    def add_person(self, person: Person) -> Person:
        assert person.id not in self.people, f"{person.id} is {self.people[person.id].name} already"
        self.people[person.id] = person
        return person

    def private(self, user: int) -> Chat:
        return self.chats.setdefault(user, Chat(user, "private", self.people[user].name))

    def chat(self, number: int) -> Chat:
        return self.private(number) if number in self.people else self.chats[number]

    def post(self, chat: Chat, author: int, content: Formatted, **rest: Any) -> FakeMessage:
        number = next(chat.ids if chat.kind == "supergroup" else self._shared_ids)
        message = FakeMessage(chat.id, number, author, self.clock(), content.text, content.entities, **rest)
        self.messages[chat.id, number] = message
        if author == self.bot.id:
            self.previews.pop(chat.id, None)
        return message

    def draft(self, draft: Draft) -> None:
        self.drafts.append(draft)
        self.previews[draft.chat] = draft

    def keep_file(self, upload: Upload) -> str:
        file_id = f"file-{len(self.files) + 1}"
        self.files[file_id] = upload
        return file_id

    def find(self, chat: int, number: int | None) -> FakeMessage | None:
        """A message that is still there."""
        message = self.messages.get((chat, number or 0))
        return message if message and not message.deleted else None

    def status(self, chat: Chat, user: int) -> str:
        return "member" if chat.kind == "private" else chat.members.get(user, "left")

    def sees(self, message: FakeMessage, *, privacy_mode: bool) -> bool:
        """Whether the bot is shown what somebody else wrote."""
        chat, author = self.chats[message.chat], self.people[message.author]
        if message.author == self.bot.id or (author.bot and author.id != ANONYMOUS):
            return False
        if chat.kind == "private":
            return not author.blocked
        status = self.status(chat, self.bot.id)
        if not privacy_mode or status in ADMINISTRATORS:
            return status in PRESENT
        return status in PRESENT and self._meant_for_bot(message)

    def _meant_for_bot(self, message: FakeMessage) -> bool:
        replied = self.messages.get((message.chat, message.reply_to or 0))
        if message.service or (replied and replied.author == self.bot.id):
            return True
        return any(self._names_bot(message, entity) for entity in message.entities)

    def _names_bot(self, message: FakeMessage, entity: Json) -> bool:
        """A mention, a command with the bot's name anywhere, or a command with no name at the start."""
        if entity["type"] not in ("mention", "bot_command"):
            return False
        word = utf16_slice(message.text, entity).lower()
        return word.endswith(f"@{self.bot.username}".lower()) or (
            word[0] == "/" and "@" not in word and not entity["offset"]
        )

    # How the Bot API shows it.

    def user_json(self, user: int) -> Json:
        person = self.people[user]
        shown: Json = {"id": person.id, "is_bot": person.bot, "first_name": person.name}
        if person.username:
            shown["username"] = person.username
        return shown if person.bot else shown | {"language_code": person.language}

    def chat_json(self, chat: int) -> Json:
        known = self.chats[chat]
        if known.kind == "private":
            user = self.user_json(chat)
            return {"id": chat, "type": "private"} | {
                key: user[key] for key in ("first_name", "username") if key in user
            }
        shown: Json = {"id": chat, "type": known.kind, "title": known.title}
        return shown | ({"is_forum": True} if known.forum else {})

    def member_json(self, user: int, status: str) -> Json:
        shown: Json = {"user": self.user_json(user), "status": status}
        if status == "creator":
            return shown | {"is_anonymous": False}
        if status == "administrator":
            return shown | dict.fromkeys(NO_RIGHTS.split(), False) | {"can_manage_chat": True}
        return shown | ({"until_date": 0} if status == "kicked" else {})

    def membership_json(self, chat: int, by: int, before: str, after: str) -> Json:
        """The body of `my_chat_member`."""
        return {
            "chat": self.chat_json(chat),
            "from": self.user_json(by),
            "date": self.now(),
            "old_chat_member": self.member_json(self.bot.id, before),
            "new_chat_member": self.member_json(self.bot.id, after),
        }

    def message_json(self, message: FakeMessage, *, with_reply: bool = True) -> Json:
        shown: Json = {
            "message_id": message.id,
            "date": int(message.time),
            "chat": self.chat_json(message.chat),
            "from": self.user_json(message.author),
            **self._content_json(message),
            **self._thread_json(message),
            **message.service,
        }
        if message.sender_chat:
            shown["sender_chat"] = self.chat_json(message.sender_chat)
        if message.edits:
            shown["edit_date"] = int(message.edits[-1][0])
        if message.reply_markup:
            shown["reply_markup"] = message.reply_markup
        if with_reply and (replied := self._replied(message)):
            shown["reply_to_message"] = self.message_json(replied, with_reply=False)
        return shown

    def _replied(self, message: FakeMessage) -> FakeMessage | None:
        """In a topic, a message that replies to nobody replies to the message that opened the topic."""
        opening = message.topic if message.topic != message.id else None
        return self.find(message.chat, message.reply_to or opening)

    def _thread_json(self, message: FakeMessage) -> Json:
        """Replies in a plain supergroup carry a thread, too, and it is not a topic that one can write to."""
        if message.topic:
            return {"message_thread_id": message.topic, "is_topic_message": True}
        if message.reply_to is None or self.chats[message.chat].kind != "supergroup":
            return {}
        first = message
        while first.reply_to and (before := self.messages.get((first.chat, first.reply_to))):
            first = before
        return {"message_thread_id": first.id}

    def _content_json(self, message: FakeMessage) -> Json:
        prefix, name = ("caption_", "caption") if message.file_id else ("", "text")
        shown: Json = {name: message.text} if message.text else {}
        if message.entities:
            shown[f"{prefix}entities"] = message.entities
        if message.documents:
            document = message.documents[0]
            shown["document"] = file_json(message.file_id, document) | {
                "file_name": document.name,
                "mime_type": document.mime,
            }
        if message.photos:
            shown["photo"] = [file_json(message.file_id, message.photos[0]) | {"width": 90, "height": 90}]
        return shown


def file_json(file_id: str, upload: Upload) -> Json:
    return {"file_id": file_id, "file_unique_id": f"unique-{file_id}", "file_size": len(upload.content)}
