"""A bakery under attack: Ada answers in a listened channel, Bob asks in good faith, and the archive is everybody's.

The parts are the product's own: journal, index, embedder, recall, graph, renderer, importers and what the bots call.
"""

import asyncio
from collections.abc import Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from bot import hearing
from bot.screens import Caller
from memory.graph_store import GraphStore
from memory.importers.records import ImportContext
from memory.importing import import_paths
from memory.messages import Exchange, Message, Note, Person, Place, Source
from memory.profile import draft, opinions
from memory.provenance import Permissions
from memory.remember import consent_event, listening_event, question_event
from tests.bot.stage import Stage, staged
from tests.people import NOON
from trainer.harvest import harvest

CHANNEL = Place("discord", "10", name="general")
ADA = Person("discord", "1", "Ada", role="creator")
BOB = Person("discord", "5", "Bob")
CREATOR_KEYS = frozenset({"discord:1", "telegram:1", "stackexchange:1", "own:creator"})
# Every training term is granted, so that nothing but who said what keeps a member's words out of a dataset.
PERMITTED = Permissions("ticket 4711", "2026-02-01")
# What Ada said in the channel before anybody attacked, by replies to Bob.
SAID = {
    "How long does the dough rest?": "Twelve hours, in the cellar.",
    "麵團要發酵多久？": "室溫四小時，別急。",
    "Do you use margarine?": "I never use `margarine`. I prefer `butter`.",
    "法棍用什么面粉？": "我推荐T65。",
    "Is RAG worth it for recipes?": "I recommend RAG for recipes.",
}
GUIDE = "# Guide\n\n## Salt\n\nTwo percent of salt goes in after the first rest, never before it.\n"
ATTACKED = (
    "How warm should the sourdough be?",
    "how hot do you keep sourdough",
    "酵母放冰箱能活多久？",
    "How long does the dough rest?",
    "麵團要發酵多久？",
    "Do you use margarine?",
    "When does the salt go in?",
)

Pair = tuple[str, str]


@dataclass(frozen=True)
class Attributed:
    """Everything that is said to be the creator's: pairs, passages, stances, what the profile says, rows, notes by question.

    And what members must not change for others: the inbox, where the twin listens, what Ada chose.
    """

    pairs: frozenset[Pair]
    passages: frozenset[str]
    stances: frozenset[tuple[str, str, str]]
    cares: frozenset[str]
    rows: frozenset[Pair]
    notes: Mapping[str, tuple[Note, ...]]
    switches: tuple[object, ...]


@dataclass
class Bakery:
    """The community; `at` is the hour of the attempt under way, days away from the one before, `known` how that left it."""

    stage: Stage
    folder: Path
    graph: GraphStore
    runner: asyncio.Runner
    at: datetime = NOON
    number: int = 0
    answers: dict[str, Message] = field(default_factory=dict)
    known: Attributed | None = None

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    def next_attempt(self) -> None:
        self.at += timedelta(days=3)
        self.number += 1

    def member(self, name: str, **known: Any) -> Person:
        """An attacker nobody met before: a rate limit must not be what stops them."""
        return Person("discord", f"666{self.number}", name, **known)

    def asker(self) -> Person:
        """Somebody who asks in good faith, and not so often that a dataset takes no more of theirs."""
        return replace(BOB, id=f"5{self.number}")

    def says(self, person: Person, text: str, *, reply_to: Message | None = None, place: Place = CHANNEL) -> Message:
        """Somebody writes in the channel, half a minute after whatever was written before."""
        self.at += timedelta(seconds=30)
        identity = str(round(self.at.timestamp() * 1000))
        message = Message(identity, person, place, self.at, text, reply_to=reply_to.id if reply_to else None)
        self.run(hearing.hear(self.stage.community, message, Source.DISCORD_API))
        return message

    def imports(self, name: str, text: str) -> None:
        path = self.folder / str(self.number) / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        import_paths(self.stage.journal, [path], ImportContext(ADA, CREATOR_KEYS, self.at))

    def exchanges(self) -> list[Exchange]:
        return list(self.stage.journal.exchanges())

    def attributed(self) -> Attributed:
        self.stage.index.drain_all()
        self.graph.drain_all()
        exchanges, journal = self.exchanges(), self.stage.journal
        members = self.stage.community.members
        with self.graph.reading() as graph:
            stances = frozenset((edge.kind, edge.tail, edge.quote) for edge in opinions(graph))
        return Attributed(
            frozenset((each.question, each.answer) for each in exchanges),
            frozenset(each.text for each in journal.passages()),
            stances,
            frozenset(draft(self.graph.topics(), (), about="").cares.split(", ")),
            frozenset((each.question, each.answer) for each in harvest(journal, permissions=PERMITTED).exchanges),
            {question: self.notes(question) for question in ATTACKED},
            (
                [(item.number, item.question, item.state) for item in journal.inbox() if item.number == 1],
                members.listening(CHANNEL.key),
                members.chosen(ADA.key, "remember"),
                self.stage.operations.quiet,
                self.stage.operations.speaks,
            ),
        )

    def notes(self, question: str) -> tuple[Note, ...]:
        found = self.stage.community.twin.recollect(question, CHANNEL).notes
        return tuple(replace(note, score=0.0) for note in found)


def opened(folder: Path, runner: asyncio.Runner) -> tuple[Bakery, AbstractAsyncContextManager[Stage]]:
    """The bakery before the first attempt; whoever opens it leaves the stage."""
    stage_context = staged(folder / "data", creator="discord:1")
    stage = runner.run(stage_context.__aenter__())
    bakery = Bakery(stage, folder, GraphStore(stage.journal), runner)
    everybody = (
        consent_event(BOB, CHANNEL, granted="yes", at=NOON),
        consent_event(ADA, CHANNEL, granted="yes", at=NOON),
    )
    bakery.run(stage.community.remember(listening_event(CHANNEL, ADA, on=True, space="1", at=NOON), *everybody))
    for question, answer in SAID.items():
        bakery.answers[question] = bakery.says(ADA, answer, reply_to=bakery.says(BOB, question))
        bakery.next_attempt()
    waiting = bakery.says(BOB, "Do pigeons like rye?")
    bakery.run(stage.community.remember(question_event(waiting, Source.DISCORD_API)))
    bakery.imports("guide.md", GUIDE)
    return bakery, stage_context


def caller(person: Person) -> Caller:
    """Somebody who presses or commands, with all the rights that the platform can give."""
    return Caller(person, CHANNEL, "en", manages=True, space="1")
