"""One voice over several servers: the least loaded answers, and another one where that fails before the first token.

A conversation stays with its server, which has computed most of its prompt already, unless that has clearly more to do.
A server that fails is left alone for a while, longer each time, and comes back as soon as it answers again. One that
does not speak with the pool's adapter yet is not asked; `fleet.py` sees to both.
"""

import asyncio
import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, field, replace

from infra.adapters import Aim
from infra.errors import Busy, ServiceTrouble
from infra.voice.chat import EVERYBODY, Audience, Piece, Sampling, Turn
from infra.voice.servers import Seen, Server

# How many more requests than the least loaded a conversation's own server may have: computing a prompt again costs
# about as much as waiting for one answer.
MARGIN = 2
KEPT_CONVERSATIONS = 4096
MOST_REST_S = 30.0
# How often a request that waits for its first token asks whether its server is still there.
GLANCE_S = 0.25


@dataclass(eq=False)
class Member:
    """A server and what is known of it. `others` are requests there that are not this pool's; `own` are."""

    server: Server
    own: int = 0
    others: int = 0
    asked: int = 0
    aligned: bool = True
    trouble: str = ""
    failures: int = 0
    silences: int = 0
    rests_until: float = 0.0
    # Held by whoever gives it orders.
    ordering: threading.Lock = field(default_factory=threading.Lock)

    @property
    def load(self) -> int:
        return self.own + self.others

    @property
    def answers(self) -> bool:
        """Whether it is to be asked as far as anybody knows."""
        return time.monotonic() >= self.rests_until

    def seen(self, seen: Seen) -> None:
        """It answers, and says how much it has to do; one that has to be brought to the adapter is not well yet."""
        self.others = max(0, seen.load - self.own)
        if seen.aligned:
            self.well()

    def silent(self, trouble: Exception) -> None:
        """It does not say how it is: whoever waits for its first token need not go on waiting."""
        self.silences += 1
        self.failed(trouble)

    def failed(self, trouble: Exception) -> None:
        """Leave it alone for a while."""
        self.failures += 1
        self.rests_until = time.monotonic() + min(MOST_REST_S, 2.0 ** (self.failures - 1))
        self.trouble = str(trouble)

    def well(self) -> None:
        self.failures, self.rests_until, self.trouble = 0, 0.0, ""

    def state(self) -> dict[str, object]:
        """The same for people."""
        said = "answers" if self.aligned else "waits for its adapter"
        state = said if self.answers else "rests"
        return {"url": self.server.url, "state": state, "load": self.load, "trouble": self.trouble}


class Pool:
    """A `chat.Voice` over servers that all speak as `aim` says. Safe to use from any thread."""

    def __init__(self, servers: Sequence[Server], aim: Aim) -> None:
        self.members = [Member(server) for server in servers]
        self.aim = aim
        self._last: OrderedDict[str, Member] = OrderedDict()
        self._lock = threading.Lock()

    async def stream(
        self, turns: Sequence[Turn], sampling: Sampling, *, conversation: str = "", audience: Audience = EVERYBODY
    ) -> AsyncGenerator[Piece, None]:
        """See `chat.Voice`. Raises Busy only when every server that answers is busy."""
        began, tried, troubles = time.monotonic(), set[Member](), list[ServiceTrouble]()
        while (member := self._choose(conversation, tried)) is not None:
            tried.add(member)
            left = sooner(sampling, time.monotonic() - began)
            pieces = member.server.voice(self.aim, conversation).stream(
                turns, left, conversation=conversation, audience=audience
            )
            with self._asked(member):
                async with contextlib.aclosing(pieces):
                    try:
                        first = await first_piece(member, pieces)
                    except ServiceTrouble as trouble:
                        troubles.append(trouble)
                        if not isinstance(trouble, Busy):
                            member.failed(trouble)
                        continue
                    self._remember(conversation, member)
                    yield first
                    with passed_on(member):
                        async for piece in pieces:
                            yield piece
                    return
        raise the_worst(troubles)

    def _choose(self, conversation: str, tried: set[Member]) -> Member | None:
        """Whom to ask next. Those that rest come last: better a server that may fail than none."""
        fit = [member for member in self.members if member.aligned and member not in tried]
        fit = [member for member in fit if member.answers] or fit
        if not fit:
            return None
        least = min(fit, key=lambda member: (member.load, member.asked))
        with self._lock:
            kept = self._last.get(conversation)
        return kept if kept in fit and kept.load <= least.load + MARGIN else least

    def _remember(self, conversation: str, member: Member) -> None:
        """A conversation that was answered goes on there."""
        member.well()
        if not conversation:
            return
        with self._lock:
            self._last[conversation] = member
            self._last.move_to_end(conversation)
            if len(self._last) > KEPT_CONVERSATIONS:
                self._last.popitem(last=False)

    @contextlib.contextmanager
    def _asked(self, member: Member) -> Iterator[None]:
        """Count a request as long as it is one."""
        with self._lock:
            member.own, member.asked = member.own + 1, member.asked + 1
        try:
            yield
        finally:
            with self._lock:
                member.own -= 1


async def first_piece(member: Member, pieces: AsyncGenerator[Piece, None]) -> Piece:
    """The first piece. Raises what asking for it raises, and ServiceTrouble when the server falls silent meanwhile."""
    silences = member.silences
    waiting = asyncio.ensure_future(anext(pieces))
    try:
        while not (await asyncio.wait({waiting}, timeout=GLANCE_S))[0]:
            if member.silences != silences:
                raise ServiceTrouble(member.trouble)
        return waiting.result()
    finally:
        waiting.cancel()
        await asyncio.wait({waiting})


@contextlib.contextmanager
def passed_on(member: Member) -> Iterator[None]:
    """Half an answer cannot be given again: whoever asked is told that it broke off."""
    try:
        yield
    except ServiceTrouble as trouble:
        member.failed(trouble)
        raise


def sooner(sampling: Sampling, waited_s: float) -> Sampling:
    """The same request to another server: what it has waited counts. Barely more than nothing is still asked for."""
    if sampling.timeout_s is None:
        return sampling
    return replace(sampling, timeout_s=max(0.001, sampling.timeout_s - waited_s))


def the_worst(troubles: Sequence[ServiceTrouble]) -> ServiceTrouble:
    """What to tell whoever could not be answered: when to come back, if somebody is only busy."""
    busy = [trouble for trouble in troubles if isinstance(trouble, Busy)]
    if busy:
        return min(busy, key=lambda trouble: trouble.retry_after_s)
    return troubles[-1] if troubles else ServiceTrouble("No voice server speaks with the current adapter yet.")
