"""A teacher that is somebody else's server: asked at the pace it allows, within a budget, whatever it does."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from infra.errors import ServiceTrouble, UserMistake
from infra.voice.chat import Sampling, Turn
from infra.voice.client import HttpVoice
from tests.trainer.lecturing import Reply, breaks_off, fails, garbage, hangs, lecturing, odd_stream, says
from trainer.teacher import TRIES, Budget, BudgetSpent, Said, Teacher

ASKED = [Turn("user", "How warm?")]
SHORT = Sampling(max_tokens=16)


def ask(url: str, *, times: int = 1, budget: Budget | None = None, per_minute: float = 0, **more: Any) -> list[Said]:
    async def all_of_them() -> list[Said]:
        voice = HttpVoice(url, model="lecturer", token="a-token-of-the-teacher")
        teacher = Teacher(
            voice, per_minute=per_minute, budget=budget or Budget(), **{"first_wait_s": 0.01, "answer_s": 0.5, **more}
        )
        async with teacher.kept_open(times):
            return await asyncio.gather(*(teacher.ask(ASKED, SHORT) for _ in range(times)))

    return asyncio.run(all_of_them())


def ask_on(url: str, budget: Budget, *, times: int) -> None:
    """Ask until the budget is spent."""
    for _ in range(100):
        ask(url, times=times, budget=budget)


@pytest.mark.parametrize(
    "trouble", [fails(500), fails(502), fails(503), breaks_off, garbage, odd_stream, hangs], ids=lambda t: t.__name__
)
def test_what_fails_once_is_asked_again(trouble: Reply) -> None:
    with lecturing(says("Warm."), trouble, trouble) as lecturer:
        assert ask(lecturer.url) == [Said("Warm.", finished=True, prompt_tokens=100, completion_tokens=10)]
        assert lecturer.asked == 3


def test_what_goes_on_failing_is_given_up() -> None:
    with lecturing(fails(500)) as lecturer, pytest.raises(ServiceTrouble, match=f"failed {TRIES} times"):
        ask(lecturer.url)
    assert lecturer.asked == TRIES


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_token_address_or_model_is_asked_once(status: int) -> None:
    with lecturing(fails(status)) as lecturer, pytest.raises(ServiceTrouble) as raised:
        ask(lecturer.url)
    assert (lecturer.asked, raised.value.permanent) == (1, True)


def test_a_question_that_the_server_takes_for_none_is_asked_once() -> None:
    with (
        lecturing(fails(400, '{"error": {"message": "too long"}}')) as lecturer,
        pytest.raises(UserMistake, match="too"),
    ):
        ask(lecturer.url)
    assert lecturer.asked == 1


def test_all_leave_a_busy_server_alone_for_as_long_as_it_says() -> None:
    with lecturing(says("Warm."), fails(429, Retry_After="1")) as lecturer:
        ask(lecturer.url, times=1)
        began = lecturer.times[0]
        assert lecturer.times[1] - began >= 1

        lecturer.script.append(fails(429, Retry_After="1"))
        began = time.monotonic()
        assert len(ask(lecturer.url, times=4, per_minute=6000)) == 4
        # Those that were under way already are answered; the one that was refused waits.
        assert max(lecturer.times) - began >= 1


def test_it_may_say_until_when() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    with lecturing(says("Warm."), fails(429, Retry_After=later)) as lecturer:
        ask(lecturer.url)
        assert lecturer.times[1] - lecturer.times[0] >= 0.9


def test_no_more_are_asked_a_minute_than_are_allowed() -> None:
    with lecturing(says("Warm.")) as lecturer:
        ask(lecturer.url, times=10, per_minute=1200)

        gaps = [later - earlier for earlier, later in zip(lecturer.times, lecturer.times[1:], strict=False)]
        assert sum(gaps) >= 9 * 0.05 * 0.9


def test_connections_are_kept() -> None:
    async def one_after_the_other(url: str) -> None:
        teacher = Teacher(HttpVoice(url, model="m"), per_minute=0, budget=Budget())
        async with teacher.kept_open(2):
            for _ in range(5):
                await teacher.ask(ASKED, SHORT)

    with lecturing(says("Warm.")) as lecturer:
        asyncio.run(one_after_the_other(lecturer.url))
        assert len(lecturer.connections) == 1


def test_what_is_asked_never_exceeds_the_budget_of_tokens() -> None:
    budget = Budget(tokens=600)
    with lecturing(says("Warm.", read=40, written=16)) as lecturer, pytest.raises(BudgetSpent):
        ask_on(lecturer.url, budget, times=3)
    assert 450 < budget.read + budget.written <= 600
    assert budget.aside == []


def test_what_is_asked_never_costs_more_than_the_budget() -> None:
    budget = Budget(money=0.01, price_in=10, price_out=100)
    with lecturing(says("Warm.", read=20, written=16)) as lecturer, pytest.raises(BudgetSpent, match="0.01"):
        ask_on(lecturer.url, budget, times=1)
    assert 0.006 < budget.spent <= 0.01


def test_nothing_is_taken_for_free() -> None:
    """Answers that broke off, and those of a server that counts no tokens, are estimated."""
    lost: list[tuple[int, int]] = []
    budget = Budget()
    uncounted = says("Warm, says the lecturer.", read=0, written=0)
    with lecturing(uncounted, breaks_off) as lecturer:
        (said,) = ask(lecturer.url, budget=budget, on_lost=lambda *tokens: lost.append(tokens))

    assert said.prompt_tokens >= 10
    assert said.completion_tokens >= 5
    assert len(lost) == 1
    assert min(lost[0]) >= 1
    assert (budget.read, budget.written) == (said.prompt_tokens + lost[0][0], said.completion_tokens + lost[0][1])
