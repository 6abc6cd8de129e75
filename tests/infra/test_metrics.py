"""What Prometheus reads: true, of both loops, without a word or a name; and alerts and dashboard that ask for what is there."""

import json
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import promql_parser
import pytest
import yaml
from fastapi import FastAPI
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from infra.cli.status import overview
from infra.desk.metrics import metrics_route
from infra.health import sign, sign_file
from infra.runs import Runs
from infra.settings import Settings, load_settings
from memory.journal import Journal
from memory.messages import Answer, Message, Person, Source
from memory.remember import answer_event, exchange_event, message_event, remember
from tests.infra.running import served, understudy
from tests.memory.making import GROUP, said, taught
from tests.people import BOB, CREATOR, NOON

GRAFANA = Path(__file__).parents[2] / "infra" / "grafana"
OPEN_METRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


class Speaking:
    """A voice that says how it is."""

    def ready(self) -> dict[str, object]:
        return {"status": "ready", "voice": "tiny+v1", "running": 2, "waiting": 1, "restarts": 0}


@pytest.fixture
def settings(home: Path) -> Settings:
    settings = load_settings(home)
    settings.data_folder.mkdir()
    return settings


@pytest.fixture
def journal(settings: Settings):
    journal = Journal.open(settings.journal_url)
    remember(journal, [exchange_event(taught("Before?", "Aye."))], creator=CREATOR)
    yield journal
    journal.close()


@pytest.fixture
def metrics(settings: Settings, journal: Journal):
    """A function that reads all samples as {name: {labels: value}} and the text itself."""
    app = FastAPI()
    app.include_router(metrics_route(settings, journal=journal, voices=Speaking()))
    with served(app) as url:

        def read() -> tuple[dict[str, dict[str, float]], str]:
            text = httpx.get(f"{url}/metrics", headers=OPEN_METRICS).text
            found: dict[str, dict[str, float]] = {}
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    labels = ",".join(sample.labels[name] for name in sorted(sample.labels))
                    found.setdefault(sample.name, {})[labels] = sample.value
            return found, text

        yield read


def answered(journal: Journal, number: int, outcome: str, **timings: float) -> Answer:
    """Something that Bob asked, and what came of it."""
    message = said(str(number), BOB, f"A secret question of Bob's, {number}?")
    answer = Answer(f"a-{number}", message.id, "A secret answer.", outcome, "", (), "tiny+v1", "", timings)  # type: ignore[arg-type]
    remember(
        journal,
        [message_event(message, Source.TELEGRAM_DIRECT), answer_event(answer, message, at=NOON)],
        creator=CREATOR,
    )
    return answer


def test_answers_of_any_process_are_counted_once_with_what_they_took(metrics, journal: Journal) -> None:
    before, _ = metrics()
    answered(journal, 1, "answered", recall=4.0, queue=0.0, first_token=900.0, total=3000.0)
    answered(journal, 2, "answered", recall=6.0, queue=0.0, first_token=40_000.0, total=50_000.0)
    answered(journal, 3, "failed")

    for _ in range(2):
        found, text = metrics()
        assert found["understudy_answers_total"] == {"answered,telegram": 2, "failed,telegram": 1}
        assert found["understudy_answer_seconds_count"]["first_token"] == 2
        assert found["understudy_answer_seconds_sum"]["first_token"] == pytest.approx(40.9)
    assert "understudy_answers_total" not in before  # what was there before is not counted again
    assert '# {answer="a-2"} 40.0' in text  # the slow one, by its id


def test_what_was_shown_is_counted_with_how_long_that_took(metrics, journal: Journal) -> None:
    metrics()
    answer = answered(journal, 1, "answered", recall=4.0)
    twin = Person("telegram", "twin", role="twin")
    for number, seconds in (("s-1", 2), ("s-2", 9)):  # the second part of it
        shown = Message(number, twin, GROUP, NOON + timedelta(seconds=seconds), "A secret answer.", reply_to="1")
        remember(journal, [message_event(shown, Source.TWIN)], creator=CREATOR)

    found, text = metrics()

    assert found["understudy_answer_seconds_count"] == {"recall": 1, "deliver": 1}
    assert found["understudy_answer_seconds_sum"]["deliver"] == 2
    assert f'# {{answer="{answer.id}"}} 2.0' in text


def test_the_stages_of_a_training_are_counted_when_it_ends(metrics, journal: Journal) -> None:
    runs = Runs(journal.engine)
    run = runs.claim(runs.create("retrain", "k", options={}, now=NOON)[0].id, "w", now=NOON)
    assert run is not None
    for stage, seconds in (("harvest", 2.0), ("lora", 400.0), ("lora", 200.0)):  # taken up again
        runs.took(run, stage, seconds)
    assert "understudy_run_stage_seconds_count" not in metrics()[0]
    runs.finish(run, "succeeded", now=NOON)

    for _ in range(2):
        found, text = metrics()
        assert found["understudy_run_stage_seconds_sum"] == {"harvest": 2, "lora": 600}
    assert f'# {{run="{run.id}"}} 600.0' in text


def test_how_much_there_is_is_not_counted_at_each_reading(metrics, journal: Journal, monkeypatch) -> None:
    assert metrics()[0]["understudy_memory"]["exchanges"] == 1
    remember(journal, [exchange_event(taught("After?", "Aye."))], creator=CREATOR)
    found, _ = metrics()
    assert (found["understudy_memory"]["exchanges"], found["understudy_outbox"][""]) == (1, 2)
    monkeypatch.setattr("infra.desk.metrics.COUNTED_S", 0.0)
    assert metrics()[0]["understudy_memory"]["exchanges"] == 2


def test_how_things_stand_is_told(metrics, settings: Settings, journal: Journal) -> None:
    runs = Runs(journal.engine)
    run = runs.claim(runs.create("retrain", "k", options={}, now=NOON)[0].id, "w", now=NOON)
    assert run is not None
    runs.finish(run, "succeeded", now=NOON)
    sign(settings, "worker")

    found, _ = metrics()

    assert found["understudy_memory"]["exchanges"] == 1
    assert found["understudy_outbox"][""] == 1
    assert found["understudy_runs"]["succeeded"] == 1
    assert found["understudy_runs"]["failed"] == 0
    assert found["understudy_run_ended_timestamp_seconds"]["succeeded"] == NOON.timestamp()
    assert found["understudy_voice_ready"][""] == 1
    assert found["understudy_voice_info"] == {"tiny+v1": 1}
    [silent] = found["understudy_part_silent_seconds"].values()
    assert 0 <= silent < 60
    assert found["understudy_disk_free_bytes"][""] > 0


def test_no_word_and_no_name_is_in_them(metrics, journal: Journal) -> None:
    answered(journal, 1, "answered", total=1.0)
    _, text = metrics()
    for secret in ("secret", BOB.key, BOB.name, GROUP.key, "Ada", "Before"):
        assert secret not in text


def queries() -> list[tuple[str, str]]:
    """Every expression of the alerts and of the dashboard's panels."""
    rules = yaml.safe_load((GRAFANA / "alerts.yml").read_text())["groups"][0]["rules"]
    panels = json.loads((GRAFANA / "understudy.json").read_text())["panels"]
    found = [(rule["alert"], rule["expr"]) for rule in rules]
    return found + [(panel["title"], target["expr"]) for panel in panels for target in panel["targets"]]


@pytest.mark.parametrize(("name", "query"), queries())
def test_alerts_and_panels_ask_for_what_is_there(metrics, journal: Journal, settings: Settings, name, query) -> None:
    runs = Runs(journal.engine)
    run = runs.claim(runs.create("retrain", "k", options={}, now=NOON)[0].id, "w", now=NOON)
    assert run is not None
    runs.took(run, "lora", 600.0)
    runs.finish(run, "succeeded", now=NOON)
    sign(settings, "worker")
    answered(journal, 1, "answered", recall=4.0, queue=0.0, first_token=900.0, total=3000.0)
    found, _ = metrics()

    promql_parser.parse(query.replace("$__rate_interval", "1m"))  # raises for what is no PromQL
    asked = set(re.findall(r"understudy_\w+", query))
    assert asked
    assert asked <= set(found)
    for label, value in re.findall(r'(\w+)="(\w+)"', query):
        assert label in {"outcome", "stage", "kind", "state"}
        known = {part for name in asked for labels in found[name] for part in labels.split(",")}
        assert value in known | {"failed"}


def as_grafana_reads_it(dashboard: dict[str, Any]) -> tuple[Dashboard, dict[str, Any]]:
    """A dashboard in the types that Grafana's own schemas make, and what these keep of it: nothing that is misspelt."""
    plugins.register_default_plugins()
    read = Dashboard.from_json(dashboard)
    return read, json.loads(JSONEncoder().encode(read))


def lost(given: Any, kept: Any, where: str = "") -> list[str]:
    """Where a document says something that the other does not."""
    if isinstance(given, dict) and isinstance(kept, dict):
        return [each for key in given for each in lost(given[key], kept.get(key), f"{where}/{key}")]
    if isinstance(given, list) and isinstance(kept, list):
        return [each for i, (a, b) in enumerate(zip(given, kept, strict=True)) for each in lost(a, b, f"{where}/{i}")]
    return [] if given == kept else [where]


def test_the_dashboard_is_one_of_grafanas() -> None:
    dashboard = json.loads((GRAFANA / "understudy.json").read_text())
    read, kept = as_grafana_reads_it(dashboard)
    assert lost(dashboard, kept) == []
    # Options of a panel that Grafana does not have would stay as they are.
    assert not [panel.title for panel in read.panels if isinstance(panel.options, dict)]


def test_a_dashboard_with_a_mistake_is_found() -> None:
    dashboard = json.loads((GRAFANA / "understudy.json").read_text())
    dashboard["panels"][1]["targets"][0]["legend"] = "x"
    dashboard["panels"][2]["type"] = "stats"
    read, kept = as_grafana_reads_it(dashboard)
    assert lost(dashboard, kept) == ["/panels/1/targets/0/legend"]
    assert isinstance(read.panels[2].options, dict)


def test_a_query_with_a_mistake_is_found() -> None:
    with pytest.raises(ValueError, match="."):
        promql_parser.parse("sum(rate(understudy_answers_total[5m])")


def test_alerts_are_named_by_what_people_notice() -> None:
    rules = yaml.safe_load((GRAFANA / "alerts.yml").read_text())["groups"][0]["rules"]
    for rule in rules:
        assert re.fullmatch(r"(?:[A-Z][a-z]*)+", rule["alert"])
        assert set(rule["annotations"]) == {"summary", "what"}
    assert len({rule["alert"] for rule in rules}) == len(rules)


def test_status_says_what_is_wrong_and_ends_with_1(settings: Settings, journal: Journal) -> None:
    done = understudy(settings.home, "status", code=1)
    assert "1 exchanges" in done.stdout
    assert "The twin is not running" in done.stderr
    found = json.loads(understudy(settings.home, "status", "--json", code=1).stdout)
    assert found["memory"]["exchanges"] == 1
    assert (found["up"], found["last_run"]) == (False, None)


def test_a_failed_training_is_wrong_until_another_is_not(settings: Settings, journal: Journal) -> None:
    runs = Runs(journal.engine)
    for days, state, sentence in ((1, "failed", "Training .* failed: No disk."), (0, "succeeded", "")):
        at = datetime.now(UTC) - timedelta(days=days)
        run = runs.claim(runs.create("retrain", str(days), options={}, now=at)[0].id, "w", now=at)
        assert run is not None
        runs.finish(run, state, now=at, error="No disk." if sentence else "")
        wrong = " ".join(overview(settings)["wrong"])
        assert bool(re.search(sentence or "Training", wrong)) is bool(sentence)


def test_a_part_without_a_sign_of_life_is_not_healthy(settings: Settings) -> None:
    assert "has given no sign of life yet" in understudy(settings.home, "health", "worker", code=1).stderr
    sign(settings, "worker")
    understudy(settings.home, "health", "worker")
    old = datetime.now(UTC).timestamp() - 300
    path = sign_file(settings, "worker")

    os.utime(path, (old, old))
    assert "no sign of life for 30" in understudy(settings.home, "health", "worker", code=1).stderr
    assert "The part is one of" in understudy(settings.home, "health", "cook", code=1).stderr
    assert understudy(settings.home, "health", "api", code=1).stderr
