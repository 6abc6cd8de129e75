"""`chat`, `ask` and `recall`: through the running twin when there is one, else with the parts opened here."""

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bot.events import Event, answer_events, own_message
from bot.terminal import Value, converse, show
from infra.cli.compose import TwinHere, now, open_memory, open_twin, settings_of
from infra.cli.console import err, out, print_json, table
from infra.errors import ServiceTrouble, UserMistake
from infra.remote import Remote
from infra.settings import Settings


class RemoteLine:
    """A line to the twin of a running process."""

    def __init__(self, remote: Remote, conversation: str) -> None:
        self._remote, self._conversation = remote, conversation

    def ask(self, question: str) -> Iterator[Event]:
        body = {"question": question, "conversation": self._conversation, "message": str(uuid.uuid4())}
        return self._remote.events("/api/ask", body)

    def vote(self, answer: str, value: Value) -> None:
        self._remote.post("/api/vote", answer=answer, value=value)


class LocalLine:
    """A line to a twin opened in this process."""

    def __init__(self, here: TwinHere, conversation: str, runner: asyncio.Runner) -> None:
        self._here, self._conversation, self._runner = here, conversation, runner

    def ask(self, question: str) -> Iterator[Event]:
        message = own_message(
            question, conversation=self._conversation, message=str(uuid.uuid4()), person="guest", now=now()
        )
        events = answer_events(self._here.twin, message)
        while (event := self._runner.run(next_event(events))) is not None:
            yield event

    def vote(self, answer: str, value: Value) -> None:
        from bot.feedback import vote
        from memory.messages import Person

        vote(self._here.memory.journal, answer, person=Person("own", "guest"), value=value, now=now())


async def next_event(events: Any) -> Event | None:
    """The next event, or None at the end."""
    return await anext(events, None)


@contextmanager
def line_to_twin(settings: Settings) -> Iterator[RemoteLine | LocalLine]:
    """The running twin's line, or one opened here for as long as the block lasts."""
    conversation = str(uuid.uuid4())
    remote = Remote.find(settings)
    if remote is not None:
        yield RemoteLine(remote, conversation)
        return
    with open_twin(settings) as here, asyncio.Runner() as runner:
        yield LocalLine(here, conversation, runner)


def chat(home: Path | None) -> None:
    """Talk until /quit."""
    settings = settings_of(home)
    with line_to_twin(settings) as line:
        converse(line, out(), creator=settings.creator.name, language=settings.creator.language)


def ask(home: Path | None, question: str, *, as_json: bool) -> None:
    """Ask one question; exit 1 when the answer failed, 0 when it was answered or honestly declined."""
    if not question.strip():
        raise UserMistake('The question has no words. Ask something, as in: understudy ask "how warm should it be".')
    settings = settings_of(home)
    with line_to_twin(settings) as line:
        if not as_json:
            show(line.ask(question), out(), language=settings.creator.language)
            return
        for event in line.ask(question):
            if "error" in event:
                raise ServiceTrouble(event["error"])
            if "answer" in event:
                print_json({"answer": event["answer"].pop("text"), **event["answer"]})


def recall(home: Path | None, question: str, *, as_json: bool) -> None:
    """Show the notes with their scores, best first."""
    settings = settings_of(home)
    remote = Remote.find(settings)
    found = remote.get("/api/recall", question=question) if remote else recall_here(settings, question)
    if as_json:
        print_json(found["notes"])
        return
    out().print(
        table("", ("score", "source", "text"), ((f"{n['score']:.2f}", n["source"], n["text"]) for n in found["notes"]))
    )
    err().print(f"confidence {found['confidence']:.2f}, {found['timings_ms']}")


def recall_here(settings: Settings, question: str) -> dict[str, Any]:
    """Recall with the index opened in this process."""
    from dataclasses import asdict

    with open_memory(settings) as memory:
        found = memory.recall.recall(question, limit=settings.recall.limit)
        return {**asdict(found), "notes": [asdict(note) for note in found.notes]}
