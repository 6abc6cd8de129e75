"""One answer or one run through all processes: its id in their logs, and OpenTelemetry's traces where they are wanted.

The only file that knows OpenTelemetry (extra `otel`), which is imported where `traces.url` names a receiver and not
else. Attributes are ids and numbers; of an exception its kind is told.
"""

import importlib.util
import logging
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from infra.logs import about, followed

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from infra.settings import Settings

# The header that names the answer a request is part of; an id, so that nobody can put words into our logs with it.
ANSWER = "x-understudy-answer"
ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# A receiver that is slower than this loses what it would have been sent.
SEND_S = 5.0
MISSING = "traces.url needs OpenTelemetry: pip install 'understudy[otel]'. No traces are sent."

log = logging.getLogger(__name__)
_tracer: "Tracer | None" = None


def installed() -> bool:
    """Whether what sends traces is there."""
    found = [importlib.util.find_spec("opentelemetry")]
    found += [importlib.util.find_spec(f"opentelemetry.{name}") for name in ("sdk", "exporter") if found[0]]
    return all(found)


def begin(settings: "Settings", part: str) -> None:
    """Send spans, as this part, to where the settings say; without the library, log that and go on."""
    global _tracer
    chosen = settings.traces
    if not chosen.url:
        return
    if not installed():
        log.warning(MISSING)
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    headers = {"Authorization": f"Bearer {chosen.token.get_secret_value()}"} if chosen.token else {}
    exporter = OTLPSpanExporter(f"{chosen.url.rstrip('/')}/v1/traces", headers=headers, timeout=SEND_S)
    # Ends by itself with the process, and sends what is left then.
    provider = TracerProvider(resource=Resource.create({"service.name": f"understudy-{part}"}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _tracer = provider.get_tracer("understudy")


@contextmanager
def span(name: str, **facts: Any) -> Iterator[None]:
    """What is done within, as a span of the one around it."""
    if _tracer is None:
        yield
        return
    from opentelemetry.trace import StatusCode

    # The library would keep the words of an exception.
    with _tracer.start_as_current_span(
        name, attributes=facts, record_exception=False, set_status_on_exception=False
    ) as running:
        try:
            yield
        except BaseException as error:
            running.set_status(StatusCode.ERROR)
            running.set_attribute("error.type", type(error).__name__)
            raise


def passed(name: str, seconds: float, *, ago_s: float = 0.0, **facts: Any) -> None:
    """A span of what took so long, and ended so long ago."""
    if _tracer is None:
        return
    ended = time.time_ns() - int(ago_s * 1e9)
    _tracer.start_span(name, start_time=ended - int(seconds * 1e9), attributes=facts).end(ended)


def parts(timings_ms: Mapping[str, float]) -> None:
    """Spans of what an answer took, one after the other until now. A data set recalls thousands of times without."""
    if _tracer is None or "answer" not in followed():
        return
    left = sum(timings_ms.values()) / 1000
    for name, took in timings_ms.items():
        left -= took / 1000
        passed(name, took / 1000, ago_s=left)


def passed_on() -> dict[str, str]:
    """The headers that let another process go on with what is done here."""
    headers = {ANSWER: followed()["answer"]} if "answer" in followed() else {}
    if _tracer is not None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        TraceContextTextMapPropagator().inject(headers)
    return headers


@contextmanager
def taken_up(headers: Mapping[str, str]) -> Iterator[None]:
    """Go on with what another process does, as its headers say (`passed_on`, lower case)."""
    identity = headers.get(ANSWER, "")
    with about(**({"answer": identity} if ID.fullmatch(identity) else {})):
        if _tracer is None or "traceparent" not in headers:
            yield
            return
        from opentelemetry import context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        token = context.attach(TraceContextTextMapPropagator().extract({"traceparent": headers["traceparent"]}))
        try:
            yield
        finally:
            context.detach(token)
