"""The playground's Discord: a server with a channel, a forum and a few people, and what each of them sees and does.

Only `infra/desk/playground.py` imports this, in a checkout: the double is not part of the installed package.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from infra.desk.playground import PICTURES, until
from infra.errors import UserMistake
from infra.settings import CreatorSettings
from tests.fakes.discord import FakeDiscord, FakeMessage, Intent, Interaction, NotVisible
from tests.fakes.discord_commands import MESSAGE_MENU, SLASH
from tests.fakes.discord_interactions import COMMAND
from tests.fakes.discord_limits import TEXT_INPUT
from tests.fakes.discord_world import DM, FORUM, TEXT, FakeChannel, created_at

Json = dict[str, Any]
EMOJI = ("👍", "👎")
# An application shows "is typing" for ten seconds, and waits three for the answer to a press.
TYPING_S, ANSWER_S = 10.0, 4.0


def double() -> FakeDiscord:
    return FakeDiscord(intents_allowed=Intent.MESSAGE_CONTENT)


def variables(discord: FakeDiscord) -> dict[str, str]:
    """The settings of a bot that is on this Discord."""
    return {
        "DISCORD__TOKEN": discord.token,
        "DISCORD__API": discord.api,
        "DISCORD__GATEWAY": discord.gateway,
        "DISCORD__MESSAGE_CONTENT": "true",
        "DISCORD__INBOX_CHANNEL": "",
        "DISCORD__SHARDED": "false",
    }


async def build(discord: FakeDiscord, creator: CreatorSettings) -> "DiscordRoom":
    """A server of the creator's with Bob, Charlie and Mei, a channel, and a forum with one post in it."""
    guild = discord.guild("Community")
    discord.world.users[discord.owner_id].name = creator.name
    bob, charlie, mei = discord.user("Bob"), discord.user("Charlie"), discord.user("Mei", locale="zh-CN")
    for person in (bob, charlie, mei):
        discord.member(guild, person)
    discord.channel(guild, "general")
    post = discord.thread(discord.channel(guild, "questions", kind=FORUM), "Getting started", owner=charlie)
    await discord.say(charlie, post, "I am new here. Where do I begin?")
    notes = {discord.owner_id: "the creator", bob: "a member", charlie: "a member", mei: "a member, in Chinese"}
    return DiscordRoom(discord, notes)


class DiscordRoom:
    """A `Room` over the double; `notes` says who the people are that one can speak as."""

    def __init__(self, discord: FakeDiscord, notes: Mapping[int, str]) -> None:
        self.discord, self.world, self.notes = discord, discord.world, notes
        self.creator = f"discord:{discord.owner_id}"

    # What a person sees

    def view(self, person: int, place: int) -> Json:
        person = person if person in self.notes else next(iter(self.notes))
        self.world.dm_with(person)
        places = [each for each in self.world.channels.values() if self._sees(person, each)]
        where = next((each for each in places if each.id == place), places[0])
        return {
            "online": any(each.connection is not None for each in self.discord.gateway_server.sessions.values()),
            "people": [self._person(each) for each in self.notes],
            "person": str(person),
            "places": [self._place(each, person) for each in places],
            "place": str(where.id),
            "messages": [self._message(each) for each in self._messages(where, person)],
            "typing": self._types(where),
            "commands": [self._command(each, person) for each in self._offered(SLASH, person, where)],
            "choices": [*self._menus(person, where), *({"action": each, "label": each} for each in EMOJI)],
            "hint": "" if where.kind == DM else f"@{self._name(self.discord.bot_id)} ",
        }

    def _sees(self, person: int, where: FakeChannel) -> bool:
        talk = where.kind in (TEXT, DM) or where.is_thread
        return talk and bool(self.world.permissions(person, where))

    def _name(self, user: int) -> str:
        return self.world.users[user].name

    def _person(self, user: int) -> Json:
        private = self.world.dm_with(user)
        return {"id": str(user), "name": self._name(user), "note": self.notes[user], **self._news(private, user)}

    def _place(self, where: FakeChannel, person: int) -> Json:
        parent = self.world.channels[where.parent].name if where.parent else ""
        names = {TEXT: f"# {where.name}", DM: self._name(self.discord.bot_id)}
        name = names.get(where.kind, f"{parent} › {where.name}")
        return {"id": str(where.id), "name": name, **self._news(where, person)}

    def _news(self, where: FakeChannel, person: int) -> Json:
        mine = self._messages(where, person)
        return {"private": str(where.id), "last": str(mine[-1].id if mine else 0)}

    def _messages(self, where: FakeChannel, person: int) -> list[FakeMessage]:
        return [each for each in self.discord.channel_messages(where.id) if each.only_for in (None, person)]

    def _message(self, one: FakeMessage) -> Json:
        return {
            "id": str(one.id),
            "author": self._name(one.author),
            "by": str(one.author),
            "bot": one.author == self.discord.bot_id,
            "at": created_at(one.id).timestamp(),
            "text": self._named(one.content),
            "edited": bool(one.edits),
            "about": self._about(one),
            "only_you": one.only_for is not None,
            "thinking": one.loading,
            "buttons": [row for row in map(buttons, one.components) if row],
            "files": [self._file(one, each.name) for each in one.attachments],
            "reactions": [{"emoji": emoji, "count": len(who)} for emoji, who in one.reactions.items()],
        }

    def _file(self, one: FakeMessage, name: str) -> Json:
        url = f"discord/files/{one.channel}/{one.id}/{name}"
        return {"name": name, "url": url, "picture": Path(name).suffix.lower() in PICTURES}

    def _named(self, text: str) -> str:
        """Mentions by name, still marked as mentions."""
        users = self.world.users
        return re.sub(r"<@!?(\d+)>", lambda at: f"<@{users[int(at[1])].name}>" if int(at[1]) in users else at[0], text)

    def _about(self, one: FakeMessage) -> str:
        """The line above a message: what it replies to, or the command that it answers."""
        used = self.discord.interactions.by_id.get(int((one.interaction or {}).get("id", 0)))
        if used is not None and used.kind == COMMAND:
            return f"{self._name(used.user)} used {used.title}"
        replied = self.world.messages.get(one.reply_to or 0)
        if replied is None or replied.deleted:
            return "a message that is gone" if one.reply_to else ""
        return f"{self._name(replied.author)}: {shortened(self._named(replied.content))}"

    def _types(self, where: FakeChannel) -> str:
        began = [when for channel, when in self.discord.typing if channel == where.id][-1:]
        said = [created_at(each.id).timestamp() for each in self.discord.said_by_bot(where.id)][-1:]
        age = self.world.clock.now() - began[0] if began else TYPING_S
        silent = self.world.clock.wall() - said[0] if said else TYPING_S
        return self._name(self.discord.bot_id) if age < min(TYPING_S, silent) else ""

    def _offered(self, kind: int, person: int, where: FakeChannel) -> Iterator[Json]:
        for command in self.discord.commands:
            if command["type"] == kind and self._visible(command, person, where):
                yield command

    def _visible(self, command: Json, person: int, where: FakeChannel) -> bool:
        try:
            self.discord.registry.visible(command, person, where)
        except NotVisible:
            return False
        return True

    def _command(self, command: Json, person: int) -> Json:
        locale = self.world.users[person].locale
        options = [{"name": each["name"], "help": said(each, "description", locale)} for each in command["options"]]
        return {"name": command["name"], "help": said(command, "description", locale), "options": options}

    def _menus(self, person: int, where: FakeChannel) -> list[Json]:
        locale = self.world.users[person].locale
        offered = self._offered(MESSAGE_MENU, person, where)
        return [{"action": each["name"], "label": said(each, "name", locale)} for each in offered]

    # What a person does

    async def say(self, person: int, place: int, text: str, reply_to: int | None) -> Json:
        if text.startswith("/"):
            return await self._outcome(lambda: self._slash(person, place, text))
        try:
            said_as = await self.discord.say(person, place, self._mentioning(text), reply_to)
        except NotVisible as refusal:
            raise UserMistake(f"{refusal}.") from refusal
        return {"message": str(said_as)}

    def _mentioning(self, text: str) -> str:
        for user in sorted(self.world.users.values(), key=lambda each: -len(each.name)):
            text = re.sub(rf"@{re.escape(user.name)}(?!\w)", f"<@{user.id}>", text, flags=re.IGNORECASE)
        return text

    def _slash(self, person: int, place: int, text: str) -> Interaction:
        name, _, words = text[1:].partition(" ")
        command = self.discord.registry.find(self.world.channels[place], name, SLASH)
        given = typed([each["name"] for each in command["options"]], words)
        return self.discord.interactions.slash(person, place, name, given)

    async def press(self, person: int, place: int, message: int, action: str) -> Json:
        return await self._outcome(lambda: self.discord.interactions.click(person, message, action, ()))

    async def choose(self, person: int, place: int, message: int, name: str) -> Json:
        if name not in EMOJI:
            return await self._outcome(lambda: self.discord.interactions.menu(person, place, name, message))
        found = self.world.messages[message]
        if person in found.reactions.get(name, []):
            await self.discord.unreact(person, message, name)
        else:
            await self.discord.react(person, message, name)
        return {}

    async def submit(self, form: str, values: Mapping[str, str]) -> Json:
        opened = self.discord.interactions.by_id[int(form)]
        return await self._outcome(lambda: self.discord.interactions.submit(opened, values))

    async def _outcome(self, begin: Callable[[], Interaction]) -> Json:
        """What the person's application shows at once: a form, or why there will be no answer."""
        try:
            one = begin()
        except NotVisible as refusal:
            raise UserMistake(f"{refusal}.") from refusal
        await until(lambda: one.acknowledged or one.error, ANSWER_S)
        if one.error:
            raise UserMistake(f"{one.error}.")
        return {"form": form_of(one)} if one.modal else {}

    def file(self, place: int, message: int, name: str) -> bytes | None:
        found = self.world.messages.get(message)
        return next((each.data for each in found.attachments if each.name == name), None) if found else None


def shortened(text: str) -> str:
    """The beginning of a message, without its marks."""
    return re.sub(r"<@([^<>]+)>", r"@\1", text).replace("*", "")[:80]


def said(one: Json, what: str, locale: str) -> str:
    """A name or description in the person's language."""
    return str((one.get(f"{what}_localizations") or {}).get(locale, one[what]))


def typed(names: Sequence[str], words: str) -> dict[str, str]:
    """Options typed as `name: value`; words before the first name are the first option."""
    if not names:
        return {}
    marker = rf"(?:^|\s)({'|'.join(map(re.escape, names))}):"
    first, *rest = re.split(marker, words)
    given = {
        names[0]: first.strip(),
        **{name: value.strip() for name, value in zip(rest[::2], rest[1::2], strict=True)},
    }
    return {name: value for name, value in given.items() if value}


def buttons(row: Json) -> list[Json]:
    return [
        {
            "label": each.get("label", ""),
            "action": each.get("custom_id", ""),
            "url": each.get("url", ""),
            "disabled": bool(each.get("disabled")),
        }
        for each in row.get("components", [])
    ]


def form_of(one: Interaction) -> Json:
    """A modal as the page draws it."""
    assert one.modal is not None
    return {"id": str(one.id), "title": one.modal["title"], "fields": list(fields(one.modal["components"]))}


def fields(components: Sequence[Json], label: str = "") -> Iterator[Json]:
    """The text inputs of a form, in the order in which they stand."""
    for one in components:
        if one["type"] == TEXT_INPUT:
            required = one.get("required", True)
            yield {
                "id": one["custom_id"],
                "label": one.get("label") or label,
                "value": one.get("value") or "",
                "required": required,
                "most": one.get("max_length") or 4000,
            }
        inner = one.get("components") or [each for each in [one.get("component")] if each]
        yield from fields(inner, one.get("label", ""))
