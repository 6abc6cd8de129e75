"""Interactions of the double: commands used, buttons pressed and forms sent, and how the bot answers them.

The bot has three seconds for its first answer, then the token is unknown; after that it may use the token for fifteen
minutes. Both are counted on the world's clock. What people see of an answer is in `Interaction`.
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.fakes import discord_limits as limits
from tests.fakes import discord_payloads as payloads
from tests.fakes import waiting
from tests.fakes.discord_commands import MESSAGE_MENU, SLASH, Commands, NotVisible, component
from tests.fakes.discord_http import Call, Route
from tests.fakes.discord_limits import EPHEMERAL, LOADING, TEXT_INPUT, Json, Refusal
from tests.fakes.discord_talk import SAFE_FLAGS, Talk
from tests.fakes.discord_world import DM, FakeChannel, FakeMessage, Intent, World

COMMAND, COMPONENT, MODAL_SUBMIT = 2, 3, 5
MESSAGE, DEFER, DEFER_UPDATE, UPDATE, MODAL = 4, 5, 6, 7, 9
NOT_ANSWERED = "The application did not respond"
BUTTON = 2


class Interaction:
    """One interaction, as the person who started it sees it."""

    def __init__(self, number: int, kind: int, user: int, channel: FakeChannel, began: float) -> None:
        self.id = number
        self.token = secrets.token_urlsafe(48)
        self.kind = kind
        self.user = user
        self.channel = channel
        self.began = began
        self.title = ""
        self.acknowledged = False
        self.deferred = False
        self.answered = False
        self.ephemeral = False
        self.modal: Json | None = None
        self.error: str | None = None
        self.source: FakeMessage | None = None
        self.original: FakeMessage | None = None
        self.sent: list[FakeMessage] = []
        self.metadata: Json = {}

    @property
    def replies(self) -> list[FakeMessage]:
        """The messages it was answered with, without the "thinking…" one."""
        return [one for one in self.sent if not one.loading]

    async def done(self, timeout_s: float = 5.0) -> "Interaction":
        """Wait for a real answer: a message, an updated message or a modal."""
        await waiting.until(lambda: self.answered or self.error, timeout_s, self._seen)
        assert self.error is None, f"{self.title}: {self.error}"
        return self

    def _seen(self) -> str:
        state = "deferred" if self.deferred else "acknowledged" if self.acknowledged else "not acknowledged"
        return f"{self.title} is {state}"


class Interactions:
    """All interactions of a world."""

    def __init__(self, world: World, talk: Talk, commands: Commands, shown: Callable[[FakeMessage], Json]) -> None:
        self.world = world
        self.talk = talk
        self.commands = commands
        self.shown = shown
        self.ack_within_s = 3.0
        self.token_lives_s = 900.0
        self.by_id: dict[int, Interaction] = {}
        self._timers: list[asyncio.TimerHandle] = []
        self._first = {
            MESSAGE: self._answer,
            DEFER: self._defer,
            DEFER_UPDATE: self._defer_update,
            UPDATE: self._update,
            MODAL: self._open_modal,
        }

    def routes(self) -> list[Route]:
        hook = "/webhooks/{application}/{token}"
        one = hook + "/messages/{message}"
        mine: Any = {"bucket": "webhooks", "major": "token", "open_to_all": True}
        return [
            Route("POST", "/interactions/{interaction}/{token}/callback", self.callback, open_to_all=True),
            Route("POST", hook, self.follow_up, **mine),
            Route("GET", one, self.read, **mine),
            Route("PATCH", one, self.edit, **mine),
            Route("DELETE", one, self.delete, **mine),
        ]

    # What people do

    def slash(self, user: int, channel: int, name: str, options: Mapping[str, Any]) -> Interaction:
        where = self._place(user, channel)
        first, *words = name.split()
        command = self.commands.find(where, first, SLASH)
        self.commands.visible(command, user, where)
        data = self.commands.used(command, words, options, user, where)
        return self._start(COMMAND, user, where, data, f"/{name}", kind_of_message=20)

    def menu(self, user: int, channel: int, name: str, target: int) -> Interaction:
        where = self._place(user, channel)
        command = self.commands.find(where, name, MESSAGE_MENU)
        self.commands.visible(command, user, where)
        message = self.world.found_message(channel, target)
        # Choosing a message shows it to the application, whatever its intents.
        body = payloads.message(self.world, message, Intent.MESSAGE_CONTENT, quoted=True)
        data = self.commands.used_on(command, target, {"messages": {str(target): body}})
        return self._start(COMMAND, user, where, data, name, kind_of_message=23)

    def click(self, user: int, message: int, custom_id: str, values: Sequence[str]) -> Interaction:
        found = self.world.messages[message]
        where = self._place(user, found.channel)
        if found.deleted or found.only_for not in (None, user):
            raise NotVisible(f"{self.world.users[user].name} does not see that message")
        control = component(found.components, custom_id)
        if control.get("disabled"):
            raise NotVisible(f"{custom_id!r} is disabled")
        chosen = {} if control["type"] == BUTTON else {"values": list(values)}
        data = {"custom_id": custom_id, "component_type": control["type"], "id": control.get("id", 1), **chosen}
        return self._start(COMPONENT, user, where, data, custom_id, source=found)

    def submit(self, opened: Interaction, values: Mapping[str, str]) -> Interaction:
        assert opened.modal is not None, f"{opened.title} opened no modal"
        modal = opened.modal
        unknown = [name for name in values if component(modal["components"], name)["type"] != TEXT_INPUT]
        assert not unknown, f"not text inputs: {unknown}"
        filled = [_filled(one, values) for one in modal["components"]]
        data = {"custom_id": modal["custom_id"], "components": filled}
        return self._start(MODAL_SUBMIT, opened.user, opened.channel, data, modal["title"], source=opened.source)

    def _place(self, user: int, channel: int) -> FakeChannel:
        where = self.world.channels[channel]
        if not self.world.permissions(user, where):
            raise NotVisible(f"{self.world.users[user].name} does not see {where.name or 'that channel'}")
        return where

    def _start(
        self,
        kind: int,
        user: int,
        where: FakeChannel,
        data: Json,
        title: str,
        *,
        source: FakeMessage | None = None,
        kind_of_message: int = 0,
    ) -> Interaction:
        one = Interaction(self.world.new_id(), kind, user, where, self.world.clock.now())
        one.title, one.source = title, source
        self.by_id[one.id] = one
        body = {**self._head(one), "data": data}
        one.metadata = {key: body[key] for key in ("id", "type", "authorizing_integration_owners")}
        one.metadata |= {"user": payloads.user(self.world.users[user]), "message_type": kind_of_message}
        self.world.announce("INTERACTION_CREATE", lambda _: body, intent=0, guild=where.guild)
        self._timers.append(asyncio.get_running_loop().call_later(self.ack_within_s + 0.01, self.look_for_late_ones))
        return one

    def _head(self, one: Interaction) -> Json:
        world, where = self.world, one.channel
        body = {
            "id": str(one.id),
            "application_id": str(world.application_id),
            "type": one.kind,
            "token": one.token,
            "version": 1,
            "channel_id": str(where.id),
            "channel": payloads.interaction_channel(world, where, one.user),
            "app_permissions": payloads.app_permissions(world, where),
            "locale": world.users[one.user].locale,
            "entitlements": [],
            "authorizing_integration_owners": {"0": str(where.guild or 0)},
            "context": 1 if where.kind == DM else 0,
            "attachment_size_limit": limits.MOST_BYTES,
            **self._who(one),
        }
        if one.source is not None:
            body["message"] = payloads.message(world, one.source, 0)
        return body

    def _who(self, one: Interaction) -> Json:
        guild = self.world.guild_of(one.channel)
        if guild is None:
            return {"user": payloads.user(self.world.users[one.user])}
        return {
            "guild_id": str(guild.id),
            "guild_locale": guild.locale,
            "guild": {"id": str(guild.id), "locale": guild.locale, "features": []},
            "member": payloads.acting_member(self.world, one.channel, one.user),
        }

    # Time

    def look_for_late_ones(self) -> None:
        """Tell people that nothing came, as their application does after three seconds."""
        now = self.world.clock.now()
        for one in self.by_id.values():
            if not one.acknowledged and one.error is None and now - one.began >= self.ack_within_s:
                one.error = NOT_ANSWERED
                self.world.violations.append(f"late: {one.title} was not acknowledged in {self.ack_within_s:g} s")

    def stop(self) -> None:
        for timer in self._timers:
            timer.cancel()

    # What the bot answers

    def callback(self, call: Call) -> Json | None:
        """The first answer, which can be given once and in time."""
        self.look_for_late_ones()
        one = self.by_id.get(call.id("interaction"))
        if one is None or one.token != call.path["token"] or one.error is not None:
            raise Refusal(404, 10062, "Unknown interaction")
        if one.acknowledged:
            raise Refusal(400, 40060, "Interaction has already been acknowledged.")
        kind = call.body["type"]
        if kind not in self._first:
            raise limits.invalid("type", "BASE_TYPE_CHOICES", "Value is not one of the callback types.")
        self._first[kind](one, call.body.get("data") or {}, call.request.files)
        one.acknowledged = True
        return self._outcome(one, kind) if "with_response" in call.request.query else None

    def _outcome(self, one: Interaction, kind: int) -> Json:
        about: Json = {"id": str(one.id), "type": one.kind}
        resource: Json = {"type": kind}
        if kind in (MESSAGE, DEFER, UPDATE) and one.original is not None:
            resource["message"] = self.shown(one.original)
            about["response_message_id"] = str(one.original.id)
            about["response_message_loading"] = one.original.loading
            about["response_message_ephemeral"] = one.original.ephemeral
        return {"interaction": about, "resource": resource}

    def _answer(self, one: Interaction, data: Json, files: Mapping[str, bytes]) -> None:
        message = self._message(one, data)
        self.talk.fill(message, data, files)
        self._sent(one, message)
        one.original, one.answered = message, True
        one.ephemeral = message.ephemeral

    def _message(self, one: Interaction, data: Json) -> FakeMessage:
        source = None if one.source is None or one.source.ephemeral else one.source.id
        message = self.talk.new(one.channel, self.world.bot_id, "", source)
        message.kind = payloads.REPLY if source else one.metadata["message_type"]
        message.interaction = {key: value for key, value in one.metadata.items() if key != "message_type"}
        message.flags = data.get("flags", 0) & (SAFE_FLAGS | EPHEMERAL)
        message.only_for = one.user if message.ephemeral else None
        return message

    def _sent(self, one: Interaction, message: FakeMessage) -> None:
        one.sent.append(message)
        self.talk.publish(message)

    def _defer(self, one: Interaction, data: Json, files: Mapping[str, bytes]) -> None:
        message = self._message(one, data)
        message.flags |= LOADING
        self._sent(one, message)
        one.original, one.deferred, one.ephemeral = message, True, message.ephemeral

    def _source(self, one: Interaction) -> FakeMessage:
        if one.source is None:
            raise limits.invalid("type", "BASE_TYPE_CHOICES", "Only an interaction with a message can update one.")
        return one.source

    def _defer_update(self, one: Interaction, data: Json, files: Mapping[str, bytes]) -> None:
        one.original, one.deferred = self._source(one), True

    def _update(self, one: Interaction, data: Json, files: Mapping[str, bytes]) -> None:
        one.original = self._source(one)
        self.talk.rewrite(one.original, data, files)
        one.answered = True

    def _open_modal(self, one: Interaction, data: Json, files: Mapping[str, bytes]) -> None:
        if one.kind == MODAL_SUBMIT:
            raise limits.invalid("type", "BASE_TYPE_CHOICES", "A modal cannot answer a modal.")
        limits.check_modal(data)
        one.modal, one.answered = data, True

    # What the bot does with the token afterwards

    def _live(self, call: Call) -> Interaction:
        one = next((one for one in self.by_id.values() if one.token == call.path["token"]), None)
        if one is None or not one.acknowledged or call.id("application") != self.world.application_id:
            raise Refusal(404, 10015, "Unknown Webhook")
        if self.world.clock.now() - one.began >= self.token_lives_s:
            raise Refusal(401, 50027, "Invalid Webhook Token")
        return one

    def follow_up(self, call: Call) -> Json:
        """A further message; the first one after a deferral takes the place of "thinking…" and its visibility."""
        one = self._live(call)
        one.answered = True
        if one.original is not None and one.original.loading and not one.original.deleted:
            self.talk.rewrite(one.original, call.body, call.request.files)
            return self.shown(one.original)
        message = self._message(one, call.body)
        self.talk.fill(message, call.body, call.request.files)
        self._sent(one, message)
        return self.shown(message)

    def _theirs(self, call: Call) -> tuple[Interaction, FakeMessage]:
        one = self._live(call)
        name = call.path["message"]
        mine = [one.original] if name == "@original" else [each for each in one.sent if str(each.id) == name]
        if not mine or mine[0] is None or mine[0].deleted:
            raise Refusal(404, 10008, "Unknown Message")
        return one, mine[0]

    def read(self, call: Call) -> Json:
        return self.shown(self._theirs(call)[1])

    def edit(self, call: Call) -> Json:
        one, message = self._theirs(call)
        self.talk.rewrite(message, call.body, call.request.files)
        one.answered = True
        return self.shown(message)

    def delete(self, call: Call) -> None:
        one, message = self._theirs(call)
        self.talk.remove(one.channel, [message])
        one.answered = True


def _filled(one: Json, values: Mapping[str, str]) -> Json:
    """A component of a modal with what the person typed into it."""
    kept = {"type": one["type"], "id": one.get("id", 1)}
    if one["type"] == TEXT_INPUT:
        return {**kept, "custom_id": one["custom_id"], "value": _typed(one, values)}
    if "component" in one:
        return {**kept, "component": _filled(one["component"], values)}
    if "components" in one:
        return {**kept, "components": [_filled(inner, values) for inner in one["components"]]}
    return kept


def _typed(field: Json, values: Mapping[str, str]) -> str:
    """Discord's client does not let a form go that breaks its own rules."""
    text = values.get(field["custom_id"], field.get("value") or "")
    least = field.get("min_length") or (1 if field.get("required", True) else 0)
    if len(text) < least or len(text) > (field.get("max_length") or 4000):
        raise NotVisible(f"{field['custom_id']!r} does not take {len(text)} characters")
    return text
