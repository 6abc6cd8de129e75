"""What Prometheus reads at /metrics: both loops by stage, in counts and seconds, never a name or a word of anybody.

Answers, votes and lessons are followed in the journal from the moment that this process began, whichever process wrote
them; how things stand is looked up at each reading. A slow answer is named by its id, as an exemplar.
"""

import shutil
import threading
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from infra.health import silences
from infra.runs import Runs
from infra.settings import Settings
from infra.voice.api import Speakers
from memory.journal import Journal
from memory.messages import Kind

# Seconds: a search takes milliseconds, the first words of an answer a second, a whole one on a CPU many.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Followed:
    """Counts of what the journal took up since this began."""

    def __init__(self, journal: Journal, registry: CollectorRegistry) -> None:
        self._journal, self._last, self._reading = journal, journal.last(), threading.Lock()
        self._events = Counter(
            "understudy_events", "What happened, by kind and platform.", ["kind", "platform"], registry=registry
        )
        self._answers = Counter(
            "understudy_answers",
            "Answers: answered, abstained (to the inbox), declined by policy, or failed.",
            ["outcome", "platform"],
            registry=registry,
        )
        self._seconds = Histogram(
            "understudy_answer_seconds",
            "What an answer took: recall, queue, first_token, total.",
            ["stage"],
            buckets=BUCKETS,
            registry=registry,
        )

    def follow(self) -> None:
        """Count what is new."""
        with self._reading:
            while batch := self._journal.events(after=self._last):
                for _, event in batch:
                    self._events.labels(str(event.kind), event.platform).inc()
                    if event.kind is Kind.ANSWER:
                        self._count(event.payload["answer"], event.platform)
                self._last = batch[-1][0]

    def _count(self, answer: Any, platform: str) -> None:
        self._answers.labels(answer["outcome"], platform).inc()
        for stage, took in answer["timings_ms"].items():
            self._seconds.labels(stage).observe(took / 1000, exemplar={"answer": answer["id"]})


class Standing(Collector):
    """How things stand: memory, inbox, index, runs, the parts and the disk."""

    def __init__(self, settings: Settings, journal: Journal) -> None:
        self._settings, self._journal, self._runs = settings, journal, Runs(journal.engine)

    def collect(self) -> Iterator[Metric]:
        counts = self._journal.counts()
        yield gauge("understudy_inbox_open", "Questions that wait for the creator.", counts.pop("waiting questions"))
        yield gauge("understudy_outbox", "Changes that the index has yet to take up.", counts.pop("outbox"))
        yield labelled("understudy_memory", "How much there is of what.", "kind", counts)
        yield labelled("understudy_runs", "Trainings by state.", "state", self._runs.states())
        ended = {run.state: datetime.fromisoformat(run.ended).timestamp() for run in reversed(self._ended())}
        yield labelled("understudy_run_ended_timestamp_seconds", "When the last one ended so.", "state", ended)
        silent = GaugeMetricFamily(
            "understudy_part_silent_seconds", "Since a part's last sign of life.", labels=["part", "host"]
        )
        for part, host, seconds in silences(self._settings):
            silent.add_metric([part, host], seconds)
        yield silent
        free = shutil.disk_usage(self._settings.data_folder).free
        yield gauge("understudy_disk_free_bytes", "Room where the data folder is.", free)

    def _ended(self) -> list[Any]:
        return [run for run in self._runs.recent() if run.ended]


class Speaking(Collector):
    """The voice, or all voice servers together."""

    def __init__(self, voices: Speakers) -> None:
        self._voices = voices

    def collect(self) -> Iterator[Metric]:
        found = self._voices.ready()
        yield gauge("understudy_voice_ready", "Whether anybody can be answered.", found["status"] == "ready")
        yield gauge("understudy_voice_running", "Answers under way.", found["running"])
        yield gauge("understudy_voice_waiting", "Requests that wait for their turn.", found["waiting"])
        yield gauge("understudy_voice_restarts", "How often it went on after a crash.", found.get("restarts", 0))
        yield labelled("understudy_voice_info", "Which voice speaks.", "voice", {found["voice"]: 1})


def gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(name, what, value=float(value))


def labelled(name: str, what: str, label: str, values: dict[str, Any]) -> Metric:
    family = GaugeMetricFamily(name, what, labels=[label])
    for key, value in values.items():
        family.add_metric([key], float(value))
    return family


def metrics_route(settings: Settings, *, journal: Journal | None, voices: Speakers | None) -> APIRouter:
    """GET /metrics, in the format that is asked for; behind the API's token where that has one."""
    registry, routes = CollectorRegistry(), APIRouter()
    followed = Followed(journal, registry) if journal is not None else None
    if journal is not None:
        registry.register(Standing(settings, journal))
    if voices is not None:
        registry.register(Speaking(voices))

    @routes.get("/metrics")
    def metrics(request: Request) -> Response:
        if followed is not None:
            followed.follow()
        encode, kind = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), media_type=kind)

    return routes
