"""A voice that is somebody else's server: whatever it answers becomes words or a sentence of ours."""

import asyncio
from collections.abc import Iterator

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from infra.errors import Busy, ServiceTrouble, UnderstudyError, UserMistake
from infra.voice.chat import Piece, Sampling, Turn
from infra.voice.client import HttpVoice
from tests.infra.running import served

WORD = 'data: {"model": "theirs", "choices": [{"delta": {"content": "Warm."}, "finish_reason": null}]}'
END = 'data: {"model": "theirs", "choices": [{"delta": {}, "finish_reason": "stop"}]}'
USAGE = 'data: {"model": "theirs", "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}'
DONE = "data: [DONE]"


class Server:
    """Answers every completion with what it was told to, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answer: Response = Response()
        self.asked: dict[str, object] = {}
        self.url = ""

    def streams(self, *lines: str) -> None:
        self.answer = PlainTextResponse("".join(f"{line}\n\n" for line in lines), media_type="text/event-stream")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    app, found = FastAPI(), Server()

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> Response:
        found.asked = await request.json()
        return found.answer

    with served(app) as found.url:
        yield found


def heard(server: Server) -> list[Piece]:
    async def listen() -> list[Piece]:
        voice = HttpVoice(server.url, model="theirs")
        return [piece async for piece in voice.stream([Turn("user", "How warm?")], Sampling(), conversation="c")]

    return asyncio.run(listen())


def test_its_words_and_its_figures_arrive(server: Server) -> None:
    server.streams(": a comment", WORD, WORD, END, USAGE, DONE)

    *words, last = heard(server)

    assert [piece.text for piece in words] == ["Warm.", "Warm."]
    assert last.finish is not None
    assert (last.finish.voice, last.finish.prompt_tokens, last.finish.reason) == ("theirs", 5, "stop")
    assert (server.asked["user"], server.asked["messages"]) == ("c", [{"role": "user", "content": "How warm?"}])


def test_a_server_that_tells_no_usage_is_heard_too(server: Server) -> None:
    server.streams(WORD, END)

    assert [piece.text for piece in heard(server)] == ["Warm.", ""]


@pytest.mark.parametrize(
    "lines",
    [
        (WORD, 'data: {"error": {"message": "out of memory"}}'),
        (WORD, 'data: {"error": "out of memory"}'),
        (WORD, "data: {not json"),
        (WORD, "data: []"),
        (WORD, 'data: {"choices": ["Warm."]}'),
        (WORD, USAGE),
        (WORD,),
        (USAGE,),
        (),
    ],
)
def test_a_stream_that_goes_wrong_is_a_trouble(server: Server, lines: tuple[str, ...]) -> None:
    server.streams(*lines)

    with pytest.raises(ServiceTrouble):
        heard(server)


@pytest.mark.parametrize(
    ("status", "headers", "error"),
    [
        (429, {"Retry-After": "7"}, Busy),
        (429, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, Busy),
        (400, {}, UserMistake),
        (500, {}, ServiceTrouble),
    ],
)
def test_a_refusal_becomes_ours(
    server: Server, status: int, headers: dict[str, str], error: type[UnderstudyError]
) -> None:
    server.answer = JSONResponse({"error": {"message": "Not now."}}, status, headers)

    with pytest.raises(error, match="Not now") as raised:
        heard(server)

    if isinstance(raised.value, Busy):
        assert raised.value.retry_after_s == (7 if headers["Retry-After"] == "7" else 2)


def test_a_refusal_without_words_says_its_status(server: Server) -> None:
    server.answer = PlainTextResponse("<html>Bad Gateway</html>", 502)

    with pytest.raises(ServiceTrouble, match="502"):
        heard(server)
