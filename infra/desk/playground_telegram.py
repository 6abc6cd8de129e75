"""The playground's Telegram: a group, private chats and a few people, and what each of them sees and does.

Only `infra/desk/playground.py` imports this, in a checkout: the double is not part of the installed package.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.desk.playground import PICTURES, until
from infra.errors import UserMistake
from infra.settings import CreatorSettings
from tests.fakes.telegram import FakeTelegram
from tests.fakes.telegram_world import PRESENT, Chat, FakeMessage

Json = dict[str, Any]
# An application shows "typing" for five seconds, and spins about as long as this on a button that nobody answers.
TYPING_S, ANSWER_S = 5.0, 10.0
# The bot asks for updates again at once when it has some, and after a poll's end.
AWAY_S = 15.0


def double() -> FakeTelegram:
    return FakeTelegram(privacy_mode=False)


def variables(telegram: FakeTelegram) -> dict[str, str]:
    """The settings of a bot that is on this Telegram."""
    return {
        "TELEGRAM__TOKEN": telegram.token,
        "TELEGRAM__API": telegram.api,
        "TELEGRAM__INBOX_CHAT": "",
        "TELEGRAM__WEBHOOK_URL": "",
    }


async def build(telegram: FakeTelegram, creator: CreatorSettings) -> "TelegramRoom":
    """A group of the creator's with Bob, Charlie and Mei. The creator has started the bot, for there is their inbox."""
    known = [int(number) for number in (key.removeprefix("telegram:") for key in creator.ids) if number.isdigit()]
    ada = telegram.user(creator.name, user_id=next(iter(known), None))
    bob, charlie, mei = telegram.user("Bob"), telegram.user("Charlie"), telegram.user("Mei", language="zh")
    group = telegram.group("Community")
    telegram.join(group, ada, "creator")
    for person in (bob, charlie, mei):
        telegram.join(group, person)
    await telegram.start(ada)
    notes = {ada: "the creator", bob: "a member", charlie: "a member", mei: "a member, in Chinese"}
    return TelegramRoom(telegram, notes)


class TelegramRoom:
    """A `Room` over the double; `notes` says who the people are that one can speak as."""

    def __init__(self, telegram: FakeTelegram, notes: Mapping[int, str]) -> None:
        self.telegram, self.world, self.notes = telegram, telegram.world, notes
        self.creator = f"telegram:{next(iter(notes))}"

    # What a person sees

    def view(self, person: int, place: int) -> Json:
        person = person if person in self.notes else next(iter(self.notes))
        groups = [each for each in self.world.chats.values() if each.kind != "private"]
        places = [each for each in groups if self.world.status(each, person) in PRESENT]
        places.append(self.world.private(person))
        where = next((each for each in places if each.id == place), places[0])
        return {
            "online": self._online(),
            "people": [self._person(each) for each in self.notes],
            "person": str(person),
            "places": [self._place(each) for each in places],
            "place": str(where.id),
            "messages": [*(self._message(each, person) for each in self._messages(where)), *self._draft(where)],
            "typing": self._types(where),
            "commands": [
                {"name": name, "help": help_, "options": []} for name, help_ in self.telegram.menu(where.id, person)
            ],
            "choices": [],
            "hint": self._hint(where),
        }

    def _hint(self, where: Chat) -> str:
        if where.kind != "private":
            return f"@{self.telegram.bot_username} "
        return "" if self.world.people[where.id].started else "/start"

    def _online(self) -> bool:
        """Whether the bot polls: a call that is under way, or one not long ago."""
        polls = [each for each in self.telegram.requests[-50:] if each.method.lower() == "getupdates"][-1:]
        return any(each.status == 0 or self.world.clock() - each.time < AWAY_S for each in polls if each.status < 400)

    def _person(self, user: int) -> Json:
        private = self.world.private(user)
        return {"id": str(user), "name": self.world.people[user].name, "note": self.notes[user], **self._news(private)}

    def _place(self, where: Chat) -> Json:
        name = self.world.bot.name if where.kind == "private" else where.title
        return {"id": str(where.id), "name": name, **self._news(where)}

    def _news(self, where: Chat) -> Json:
        mine = self._messages(where)
        return {"private": str(where.id), "last": str(mine[-1].id if mine else 0)}

    def _messages(self, where: Chat) -> list[FakeMessage]:
        return self.telegram.chat_messages(where.id)

    def _message(self, one: FakeMessage, person: int) -> Json:
        replied = self.world.find(one.chat, one.reply_to)
        return {
            "id": str(one.id),
            "author": self.world.people[one.author].name,
            "by": str(one.author),
            "bot": one.author == self.telegram.bot_id,
            "at": one.time,
            "text": one.text,
            "entities": one.entities,
            "edited": bool(one.edits),
            "about": f"{self.world.people[replied.author].name}: {replied.text[:80]}" if replied else "",
            "asks": asks(one, replied, person) and not self._answered(one, person),
            "buttons": keyboard(one),
            "files": [file_of(one, each.name) for each in [*one.documents, *one.photos]],
            "reactions": [{"emoji": emoji, "count": 1} for emoji in one.reactions.values()],
        }

    def _answered(self, asked: FakeMessage, person: int) -> bool:
        return any(
            (each.reply_to, each.author) == (asked.id, person) for each in self.telegram.chat_messages(asked.chat)
        )

    def _draft(self, where: Chat) -> list[Json]:
        """The words that the bot is writing, which are no message yet."""
        draft = self.telegram.shown_draft(where.id)
        if draft is None:
            return []
        about = {"author": self.world.bot.name, "by": str(self.telegram.bot_id), "bot": True, "at": draft.time}
        text = {"text": draft.text, "entities": [], "thinking": not draft.text, "draft": True}
        return [{"id": f"draft-{draft.draft_id}", **about, **text, "buttons": [], "files": [], "reactions": []}]

    def _types(self, where: Chat) -> str:
        began = [when for chat, action, when in self.telegram.actions if (chat, action) == (where.id, "typing")][-1:]
        said = [each.time for each in self.telegram.said_by_bot(where.id)][-1:]
        types = began and began[0] > max([*said, self.world.clock() - TYPING_S])
        return self.world.bot.name if types else ""

    # What a person does

    async def say(self, person: int, place: int, text: str, reply_to: int | None) -> Json:
        return {"message": str(await self.telegram.say(person, place, text, reply_to))}

    async def press(self, person: int, place: int, message: int, action: str) -> Json:
        try:
            callback = await self.telegram.press(person, place, message, action)
        except LookupError as gone:
            raise UserMistake("That button is gone.") from gone
        await until(lambda: callback.answered, ANSWER_S)
        return {"notice": callback.text} if callback.text else {}

    async def submit(self, form: str, values: Mapping[str, str]) -> Json:
        raise UserMistake("There are no forms on Telegram: the bot asks in a message, and people reply to it.")

    async def choose(self, person: int, place: int, message: int, name: str) -> Json:
        raise UserMistake("There are no menus on messages on Telegram.")

    def file(self, place: int, message: int, name: str) -> bytes | None:
        found = self.world.find(place, message)
        files = [*found.documents, *found.photos] if found else []
        return next((each.content for each in files if each.name == name), None)


def asks(one: FakeMessage, replied: FakeMessage | None, person: int) -> bool:
    """Whether the person's application would begin a reply to this message, because it asks them for one."""
    if one.force_reply is None:
        return False
    return not one.force_reply.get("selective") or replied is None or replied.author == person


def keyboard(one: FakeMessage) -> list[list[Json]]:
    rows = (one.reply_markup or {}).get("inline_keyboard", [])
    return [
        [{"label": each["text"], "action": each.get("callback_data", ""), "url": each.get("url", "")} for each in row]
        for row in rows
    ]


def file_of(one: FakeMessage, name: str) -> Json:
    url = f"telegram/files/{one.chat}/{one.id}/{name}"
    return {"name": name, "url": url, "picture": Path(name).suffix.lower() in PICTURES}
