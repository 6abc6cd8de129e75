"""The commands as Telegram's menus offer them: per kind of chat and language, registered only when they changed."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from telegram import (
    Bot,
    BotCommand,
    BotCommandScope,
    BotCommandScopeAllChatAdministrators,
    BotCommandScopeAllGroupChats,
    BotCommandScopeAllPrivateChats,
    BotCommandScopeChat,
)
from telegram.error import TelegramError

from bot.commands import COMMANDS
from bot.telegram_line import trouble
from bot.wording import say
from infra.errors import ServiceTrouble

# Telegram's codes of two letters, and whose texts they show; no code is for everybody else.
LANGUAGES = {"": "en", "zh": "zh-CN"}
IN_GROUPS = ("ask", "privacy", "about")
HASH = "telegram-commands"


@dataclass(frozen=True)
class Menu:
    """The commands of one kind of chat, by name and the key of what they do."""

    scope: BotCommandScope
    commands: tuple[tuple[str, str], ...]

    def drawn(self, language: str) -> list[BotCommand]:
        return [BotCommand(name, say(key, language)) for name, key in self.commands]


def menus() -> list[Menu]:
    """What is offered to members in private, in groups, and to administrators of groups."""
    members = tuple((each.name, each.help) for each in COMMANDS if each.audience == "member")
    few = tuple(each for each in members if each[0] in IN_GROUPS)
    return [
        Menu(BotCommandScopeAllPrivateChats(), members),
        Menu(BotCommandScopeAllGroupChats(), few),
        Menu(BotCommandScopeAllChatAdministrators(), few + admin_commands()),
    ]


def admin_commands() -> tuple[tuple[str, str], ...]:
    return (*((each.name, each.help) for each in COMMANDS if each.audience == "admin"), ("teach", "menu_teach"))


def admin_menu(person_id: str) -> Menu:
    """Everything, in the private chat with an admin."""
    return Menu(BotCommandScopeChat(int(person_id)), menus()[0].commands + admin_commands())


async def register(bot: Bot, state: Path, admins: list[str]) -> None:
    """Tell Telegram the menus if they are not what it was told last. Raises ServiceTrouble."""
    wanted = digest(bot, admins)
    told = state / HASH
    if told.exists() and told.read_text(encoding="utf-8") == wanted:
        return
    for menu in menus():
        await offer(bot, menu)
    for person_id in admins:
        await offer_admin(bot, person_id)
    state.mkdir(parents=True, exist_ok=True)
    told.write_text(wanted, encoding="utf-8")


async def offer_admin(bot: Bot, person_id: str) -> None:
    """The menu of an admin's private chat; one who has not opened it yet gets it when they do."""
    try:
        await offer(bot, admin_menu(person_id))
    except ServiceTrouble as failed:
        if not failed.permanent:
            raise


async def offer(bot: Bot, menu: Menu) -> None:
    for code, language in LANGUAGES.items():
        try:
            await bot.set_my_commands(menu.drawn(language), menu.scope, code or None)
        except TelegramError as error:
            raise trouble(error) from error


def digest(bot: Bot, admins: list[str]) -> str:
    """All that is registered, in short."""
    drawn = [
        [menu.scope.to_dict(), code, [command.to_dict() for command in menu.drawn(language)]]
        for menu in [*menus(), *map(admin_menu, admins)]
        for code, language in LANGUAGES.items()
    ]
    return hashlib.sha256(json.dumps([bot.id, drawn], sort_keys=True).encode()).hexdigest()
