"""The Bot API's methods that show something in a chat: send, edit, delete, draft, react, answer a press.

The order of the checks is the real one as far as it can be read in the Bot API server: what is malformed first, then
who may write where, then how fast, and the rest last. So an edit that changes nothing still counts as one. The wording
for a draft without an id is ours, nobody has published the real one.
"""

from collections.abc import Callable
from typing import Any

from tests.fakes.telegram_flood import Flood
from tests.fakes.telegram_markup import Formatted, MarkupError, formatted, utf16_length
from tests.fakes.telegram_request import Params, Refused, Upload, bad_request
from tests.fakes.telegram_world import ADMINISTRATORS, PRESENT, Callback, Chat, Draft, FakeMessage, World

Json = dict[str, Any]
Method = Callable[[Params], Any]
MAX_TEXT = 4096
MAX_CAPTION = 1024
MAX_BUTTONS = 100
MAX_CALLBACK_TEXT = 200
CALLBACK_S = 15.0
DELETABLE_S = 48 * 3600
GENERAL_TOPIC = 1
ACTIONS = (
    "typing upload_photo record_video upload_video record_voice upload_voice upload_document choose_sticker "
    "find_location record_video_note upload_video_note"
)
# The only emoji that Telegram takes as a reaction; a check mark, for one, is not among them.
REACTIONS = (
    "👍 👎 ❤ 🔥 🥰 👏 😁 🤔 🤯 😱 🤬 😢 🎉 🤩 🤮 💩 🙏 👌 🕊 🤡 🥱 🥴 😍 🐳 ❤️‍🔥 🌚 🌭 💯 🤣 ⚡ 🍌 🏆 💔 🤨 😐 🍓 🍾 💋 🖕 😈 😴 😭 🤓 👻 👨‍💻 👀 "
    "🎃 🙈 😇 😨 🤝 ✍ 🤗 🫡 🎅 🎄 ☃ 💅 🤪 🗿 🆒 💘 🙉 🦄 😘 💊 🙊 😎 👾 🤷‍♂️ 🤷 🤷‍♀️ 😡"
)
NOT_MODIFIED = (
    "message is not modified: specified new message content and reply markup are exactly the same as a current "
    "content and reply markup of the message"
)


class MessageMethods:
    def __init__(self, world: World, flood: Flood) -> None:
        self.world = world
        self.flood = flood

    def table(self) -> dict[str, Method]:
        return {
            "sendmessage": self.send_message,
            "sendmessagedraft": self.send_message_draft,
            "senddocument": self.send_document,
            "sendphoto": self.send_photo,
            "sendchataction": self.send_chat_action,
            "editmessagetext": self.edit_message_text,
            "editmessagereplymarkup": self.edit_message_reply_markup,
            "deletemessage": self.delete_message,
            "setmessagereaction": self.set_message_reaction,
            "answercallbackquery": self.answer_callback_query,
        }

    def send_message(self, params: Params) -> Json:
        text, keyboard = spoken(params), keyboard_of(params)
        if not text.text:
            raise bad_request("message text is empty")
        return self._post(params, text, keyboard, MAX_TEXT, "message is too long")

    def send_document(self, params: Params) -> Json:
        upload, file_id = self._file(params, "document")
        return self._post_file(params, file_id, documents=[upload])

    def send_photo(self, params: Params) -> Json:
        upload, file_id = self._file(params, "photo")
        return self._post_file(params, file_id, photos=[upload])

    def send_message_draft(self, params: Params) -> bool:
        text, draft_id = spoken(params), params.integer("draft_id")
        chat = self.writable(params)
        if chat.kind != "private":
            raise bad_request("TEXTDRAFT_PEER_INVALID")
        if draft_id == 0:
            raise bad_request("draft_id must be non-zero")
        topic = self._topic(params, chat)
        self.flood.charge(chat.id, group=False)
        if utf16_length(text.text) > MAX_TEXT:
            raise bad_request("message is too long")
        self.world.draft(Draft(chat.id, draft_id, text.text, self.world.clock(), params.text("text"), topic))
        return True

    def send_chat_action(self, params: Params) -> bool:
        action = params.text("action")
        if action not in ACTIONS.split():
            raise bad_request("wrong parameter action in request")
        chat = self.writable(params)
        if params.integer("message_thread_id") != GENERAL_TOPIC:
            self._topic(params, chat)
        self.world.actions.append((chat.id, action, self.world.clock()))
        return True

    def edit_message_text(self, params: Params) -> Json:
        text, keyboard = spoken(params), keyboard_of(params)
        if not text.text:
            raise bad_request("message text is empty")
        message = self._editable(params)
        if message.file_id:
            raise bad_request("there is no text in the message to edit")
        if utf16_length(text.text) > MAX_TEXT:
            raise bad_request("message is too long")
        if (text.text, text.entities, keyboard) == (message.text, message.entities, message.reply_markup):
            raise bad_request(NOT_MODIFIED)
        message.text, message.entities, message.reply_markup = text.text, text.entities, keyboard
        message.html, message.parse_mode = params.text("text"), params.text("parse_mode")
        message.edits.append((self.world.clock(), text.text))
        return self.world.message_json(message)

    def edit_message_reply_markup(self, params: Params) -> Json:
        keyboard = keyboard_of(params)
        message = self._editable(params)
        if keyboard == message.reply_markup:
            raise bad_request(NOT_MODIFIED)
        message.reply_markup = keyboard
        return self.world.message_json(message)

    def delete_message(self, params: Params) -> bool:
        chat = self.writable(params)
        message = self._existing(params, chat, "message to delete")
        own = message.author == self.world.bot.id
        if not own and chat.kind != "private" and self._status(chat) not in ADMINISTRATORS:
            raise bad_request("message can't be deleted")
        if self.world.clock() - message.time > DELETABLE_S:
            raise bad_request("message can't be deleted for everyone")
        message.deleted = True
        return True

    def set_message_reaction(self, params: Params) -> bool:
        emoji = [one.get("emoji", "") for one in params.json("reaction") or []]
        message = self._existing(params, self.writable(params), "message to react")
        if len(emoji) > 1:
            raise bad_request("REACTIONS_TOO_MANY")
        if not set(emoji) <= set(REACTIONS.split()):
            raise bad_request("REACTION_INVALID")
        message.reactions.pop(self.world.bot.id, None)
        if emoji:
            message.reactions[self.world.bot.id] = emoji[0]
        return True

    def answer_callback_query(self, params: Params) -> bool:
        callback = self._open_callback(params.text("callback_query_id"))
        if utf16_length(params.text("text")) > MAX_CALLBACK_TEXT:
            raise bad_request("MESSAGE_TOO_LONG")
        callback.answered = True
        callback.text, callback.show_alert = params.text("text"), params.flag("show_alert")
        return True

    # Who may write where.

    def readable(self, params: Params) -> Chat:
        """The chat, if the bot may look at it."""
        name = params.text("chat_id")
        if not name:
            raise bad_request("chat_id is empty")
        number = int(name) if name.lstrip("-").isdigit() else 0
        if number > 0 and number in self.world.people and number != self.world.bot.id:
            return self.world.private(number)
        if number not in self.world.chats:
            raise bad_request("chat not found")
        chat = self.world.chats[number]
        if chat.migrated_to:
            raise bad_request("group chat was upgraded to a supergroup chat", migrate_to_chat_id=chat.migrated_to)
        if self._status(chat) not in PRESENT:
            came = "was kicked from" if self._status(chat) == "kicked" else "is not a member of"
            raise Refused(403, f"Forbidden: bot {came} the {chat.kind} chat")
        return chat

    def writable(self, params: Params) -> Chat:
        chat = self.readable(params)
        person = self.world.people.get(chat.id)
        if person and person.bot:
            raise Refused(403, "Forbidden: bot can't send messages to bots")
        if person and not person.started:
            raise Refused(403, "Forbidden: bot can't initiate conversation with a user")
        if person and person.blocked:
            raise Refused(403, "Forbidden: bot was blocked by the user")
        return chat

    def _status(self, chat: Chat) -> str:
        return self.world.status(chat, self.world.bot.id)

    def _existing(self, params: Params, chat: Chat, role: str) -> FakeMessage:
        message = self.world.find(chat.id, params.integer("message_id"))
        if message is None:
            raise bad_request(f"{role} not found")
        return message

    def _editable(self, params: Params) -> FakeMessage:
        if not params.integer("message_id"):
            raise bad_request("message identifier is not specified")
        chat = self.writable(params)
        message = self._existing(params, chat, "message to edit")
        if message.author != self.world.bot.id:
            raise bad_request("message can't be edited")
        self.flood.charge(chat.id, group=chat.kind != "private")
        return message

    def _topic(self, params: Params, chat: Chat) -> int | None:
        topic = params.integer("message_thread_id")
        if not topic or topic in chat.topics:
            return topic or None
        known = self.world.find(chat.id, topic)
        raise bad_request(f"message thread {'is not a forum topic thread' if known else 'not found'}")

    def _replied(self, params: Params, chat: Chat) -> FakeMessage | None:
        reply = params.json("reply_parameters") or {}
        if not reply:
            return None
        message = self.world.find(chat.id, reply.get("message_id"))
        if message is None and not reply.get("allow_sending_without_reply"):
            raise bad_request("message to be replied not found")
        return message

    def _open_callback(self, callback_id: str) -> Callback:
        callback = self.world.callbacks.get(callback_id)
        if callback is None or callback.answered or self.world.clock() - callback.time > CALLBACK_S:
            raise bad_request("query is too old and response timeout expired or query ID is invalid")
        return callback

    # Sending.

    def _post(
        self, params: Params, text: Formatted, keyboard: Json | None, limit: int, too_long: str, **content: Any
    ) -> Json:
        chat = self.writable(params)
        replied, topic = self._replied(params, chat), self._topic(params, chat)
        self.flood.charge(chat.id, group=chat.kind != "private")
        if utf16_length(text.text) > limit:
            raise bad_request(too_long)
        message = self.world.post(
            chat,
            self.world.bot.id,
            text,
            html=params.text("caption" if content else "text"),
            parse_mode=params.text("parse_mode"),
            reply_to=replied.id if replied else None,
            topic=topic or (replied.topic if replied else None),
            reply_markup=keyboard,
            force_reply=force_reply_of(params),
            **content,
        )
        return self.world.message_json(message)

    def _post_file(self, params: Params, file_id: str, **content: Any) -> Json:
        caption, keyboard = spoken(params, "caption"), keyboard_of(params)
        too_long = "message caption is too long"
        return self._post(params, caption, keyboard, MAX_CAPTION, too_long, file_id=file_id, **content)

    def _file(self, params: Params, name: str) -> tuple[Upload, str]:
        """A new file, or one that was sent before and is named by its id."""
        file_id = params.text(name)
        if file_id in self.world.files:
            return self.world.files[file_id], file_id
        upload = params.upload(name)
        if upload is None:
            raise bad_request(
                "wrong file identifier/HTTP URL specified" if file_id else f"there is no {name} in the request"
            )
        if not upload.content:
            raise bad_request("file must be non-empty")
        return upload, self.world.keep_file(upload)


def spoken(params: Params, name: str = "text") -> Formatted:
    """Text with its markup read. Only HTML is known here, which is all that the twin writes."""
    mode = params.text("parse_mode").lower()
    if mode not in ("", "html"):
        raise bad_request("unsupported parse_mode")
    entities = params.json("caption_entities" if name == "caption" else "entities")
    try:
        return formatted(params.text(name), html=mode == "html", entities=entities)
    except MarkupError as error:
        raise bad_request(f"can't parse entities: {error}") from error


def keyboard_of(params: Params) -> Json | None:
    markup: Json | None = params.json("reply_markup")
    if not markup or "inline_keyboard" not in markup:
        return None
    buttons = [button for row in markup["inline_keyboard"] for button in row]
    if len(buttons) > MAX_BUTTONS:
        raise bad_request("reply markup is too long")
    for button in buttons:
        if "callback_data" in button and not 1 <= len(str(button["callback_data"]).encode()) <= 64:
            raise bad_request("BUTTON_DATA_INVALID")
    return markup if buttons else None


def force_reply_of(params: Params) -> Json | None:
    markup: Json | None = params.json("reply_markup")
    return markup if markup and markup.get("force_reply") else None
