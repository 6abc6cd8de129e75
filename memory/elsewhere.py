"""Recall in another process: whoever does not hold the index asks the twin's API, which does."""

from collections.abc import Callable

from infra.errors import ServiceTrouble
from infra.remote import Remote
from memory.codec import note_from
from memory.prompt import MOST_TOKENS
from memory.recall import EVERYBODY, Recollection
from memory.vectors import Scope


class RecallElsewhere:
    """The same reads as `memory.recall.Recall`, over HTTP. `find` names the API as it is now: it may have moved."""

    def __init__(self, find: Callable[[], Remote | None]) -> None:
        self._find = find

    def recall(
        self, question: str, *, scope: Scope = EVERYBODY, limit: int = 2, budget_tokens: int = MOST_TOKENS
    ) -> Recollection:
        """Up to `limit` notes. Raises ServiceTrouble while the API cannot be reached."""
        remote = self._find()
        if remote is None:
            raise ServiceTrouble('The twin\'s memory cannot be reached: start it with "understudy up".')
        asked = {"question": question, "community": scope.community, "limit": limit, "budget_tokens": budget_tokens}
        found = remote.get("/api/recall", **asked)
        return Recollection(tuple(map(note_from, found["notes"])), found["confidence"], found["timings_ms"])
