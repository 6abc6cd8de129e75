"""`chat`, `ask`, `recall`, `history`: through the running twin when there is one, else with the parts opened here."""

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bot.events import Event, answer_events, own_message
from bot.screens import why_line
from bot.terminal import Value, converse, show
from infra.cli.compose import TwinHere, now, open_journal, open_memory, open_twin, settings_of
from infra.cli.console import err, out, print_json, table
from infra.errors import ServiceTrouble, UserMistake
from infra.remote import Remote
from infra.settings import Settings

if TYPE_CHECKING:
    from memory.recall import Recollection


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
    found = recall_elsewhere(remote, settings, question) if remote else recall_here(settings, question)
    if as_json:
        print_json([asdict(note) for note in found.notes])
        return
    rows = ((f"{n.score:.2f}", n.source, n.text, why_line(n, language="en")) for n in found.notes)
    out().print(table("", ("score", "source", "text", "why"), rows))
    err().print(f"confidence {found.confidence:.2f}, {found.timings_ms}")


def recall_here(settings: Settings, question: str) -> "Recollection":
    """Recall with the index opened in this process."""
    with open_memory(settings) as memory:
        return memory.recall.recall(question, limit=settings.recall.limit, budget_tokens=settings.recall.budget_tokens)


def recall_elsewhere(remote: Remote, settings: Settings, question: str) -> "Recollection":
    """Recall of the running twin."""
    from memory.elsewhere import RecallElsewhere

    return RecallElsewhere(lambda: remote).recall(
        question, limit=settings.recall.limit, budget_tokens=settings.recall.budget_tokens
    )


def history(home: Path | None, question: str, *, as_json: bool) -> None:
    """Show every answer to a question, the one that speaks first."""
    from memory.alike import normal_form
    from memory.standing import standing

    journal, form = open_journal(settings_of(home)), normal_form(question)
    answers = journal.answers_to(form)
    if not answers:
        raise UserMistake("Memory has no answer to this question, nor to one that asks the same in other words.")
    found = standing(answers, journal.waited([form]).get(form, set()))
    rows = [(each, found.state(each)) for each in (found.speaks, *found.others)]
    if as_json:
        print_json({"askers": found.askers, "answers": [{"state": state, **asdict(each)} for each, state in rows]})
        return
    shown = ((f"{each.at:%Y-%m-%d}", state, each.question, each.answer, each.id) for each, state in rows)
    out().print(table("", ("given", "state", "question", "answer", "id"), shown))
    err().print(f"Different people who asked: {found.askers}.")
