"""What Prometheus reads at /metrics: both loops by stage, in counts and seconds, never a name or a word of anybody.

Answers, votes and lessons are followed in the journal from the moment that this process began, whichever process wrote
them; how things stand is looked up at each reading. A slow answer is named by its id, as an exemplar.
"""

import shutil
import threading
import time
from collections import OrderedDict
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
from memory.messages import Event, Kind

# Seconds: a search takes milliseconds, the first words of an answer a second, a whole one on a CPU many.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
# A stage of a training takes seconds on a small community's answers, and hours on a large one's.
LONG_BUCKETS = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600)
# How long it is not counted again how much there is: a database that has a million events reads them all for that.
COUNTED_S = 300.0
# Answers that may still be on their way to those who asked.
UNDELIVERED = 1024


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
            "What an answer took: journal, recall and its parts, queue, first_token, total, deliver.",
            ["stage"],
            buckets=BUCKETS,
            registry=registry,
        )
        self._stages = Histogram(
            "understudy_run_stage_seconds",
            "What the stages of trainings took that ended.",
            ["stage"],
            buckets=LONG_BUCKETS,
            registry=registry,
        )
        self._undelivered: OrderedDict[tuple[str, str, str], tuple[str, datetime]] = OrderedDict()
        self._runs = Runs(journal.engine)
        self._ended = {run.id for run in self._runs.recent() if not run.active}

    def follow(self) -> None:
        """Count what is new. Only what the twin itself said is read; of the rest, an import may be a million lines."""
        with self._reading:
            last = self._journal.last()
            for kind, platform, count in self._journal.tallied(after=self._last, until=last):
                self._events.labels(kind, platform).inc(count)
            while batch := self._journal.spoken(after=self._last, until=last):
                for _, event in batch:
                    self._count(event)
                self._last = batch[-1][0]
            self._last = last
            self._follow_runs()

    def _count(self, event: Event) -> None:
        if event.kind is not Kind.ANSWER:
            self._deliver(event)
            return
        answer = event.payload["answer"]
        self._answers.labels(answer["outcome"], event.platform).inc()
        for stage, took in answer["timings_ms"].items():
            self._seconds.labels(stage).observe(took / 1000, exemplar={"answer": answer["id"]})
        asked = event.platform, event.payload["place"]["id"], answer["question_id"]
        self._undelivered[asked] = (answer["id"], event.at)
        if len(self._undelivered) > UNDELIVERED:
            self._undelivered.popitem(last=False)

    def _deliver(self, shown: Event) -> None:
        """The first message that shows an answer, which is journalled when it is there."""
        found = self._undelivered.pop((shown.platform, shown.place, str(shown.payload.get("reply_to"))), None)
        if found is not None:
            answer, journalled = found
            took = (shown.at - journalled).total_seconds()
            self._seconds.labels("deliver").observe(max(0.0, took), exemplar={"answer": answer})

    def _follow_runs(self) -> None:
        """The stages of trainings that ended."""
        for run in self._runs.recent():
            if run.active or run.id in self._ended:
                continue
            self._ended.add(run.id)
            for stage, seconds in run.stages.items():
                self._stages.labels(stage).observe(seconds, exemplar={"run": run.id})


class Standing(Collector):
    """How things stand: memory, inbox, index, runs, the parts and the disk."""

    def __init__(self, settings: Settings, journal: Journal) -> None:
        self._settings, self._journal, self._runs = settings, journal, Runs(journal.engine)
        self._counted: dict[str, int] = {}
        self._counted_at = 0.0

    def collect(self) -> Iterator[Metric]:
        waiting = self._journal.waiting()
        yield gauge("understudy_inbox_open", "Questions that wait for the creator.", waiting["waiting questions"])
        yield gauge("understudy_outbox", "Changes that the index has yet to take up.", waiting["outbox"])
        yield labelled(
            "understudy_memory", "How much there is of what, counted every five minutes.", "kind", self._sizes()
        )
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

    def _sizes(self) -> dict[str, int]:
        if not self._counted or time.monotonic() - self._counted_at > COUNTED_S:
            self._counted, self._counted_at = self._journal.sizes(), time.monotonic()
        return self._counted

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
