"""Everything that a place where people talk can do with the twin, apart from drawing it: both platforms call this.

The platforms translate their own events into `Message` and `Caller` and draw the `Screen`s that come back; what a
button or command means is decided here and in the modules this one holds together, once.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from bot.screens import Caller, Screen
from bot.twin import Twin
from bot.wording import say
from memory.forget import Forgotten, forget
from memory.journal import Journal
from memory.members import Members
from memory.messages import Event, Person, Role
from memory.persona import PersonaCard
from memory.remember import remember
from memory.selection import Selection


class Operations(Protocol):
    """What admins set in motion. Every call may raise ServiceTrouble when what it needs cannot be reached."""

    def plan(self) -> Mapping[str, Any]:
        """What a training would learn from, counted with reasons. Raises Refused when that is too little."""
        ...

    def retrain(self) -> tuple[str, bool]:
        """The id of the run that is active now, and whether it was started by this call."""
        ...

    def run(self, run_id: str) -> Mapping[str, Any]:
        """A run as it is now: state, stage, progress, result, error."""
        ...

    def failures(self) -> Sequence[Mapping[str, Any]]:
        """The newest runs that failed for good: id, ended, error."""
        ...

    def voices(self) -> Mapping[str, Any]:
        """What speaks, what spoke before, what is on trial, and every adapter with its verdict."""
        ...

    def rollback(self) -> str:
        """Back to the voice before; returns the name of what speaks then."""
        ...

    def start_canary(self, version: str, share: float) -> None:
        """Let a version answer a share of the conversations. Raises UserMistake for one that must not."""
        ...

    def stop_canary(self, version: str) -> str:
        """End the trial of a version; returns the name of what speaks. Raises UserMistake when it is not on trial."""
        ...

    def promote_canary(self, version: str) -> str:
        """Let the version on trial answer everybody; returns its name. Raises UserMistake when it is not on trial."""
        ...

    def picture(self, version: str) -> bytes:
        """An adapter's eval card as a PNG picture."""
        ...

    def silence(self, *, on: bool) -> None:
        """The kill switch."""
        ...

    def silenced(self) -> bool: ...

    def follow_forgotten(self) -> object:
        """See to it that no voice that learned what was forgotten speaks again, and no ended run's dataset holds it."""
        ...

    def permission(self) -> tuple[str, str] | None:
        """Reference and date of Discord's permission to train, as the operator recorded it."""
        ...


@dataclass(frozen=True)
class Community:
    """The parts, and who may do what with them; `alive` is called after each round that a platform makes by itself."""

    twin: Twin
    journal: Journal
    members: Members
    operations: Operations
    persona: PersonaCard
    creator: frozenset[str]
    teachers: frozenset[str]
    admins: frozenset[str]
    clock: Callable[[], datetime]
    alive: Callable[[], None] = lambda: None

    def person(self, platform: str, identity: str, name: str, *, bot: bool = False) -> Person:
        """Somebody on a platform, in the role that the settings give them."""
        key = f"{platform}:{identity}"
        if bot:
            return Person(platform, identity, name, role="bot")
        role: Role = "creator" if key in self.creator else "teacher" if key in self.teachers else "member"
        return Person(platform, identity, name, role=role)

    def is_creator(self, caller: Caller) -> bool:
        return caller.person.key in self.creator and not caller.anonymous

    def is_admin(self, caller: Caller) -> bool:
        """On the operator's list and allowed by the platform: either alone is not enough."""
        return caller.person.key in self.admins and caller.manages and not caller.anonymous

    def say(self, key: str, caller: Caller, **values: object) -> str:
        """A text in the caller's language; it may name the creator."""
        return say(key, caller.language, **{"creator": self.persona.name, **values})

    def screen(self, key: str, caller: Caller, **values: object) -> Screen:
        """A private screen of one text."""
        return Screen(self.say(key, caller, **values))

    async def silenced(self) -> bool:
        """Whether the kill switch is thrown: where others listen the twin is mute then, and tells nobody why."""
        return await asyncio.to_thread(self.operations.silenced)

    async def remember(self, *events: Event) -> None:
        """Journal events; what teachers say is paired like the creator's."""
        answering = self.creator | self.teachers
        await asyncio.to_thread(remember, self.journal, events, creator=answering)

    async def forget(self, selection: Selection) -> Forgotten:
        """Erase a selection from memory, and see to it that no voice that learned from it speaks again."""
        answering = self.creator | self.teachers
        done = await asyncio.to_thread(forget, self.journal, selection, creator=answering, now=self.clock())
        await asyncio.to_thread(self.operations.follow_forgotten)
        return done

    async def operate(self, work: Callable[[], Any]) -> Any:
        """One call to the operations, off the event loop."""
        return await asyncio.to_thread(work)
