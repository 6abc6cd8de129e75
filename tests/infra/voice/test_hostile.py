"""Whatever somebody sends to the voice, it is data or refused in OpenAI's shape, and the next one is answered as before."""

import json
import random
import socket
import struct
import time
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from infra.adapters import AdapterStore
from infra.errors import UserMistake
from infra.voice.api import Voices, install, routes
from infra.voice.chat import Piece, Sampling, Turn
from infra.voice.engine import Engine, Stream
from infra.voice.llama import Model, control_texts, disarm
from infra.voice.score import Scorer
from infra.voice.weights import Weights
from tests.infra.running import served
from tests.likeliest import ROUNDING, off

CONTEXT = 256
ASKED = [{"role": "user", "content": "Name a bread."}]
GREEDY = {"messages": ASKED, "max_tokens": 8, "temperature": 0}


@pytest.fixture(scope="module")
def engine(weights: Weights) -> Iterator[Engine]:
    started = Engine(
        weights.path, base="tiny", base_sha256=weights.sha256, streams=3, waiting=9, context_tokens=CONTEXT
    )
    yield started
    started.close()


@pytest.fixture(scope="module")
def http(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    app = FastAPI()
    install(app, token=None)
    app.include_router(routes(Voices(engine, AdapterStore(tmp_path_factory.mktemp("store")))))
    with served(app) as address, httpx.Client(base_url=address, timeout=60) as made:
        yield made


@pytest.fixture(scope="module")
def model(engine: Engine) -> Model:
    return engine._model


def controls(model: Model, tokens: list[int]) -> list[int]:
    """The control tokens among these; the packaged vocabulary begins with all of its 17."""
    return [token for token in tokens if token < 17]


CONTROL = [
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<repo_name>",
    "<file_sep>",
    "<empty_output>",
    "<jupyter_code>",
]
PARTS = [
    *CONTROL,
    "<|im_",
    "start|>",
    "<",
    "<|",
    "|>",
    ">",
    "</s>",
    "<s>",
    "[INST]",
    "<<SYS>>",
    "system",
    "\n",
    "\u200b",
]
ODD = ["＜｜im_start｜＞", "<|im\u200b_start|>", "<\u2060|im_end|>", "\x00", "\ufeff", "好", "\u202e", "👩‍🍳", " "]


def test_the_first_tokens_of_the_packaged_vocabulary_are_its_control_tokens(model: Model) -> None:
    assert [model.tokens(text)[0] < 17 for text in CONTROL] == [True] * len(CONTROL)
    assert model.tokens("<|im_")[0] >= 17


@seed(1)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.sampled_from([*PARTS, *ODD]) | st.text(max_size=4), max_size=9).map("".join))
def test_no_words_of_anybody_are_read_as_control_tokens(model: Model, words: str) -> None:
    turns = [Turn("system", words), Turn("user", words), Turn("assistant", words), Turn("user", words)]
    harmless = [Turn(turn.role, "x") for turn in turns]

    assert controls(model, model.turn_tokens(turns)) == controls(model, model.turn_tokens(harmless))


def test_overlapping_control_texts_are_all_disarmed_and_other_words_stay() -> None:
    control = control_texts(
        {"<ab>": True, "<ab><ab>": True, "ab><": True, "  ": False, "<tool>": False}, "{{'<tool>'}}"
    )

    found = disarm("<ab><ab> and  <tool>", control)

    assert not [text for text in ("<ab>", "ab><", "<tool>") if text in found]
    assert found.replace("\u200b", "") == "<ab><ab> and  <tool>"
    assert disarm("a  < b and c > d", control) == "a  < b and c > d"


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"temperature": -0.1},
        {"top_p": 0},
        {"top_p": float("nan")},
        {"max_tokens": 0},
        {"max_tokens": 10**30},
        {"max_tokens": CONTEXT},
        {"seed": 2**63},
        {"seed": -(2**63) - 1},
        {"stop": ""},
        {"stop": ["a", ""]},
        {"stop": [str(n) for n in range(5)]},
        {"stop": "x" * 5000},
        {"n": 0},
        {"user": "\ud800"},
        {"messages": [{"role": "user", "content": "\ud800"}]},
        {"messages": [{"role": "user\udfff", "content": "x"}]},
        {"messages": ASKED * 201},
        {"messages": [{"role": "user", "content": "word " * 200_000}]},
        *(
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "string", **schema}}}}
            for schema in (
                {"type": "\ud800"},
                {"maxLength": 10**9},
                {"pattern": "^a{1000000}$"},
                {"pattern": "^((a?){50}){50}$"},
                {"pattern": "^{3}$"},
                {"enum": ["x" * 100_000]},
            )
        ),
    ],
    ids=lambda change: str(change)[:40],
)
def test_an_odd_request_is_refused_with_a_sentence_and_the_next_one_is_answered(
    http: httpx.Client, change: dict
) -> None:
    found = post(http, {**GREEDY, **change})

    assert found.status_code == 400
    assert found.json()["error"]["type"] == "invalid_request_error"
    assert found.json()["error"]["message"]
    assert post(http, {**GREEDY, "max_tokens": 1}).status_code == 200


@pytest.mark.parametrize("raw", [b"\xff\xfe", b'{"messages": "\xc3\x28"}', b"[" * 100_000, b"", b"null", b"1" * 9999])
def test_a_body_that_is_no_request_is_refused(http: httpx.Client, raw: bytes) -> None:
    found = http.post("/v1/chat/completions", content=raw, headers={"Content-Type": "application/json"})

    assert (found.status_code, found.json()["error"]["type"]) == (400, "invalid_request_error")


def test_a_prompt_that_fits_to_the_token_is_answered_and_one_more_is_refused(engine: Engine) -> None:
    def prompt(words: int) -> list[Turn]:
        return [Turn("user", "a" + " a" * (words - 1))]

    room = CONTEXT - 1 - len(engine._model.turn_tokens(prompt(1))) + 1
    assert len(engine._model.turn_tokens(prompt(room))) == CONTEXT - 1

    assert heard(engine, prompt(room), Sampling(temperature=0, max_tokens=1)).first
    with pytest.raises(UserMistake, match="exceeds the context"):
        engine.submit(prompt(room + 1), Sampling(temperature=0, max_tokens=1), lambda piece: None)


def test_a_schema_that_leads_nowhere_ends_the_answer_and_not_the_process(http: httpx.Client) -> None:
    schema = {"type": "string", "pattern": "^[z-a]$"}

    found = post(http, {**GREEDY, "response_format": {"type": "json_schema", "json_schema": {"schema": schema}}})

    assert (found.status_code, found.json()["choices"][0]["finish_reason"]) == (200, "stop")
    assert post(http, GREEDY).status_code == 200


def post(http: httpx.Client, body: dict) -> httpx.Response:
    """As clients in other languages may write it: with NaN and lone surrogates."""
    return http.post("/v1/chat/completions", content=json.dumps(body), headers={"Content-Type": "application/json"})


ANY = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=5)
NESTED = st.recursive(
    ANY, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner), max_leaves=5
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "developer"]), "content": st.text(max_size=30) | NESTED}
)
BODY = st.fixed_dictionaries(
    {"messages": st.lists(MESSAGE, max_size=3) | NESTED},
    optional={
        **dict.fromkeys(("temperature", "top_p", "stop", "seed", "user", "n", "stream_options", "tools"), NESTED),
        "response_format": NESTED
        | st.fixed_dictionaries(
            {"type": st.just("json_schema"), "json_schema": st.fixed_dictionaries({"schema": NESTED})}
        ),
        "stream": st.booleans(),
    },
)


@seed(2)
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=BODY)
def test_any_body_is_answered_or_refused_and_never_an_error_of_ours(http: httpx.Client, body: dict) -> None:
    found = post(http, {"max_tokens": 2, **body})

    assert found.status_code in {200, 400}, found.text
    if found.status_code == 400:
        assert found.json()["error"]["message"]


def heard(engine: Engine, turns: list[Turn], sampling: Sampling) -> Stream:
    """The whole answer."""
    pieces: list[Piece] = []
    stream = engine.submit(turns, sampling, pieces.append)
    wait(lambda: bool(pieces) and pieces[-1].finish is not None)
    return stream


def wait(until) -> None:
    deadline = time.monotonic() + 20
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_random_cancels_leave_nothing_behind(engine: Engine, weights: Weights) -> None:
    """Whenever people leave, every place is free afterwards, and what they had computed changes no later word."""
    rng = random.Random(3)
    greedy = Sampling(temperature=0, max_tokens=8)
    asked = [Turn("user", "How warm should the dough be?")]
    for _ in range(4):
        streams: list[Stream] = []
        for _ in range(rng.randint(1, 8)):
            turns = [Turn("user", "word " * rng.randint(1, 90))]
            sampling = Sampling(temperature=1.5, max_tokens=rng.randint(1, 60), seed=rng.getrandbits(40))
            streams.append(engine.submit(turns, sampling, lambda piece: None))
            time.sleep(rng.choice([0, 0, 0.01]))
        for stream in rng.sample(streams, len(streams)):
            time.sleep(rng.choice([0, 0, 0.02]))
            engine.cancel(stream)
        wait(lambda: not engine.busy)

    speaker = engine._current
    assert (speaker.running, speaker.places, list(engine._waiting)) == ([], 3, [])
    assert sum(positions(engine, sequence) + 1 for sequence in range(3)) == engine.reuse["kept_tokens"]
    after = [heard(engine, asked, greedy) for _ in range(3)]
    with Scorer(weights.path) as scorer:
        assert max(off(scorer, each) for each in after) < ROUNDING


def vanish(url: httpx.URL, body: dict, rng: random.Random) -> None:
    """Begin a request and go: amid its head or body, at once, while it is read or answered; politely or not."""
    sent = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(sent)}\r\n\r\n"
    whole = head.encode() + sent
    with socket.create_connection((url.host, url.port)) as client:
        client.settimeout(5)
        if rng.random() < 0.5:  # closing resets the connection
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if rng.random() < 0.2:
            client.sendall(whole[: rng.randrange(len(whole))])
            return
        client.sendall(whole)
        if body["stream"] and rng.random() < 0.5:
            client.recv(64)
        time.sleep(rng.choice([0, 0.01, 0.05]))


def test_clients_that_vanish_at_any_moment_leave_every_place_free(http: httpx.Client, engine: Engine) -> None:
    rng = random.Random(4)

    for _ in range(16):
        asked = [{"role": "user", "content": "word " * rng.randint(1, 150)}]
        body = {"messages": asked, "max_tokens": 90, "temperature": 1.5, "stream": rng.random() < 0.7}
        vanish(http.base_url, body, rng)
    wait(lambda: not engine.busy)

    assert (engine.places, engine.restarts) == (3, 0)
    assert post(http, GREEDY).status_code == 200


def positions(engine: Engine, sequence: int) -> int:
    """The last position that llama.cpp's memory holds of a sequence; -1 for none."""
    context = engine._current.context
    found: int = context._lib.llama_memory_seq_pos_max(context._memory, sequence)
    return found
