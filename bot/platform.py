"""The contract between the twin and a place where people talk.

A platform translates its own events into `memory.messages.Message` and `bot.screens.Caller`, hands them to the
functions of `bot/asking.py`, `bot/hearing.py`, `bot/commands.py` and `bot/presses.py`, and draws what comes back.
Platform objects never leave the platform's module.
"""

from collections.abc import Sequence
from typing import Protocol

from bot.screens import Screen
from memory.messages import Answer, Place


class Reply(Protocol):
    """One reply under way. `preview` may be called often or never; `deliver` exactly once, at the end."""

    async def preview(self, piece: str) -> None:
        """The next piece of the answer. What a platform cannot show in time it may leave out."""
        ...

    async def deliver(self, answer: Answer) -> Sequence[str]:
        """The whole answer; returns the platform's ids of the messages that show it, if it has any.

        Raises ServiceTrouble when it could not be shown.
        """
        ...


class Platform(Protocol):
    """What the rounds of `bot/rounds.py` need of a platform.

    Every call raises Busy when the platform asks for patience, ServiceTrouble when it may work later and a permanent
    ServiceTrouble when it never will: blocked, deleted, not allowed.
    """

    name: str
    """As in `Person.platform`: "discord" or "telegram"."""

    async def send(self, place: Place, screen: Screen, *, reply_to: str = "") -> str:
        """Show a screen in a place, as an answer to a message if it is still there; returns the new message's id."""
        ...

    async def edit(self, place: Place, message_id: str, screen: Screen) -> None:
        """Show a screen in place of what a message of the twin's showed before."""
        ...

    async def direct(self, person_id: str) -> Place:
        """The private chat with a person."""
        ...

    async def inbox(self) -> Place | None:
        """Where the creator's inbox is shown: a channel from the settings, else the creator's private chat."""
        ...
