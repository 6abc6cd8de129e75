"""What people do in Telegram's chats, handed to the twin: they ask, use commands, press buttons, fill forms, chat.

Each method takes one update. Nothing is decided here but where what comes back is shown.
"""

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import replace
from functools import partial
from typing import Any

from telegram import CallbackQuery, ChatMember, Message, Update, User
from telegram.error import TelegramError
from telegram.ext import ContextTypes

from bot import asking, hearing, presses
from bot.commands import BY_NAME, COMMANDS, run_command
from bot.community import Community
from bot.delivery import insist
from bot.presses import press
from bot.screens import Caller, Form, Screen
from bot.telegram_follow import Follower
from bot.telegram_line import Line
from bot.telegram_menu import offer_admin
from bot.telegram_outlet import GroupOutlet, PrivateOutlet
from bot.telegram_show import MOST_TOAST
from bot.telegram_values import (
    PLATFORM,
    addressed,
    answering_language,
    caller_of,
    is_group,
    is_own,
    language_for,
    options_of,
    other_command,
    person_of,
    place_of,
    private,
    replied_to,
    said_of,
    user_of,
    words_of,
)
from infra.errors import ServiceTrouble
from infra.spool import Spool
from memory.codec import encoded, place_from
from memory.messages import Message as Said
from memory.messages import Place, Source
from memory.remember import listening_event, message_event

log = logging.getLogger(__name__)

# A press is answered at once; what takes longer is shown as a message.
TOAST_S = 4.0
# Their button stands under a message that only asked; what they do is shown in its place.
DIALOGS = {"forget", "purge", "retrain", "cancel", "rollback", "canary", "promote", "stop"}

Context = ContextTypes.DEFAULT_TYPE


class Talk:
    """The twin's side of every chat. Safe to use for many updates at once."""

    def __init__(self, community: Community, line: Line, spool: Spool, follower: Follower, me: User) -> None:
        self._community, self._line, self._spool, self._follower, self._me = community, line, spool, follower, me
        # Edits are taken in their order: the last one stands.
        self._in_order = asyncio.Lock()

    def outlet(self, message: Said, draw: asking.Draw) -> PrivateOutlet:
        """Where an answer to `message` is shown."""
        kind = PrivateOutlet if message.place.visibility == "private" else GroupOutlet
        return kind(self._line, message, draw)

    # Messages.

    async def message(self, update: Update, context: Context) -> None:
        """Whatever is no command: a form's answer, a card's answer, a question, or chatter."""
        message = update.message
        assert message is not None
        if message.migrate_to_chat_id:
            await self._moved(message, message.migrate_to_chat_id)
        if person_of(self._community, message).role == "bot" or other_command(message):
            return
        if await self._fills_form(message) or await self._answers_card(message):
            return
        if addressed(message, self._me):
            if is_group(message.chat) and await self._community.silenced():
                return
            await self._ask(message, said_of(self._community, message, self._me), Source.TELEGRAM_DIRECT)
        elif (message.text or message.caption) and is_own(message):
            await hearing.hear(self._community, said_of(self._community, message, self._me), Source.TELEGRAM_GROUP)

    async def edited(self, update: Update, context: Context) -> None:
        assert update.edited_message is not None
        said = said_of(self._community, update.edited_message, self._me)
        async with self._in_order:
            if said.text and said.person.role != "bot":
                await hearing.edited(self._community, said)

    async def membership(self, update: Update, context: Context) -> None:
        """The twin was thrown out of a group or left it."""
        change = update.my_chat_member
        assert change is not None
        if is_group(change.chat) and change.new_chat_member.status in {ChatMember.LEFT, ChatMember.BANNED}:
            await hearing.left(self._community, PLATFORM, str(change.chat.id))

    async def _moved(self, message: Message, new_id: int) -> None:
        """A group that became a supergroup has another number: the twin listens there as it did before."""
        old = place_of(message)
        if not await asyncio.to_thread(self._community.members.listening, old.key):
            return
        new, by, now = Place(PLATFORM, str(new_id), name=old.name), self._community.person, self._community.clock()
        twin = by(PLATFORM, "twin", "", bot=True)
        await self._community.remember(
            listening_event(old, twin, on=False, space=old.id, at=now),
            listening_event(new, twin, on=True, space=new.id, at=now),
        )

    async def _ask(self, message: Message, said: Said, source: Source) -> None:
        """Have a question answered; of a message without words say that words are needed."""
        spoken = language_for(message.from_user, self._community.persona.language)
        if said.text:
            language = answering_language(said.text, spoken)
            space = str(message.chat.id) if is_group(message.chat) else ""
            await asking.ask(self._community, said, self.outlet, source=source, language=language, space=space)
        elif message.effective_attachment:
            caller = caller_of(self._community, message, manages=False)
            await self._here(caller, self._community.screen("only_text", caller), reply_to=said.id)

    async def _fills_form(self, message: Message) -> bool:
        """Whether it replies to a form that was shown to its author."""
        replied, place = replied_to(message), place_of(message)
        if replied is None or replied.from_user is None or replied.from_user.id != self._me.id:
            return False
        meaning = await asyncio.to_thread(self._spool.meaning, place.key, str(replied.message_id))
        if "fills" not in meaning or meaning["by"] != person_of(self._community, message).key:
            return False
        caller = await self._caller(message, origin=meaning["origin"])
        typed = words_of(message, self._me)
        if not typed:
            await self._line.show(place, self._community.screen("only_text", caller), reply_to=str(message.message_id))
            return True
        screen = await press(self._community, meaning["fills"], caller, typed=typed)
        await insist(partial(self._line.show, place, screen, reply_to=str(message.message_id)))
        await asyncio.to_thread(self._spool.mean, place.key, str(replied.message_id), {}, now=self._community.clock())
        return True

    async def _answers_card(self, message: Message) -> bool:
        """Whether it is the creator's answer to a question of the inbox."""
        said = said_of(self._community, message, self._me)
        caller = caller_of(self._community, message, manages=False)
        screen = await hearing.answers_card(self._community, said, caller) if said.text else None
        if screen is None:
            return False
        await self._here(caller, screen, reply_to=said.id)
        return True

    # Commands.

    async def ask(self, update: Update, context: Context) -> None:
        """/ask WORDS, or as a reply: what was said there is the question, and stays its author's."""
        message = update.message
        assert message is not None
        said, replied = said_of(self._community, message, self._me), replied_to(message)
        if said.person.role == "bot":
            return
        if is_group(message.chat) and await self._community.silenced():
            await self._say_silenced(await self._caller(message))
        elif said.text:
            await self._ask(message, said, Source.TELEGRAM_DIRECT)
        elif replied and (words := words_of(replied, self._me)):
            await self._ask(message, with_words(said, words), Source.TELEGRAM_GROUP)
        else:
            caller = await self._caller(message)
            form = Form("", self._community.say("help_ask", caller), self._community.say("option_question", caller))
            await self._line.ask(caller.place, form, reply_to=said.id, meaning={})

    async def _say_silenced(self, caller: Caller) -> None:
        """Tell who used a command in a group that the twin is silent: in private, or not at all."""
        screen = self._community.screen("silenced", caller)
        try:
            await insist(partial(self._line.show, private(caller.person.id), screen))
        except ServiceTrouble as trouble:
            if not trouble.permanent:
                raise

    async def command(self, name: str, update: Update, context: Context) -> None:
        """Any other command of `bot.commands`."""
        message = update.message
        assert message is not None
        if person_of(self._community, message).role == "bot":
            return
        caller = await self._caller(message)
        options = dict(options_of(BY_NAME[name], words_of(message, self._me)))
        if name == "listen" and self._community.is_admin(caller) and not await self._line.reads_all(caller.place):
            options["cannot"] = self._community.say("listen_telegram", caller)
        screen = await run_command(self._community, name, caller, options)
        await self._answer(caller, screen, reply_to=str(message.message_id))

    async def start(self, update: Update, context: Context) -> None:
        """/start: who this is, and what it can be asked for."""
        message = update.message
        assert message is not None
        caller = await self._caller(message)
        if caller.private and caller.person.key in self._community.admins | self._community.creator:
            await offer_admin(self._line.bot, caller.person.id)
        members = [each for each in COMMANDS if each.audience == "member"]
        lines = [f"/{each.name} {self._community.say(each.help, caller)}" for each in members]
        text = "\n".join([self._community.say("first_contact", caller), "", *lines])
        await self._here(caller, Screen(text, private=False), reply_to=str(message.message_id))

    async def teach(self, update: Update, context: Context) -> None:
        """/teach as a reply: the creator vouches for what was said there, and says which question it answers."""
        message = update.message
        assert message is not None
        caller, replied = await self._caller(message), replied_to(message)
        reply_to = str(message.message_id)
        if not self._community.is_creator(caller):
            await self._answer(caller, self._community.screen("for_creator", caller), reply_to=reply_to)
        elif replied is None or not await self._may_be_taught(replied):
            await self._answer(caller, self._community.screen("teach_how", caller), reply_to=reply_to)
        else:
            said = said_of(self._community, replied, self._me)
            direct = addressed(replied, self._me)
            source = Source.TELEGRAM_DIRECT if direct else Source.TELEGRAM_GROUP
            await self._community.remember(message_event(said, source))
            form = Form(f"teach:{said.id}", *(self._community.say(key, caller) for key in TEACHING))
            await self._prompt(caller, form, reply_to=reply_to)

    async def _may_be_taught(self, replied: Message) -> bool:
        """A person's words, of whom nothing says that they are not to be kept."""
        author = person_of(self._community, replied)
        if author.role == "bot" or not words_of(replied, self._me):
            return False
        return await asyncio.to_thread(self._community.members.chosen, author.key, "remember")

    # Buttons.

    async def pressed(self, update: Update, context: Context) -> None:
        query = update.callback_query
        assert query is not None
        if query.message is None or not query.data:
            return await self._toast(query)
        place, message_id = place_of(query.message), str(query.message.message_id)
        meaning = await asyncio.to_thread(self._spool.meaning, place.key, message_id)
        caller = await self._presser(query, place, origin=meaning.get("origin"))
        if refusal := presses.refused(self._community, query.data, caller):
            return await self._toast(query, refusal.text)
        if form := await presses.form(self._community, query.data, caller):
            await self._toast(query)
            return await self._prompt(caller, form, reply_to=message_id)
        screen = await self._done(query, press(self._community, query.data, caller))
        if screen and query.data.partition(":")[0] in DIALOGS:
            return await self._replace(caller, place, message_id, screen)
        if screen:
            await self._answer(caller, screen, reply_to=message_id)
        return None

    async def _done(self, query: CallbackQuery, work: Coroutine[Any, Any, Screen]) -> Screen | None:
        """What a press led to, if it is more than the window over the chat can tell."""
        task = asyncio.create_task(work)
        await asyncio.wait({task}, timeout=TOAST_S)
        if not task.done():
            await self._toast(query)
            return await task
        screen = task.result()
        dialog = str(query.data).partition(":")[0] in DIALOGS
        short = screen.private and not (screen.buttons or screen.file or screen.run) and len(screen.text) <= MOST_TOAST
        await self._toast(query, screen.text if short else "")
        return screen if dialog or not short else None

    async def _toast(self, query: CallbackQuery, text: str = "") -> None:
        """Answer a press; whoever pressed waits for that and for nothing else, so it is tried once."""
        try:
            await query.answer(text[:MOST_TOAST] or None)
        except TelegramError:
            log.info("a press could not be answered any more")

    async def _replace(self, caller: Caller, place: Place, message_id: str, screen: Screen) -> None:
        """Show a screen in place of the dialog that led to it, or after it where that cannot be changed."""
        try:
            await self._line.change(place, message_id, screen)
        except ServiceTrouble:
            await self._answer(caller, screen, reply_to=message_id)
            return
        await self._follow(caller, place, message_id, screen)

    # Where things are shown.

    async def _caller(self, message: Message, *, origin: dict[str, Any] | None = None) -> Caller:
        caller = caller_of(self._community, message, manages=False)
        return await self._ranked(caller, origin)

    async def _presser(self, query: CallbackQuery, place: Place, *, origin: dict[str, Any] | None) -> Caller:
        person = user_of(self._community, query.from_user)
        language = language_for(query.from_user, self._community.persona.language)
        return await self._ranked(Caller(person, place, language, space=place.id), origin)

    async def _ranked(self, caller: Caller, origin: dict[str, Any] | None) -> Caller:
        """The caller where what they use belongs to, with what Telegram lets them do there."""
        place = place_from(origin) if origin else caller.place
        manages = place.visibility == "private"
        if not manages and caller.person.key in self._community.admins and not caller.anonymous:
            manages = await self._line.manages(place, caller.person.id)
        return replace(caller, place=place, manages=manages, space=place.id)

    async def _answer(self, caller: Caller, screen: Screen, *, reply_to: str) -> None:
        """A private screen goes to the private chat; who has not opened one reads it where they are."""
        if not screen.private or caller.private or caller.anonymous:
            return await self._here(caller, screen, reply_to=reply_to)
        chat = private(caller.person.id)
        try:
            shown = await insist(partial(self._show_away, chat, caller.place, screen))
        except ServiceTrouble as trouble:
            if not trouble.permanent:
                raise
            # A file holds what is nobody else's business.
            said = self._community.screen("write_first", caller) if screen.file else screen
            return await self._here(caller, said, reply_to=reply_to)
        return await self._follow(caller, chat, shown, screen)

    async def _show_away(self, chat: Place, origin: Place, screen: Screen) -> str:
        """Show a screen in a private chat; what is pressed there is meant for where it was asked for."""
        if not screen.buttons:
            return await self._line.show(chat, screen)
        return await self._line.show_meaning(chat, screen, {"origin": encoded(origin)})

    async def _here(self, caller: Caller, screen: Screen, *, reply_to: str) -> None:
        """Show a screen where the caller is."""
        shown = await insist(partial(self._line.show, caller.place, screen, reply_to=reply_to))
        await self._follow(caller, caller.place, shown, screen)

    async def _follow(self, caller: Caller, place: Place, message_id: str, screen: Screen) -> None:
        if screen.run:
            await self._follower.begin(caller, place, message_id, screen.run)

    async def _prompt(self, caller: Caller, form: Form, *, reply_to: str) -> None:
        """Ask for a form's text, in the private chat where there is one."""
        meaning = {"fills": form.action, "by": caller.person.key, "origin": encoded(caller.place)}
        try:
            await insist(partial(self._line.ask, private(caller.person.id), form, meaning=meaning))
        except ServiceTrouble as trouble:
            if not trouble.permanent or caller.private:
                raise
            await insist(partial(self._line.ask, caller.place, form, reply_to=reply_to, meaning=meaning))


TEACHING = ("teach_title", "teach_question")


def with_words(said: Said, words: str) -> Said:
    """Somebody's question by a command, in the words of another."""
    return replace(said, text=words)
