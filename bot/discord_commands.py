"""The twin's commands and menus under Discord's own names for them, told to Discord only when they have changed."""

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

import discord
from discord import app_commands

from bot.commands import COMMANDS, Command, Option
from bot.discord_values import Interaction
from bot.wording import LANGUAGES, texts
from infra.files import write_atomic

Slash = Callable[[Interaction, str, Mapping[str, str]], Awaitable[None]]
Menu = Callable[[Interaction, discord.Message], Awaitable[None]]

EVERYWHERE = app_commands.AppCommandContext(guild=True, dm_channel=True, private_channel=True)
WITH_THE_TWIN = app_commands.AppCommandContext(guild=True, dm_channel=True)
LOCALES = {"en-US": "en"} | {language: language for language in LANGUAGES if language != "en"}


class Texts(app_commands.Translator):
    """Our texts in Discord's languages. Commands keep one name, so that people can tell each other what to type."""

    async def translate(
        self, string: app_commands.locale_str, locale: discord.Locale, context: app_commands.TranslationContextTypes
    ) -> str | None:
        language = LOCALES.get(locale.value)
        return texts(language)[string.extras["key"]] if language and "key" in string.extras else None


def command_tree(client: discord.Client, *, slash: Slash, ask: Menu, teach: Menu) -> app_commands.CommandTree[Any]:
    """Every command and menu: `slash` answers commands, `ask` and `teach` the menus on messages."""
    tree = app_commands.CommandTree(client)
    for command in COMMANDS:
        tree.add_command(registered(command, slash))
    for key, act in (("menu_ask", ask), ("menu_teach", teach)):
        tree.add_command(menu(key, act))
    return tree


def registered(command: Command, slash: Slash) -> app_commands.Command[Any, ..., None]:
    """A command as the library wants it: options are the parameters of a function."""

    async def callback(interaction: Interaction, **given: str) -> None:
        await slash(interaction, command.name, given)

    options = [Parameter("interaction", Parameter.POSITIONAL_OR_KEYWORD), *map(parameter, command.options)]
    callback.__signature__ = Signature(options)  # type: ignore[attr-defined]
    app_commands.describe(**{option.name: translated(option.help) for option in command.options})(callback)
    choices = {option.name: chosen(option) for option in command.options if option.choices}
    app_commands.choices(**choices)(callback)
    contexts = EVERYWHERE if command.audience == "member" else WITH_THE_TWIN
    made = app_commands.Command[Any, ..., None](
        name=command.name, description=translated(command.help), callback=callback, allowed_contexts=contexts
    )
    if command.audience == "admin":
        made.default_permissions = discord.Permissions(manage_guild=True)
    return made


def parameter(option: Option) -> Parameter:
    default = Parameter.empty if option.required else ""
    return Parameter(option.name, Parameter.POSITIONAL_OR_KEYWORD, annotation=str, default=default)


def chosen(option: Option) -> list[app_commands.Choice[str]]:
    return [app_commands.Choice(name=choice, value=choice) for choice in option.choices]


def menu(key: str, act: Menu) -> app_commands.ContextMenu:
    """A menu on messages."""

    async def callback(interaction: Interaction, message: discord.Message) -> None:
        await act(interaction, message)

    return app_commands.ContextMenu(name=translated(key), callback=callback, allowed_contexts=EVERYWHERE)


def translated(key: str) -> app_commands.locale_str:
    return app_commands.locale_str(texts("en")[key], key=key)


async def sync(tree: app_commands.CommandTree[Any], known: Path) -> None:
    """Tell Discord the commands, unless the hash in `known` says that it has them: there is a limit of 200 a day."""
    await tree.set_translator(Texts())
    translator = tree.translator
    assert translator is not None
    told = [await command.get_translated_payload(tree, translator) for command in tree.get_commands()]
    told.append({"application": tree.client.application_id})
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    if known.is_file() and known.read_text(encoding="utf-8") == digest:
        return
    await tree.sync()
    write_atomic(known, digest)
