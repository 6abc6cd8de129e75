"""One voice over several servers: who is asked, and who is asked next. The servers are scripted, their failures real."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from itertools import pairwise

import pytest

from infra.adapters import AdapterStore, Aim
from infra.errors import Busy, ServiceTrouble, UserMistake
from infra.voice.chat import EVERYBODY, Audience, Finish, Piece, Sampling, Turn, Voice
from infra.voice.pool import Pool
from infra.voice.servers import Seen

ASKED = [Turn("user", "How warm?")]
FINISH = Finish("stop", "tiny", 5, 1, 0, 0.0, 1.0, 2.0)


class Scripted:
    """A server that says its own name, or does what it was told to."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[float | None] = []
        self.before_first: Callable[[], object] = lambda: None
        self.after_first: Callable[[], object] = lambda: None
        self.held: asyncio.Event | None = None

    def look(self, aim: Aim) -> Seen:
        return Seen()

    def voice(self, aim: Aim, conversation: str) -> Voice:
        return self

    async def stream(
        self, turns: Sequence[Turn], sampling: Sampling, *, conversation: str = "", audience: Audience = EVERYBODY
    ) -> AsyncGenerator[Piece, None]:
        self.asked.append(sampling.timeout_s)
        if self.held is not None:
            await self.held.wait()
        self.before_first()
        yield Piece(self.url, voice="tiny")
        self.after_first()
        yield Piece("", FINISH, "tiny")

    def prepare(self, version: str | None, store: AdapterStore) -> None: ...

    def point(self, aim: Aim, store: AdapterStore) -> None: ...


@pytest.fixture
def servers() -> list[Scripted]:
    return [Scripted(name) for name in "abc"]


@pytest.fixture
def pool(servers: list[Scripted]) -> Pool:
    return Pool(servers, Aim())


async def ask(pool: Pool, conversation: str = "", timeout_s: float | None = None) -> str:
    pieces = pool.stream(ASKED, Sampling(timeout_s=timeout_s), conversation=conversation)
    return "".join([piece.text async for piece in pieces])


def fails(error: Exception) -> Callable[[], object]:
    def fail() -> None:
        raise error

    return fail


async def test_the_least_loaded_answers(pool: Pool, servers: list[Scripted]) -> None:
    for member, load in zip(pool.members, (4, 1, 3), strict=True):
        member.seen(Seen(load))

    assert await ask(pool) == "b"


async def test_equals_take_turns(pool: Pool) -> None:
    assert [await ask(pool) for _ in range(4)] == ["a", "b", "c", "a"]


async def test_what_runs_here_counts_before_anybody_was_looked_at_again(pool: Pool, servers: list[Scripted]) -> None:
    servers[0].held = asyncio.Event()
    waiting = asyncio.create_task(ask(pool))
    await asyncio.sleep(0)

    assert {await ask(pool) for _ in range(6)} == {"b", "c"}
    servers[0].held.set()
    assert await waiting == "a"
    assert [member.load for member in pool.members] == [0, 0, 0]


async def test_a_conversation_stays_unless_its_server_has_clearly_more_to_do(pool: Pool) -> None:
    assert {await ask(pool, "ada") for _ in range(4)} == {"a"}

    pool.members[0].seen(Seen(2))
    assert await ask(pool, "ada") == "a"
    pool.members[0].seen(Seen(3))
    assert await ask(pool, "ada") == "b"
    pool.members[0].seen(Seen(0))
    assert await ask(pool, "ada") == "b"


async def test_before_the_first_token_another_one_answers_and_the_failed_one_rests(
    pool: Pool, servers: list[Scripted]
) -> None:
    servers[0].before_first = fails(ServiceTrouble("gone"))

    assert [await ask(pool) for _ in range(3)] == ["b", "c", "b"]
    assert len(servers[0].asked) == 1
    assert (pool.members[0].state()["state"], pool.members[0].state()["trouble"]) == ("rests", "gone")

    servers[0].before_first = lambda: None
    pool.members[0].rests_until = 0.0
    assert await ask(pool) == "a"
    assert pool.members[0].state()["state"] == "answers"


async def test_a_server_that_fails_again_rests_longer(pool: Pool) -> None:
    rests = []
    for _ in range(7):
        pool.members[0].failed(ServiceTrouble("gone"))
        rests.append(pool.members[0].rests_until)

    steps = [round(later - sooner) for sooner, later in pairwise(rests)]
    assert steps == [1, 2, 4, 8, 14, 0]


async def test_those_that_rest_are_asked_before_nobody_is(pool: Pool, servers: list[Scripted]) -> None:
    for member in pool.members:
        member.failed(ServiceTrouble("gone"))

    assert await ask(pool) == "a"


async def test_after_the_first_token_the_failure_is_passed_on(pool: Pool, servers: list[Scripted]) -> None:
    servers[0].after_first = fails(ServiceTrouble("broke off"))

    pieces = pool.stream(ASKED, Sampling())

    assert (await anext(pieces)).text == "a"
    with pytest.raises(ServiceTrouble, match="broke off"):
        await anext(pieces)
    assert [len(server.asked) for server in servers] == [1, 0, 0]
    assert not pool.members[0].answers


async def test_busy_is_passed_on_only_when_all_are(pool: Pool, servers: list[Scripted]) -> None:
    for server, seconds in zip(servers, (9, 4, 7), strict=True):
        server.before_first = fails(Busy("busy", retry_after_s=seconds))
    servers[1].before_first = lambda: None
    assert await ask(pool) == "b"

    servers[1].before_first = fails(Busy("busy", retry_after_s=4))
    with pytest.raises(Busy) as raised:
        await ask(pool)
    assert raised.value.retry_after_s == 4
    assert all(member.answers for member in pool.members)


async def test_what_has_been_waited_counts_at_the_next_server(pool: Pool, servers: list[Scripted]) -> None:
    servers[0].held = asyncio.Event()
    servers[0].before_first = fails(Busy("busy", retry_after_s=2))
    asyncio.get_running_loop().call_later(0.05, servers[0].held.set)

    assert await ask(pool, timeout_s=5.0) == "b"
    assert servers[1].asked[0] is not None
    assert 4.0 < servers[1].asked[0] <= 4.95


async def test_a_mistake_is_one_everywhere(pool: Pool, servers: list[Scripted]) -> None:
    servers[0].before_first = fails(UserMistake("too long"))

    with pytest.raises(UserMistake, match="too long"):
        await ask(pool)
    assert [len(server.asked) for server in servers] == [1, 0, 0]
    assert pool.members[0].answers


async def test_whoever_waits_for_a_server_that_falls_silent_is_answered_by_another(
    pool: Pool, servers: list[Scripted]
) -> None:
    servers[0].held = asyncio.Event()
    waiting = asyncio.create_task(ask(pool))
    await asyncio.sleep(0)
    pool.members[0].silent(ServiceTrouble("says nothing"))

    assert await asyncio.wait_for(waiting, 5) == "b"


async def test_one_that_does_not_speak_with_the_adapter_is_not_asked(pool: Pool, servers: list[Scripted]) -> None:
    for member in pool.members:
        member.aligned = False
    with pytest.raises(ServiceTrouble, match="speaks with the current adapter"):
        await ask(pool)

    pool.members[2].aligned = True
    assert await ask(pool) == "c"
