"""A teacher asked many things: how fast it may be asked, what it may cost, and what to do when it fails.

Knows no prompts and keeps no answers (`distil.py`, `ledger.py`). Tokens are what the teacher says it read and wrote; of
one that does not say, and of an answer that broke off, they are estimated, never taken for nothing.
"""

import asyncio
import math
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field

from infra.errors import Busy, ServiceTrouble, UnderstudyError
from infra.voice.chat import Finish, Sampling, Turn, Voice
from infra.voice.client import HttpVoice
from memory.prompt import estimate_tokens

# A request that fails is repeated so often; one that was told to come back later is not counted among them.
TRIES, PATIENCE = 5, 40
FIRST_WAIT_S, MOST_WAIT_S = 1.0, 60.0
# Who sends an answer drop by drop is not waited for longer than this.
ANSWER_S = 180.0
# A tokenizer may make twice the estimate of Chinese, see `memory/prompt.py`; chat templates add a few a turn.
MOST_PER_ESTIMATE, PER_TURN = 2.0, 12


class BudgetSpent(UnderstudyError):
    """The next request might cost more than is left."""


@dataclass(frozen=True)
class Said:
    """An answer, whether it ended by itself, and what it cost in tokens."""

    text: str
    finished: bool
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, eq=False)
class Hold:
    """What is put aside for one request; two of the same size are two."""

    read: int
    written: int


@dataclass
class Budget:
    """Bounds that hold, as what a request may cost at the most is put aside before it is sent. None is no bound.

    Prices are for a million tokens. The bounds are exact where the teacher's tokenizer makes at most twice as many
    tokens as are estimated.
    """

    money: float | None = None
    tokens: int | None = None
    price_in: float = 0.0
    price_out: float = 0.0
    read: int = 0
    written: int = 0
    aside: list[Hold] = field(default_factory=list)

    def cost(self, read: float, written: float) -> float:
        return (read * self.price_in + written * self.price_out) / 1e6

    @property
    def spent(self) -> float:
        return self.cost(self.read, self.written)

    def put_aside(self, read: int, written: int) -> Hold:
        """Take what one request may cost. Raises BudgetSpent when that is not left."""
        held = [*self.aside, Hold(read, written)]
        all_read = self.read + sum(each.read for each in held)
        all_written = self.written + sum(each.written for each in held)
        if self.tokens is not None and all_read + all_written > self.tokens:
            raise BudgetSpent(f"The budget of {self.tokens} tokens is used up.")
        if self.money is not None and self.cost(all_read, all_written) > self.money:
            raise BudgetSpent(f"The budget of {self.money:g} is used up.")
        self.aside.append(held[-1])
        return held[-1]

    def settle(self, held: Hold, read: int, written: int) -> None:
        """Give back what was put aside, and count what it came to."""
        self.aside.remove(held)
        self.read, self.written = self.read + read, self.written + written


class Pace:
    """When the next request may start: so many a minute, and none while the server wants to be left alone."""

    def __init__(self, per_minute: float) -> None:
        self._every = 60 / per_minute if per_minute else 0.0
        self._next = self._quiet_until = 0.0

    async def turn(self) -> None:
        """Wait for one's turn; after a pause the turns come one by one again."""
        clock = asyncio.get_running_loop().time
        while True:
            at = max(clock(), self._next, self._quiet_until)
            self._next = at + self._every
            await asyncio.sleep(at - clock())
            if clock() >= self._quiet_until:
                return

    def pause(self, seconds: float) -> None:
        """Let nobody begin for so long."""
        self._quiet_until = max(self._quiet_until, asyncio.get_running_loop().time() + seconds)


class Teacher:
    """Asks one voice, within a pace and a budget. `on_lost` is told the tokens of an answer that broke off."""

    def __init__(
        self,
        voice: Voice,
        *,
        per_minute: float,
        budget: Budget,
        conversation: str = "",
        on_lost: Callable[[int, int], None] = lambda read, written: None,
        first_wait_s: float = FIRST_WAIT_S,
        answer_s: float = ANSWER_S,
    ) -> None:
        self._voice, self._pace, self._budget, self._conversation = voice, Pace(per_minute), budget, conversation
        self._on_lost, self._first_wait_s, self._answer_s = on_lost, first_wait_s, answer_s

    @asynccontextmanager
    async def kept_open(self, connections: int) -> AsyncIterator[None]:
        """Keep the connections of a server between requests."""
        async with AsyncExitStack() as stack:
            if isinstance(self._voice, HttpVoice):
                await stack.enter_async_context(self._voice.kept_open(connections))
            yield

    async def ask(self, turns: Sequence[Turn], sampling: Sampling) -> Said:
        """One answer. A server that is busy is left alone as long as it says, one that fails is asked again.

        Raises BudgetSpent, UserMistake for what the server refuses to answer, and ServiceTrouble when it goes on
        failing; that is `permanent` where no other question would fare better.
        """
        failed = busy = 0
        while True:
            held = self._budget.put_aside(most_read(turns), sampling.max_tokens)
            try:
                await self._pace.turn()
                return await self._one(turns, sampling, held)
            except Busy as trouble:
                busy += 1
                if busy >= PATIENCE:
                    raise
                # "At once" to a server that has just refused would be a storm.
                self._pace.pause(max(trouble.retry_after_s, self._first_wait_s))
            except (ServiceTrouble, TimeoutError) as trouble:
                failed += 1
                if isinstance(trouble, ServiceTrouble) and trouble.permanent:
                    raise
                if failed >= TRIES:
                    raise ServiceTrouble(f"The teacher failed {failed} times in a row: {trouble}") from trouble
                await asyncio.sleep(wait_s(failed, self._first_wait_s))
            finally:
                if held in self._budget.aside:
                    self._budget.settle(held, 0, 0)

    async def _one(self, turns: Sequence[Turn], sampling: Sampling, held: Hold) -> Said:
        """One try. What a try that breaks off has cost is counted, since whoever sells it counts it too."""
        text, finish = "", None
        try:
            async with asyncio.timeout(self._answer_s):
                pieces = self._voice.stream(turns, sampling, conversation=self._conversation)
                async with aclosing(pieces):
                    async for piece in pieces:
                        text, finish = text + piece.text, piece.finish or finish
        except (ServiceTrouble, TimeoutError, asyncio.CancelledError) as trouble:
            if text or isinstance(trouble, TimeoutError):
                read, written = estimate_read(turns), estimate_tokens(text)
                self._budget.settle(held, read, written)
                self._on_lost(read, written)
            raise
        assert isinstance(finish, Finish)
        said = Said(
            text.strip(),
            finish.reason == "stop",
            finish.prompt_tokens or estimate_read(turns),
            finish.completion_tokens or estimate_tokens(text),
        )
        self._budget.settle(held, said.prompt_tokens, said.completion_tokens)
        return said


def estimate_read(turns: Sequence[Turn]) -> int:
    """About how many tokens a prompt is."""
    return sum(estimate_tokens(turn.content) + PER_TURN for turn in turns)


def most_read(turns: Sequence[Turn]) -> int:
    """How many it is at the most."""
    return math.ceil(sum(MOST_PER_ESTIMATE * estimate_tokens(turn.content) + PER_TURN for turn in turns))


def wait_s(failed: int, first_s: float) -> float:
    """How long to wait after so many failures: doubling, spread so that many who failed together do not return so."""
    return min(MOST_WAIT_S, float(first_s * 2 ** (failed - 1))) * random.uniform(0.5, 1.0)  # noqa: S311
