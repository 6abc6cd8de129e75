"""The application commands of the double: what may be registered, who sees it, and what using it sends.

Checked are names, descriptions, counts and the order of options, as Discord checks them at registration. Attachments
as options are not here.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tests.fakes import discord_payloads as payloads
from tests.fakes.discord_http import Call, Route
from tests.fakes.discord_limits import Json, Refusal, at_most_items, between, invalid, walk
from tests.fakes.discord_world import DM, FakeChannel, Permission, World

SLASH, USER_MENU, MESSAGE_MENU = 1, 2, 3
SUB_COMMAND, GROUP = 1, 2
STRING, INTEGER, BOOLEAN, USER, CHANNEL, ROLE, MENTIONABLE, NUMBER = range(3, 11)
IN_GUILD, IN_BOT_DM = 0, 1
NAME = re.compile(r"[-_'\w]{1,32}")
# Menus were five each until March 2026; the client library still stops at that.
MOST = {SLASH: 100, USER_MENU: 15, MESSAGE_MENU: 15}
MOST_CHARACTERS = 8000
MOST_CREATED, CREATED_S = 200, 86_400.0
LOCALES = frozenset(
    [
        "id",
        "da",
        "de",
        "en-GB",
        "en-US",
        "es-ES",
        "es-419",
        "fr",
        "hr",
        "it",
        "lt",
        "hu",
        "nl",
        "no",
        "pl",
        "pt-BR",
        "ro",
        "fi",
        "sv-SE",
        "vi",
        "tr",
        "cs",
        "el",
        "bg",
        "ru",
        "uk",
        "hi",
        "th",
        "zh-CN",
        "ja",
        "zh-TW",
        "ko",
    ]
)


class NotVisible(Exception):
    """This person is not offered that command, component or message in that place."""


class Commands:
    """What is registered, for everybody and per server."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.registered: dict[int | None, list[Json]] = {None: []}
        self.syncs = 0
        self.granted: set[tuple[int, str]] = set()
        self._created: list[float] = []

    def routes(self) -> list[Route]:
        everywhere = "/applications/{application}/commands"
        in_guild = "/applications/{application}/guilds/{guild}/commands"
        return [
            Route("GET", everywhere, self.get),
            Route("PUT", everywhere, self.put),
            Route("GET", in_guild, self.get),
            Route("PUT", in_guild, self.put),
        ]

    def all(self) -> list[Json]:
        return [one for commands in self.registered.values() for one in commands]

    def _scope(self, call: Call) -> int | None:
        if call.id("application") != self.world.application_id:
            raise Refusal(403, 20012, "You are not authorized to perform this action on this application")
        return call.id("guild") if "guild" in call.path else None

    def get(self, call: Call) -> list[Json]:
        return self.registered.get(self._scope(call), [])

    def put(self, call: Call) -> list[Json]:
        """Replace the whole set; a command that keeps its name keeps its id and costs nothing of the day's creates."""
        scope = self._scope(call)
        commands: list[Json] = call.request.body or []
        check_commands(commands)
        known = {(one["type"], one["name"]): one["id"] for one in self.registered.get(scope, [])}
        self._spend(sum((one.get("type", SLASH), one["name"]) not in known for one in commands))
        self.syncs += 1
        self.registered[scope] = [self._stored(one, scope, known) for one in commands]
        return self.registered[scope]

    def _spend(self, creates: int) -> None:
        now = self.world.clock.now()
        self._created = [when for when in self._created if now - when < CREATED_S] + [now] * creates
        if len(self._created) > MOST_CREATED:
            raise Refusal(400, 30034, "Max number of daily application command creates has been reached (200)")

    def _stored(self, given: Json, scope: int | None, known: Mapping[tuple[int, str], str]) -> Json:
        kind = given.get("type", SLASH)
        return {
            "description": "",
            "default_member_permissions": None,
            "nsfw": False,
            "integration_types": [0],
            "contexts": None,
            **given,
            "type": kind,
            "id": known.get((kind, given["name"])) or str(self.world.new_id()),
            "application_id": str(self.world.application_id),
            "version": str(self.world.new_id()),
            **({} if scope is None else {"guild_id": str(scope)}),
        }

    def find(self, where: FakeChannel, name: str, kind: int) -> Json:
        """The command with this name that is offered in `where`."""
        mine = [*self.registered.get(where.guild, []), *self.registered[None]]
        found = next((one for one in mine if one["name"] == name and one["type"] == kind), None)
        if found is None:
            raise NotVisible(f"there is no command {name!r}, only {sorted({one['name'] for one in mine})}")
        return found

    def visible(self, command: Json, user: int, where: FakeChannel) -> None:
        """Refuse what the person's own application would not offer them."""
        context = IN_BOT_DM if where.kind == DM else IN_GUILD
        if command["contexts"] is not None and context not in command["contexts"]:
            raise NotVisible(f"{command['name']!r} is not offered in this kind of channel")
        if context == IN_GUILD:
            self._visible_in_guild(command, user, where)

    def _visible_in_guild(self, command: Json, user: int, where: FakeChannel) -> None:
        guild = self.world.guild_of(where)
        has = self.world.permissions(user, where)
        if guild is None or not guild.has_bot or not has & Permission.USE_APPLICATION_COMMANDS:
            raise NotVisible(f"{self.world.users[user].name} may not use commands here")
        required = command["default_member_permissions"]
        if required is None or (user, command["name"]) in self.granted or has & Permission.ADMINISTRATOR:
            return
        if int(required) == 0 or int(required) & ~has:
            raise NotVisible(f"{self.world.users[user].name} lacks the permissions for {command['name']!r}")

    def used(
        self, command: Json, words: Sequence[str], given: Mapping[str, Any], user: int, where: FakeChannel
    ) -> Json:
        """The data of an interaction that uses `command` with its sub command `words`."""
        resolved: Json = {}
        levels = [command]
        for word in words:
            levels.append(_named(levels[-1], word))
        if any(one["type"] in (SUB_COMMAND, GROUP) for one in levels[-1].get("options", [])):
            raise NotVisible(f"{command['name']!r} is used through its sub commands")
        options = self._options(levels[-1], given, where, resolved)
        for level in reversed(levels[1:]):
            options = [{"name": level["name"], "type": level["type"], "options": options}]
        return {**self._head(command), "options": options, **({"resolved": resolved} if resolved else {})}

    def used_on(self, command: Json, target: int, resolved: Json) -> Json:
        return {**self._head(command), "target_id": str(target), "resolved": resolved}

    def _head(self, command: Json) -> Json:
        scope = {"guild_id": command["guild_id"]} if "guild_id" in command else {}
        return {"id": command["id"], "name": command["name"], "type": command["type"], **scope}

    def _options(self, leaf: Json, given: Mapping[str, Any], where: FakeChannel, resolved: Json) -> list[Json]:
        specs = {one["name"]: one for one in leaf.get("options", [])}
        missing = [name for name, spec in specs.items() if spec.get("required") and name not in given]
        unknown = sorted(given.keys() - specs.keys())
        if missing or unknown:
            raise NotVisible(f"{leaf['name']!r}: missing options {missing}, unknown options {unknown}")
        return [self._option(specs[name], value, where, resolved) for name, value in given.items()]

    def _option(self, spec: Json, value: Any, where: FakeChannel, resolved: Json) -> Json:
        _check_value(spec, value)
        if spec["type"] in (USER, CHANNEL, ROLE, MENTIONABLE):
            self._resolve(spec["type"], int(value), where, resolved)
            value = str(value)
        return {"name": spec["name"], "type": spec["type"], "value": value}

    def _resolve(self, kind: int, value: int, where: FakeChannel, resolved: Json) -> None:
        guild = self.world.guild_of(where)
        if kind == CHANNEL:
            channel = payloads.interaction_channel(self.world, self.world.channels[value], self.world.bot_id)
            resolved.setdefault("channels", {})[str(value)] = channel
        elif value in self.world.users:
            resolved.setdefault("users", {})[str(value)] = payloads.user(self.world.users[value])
            if guild and value in guild.members:
                resolved.setdefault("members", {})[str(value)] = payloads.member(guild, value)
        elif guild:
            role = next(one for one in payloads.roles(guild) if one["id"] == str(value))
            resolved.setdefault("roles", {})[str(value)] = role


def _named(level: Json, word: str) -> Json:
    for one in level.get("options", []):
        if one["name"] == word and one["type"] in (SUB_COMMAND, GROUP):
            return dict(one)
    raise NotVisible(f"{level['name']!r} has no sub command {word!r}")


def _check_value(spec: Json, value: Any) -> None:
    """Discord's own client lets nobody send another kind of value."""
    kinds: dict[int, Any] = {STRING: str, INTEGER: int, BOOLEAN: bool, NUMBER: (int, float)}
    if not isinstance(value, kinds.get(spec["type"], int)):
        raise NotVisible(f"{spec['name']!r} does not take {value!r}")
    if spec.get("choices") and value not in [one["value"] for one in spec["choices"]]:
        raise NotVisible(f"{spec['name']!r} does not offer {value!r}")
    size = len(value) if isinstance(value, str) else value
    least, most = (spec.get(f"{end}_{'length' if spec['type'] == STRING else 'value'}") for end in ("min", "max"))
    if (least is not None and size < least) or (most is not None and size > most):
        raise NotVisible(f"{spec['name']!r} takes {least} to {most}, not {size}")


def check_commands(commands: Sequence[Json]) -> None:
    """Refuse a set of commands that Discord would."""
    for kind, most in MOST.items():
        if sum(one.get("type", SLASH) == kind for one in commands) > most:
            raise Refusal(400, 30032, f"Maximum number of application commands reached ({most})")
    names = [(one.get("type", SLASH), one["name"]) for one in commands]
    if len(names) != len(set(names)):
        raise invalid("name", "APPLICATION_COMMANDS_DUPLICATE_NAME", "Application command names must be unique")
    for index, one in enumerate(commands):
        _check_command(str(index), one)


def _check_command(field: str, command: Json) -> None:
    if command.get("type", SLASH) != SLASH:
        between(f"{field}.name", command["name"], 1, 32)
        return
    _check_named(field, command)
    _check_options(field, command)
    if sum(_characters(one) for one in walk_options([command])) > MOST_CHARACTERS:
        raise invalid(field, "APPLICATION_COMMAND_TOO_LARGE", "Command exceeds maximum size (8000)")


def _check_named(field: str, one: Json) -> None:
    for name in [one["name"], *(one.get("name_localizations") or {}).values()]:
        if not NAME.fullmatch(name) or name != name.lower():
            raise invalid(f"{field}.name", "APPLICATION_COMMAND_INVALID_NAME", "Command name is invalid")
    for text in [one.get("description", ""), *(one.get("description_localizations") or {}).values()]:
        between(f"{field}.description", text, 1, 100)
    for key in ("name_localizations", "description_localizations"):
        if set(one.get(key) or {}) - LOCALES:
            raise invalid(f"{field}.{key}", "DICT_TYPE_CONVERT", "Value of a key is not a known locale.")


def _check_options(field: str, one: Json) -> None:
    options = one.get("options") or []
    at_most_items(f"{field}.options", options, 25)
    required = [bool(option.get("required")) for option in options]
    if required != sorted(required, reverse=True):
        raise invalid(f"{field}.options", "APPLICATION_COMMAND_OPTIONS_REQUIRED_INVALID", "Required options come first")
    for index, option in enumerate(options):
        inner = f"{field}.options.{index}"
        _check_named(inner, option)
        at_most_items(f"{inner}.choices", option.get("choices") or [], 25)
        for choice in option.get("choices") or []:
            between(f"{inner}.choices", choice["name"], 1, 100)
        _check_options(inner, option)


def walk_options(levels: Sequence[Json]) -> list[Json]:
    """A command and everything under it."""
    return [one for level in levels for one in (level, *walk_options(level.get("options") or []))]


def _characters(one: Json) -> int:
    choices = sum(len(choice["name"]) + len(str(choice["value"])) for choice in one.get("choices") or [])
    return len(one["name"]) + len(one.get("description", "")) + choices


def component(components: Sequence[Json], custom_id: str) -> Json:
    """The button, select or input with this id."""
    found = next((one for one in walk(components) if one.get("custom_id") == custom_id), None)
    if found is None:
        there = [one["custom_id"] for one in walk(components) if one.get("custom_id")]
        raise NotVisible(f"there is no component {custom_id!r}, only {there}")
    return found
