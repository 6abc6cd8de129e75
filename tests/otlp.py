"""A receiver of OpenTelemetry's traces on loopback, as a collector is one: OTLP over HTTP, in protobuf."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True)
class Span:
    """One that arrived. `part` is who sent it."""

    part: str
    name: str
    trace: bytes
    id: bytes
    parent: bytes
    seconds: float
    facts: dict[str, Any]
    failed: bool


@dataclass
class Receiver:
    """What has arrived, decoded and as bytes."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    raw: bytes = b""
    authorizations: set[str | None] = field(default_factory=set)

    def take(self, body: bytes, authorization: str | None) -> None:
        self.raw += body
        self.authorizations.add(authorization)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            named = {each.key: each.value.string_value for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [span_of(each, named["service.name"].removeprefix("understudy-")) for each in scope.spans]

    def below(self, parent: Span) -> list[Span]:
        """The spans right below one, as they began."""
        return [each for each in self.spans if each.parent == parent.id]


def span_of(each: Any, part: str) -> Span:
    facts = {fact.key: getattr(fact.value, fact.value.WhichOneof("value")) for fact in each.attributes}
    seconds = (each.end_time_unix_nano - each.start_time_unix_nano) / 1e9
    return Span(
        part, each.name, each.trace_id, each.span_id, each.parent_span_id, seconds, facts, failed=each.status.code == 2
    )


@contextmanager
def receiver() -> Iterator[Receiver]:
    """One that listens until the end of the block."""
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            found.take(self.rfile.read(int(self.headers["Content-Length"])), self.headers["Authorization"])
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
