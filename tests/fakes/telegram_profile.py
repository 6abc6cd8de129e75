"""The Bot API's other methods: who the bot is, its command menus, chats and members, files, updates and the webhook.

Webhooks must be on this machine here, where the real API wants a public HTTPS address: a double calls nobody outside.
"""

import json
import re
from typing import Any
from urllib.parse import urlsplit

from tests.fakes.telegram_messages import MessageMethods, Method
from tests.fakes.telegram_request import Params, Refused, bad_request
from tests.fakes.telegram_updates import UpdateQueue, Webhook
from tests.fakes.telegram_world import ADMINISTRATORS, Chat, World, file_json

Json = dict[str, Any]
MAX_COMMANDS = 100
MAX_DESCRIPTION = 256
WEBHOOK_IS_SET = "can't use getUpdates method while webhook is active; use deleteWebhook to delete the webhook first"
MAX_DOWNLOAD = 20 * 1024 * 1024
LONGEST = {"name": 64, "description": 512, "short_description": 120}
DEFAULT_SCOPE = {"type": "default"}
LOOPBACK = {"127.0.0.1", "localhost", "::1"}


class ProfileMethods:
    def __init__(self, world: World, messages: MessageMethods, queue: UpdateQueue) -> None:
        self.world = world
        self.queue = queue
        self.webhook = Webhook(queue)
        self.privacy_mode = True
        self.commands: dict[tuple[str, str], list[Json]] = {}
        self.texts: dict[tuple[str, str], str] = {}
        self._messages = messages

    def table(self) -> dict[str, Method]:
        texts = {
            f"{verb}my{name.replace('_', '')}": self._text_method(verb, name)
            for name in LONGEST
            for verb in ("get", "set")
        }
        return texts | {
            "getme": self.get_me,
            "getchat": self.get_chat,
            "getchatmember": self.get_chat_member,
            "getchatadministrators": self.get_chat_administrators,
            "leavechat": self.leave_chat,
            "setmycommands": self.set_my_commands,
            "getmycommands": self.get_my_commands,
            "deletemycommands": self.delete_my_commands,
            "getfile": self.get_file,
            "setwebhook": self.set_webhook,
            "deletewebhook": self.delete_webhook,
            "getwebhookinfo": self.get_webhook_info,
        }

    def get_me(self, _: Params) -> Json:
        return self.world.user_json(self.world.bot.id) | {
            "can_join_groups": True,
            "can_read_all_group_messages": not self.privacy_mode,
            "supports_inline_queries": False,
            "can_connect_to_business": False,
            "has_main_web_app": False,
        }

    def get_chat(self, params: Params) -> Json:
        chat = self._messages.readable(params)
        gifts = ("unlimited_gifts", "limited_gifts", "unique_gifts", "premium_subscription", "gifts_from_channels")
        return self.world.chat_json(chat.id) | {
            "accent_color_id": 0,
            "max_reaction_count": 11,
            "accepted_gift_types": dict.fromkeys(gifts, False),
        }

    def get_chat_member(self, params: Params) -> Json:
        chat, user = self._messages.readable(params), params.integer("user_id")
        if user <= 0:
            raise bad_request("invalid user_id specified")
        if user not in self.world.people:
            raise bad_request("user not found")
        return self.world.member_json(user, self.world.status(chat, user))

    def get_chat_administrators(self, params: Params) -> list[Json]:
        chat = self._messages.readable(params)
        if chat.kind == "private":
            raise bad_request("there are no administrators in the private chat")
        people = [(user, status) for user, status in chat.members.items() if status in ADMINISTRATORS]
        return [self.world.member_json(user, status) for user, status in people if not self.world.people[user].bot]

    def leave_chat(self, params: Params) -> bool:
        chat, bot = self._messages.readable(params), self.world.bot.id
        if chat.kind == "private":
            raise bad_request("chat not found")
        change = self.world.membership_json(chat.id, bot, self.world.status(chat, bot), "left")
        chat.members[bot] = "left"
        self.queue.add("my_chat_member", change)
        return True

    # Menus.

    def set_my_commands(self, params: Params) -> bool:
        commands: list[Json] = params.json("commands") or []
        if len(commands) > MAX_COMMANDS:
            raise bad_request("BOT_COMMANDS_TOO_MUCH")
        for command in commands:
            check_command(command["command"], command["description"])
        self.commands[self._menu(params)] = commands
        return True

    def get_my_commands(self, params: Params) -> list[Json]:
        return self.commands.get(self._menu(params), [])

    def delete_my_commands(self, params: Params) -> bool:
        self.commands.pop(self._menu(params), None)
        return True

    def menu(self, chat: Chat, user: int) -> list[Json]:
        """What this person sees in this chat: the narrowest list wins, and within it the person's language."""
        language = self.world.people[user].language
        for scope in self._scopes(chat, user):
            for tried in (language, ""):
                if commands := self.commands.get((scope_key(scope), tried)):
                    return commands
        return []

    def _scopes(self, chat: Chat, user: int) -> list[Json]:
        if chat.kind == "private":
            return [{"type": "chat", "chat_id": chat.id}, {"type": "all_private_chats"}, DEFAULT_SCOPE]
        administrator = self.world.status(chat, user) in ADMINISTRATORS
        scopes: list[Json] = [
            {"type": "chat_member", "chat_id": chat.id, "user_id": user},
            {"type": "chat_administrators", "chat_id": chat.id},
            {"type": "chat", "chat_id": chat.id},
            {"type": "all_chat_administrators"},
            {"type": "all_group_chats"},
            DEFAULT_SCOPE,
        ]
        return [scope for scope in scopes if administrator or "administrators" not in str(scope["type"])]

    def _menu(self, params: Params) -> tuple[str, str]:
        scope, language = params.json("scope") or DEFAULT_SCOPE, params.text("language_code")
        if not re.fullmatch(r"([a-z]{2})?", language):
            raise bad_request("invalid language code specified")
        if "chat_id" in scope:
            chat = self._messages.readable(Params({"chat_id": str(scope["chat_id"])}))
            if chat.kind == "private" and scope["type"] != "chat":
                raise bad_request("can't use specified scope in private chats")
        return scope_key(scope), language

    def _text_method(self, verb: str, name: str) -> Method:
        def read(params: Params) -> Json:
            language = params.text("language_code")
            return {name: self.texts.get((name, language)) or self.texts.get((name, ""), "")}

        def write(params: Params) -> bool:
            if len(params.text(name)) > LONGEST[name]:
                raise bad_request(f"{name.replace('_', ' ')} is too long")
            self.texts[name, params.text("language_code")] = params.text(name)
            return True

        return read if verb == "get" else write

    # Files.

    def get_file(self, params: Params) -> Json:
        file_id = params.text("file_id")
        if file_id not in self.world.files:
            raise bad_request("invalid file_id")
        upload = self.world.files[file_id]
        if len(upload.content) > MAX_DOWNLOAD:
            raise bad_request("file is too big")
        return file_json(file_id, upload) | {"file_path": f"documents/{file_id}"}

    # Updates.

    async def get_updates(self, params: Params) -> list[Json]:
        if self.webhook.url:
            raise Refused(409, f"Conflict: {WEBHOOK_IS_SET}")
        self.queue.allow(params.json("allowed_updates"))
        limit = params.integer("limit", 100)
        return await self.queue.poll(params.integer("offset"), min(max(limit, 1), 100), params.integer("timeout"))

    def set_webhook(self, params: Params) -> bool:
        url, secret = params.text("url"), params.text("secret_token")
        if not re.fullmatch(r"[A-Za-z0-9_-]{0,256}", secret):
            raise bad_request("secret token contains unallowed characters")
        if url and urlsplit(url).hostname not in LOOPBACK:
            raise bad_request("bad webhook: Failed to resolve host: Name or service not known")
        self._prepare_webhook(params)
        self.webhook.set(url, secret)
        return True

    def delete_webhook(self, params: Params) -> bool:
        self._prepare_webhook(params)
        self.webhook.set("", "")
        return True

    def get_webhook_info(self, _: Params) -> Json:
        info: Json = {
            "url": self.webhook.url,
            "has_custom_certificate": False,
            "pending_update_count": len(self.queue.pending()),
            "allowed_updates": sorted(self.queue.allowed),
        }
        if self.webhook.last_error:
            info["last_error_message"] = self.webhook.last_error
            info["last_error_date"] = int(self.webhook.last_error_time)
        return info

    def _prepare_webhook(self, params: Params) -> None:
        self.queue.end_poll("terminated by setWebhook request")
        self.queue.allow(params.json("allowed_updates"))
        if params.flag("drop_pending_updates"):
            self.queue.keep_last(0)


def scope_key(scope: Json) -> str:
    return json.dumps(scope, sort_keys=True)


def check_command(name: str, description: str) -> None:
    if not name:
        raise bad_request("command must be non-empty")
    if not re.fullmatch(r"[a-z0-9_]{1,32}", name):
        raise bad_request("BOT_COMMAND_INVALID")
    if not description:
        raise bad_request("command description must be non-empty")
    if len(description) > MAX_DESCRIPTION:
        raise bad_request(f"command description length must not exceed {MAX_DESCRIPTION}")
