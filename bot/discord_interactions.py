"""What people do with the twin's commands, menus, buttons and forms on Discord."""

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from typing import Any

import discord

from bot import asking, presses
from bot.asking import Draw
from bot.commands import run_command
from bot.community import Community
from bot.discord_follow import Follower
from bot.discord_show import (
    ChannelOutlet,
    InteractionOutlet,
    Pace,
    in_time,
    modal_of,
    show,
    translated,
    typed_in,
)
from bot.discord_values import Interaction, caller_of, me_in, message_of
from bot.running import Running
from bot.screens import Caller, Form, Screen
from memory.messages import Message, Source
from memory.remember import message_event

# Discord gives three seconds for the first answer to an interaction; this leaves it time to travel.
ACK_S = 1.5


class Interactions:
    """Answers interactions. `words` says whether Discord gives the twin the words of messages not meant for it."""

    def __init__(
        self,
        community: Community,
        *,
        client: discord.Client,
        pace: Pace,
        running: Running,
        follower: Follower,
        words: bool,
    ) -> None:
        self._community, self._client = community, client
        self._pace, self._running, self._follower, self._words = pace, running, follower, words

    # Asking

    async def menu_ask(self, interaction: Interaction, message: discord.Message) -> None:
        text = message_of(self._community, message, me=me_in(interaction)).text
        self._running.reply(self._ask(interaction, text, private=True), f"menu {interaction.id}")

    async def _ask(self, interaction: Interaction, text: str, *, private: bool) -> None:
        """Answer where a command or menu was used."""
        caller = caller_of(self._community, interaction)
        if await self._community.silenced():
            await show(interaction, self._community.screen("silenced", caller))
            return
        with translated():
            await interaction.response.defer(ephemeral=private, thinking=True)
        if not text.strip():
            await show(interaction, self._community.screen("only_text", caller))
            return
        # The answer to a menu is for one pair of eyes; what cannot be shown so is not shown at all.
        identity = f"menu:{interaction.id}" if private else str(interaction.id)
        message = Message(identity, caller.person, caller.place, interaction.created_at, text.strip())

        def outlet(message: Message, draw: Draw) -> InteractionOutlet:
            channel = self._client.get_partial_messageable(int(message.place.thread or message.place.id))
            turn = self._pace.turn(channel.id)
            otherwise = ChannelOutlet(channel, message, draw, turn)
            return InteractionOutlet(interaction, draw, turn, private=private, otherwise=otherwise)

        said = {"language": caller.language, "space": caller.space}
        answer = await asking.ask(self._community, message, outlet, source=Source.DISCORD_API, **said)
        if not answer.text:
            with translated():
                await interaction.delete_original_response()

    # Commands

    async def slash(self, interaction: Interaction, name: str, options: Mapping[str, str]) -> None:
        what = f"command {name} {interaction.id}"
        if name == "ask":
            self._running.reply(self._ask(interaction, options["question"], private=False), what)
        else:
            self._running.reply(self._command(interaction, name, options), what)

    async def _command(self, interaction: Interaction, name: str, options: Mapping[str, str]) -> None:
        caller = caller_of(self._community, interaction)
        if name == "listen":
            options = {**options, "cannot": self._cannot_listen(interaction, caller)}
        if name == "report":
            # A command cannot be a reply here, so it means the answer that they got last.
            last = await asyncio.to_thread(self._community.journal.shown_last, caller.place, caller.person)
            caller = replace(caller, replied_to=last)
        await self._show(interaction, caller, run_command(self._community, name, caller, options))

    def _cannot_listen(self, interaction: Interaction, caller: Caller) -> str:
        """Why the twin would hear nothing in this place; empty when it would."""
        if interaction.guild_id is None:
            return ""
        if not self._words:
            return self._community.say("listen_no_words", caller)
        rights = interaction.app_permissions
        seen = rights.administrator or (rights.view_channel and rights.read_message_history)
        return "" if seen else self._community.say("listen_no_view", caller)

    async def menu_teach(self, interaction: Interaction, message: discord.Message) -> None:
        self._running.reply(self._teach(interaction, message), f"menu {interaction.id}")

    async def _teach(self, interaction: Interaction, message: discord.Message) -> None:
        """Ask the creator which question a message answers; the message is journalled for when they have said it."""
        community, caller = self._community, caller_of(self._community, interaction)
        value = replace(message_of(community, message, me=me_in(interaction)), place=caller.place)
        if refusal := await self._cannot_teach(caller, value):
            await show(interaction, community.screen(refusal, caller))
            return
        await community.remember(message_event(value, Source.DISCORD_API))
        asked = await asyncio.to_thread(community.journal.message, value.place, value.reply_to or "")
        title, field = community.say("teach_title", caller), community.say("teach_question", caller)
        with translated():
            form = Form(f"teach:{value.id}", title, field, asked.text if asked else "")
            await interaction.response.send_modal(modal_of(form))

    async def _cannot_teach(self, caller: Caller, message: Message) -> str:
        """The text that says why not; empty when the message may become memory."""
        if not self._community.is_creator(caller):
            return "for_creator"
        willing = await asyncio.to_thread(self._community.members.chosen, message.person.key, "remember")
        return "" if message.text and message.person.role != "bot" and willing else "teach_cannot"

    async def _show(self, interaction: Interaction, caller: Caller, work: Coroutine[Any, Any, Screen]) -> None:
        """Show what was asked for, and follow a training that it began."""
        screen = await in_time(interaction, work, within_s=ACK_S)
        await show(interaction, screen)
        if screen.run:
            await self._follower.begin(interaction, caller, screen.run)

    # Buttons and forms

    async def on_interaction(self, interaction: Interaction) -> None:
        """Whatever this process or an earlier one sent: the id of a button or form says what it does."""
        if interaction.type is discord.InteractionType.component:
            self._running.reply(self._pressed(interaction), f"button {interaction.id}")
        elif interaction.type is discord.InteractionType.modal_submit:
            self._running.reply(self._submitted(interaction), f"form {interaction.id}")

    async def _pressed(self, interaction: Interaction) -> None:
        caller, action = caller_of(self._community, interaction), used(interaction)["custom_id"]
        form = await presses.form(self._community, action, caller)
        if form is None:
            await self._show(interaction, caller, presses.press(self._community, action, caller))
            return
        with translated():
            await interaction.response.send_modal(modal_of(form))

    async def _submitted(self, interaction: Interaction) -> None:
        caller, data = caller_of(self._community, interaction), used(interaction)
        typed = typed_in(data["components"])
        await self._show(interaction, caller, presses.press(self._community, data["custom_id"], caller, typed=typed))


def used(interaction: Interaction) -> dict[str, Any]:
    """What was pressed or sent."""
    return dict(interaction.data or {})
