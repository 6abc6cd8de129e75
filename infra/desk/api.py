"""The twin over HTTP: ask, vote, teach, inbox, recall, runs. What the page and the command line talk to.

Every handler is a few lines over bot, memory and the run table; errors carry OpenAI's shape like the voice's own.
`/api/ask` streams the events of `bot/events.py`.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from bot.events import Event, answer_events, own_message, visitor
from bot.feedback import vote
from bot.inbox import answer_question, dismiss, teach
from bot.twin import Twin
from infra.logs import tell
from infra.runs import Runs, document
from infra.traces import span
from memory.journal import Journal
from memory.messages import Person
from memory.prompt import MOST_TOKENS
from memory.recall import Recaller
from memory.vectors import Scope

log = logging.getLogger(__name__)

Limit = Annotated[int, Query(ge=1, le=10)]
Budget = Annotated[int, Query(ge=1, le=MOST_TOKENS)]


@dataclass(frozen=True)
class Parts:
    """What the handlers work with. `retrain` asks for a run or joins one; `drain` brings the index up to date."""

    twin: Twin
    journal: Journal
    recall: Recaller
    runs: Runs
    creator: Person
    retrain: Callable[[], tuple[str, bool]]
    drain: Callable[[], Awaitable[None]]
    status: Callable[[], dict[str, Any]]
    clock: Callable[[], datetime]


class Ask(BaseModel):
    """`conversation` names one chat and `message` one message in it: the same two never count twice."""

    question: str
    conversation: str = Field(min_length=1, max_length=80)
    message: str = Field(min_length=1, max_length=80)
    person: str = Field(default="guest", max_length=80)


class Vote(BaseModel):
    answer: str
    value: Literal["good", "bad"]
    person: str = Field(default="guest", max_length=80)


class Teach(BaseModel):
    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)


class Reply(BaseModel):
    answer: str = Field(min_length=1)


def router(parts: Parts) -> APIRouter:
    """All routes under `/api`."""
    routes = APIRouter(prefix="/api")

    @routes.post("/ask")
    async def ask(asked: Ask) -> StreamingResponse:
        message = own_message(**asked.model_dump(), now=parts.clock())
        return StreamingResponse(server_sent(answer_events(parts.twin, message)), media_type="text/event-stream")

    @routes.post("/vote")
    def cast(body: Vote) -> dict[str, bool]:
        vote(parts.journal, body.answer, person=visitor(body.person), value=body.value, now=parts.clock())
        return {"counted": True}

    @routes.get("/recall")
    async def recall(
        question: str, community: str = "main", limit: Limit = 2, budget_tokens: Budget = MOST_TOKENS
    ) -> dict[str, Any]:
        await parts.drain()
        with span("memory"):
            found = await asyncio.to_thread(
                parts.recall.recall, question, scope=Scope(community), limit=limit, budget_tokens=budget_tokens
            )
        took = {f"{name}_ms": each for name, each in found.timings_ms.items()}
        tell(log, "memory was asked", notes=len(found.notes), confidence=round(found.confidence, 3), **took)
        return {
            "confidence": found.confidence,
            "notes": [asdict(note) for note in found.notes],
            "timings_ms": found.timings_ms,
        }

    @routes.post("/teach")
    async def learn(body: Teach) -> dict[str, str]:
        exchange = teach(parts.journal, body.question, answer=body.answer, creator=parts.creator, now=parts.clock())
        await parts.drain()
        return {"exchange": exchange.id}

    @routes.get("/inbox")
    def waiting() -> list[dict[str, Any]]:
        return [
            {"number": i.number, "question": i.question, "count": i.count, "at": i.at} for i in parts.journal.inbox()
        ]

    @routes.post("/inbox/{number}/answer")
    async def reply(number: int, body: Reply) -> dict[str, str]:
        exchange = answer_question(parts.journal, number, answer=body.answer, creator=parts.creator, now=parts.clock())
        await parts.drain()
        return {"exchange": exchange.id}

    @routes.post("/inbox/{number}/dismiss")
    def drop(number: int) -> dict[str, int]:
        dismiss(parts.journal, number, creator=parts.creator, now=parts.clock())
        return {"dismissed": number}

    @routes.get("/runs")
    def runs() -> list[dict[str, Any]]:
        return [document(run) for run in parts.runs.recent()]

    @routes.post("/retrain")
    def retrain() -> dict[str, Any]:
        run, made = parts.retrain()
        return {"run": run, "started": made}

    @routes.get("/status")
    def status() -> dict[str, Any]:
        return parts.status()

    return routes


async def server_sent(events: AsyncIterator[Event]) -> AsyncIterator[str]:
    """Events as lines of `text/event-stream`."""
    async for event in events:
        yield f"data: {json.dumps(event, ensure_ascii=False, default=str)}\n\n"
