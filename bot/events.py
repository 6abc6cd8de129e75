"""A reply as a stream of plain events: what the page and the terminal read, in this process or over HTTP.

`{"piece": TEXT}` any number of times, then exactly one `{"answer": {...}}` or `{"error": SENTENCE}`; a message that the
policy ignores gives no event at all.
"""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import asdict
from datetime import datetime
from typing import Any

from bot.screens import why_line
from bot.twin import Twin
from bot.wording import language_of
from infra.errors import UnderstudyError, UserMistake
from memory.messages import Answer, Message, Person, Place, Source

Event = dict[str, Any]


class EventReply:
    """A `bot.platform.Reply` that queues what it is given."""

    def __init__(self, language: str) -> None:
        self._language = language
        self.events: asyncio.Queue[Event | None] = asyncio.Queue()

    async def preview(self, piece: str) -> None:
        self.events.put_nowait({"piece": piece})

    async def deliver(self, answer: Answer) -> tuple[str, ...]:
        self.events.put_nowait({"answer": answer_document(answer, language=self._language)})
        return ()


async def answer_events(twin: Twin, message: Message) -> AsyncGenerator[Event, None]:
    """The events of one answer. Closing the generator cancels the answer and frees its place in the voice."""
    reply = EventReply(language_of(message.text, twin.language))
    task = asyncio.create_task(twin.answer(message, reply, source=Source.OWN_DIRECT))
    task.add_done_callback(lambda _: reply.events.put_nowait(None))
    try:
        while (event := await reply.events.get()) is not None:
            yield event
        try:
            await task
        except UnderstudyError as error:
            yield {"error": str(error)}
    finally:
        task.cancel()


def own_message(question: str, *, conversation: str, message: str, person: str, now: datetime) -> Message:
    """A message from our own page or terminal: its place is one private conversation."""
    place = Place("own", conversation, visibility="private")
    return Message(message, visitor(person), place, now, question)


def visitor(person: str) -> Person:
    """Somebody on our own page or terminal, who may call themselves anything but the creator: nobody proves there who
    they are. Raises UserMistake for that.
    """
    if person == "creator":
        raise UserMistake('Nobody can ask or vote as "creator" here: teach, or answer in the inbox.')
    return Person("own", person)


def answer_document(answer: Answer, *, language: str) -> Event:
    """What a client sees of an answer: text, numbered citations with why they are there, voice and milliseconds."""
    return {
        "id": answer.id,
        "text": answer.text,
        "outcome": answer.outcome,
        "abstained": answer.outcome == "abstained",
        "reason": answer.reason,
        "citations": [
            {"number": number, **asdict(note), "because": why_line(note, language=language)}
            for number, note in enumerate(answer.notes, 1)
        ],
        "voice": answer.voice,
        "prompt_sha256": answer.prompt_sha256,
        "timings_ms": dict(answer.timings_ms),
    }
