"""Recall in another process: whoever does not hold the index asks the twin's API, which does."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from infra.errors import ServiceTrouble
from infra.remote import BACK_S, LOOK_S, Gone, Remote
from memory.codec import note_from
from memory.prompt import MOST_TOKENS
from memory.recall import EVERYBODY, Recollection
from memory.vectors import Scope

# Notes take milliseconds, and on a busy machine seconds: an API that is silent for longer is gone, or its network is.
ANSWER_S = 20.0


class RecallElsewhere:
    """The same reads as `memory.recall.Recall`, over HTTP. `find` names the API as it is now: it may have moved."""

    def __init__(self, find: Callable[[], Remote | None]) -> None:
        self._find = find
        self._met = False

    def recall(
        self, question: str, *, scope: Scope = EVERYBODY, limit: int = 2, budget_tokens: int = MOST_TOKENS
    ) -> Recollection:
        """Up to `limit` notes. Waits for an API that is started again; raises ServiceTrouble when it does not come."""
        asked = {"question": question, "community": scope.community, "limit": limit, "budget_tokens": budget_tokens}
        found = self._patiently(asked)
        try:
            notes, confidence = tuple(map(note_from, found["notes"])), float(found["confidence"])
            return Recollection(notes, confidence, dict(found["timings_ms"]))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise ServiceTrouble("The twin's memory answered with something that is no notes: is it as new?") from error

    def _patiently(self, asked: dict[str, Any]) -> Any:
        """What the API answers. One that has been there before may be back soon."""
        began = time.monotonic()
        while True:
            try:
                return self._ask(asked)
            except Gone:
                if not self._met or time.monotonic() - began > BACK_S:
                    raise
            time.sleep(LOOK_S)

    def _ask(self, asked: dict[str, Any]) -> Any:
        remote = self._find()
        if remote is None:
            raise Gone('The twin\'s memory cannot be reached: start it with "understudy up".')
        found = replace(remote, silence_s=ANSWER_S).get("/api/recall", **asked)
        self._met = True
        return found
