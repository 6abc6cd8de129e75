"""How fast a bot may speak. Telegram does not publish its limits; these are the ones its FAQ admits to.

Sends, edits and drafts all count, refused ones do not. The real limits also grow stricter with abuse; these do not.
"""

import math
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.fakes.telegram_request import Refused

FOREVER = 10**9


@dataclass
class Limits:
    """Change any of them at any time, also while the double runs."""

    chat_per_second: float = 1.0
    chat_burst: int = 5
    group_per_minute: int = 20
    minute_s: float = 60.0
    overall_per_second: int = 30

    @classmethod
    def none(cls) -> "Limits":
        return cls(chat_burst=FOREVER, group_per_minute=FOREVER, overall_per_second=FOREVER)


@dataclass
class Flood:
    limits: Limits
    clock: Callable[[], float]
    _spoken: dict[object, deque[float]] = field(default_factory=lambda: defaultdict(deque))

    def charge(self, chat: int, *, group: bool) -> None:
        """Count one message in a chat, or refuse with the seconds to wait."""
        now, rules = self.clock(), self._rules(chat, group=group)
        wait = max(self._wait(key, allowed, seconds, now) for key, allowed, seconds in rules)
        if wait > 0:
            seconds = max(1, math.ceil(wait))
            raise Refused(429, f"Too Many Requests: retry after {seconds}", retry_after=seconds)
        for key, _, _ in rules:
            self._spoken[key].append(now)

    def _rules(self, chat: int, *, group: bool) -> list[tuple[object, int, float]]:
        limits = self.limits
        rules: list[tuple[object, int, float]] = [
            ("overall", limits.overall_per_second, 1.0),
            (chat, limits.chat_burst, limits.chat_burst / limits.chat_per_second),
        ]
        return [*rules, (("minute", chat), limits.group_per_minute, limits.minute_s)] if group else rules

    def _wait(self, key: object, allowed: int, seconds: float, now: float) -> float:
        spoken = self._spoken[key]
        while spoken and spoken[0] <= now - seconds:
            spoken.popleft()
        return spoken[-allowed] + seconds - now if len(spoken) >= allowed else 0.0
