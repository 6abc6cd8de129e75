"""A reply as a stream of plain events: what the page and the terminal read, in this process or over HTTP.

`{"piece": TEXT}` any number of times, then exactly one `{"answer": {...}}` or `{"error": SENTENCE}`; a message that the
policy ignores gives no event at all.
"""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import asdict
from datetime import datetime
from typing import Any

from bot.twin import Twin
from infra.errors import UnderstudyError, UserMistake
from memory.messages import Answer, Message, Person, Place, Source

Event = dict[str, Any]


class EventReply:
    """A `bot.platform.Reply` that queues what it is given."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event | None] = asyncio.Queue()

    async def preview(self, piece: str) -> None:
        self.events.put_nowait({"piece": piece})

    async def deliver(self, answer: Answer) -> tuple[str, ...]:
        self.events.put_nowait({"answer": answer_document(answer)})
        return ()


async def answer_events(twin: Twin, message: Message) -> AsyncGenerator[Event, None]:
    """The events of one answer. Closing the generator cancels the answer and frees its place in the voice."""
    reply = EventReply()
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


def answer_document(answer: Answer) -> Event:
    """What a client sees of an answer: text, numbered citations, voice and timings in milliseconds."""
    return {
        "id": answer.id,
        "text": answer.text,
        "outcome": answer.outcome,
        "abstained": answer.outcome == "abstained",
        "reason": answer.reason,
        "citations": [{"number": number, **asdict(note)} for number, note in enumerate(answer.notes, 1)],
        "voice": answer.voice,
        "prompt_sha256": answer.prompt_sha256,
        "timings_ms": dict(answer.timings_ms),
    }
