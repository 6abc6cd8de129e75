"""What a Qdrant server is asked, and what becomes of its failures. No server is to be had here: this one only answers."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from infra.errors import ServiceTrouble
from memory.terms import Sparse
from memory.vectors import Scope, ServerStore, Vector

ANSWERS: dict[tuple[str, str], Any] = {
    ("GET", ""): {"title": "qdrant", "version": "1.20.0"},
    ("GET", "exists"): {"result": {"exists": False}},
    ("PUT", "index"): {"result": {"operation_id": 0, "status": "completed"}},
}
NAME = "understudy_x_3_v3"
# The client asks a server that fails for its version, too, in a thread.
pytestmark = pytest.mark.filterwarnings("ignore:Failed to obtain server version")


class Server(ThreadingHTTPServer):
    """Says yes to whatever it is asked, and remembers it; `broken` is what it says instead, with its status."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str, Any]] = []
        self.broken: tuple[int, bytes] | None = None


class Handler(BaseHTTPRequestHandler):
    server: Server

    def answer(self) -> None:
        path = self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.asked.append((self.command, path, json.loads(body or b"null")))
        said = ANSWERS.get((self.command, path.rpartition("/")[2]), {"result": True})
        status, content = self.server.broken or (200, json.dumps({"status": "ok", "time": 0.0, **said}).encode())
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = answer

    def log_message(self, *_: Any) -> None:
        """Nothing: tests are quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def store(server: Server, **spread: int) -> ServerStore:
    return ServerStore(f"http://127.0.0.1:{server.server_address[1]}", **spread)


def test_a_collection_is_spread_over_a_cluster_as_the_settings_say(server: Server) -> None:
    store(server, shards=6, replicas=3).open(NAME, 3)

    made = next(body for command, path, body in server.asked if (command, path) == ("PUT", f"/collections/{NAME}"))
    assert (made["shard_number"], made["replication_factor"], made["write_consistency_factor"]) == (6, 3, 2)
    assert (made["hnsw_config"]["m"], made["hnsw_config"]["payload_m"]) == (0, 16)
    fields = [body for _, path, body in server.asked if path.endswith("/index")]
    assert [each["field_name"] for each in fields if each["field_schema"].get("is_tenant")] == ["community"]


@pytest.mark.parametrize("broken", [(500, b'{"status":{"error":"disk full"}}'), (200, b"<html>"), (401, b""), None])
def test_what_goes_wrong_with_it_is_trouble_in_words(server: Server, broken: tuple[int, bytes] | None) -> None:
    """So the twin says that its memory does not answer, and asks the creator, instead of failing itself."""
    opened = store(server).open(NAME, 3)
    if broken is None:
        server.server_close()
    server.broken = broken or (503, b"")
    vector = np.zeros(3, dtype=np.float32)
    scope = Scope("main", ("public",))
    for ask in (
        lambda: opened.dense(vector, scope, 3),
        lambda: opened.sparse(Sparse((1,), (1.0,)), scope, 3),
        lambda: opened.upsert([Vector("0" * 32, "exchange", "main", "public", vector, Sparse((), ()))]),
        lambda: opened.delete(["0" * 32]),
        opened.count,
        lambda: store(server).open(NAME, 3),
    ):
        with pytest.raises(ServiceTrouble, match="^The Qdrant server does not answer as one: .") as trouble:
            ask()
        assert "\n" not in str(trouble.value)
