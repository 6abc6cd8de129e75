"""A soak in small: `understudy bench soak` does ten thousand requests and five hundred swaps."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest

from infra.errors import ServiceTrouble, UnderstudyError, UserMistake
from infra.voice import soak
from infra.voice.chat import Piece, Sampling, Turn
from infra.voice.soak import Visit, check, outcome, soaking
from infra.voice.weights import Weights


def quiet(line: str) -> None: ...


def test_odd_requests_between_swaps_leave_every_place_free(
    weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "PARTS", 1)
    monkeypatch.setattr(soak, "WARM_ROUNDS", 0)
    monkeypatch.setattr(soak, "KINDS", {"short": 3, "schema": 1, "leaves": 2, "too long": 1})

    [row] = soaking(weights, tmp_path, requests=12, swaps=1, say=quiet)

    assert (row["requests"], row["swaps"], row["failed"], row["restarts"]) == (12, 1, 0, 0)
    assert min(row[outcome] for outcome in ("answered", "left", "refused")) > 0
    assert row["places free"] == "8 of 8"


class Says:
    """A voice that says one piece, or raises."""

    def __init__(self, what: Piece | UnderstudyError) -> None:
        self._what = what

    async def stream(
        self, turns: Sequence[Turn], sampling: Sampling, *, conversation: str = ""
    ) -> AsyncGenerator[Piece, None]:
        if isinstance(self._what, UnderstudyError):
            raise self._what
        yield self._what


@pytest.mark.parametrize("said", [ServiceTrouble("no room"), UserMistake("too long"), Piece("half an ans")])
def test_what_does_not_end_as_it_should_has_failed(said: Piece | UnderstudyError) -> None:
    visit = Visit("short", [Turn("user", "Name a bread.")], Sampling())

    assert asyncio.run(outcome(visit, Says(said))) == "failed"


@pytest.mark.parametrize(("requests", "swaps"), [(5, 10), (10, 1)])
def test_a_soak_of_nothing_is_refused(requests: int, swaps: int) -> None:
    with pytest.raises(UserMistake, match="at least 10 swaps"):
        check(requests, swaps)
