"""A voice that is somebody else's server: whatever it answers becomes words or a sentence of ours."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from infra.errors import Busy, ServiceTrouble, UnderstudyError, UserMistake
from infra.remote import Remote
from infra.voice import client
from infra.voice.chat import Audience, Piece, Sampling, Turn, Voice
from infra.voice.client import HttpVoice, MovingVoice
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
        self.times = 0

    def streams(self, *lines: str) -> None:
        self.answer = PlainTextResponse("".join(f"{line}\n\n" for line in lines), media_type="text/event-stream")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    app, found = FastAPI(), Server()

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> Response:
        found.asked = await request.json()
        found.times += 1
        return found.answer

    with served(app) as found.url:
        yield found


ASKED = [Turn("user", "How warm?")]


def heard(server: Server) -> list[Piece]:
    async def listen() -> list[Piece]:
        voice = HttpVoice(server.url, model="theirs")
        return [piece async for piece in voice.stream(ASKED, Sampling(timeout_s=9), conversation="c")]

    return asyncio.run(listen())


def test_its_words_and_its_figures_arrive(server: Server) -> None:
    server.streams(": a comment", WORD, WORD, END, USAGE, DONE)

    *words, last = heard(server)

    assert words == [Piece("Warm.", voice="theirs")] * 2
    assert last.finish is not None
    assert (last.finish.voice, last.finish.prompt_tokens, last.finish.reason) == ("theirs", 5, "stop")
    assert server.asked["timeout"] == 9
    assert (server.asked["user"], server.asked["messages"]) == ("c", [{"role": "user", "content": "How warm?"}])


def test_only_a_twin_of_ours_is_told_for_whom_it_speaks(server: Server) -> None:
    def told(voice: Voice) -> object:
        async def listen() -> None:
            audience = Audience("discord:1", "zh-CN")
            assert [piece async for piece in voice.stream(ASKED, Sampling(), audience=audience)]

        asyncio.run(listen())
        return server.asked.get("metadata")

    server.streams(WORD, END, DONE)

    assert told(HttpVoice(server.url, model="theirs")) is None
    ours = MovingVoice(lambda: Remote(server.url, None), model="ours")
    assert told(ours) == {"community": "discord:1", "language": "zh-CN"}


def test_who_failed_arrives_with_the_failure(server: Server) -> None:
    error = {"error": {"message": "no room", "voice": "theirs+v1"}}
    for answer in (JSONResponse(error, status_code=503), f"data: {json.dumps(error)}"):
        server.streams(answer) if isinstance(answer, str) else setattr(server, "answer", answer)
        with pytest.raises(ServiceTrouble, match="no room") as failed:
            heard(server)
        assert failed.value.voice == "theirs+v1"


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
        assert raised.value.retry_after_s == (7 if headers["Retry-After"] == "7" else 0), "that day is over"


def test_a_refusal_without_words_says_its_status(server: Server) -> None:
    server.answer = PlainTextResponse("<html>Bad Gateway</html>", 502)

    with pytest.raises(ServiceTrouble, match="502"):
        heard(server)


def moved(*places: str | None) -> list[Piece]:
    """What is heard of a voice that is at each place for one look, and then stays at the last."""
    left = list(places)

    def find() -> Remote | None:
        url = left.pop(0) if len(left) > 1 else left[0]
        return Remote(url, None) if url else None

    async def listen() -> list[Piece]:
        return [piece async for piece in MovingVoice(find, model="theirs").stream(ASKED, Sampling())]

    return asyncio.run(listen())


NOWHERE = "http://127.0.0.1:9"


def test_a_voice_that_is_gone_is_asked_again_where_it_comes_back(server: Server) -> None:
    server.streams(WORD, END)

    assert [piece.text for piece in moved(None, NOWHERE, server.url)] == ["Warm.", ""]


def test_a_voice_that_stays_away_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "BACK_S", 0.1)

    with pytest.raises(ServiceTrouble, match="understudy up"):
        moved(None)


@pytest.mark.parametrize("status", [400, 429, 503])
def test_a_voice_that_answers_is_asked_once_whatever_it_says(server: Server, status: int) -> None:
    server.answer, server.times = JSONResponse({"error": {"message": "Not now."}}, status), 0

    with pytest.raises(UnderstudyError, match="Not now"):
        moved(server.url)
    assert server.times == 1


def test_a_voice_that_goes_amid_its_words_is_not_asked_again(server: Server) -> None:
    async def torn() -> AsyncIterator[str]:
        yield f"{WORD}\n\n"
        raise ConnectionResetError

    server.answer, server.times = StreamingResponse(torn(), media_type="text/event-stream"), 0

    with pytest.raises(ServiceTrouble, match="broke off"):
        moved(server.url)
    assert server.times == 1
