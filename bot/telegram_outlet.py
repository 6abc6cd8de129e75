"""One reply on its way to a chat: drafts and a message in private chats, a message that grows in groups."""

import asyncio
import time

from bot.asking import Draw
from bot.telegram_line import Line
from bot.telegram_show import Part, converted, parts_of
from infra.errors import ServiceTrouble
from memory.messages import Answer, Message


class PrivateOutlet:
    """Previews are drafts, which Telegram shows as words being typed; the answer is a message of its own."""

    def __init__(self, line: Line, message: Message, draw: Draw) -> None:
        self._line, self._message, self._draw = line, message, draw
        self.interval_s = line.pace(message.place).interval_s

    async def typing(self) -> None:
        await self._line.typing(self._message.place)

    async def preview(self, text: str) -> None:
        if parts := converted(text):
            await self._line.draft(self._message.place, int(self._message.id), parts[-1])

    def parts(self, answer: Answer) -> list[Part]:
        return parts_of(self._draw(answer))

    async def send(self, part: Part) -> str:
        reply_to = self._message.id if part.first else ""
        return await self._line.write(self._message.place, part, reply_to=reply_to)


class GroupOutlet(PrivateOutlet):
    """The first preview is a message and the others edit it, at the pace that the whole group shares.

    An answer that is there within that pace has no preview: its one message comes at once.
    """

    def __init__(self, line: Line, message: Message, draw: Draw) -> None:
        super().__init__(line, message, draw)
        self._pace = line.pace(message.place)
        self._begun = time.monotonic()
        self._shown = ""

    async def preview(self, text: str) -> None:
        early = time.monotonic() - self._begun < self.interval_s
        parts = converted(text)
        if early or not parts or not self._pace.free():
            return
        if self._shown:
            await self._line.rewrite(self._message.place, self._shown, parts[-1])
        else:
            self._shown = await super().send(parts[-1])
            self._pace.finals += 1

    async def send(self, part: Part) -> str:
        if not self._shown or not part.first:
            return await super().send(part)
        while (wait := self._pace.due_s()) > 0:
            await asyncio.sleep(wait)
        return await self._settle(part)

    async def _settle(self, part: Part) -> str:
        """The answer in place of its preview; as a new message when somebody deleted that meanwhile."""
        shown = self._shown
        try:
            await self._line.rewrite(self._message.place, shown, part)
        except ServiceTrouble as trouble:
            if not trouble.permanent:
                raise
            shown = ""
        self._shown = ""
        self._pace.finals -= 1
        return shown or await super().send(part)
