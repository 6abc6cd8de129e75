"""What is logged has no word, name or token of anybody, whoever logs it; and is one line, for people or as JSON."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from infra.errors import ServiceTrouble
from infra.logs import Line, about, tell
from infra.settings import child_environment, load_settings, secrets_of
from infra.traces import ANSWER, passed_on, taken_up
from tests.infra.running import understudy

PLANTED = "Plantedword"
TELEGRAM = "123456789:AAplanted-0123456789abcdefghijklmn"
SECRET = "planted-secret-0123456789"
ID = "0b0e6b0c-9f5e-5b0e-8d2a-6f1f2a3b4c5d"


def record(
    name: str, text: str, *values: object, error: BaseException | None = None, **extra: object
) -> logging.LogRecord:
    made = logging.LogRecord(
        name, logging.WARNING, __file__, 1, text, values, (type(error), error, error.__traceback__) if error else None
    )
    made.__dict__.update(extra)
    return made


def line(made: logging.LogRecord) -> dict[str, object]:
    return json.loads(Line("api", as_json=True, secrets=frozenset({SECRET})).format(made))


def raised(error: Exception) -> Exception:
    """The same, as it is when something has raised it because of something else."""
    try:
        try:
            int(PLANTED)
        except ValueError as cause:
            raise error from cause
    except type(error) as caught:
        return caught


@pytest.mark.parametrize(
    ("made", "event"),
    [
        (record("httpx", 'HTTP Request: %s %s "%s"', "POST", f"https://api.telegram.org/bot{TELEGRAM}/x", PLANTED), "HTTP Request: … …"),
        (record("asyncio", f"Task exception was never retrieved\nfuture: <Task exception=ValueError('{PLANTED}')>"), "Task exception was never retrieved"),
        (record("asyncio", f"Exception in callback Twin.answer('{PLANTED}')"), "Exception in callback Twin.answer"),
        (record("discord.client", "Ignoring exception in %s", PLANTED, error=ValueError(PLANTED)), "Ignoring exception in …"),
        (record("celery", "consumer: Cannot connect to %s: %s.\n%s\n", f"redis://:{SECRET}@h", OSError(PLANTED), ""), "consumer: Cannot connect to …: OSError."),
        (record("celery", "Task %(name)s %(exc)s", {"name": PLANTED, "exc": PLANTED}), "Task … …"),
        (record("telegram.ext", "waited %d s", 4), "waited 4 s"),
        (record("telegram.ext", "waited %d s", PLANTED), "waited %d s"),
        (record("uvicorn.error", "%s", PLANTED), "…"),
    ],
)  # fmt: skip
def test_of_a_librarys_record_its_own_words_are_kept(made: logging.LogRecord, event: str) -> None:
    found = line(made)
    assert found["event"] == event
    assert "lanted" not in json.dumps(found)


@pytest.mark.parametrize(
    "text",
    [
        f"telegram said {TELEGRAM}", f"the key is {SECRET}", f"Bearer {SECRET[:-1]}x", f"http://h/api/recall?question={PLANTED}",
        f"postgresql://twin:{SECRET[:-1]}y@h/db",
    ],
)  # fmt: skip
def test_no_token_is_in_a_sentence_of_ours(text: str) -> None:
    assert "lanted" not in str(line(record("infra.queue", text))["event"])


def test_an_exception_is_told_by_its_kind_and_place() -> None:
    found = line(record("infra.desk", "it failed", error=raised(ServiceTrouble(PLANTED))))
    assert found["error"] == "ServiceTrouble from ValueError"
    assert str(found["where"]).endswith(" raised")
    assert PLANTED not in json.dumps(found)


def test_a_fact_is_an_id_or_a_number() -> None:
    facts = {"voice": "tiny+v1", "total_ms": 1.5, "failed": None, "said": f"{PLANTED} is late", "name": "Ada Lovelace"}
    found = line(record("bot.twin", "told", facts=facts))
    assert {name: found[name] for name in facts} == facts | {"said": "…", "name": "…"}


def test_what_is_told_belongs_to_what_is_worked_on(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("bot.twin")
    with caplog.at_level(logging.INFO, logger="bot"), about(answer=ID):
        tell(log, "told", notes=2)
        found = Line("bot", as_json=False).format(caplog.records[-1])
        assert passed_on() == {ANSWER: ID}
    assert found.endswith(f"INFO bot told answer={ID} notes=2")
    assert passed_on() == {}


@pytest.mark.parametrize(("sent", "taken"), [(ID, {ANSWER: ID}), (PLANTED, {}), ("", {}), (f"{ID}\n{PLANTED}", {})])
def test_nobody_can_put_words_into_the_log_with_a_header(sent: str, taken: dict[str, str]) -> None:
    with taken_up({ANSWER: sent}):
        assert passed_on() == taken


@pytest.mark.parametrize("how", ["main", "thread", "loop", "warning"])
def test_what_ends_a_process_is_told_without_its_words(home: Path, how: str) -> None:
    """As a service, from Python's own hooks."""
    (home / "understudy.toml").write_text(f'{(home / "understudy.toml").read_text()}[log]\nformat = "json"\n')
    ends = {
        "main": f"raise ValueError({PLANTED!r})",
        "thread": f"t = threading.Thread(target=int, args=({PLANTED!r},)); t.start(); t.join()",
        "loop": f"asyncio.run(later({PLANTED!r}))",
        "warning": f"warnings.warn({PLANTED!r}, UserWarning)",
    }
    program = (
        "import asyncio, sys, threading, warnings; from pathlib import Path; from infra.cli.compose import settings_of\n"
        "async def fail(words): raise ValueError(words)\n"
        "async def later(words):\n    task = asyncio.create_task(fail(words)); await asyncio.sleep(0.01); del task\n"
        f"settings_of(Path({str(home)!r}), part='api')\n{ends[how]}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=child_environment(),
        cwd=Path(__file__).parents[2],
    )
    [found] = [json.loads(each) for each in done.stderr.splitlines()]
    assert found["part"] == "api"
    assert PLANTED not in done.stderr
    assert ("ValueError" in str(found)) or how == "warning"


def test_every_secret_is_known(home: Path) -> None:
    config = home / "understudy.toml"
    config.write_text(f'{config.read_text()}[api]\ntoken = "{SECRET}"\n[telegram]\ntoken = "{TELEGRAM}"\n')
    assert secrets_of(load_settings(home)) == {SECRET, TELEGRAM}


def test_a_command_says_its_sentence_as_json_where_logs_are(home: Path) -> None:
    config = home / "understudy.toml"
    config.write_text(f'{config.read_text()}[log]\nformat = "json"\n')
    told = json.loads(understudy(home, "runs", "nothing", code=1).stderr)
    assert told["part"] == "command"
    assert told["event"].startswith("understudy: There is no run 'nothing'")


def test_traces_without_the_library_are_a_sentence(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from infra import traces
    from infra.cli.setup import check_traces, run_check

    config = home / "understudy.toml"
    config.write_text(f'{config.read_text()}[traces]\nurl = "http://127.0.0.1:1"\n')
    settings = load_settings(home)
    assert run_check("traces", check_traces, settings).found == "go to http://127.0.0.1:1"
    monkeypatch.setattr(traces, "installed", lambda: False)
    traces.begin(settings, "api")
    assert "pip install 'understudy[otel]'" in caplog.text
    assert not run_check("traces", check_traces, settings).passed


def test_without_traces_nothing_of_opentelemetry_is_imported(home: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from infra.cli.compose import settings_of; from infra.traces import passed_on, span\n"
        f"settings_of(Path({str(home)!r}), part='api')\n"
        "with span('answer', answer='a'): passed_on()\n"
        "print([each for each in sys.modules if each.startswith('opentelemetry')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=child_environment(),
        cwd=Path(__file__).parents[2],
        check=True,
    )
    assert done.stdout.strip() == "[]"
