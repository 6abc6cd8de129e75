"""The contract between the twin and a place where people talk: the twin pushes, the platform shows.

A platform translates its own events into `memory.messages.Message`, calls `Twin.answer` with a `Reply`, and shows what
comes. Platform objects never leave the platform's module.
"""

from typing import Protocol

from memory.messages import Answer


class Reply(Protocol):
    """One reply under way. `preview` may be called often or never; `deliver` exactly once, at the end."""

    async def preview(self, piece: str) -> None:
        """The next piece of the answer. What a platform cannot show in time it may leave out."""
        ...

    async def deliver(self, answer: Answer) -> None:
        """The whole answer. Raises ServiceTrouble when it could not be shown."""
        ...
