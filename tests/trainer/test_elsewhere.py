"""Learning on hosts that come and go, with no folder in common: real PostgreSQL, a real S3-compatible server, processes."""

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from infra.adapters import GGUF, AdapterStore
from infra.database import connect, reading
from infra.errors import ServiceTrouble, UserMistake
from infra.files import finish_folder, finished, write_json
from infra.runs import Run, Runs
from infra.settings import Settings, load_settings
from infra.voice.weights import Weights
from memory.journal import Journal
from memory.persona import PersonaCard
from memory.remember import exchange_event, remember
from tests.databases import postgresql
from tests.drills.dying_training import WAITS
from tests.infra.running import lend_embedder, lend_small, small_settings
from tests.infra.s3_server import options, s3_server
from tests.memory.making import taught
from tests.people import CREATOR
from trainer import dataset, elsewhere
from trainer.learning import Attempt, Given
from trainer.schedule import asked
from trainer.supervise import supervise

KEY = "a-key-that-both-hosts-know"
TRAINING = """[training]
least_rows = 15
epochs = 2
heldout = 10
tokens = 2000
validation_share = 0.2
max_length = 192
"""
# What docs/deploying.md gives the user of a host that only trains.
GRANTS = (
    "CREATE ROLE trainer LOGIN",
    "GRANT SELECT, UPDATE ON runs TO trainer",
    "GRANT SELECT ON schema_versions TO trainer",
)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with postgresql(tmp_path_factory.mktemp("postgres")) as url:
        yield url


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a bucket that the training processes, and we, know how to reach."""
    (tmp_path / "s3" / "bucket").mkdir(parents=True)
    with s3_server(tmp_path / "s3") as port:
        monkeypatch.setenv("FSSPEC_S3", json.dumps(options(port)))
        yield tmp_path / "s3" / "bucket"


def host(home: Path, settings: str) -> Settings:
    """An installation of one host, which has nothing yet."""
    home.mkdir()
    (home / "understudy.toml").write_text(settings, encoding="utf-8")
    found = load_settings(home)
    found.data_folder.mkdir()
    return found


def of_all(journal: str) -> str:
    return f'[journal]\nurl = "{journal}"\n[artifacts]\nurl = "s3://bucket/twin"\nkey = "{KEY}"\n'


def trainer(home: Path, database: str) -> Settings:
    """A host that trains, with an embedder, and rights to the run table alone."""
    url = database.replace("postgres:@", "trainer:@").replace("//postgres@", "//trainer@")
    assert "trainer" in url
    settings = host(home, f'[creator]\nname = "nobody"\n{of_all(url)}')
    lend_embedder(settings)
    return settings


def worked(settings: Settings, run: Run, queue: str, point: str = "never", stop_at: str = "") -> Run | None:
    """What a worker of one queue leaves of a run; told to stop when the run has made progress in a stage."""
    engine, stopping = connect(settings.journal_url), threading.Event()
    runs = Runs(engine)

    def stop() -> None:
        while not (now := runs.get(run.id)).progress.get("done") or now.stage != stop_at:
            time.sleep(0.05)
        stopping.set()

    stopper = threading.Thread(target=stop)
    if stop_at:
        stopper.start()
    log = settings.home / "training.log"
    left = supervise(
        runs,
        run.id,
        home=settings.home,
        log=log,
        stopping=stopping,
        clock=lambda: datetime.now(UTC),
        command=("-m", "tests.drills.dying_training", point),
        queues=(queue,),
    )
    if stop_at:
        stopper.join()
    engine.dispose()
    assert left is None or left.error == "", log.read_text(encoding="utf-8")[-3000:]
    return left


@pytest.mark.timeout(600)
def test_a_training_goes_from_host_to_host_and_comes_back_as_a_voice(
    tmp_path: Path, database: str, store: Path
) -> None:
    """The twin's host, one that trains and has to stop, and another that never saw the first."""
    twin = host(tmp_path / "twin", small_settings(TRAINING) + of_all(database))
    lend_small(twin)
    journal = Journal.open(twin.journal_url)
    said = [taught(f"What of oven number {n}?", f"Right. {n} minutes, friend. Trust the dough.") for n in range(40)]
    remember(journal, [exchange_event(each) for each in said], creator=CREATOR)
    runs = Runs(journal.engine)
    run, _ = asked(twin, runs, journal, "manual:1", {}, now=datetime.now(UTC))
    with journal.engine.begin() as connection:
        for grant in GRANTS:
            connection.execute(sa.text(grant))

    assert run.queue == "default"
    sent = worked(twin, run, "default")
    assert sent is not None
    assert (sent.state, sent.queue, sent.attempt, sent.artifact) == ("queued", "gpu", 0, f"runs/{run.id}/1-sent")
    listed = json.loads((store / "twin" / f"{sent.artifact}.json").read_text(encoding="utf-8"))
    assert {path.partition("/")[0] for path in listed["files"]} == {"job", "dataset"}
    assert worked(twin, run, "default") is None  # it is not for this worker

    first = trainer(tmp_path / "first", database)
    engine = connect(first.journal_url)
    with reading(engine) as connection, pytest.raises(sa.exc.ProgrammingError, match="denied"):
        connection.execute(sa.text("SELECT * FROM events"))
    engine.dispose()
    stopped = worked(first, run, "gpu", WAITS, stop_at="lora")
    assert stopped is not None
    assert (stopped.state, stopped.queue, stopped.attempt, stopped.artifact) == (
        "queued",
        "gpu",
        0,
        f"runs/{run.id}/2-1",
    )

    second = trainer(tmp_path / "second", database)
    learned = worked(second, run, "gpu")
    assert learned is not None
    assert (learned.state, learned.queue, learned.artifact) == ("queued", "default", f"runs/{run.id}/3-1")
    assert not list((second.data_folder / "runs").iterdir())  # nothing of the community stays

    ended = worked(twin, run, "default")
    assert ended is not None
    assert ended.state == "succeeded"
    adapters = AdapterStore(twin.data_folder / "adapters")
    (version,) = adapters.versions()
    adapters.verify(version)
    assert adapters.current() == version
    assert not adapters.tried(version, adapters.manifest(version)["base_sha256"])  # not on this host
    report = (finished(twin.data_folder / "runs" / run.id / "lora") or {})["report"]
    assert report["resumed_from"] > 0
    assert [path.name for path in (store / "twin").iterdir()] == ["bases"]
    journal.close()


@pytest.fixture
def given(tmp_path: Path) -> Given:
    """A dataset and a base, as small as can be."""
    folder = tmp_path / "twin" / "data" / "runs"
    base = tmp_path / "base.gguf"
    base.write_bytes(b"GGUF")
    built = dataset.Dataset(folder, {"id": "a-dataset"})
    return Given(built, built, Weights(base, "0" * 64, "Q8_0"), PersonaCard("Ada"), current=None, parent=None)


@pytest.fixture
def work(tmp_path: Path) -> Attempt:
    """An attempt of the twin's host, by way of a folder."""
    rest = f'[artifacts]\nurl = "{tmp_path / "store"}"\nkey = "{KEY}"\n'
    settings = host(tmp_path / "twin", f'[creator]\nname = "Ada"\n{rest}')
    runs = Runs(connect(settings.journal_url))
    made, _ = runs.create("retrain", "key", options={}, now=datetime.now(UTC), queue="default")
    run = runs.claim(made.id, "w", now=datetime.now(UTC), queues=("default",))
    assert run is not None
    write_json(settings.data_folder / "runs" / run.id / "dataset" / "rows", {})
    finish_folder(settings.data_folder / "runs" / run.id / "dataset", {})
    return Attempt(settings, runs, run, threading.Event())


def retaken(work: Attempt, queue: str) -> Attempt:
    """The next attempt at the same run."""
    run = work.runs.claim(work.run.id, "w", now=datetime.now(UTC), queues=(queue,))
    assert run is not None
    return Attempt(work.settings, work.runs, run, threading.Event())


def learn(work: Attempt, given: Given) -> Attempt:
    """Be the other host: learn something, and send it back; returns the next attempt at the twin's."""
    with pytest.raises(elsewhere.PassedOn):
        elsewhere.fetch_learned(work, given)
    there = retaken(work, "gpu")
    for stage in ("lora", "evals"):
        write_json(there.folder / stage / GGUF, {})
        finish_folder(there.folder / stage, {})
    courier = elsewhere.Courier(there, elsewhere.store_of(there.settings), elsewhere.identity_of(given))
    there.runs.pass_on(there.run, "default", courier.leave(learned=True), now=datetime.now(UTC))
    return retaken(work, "default")


def test_what_was_learned_of_other_rows_is_not_taken_for_these(work: Attempt, given: Given) -> None:
    """Something was forgotten while it was away, so that the dataset is another: it is sent once more."""
    back = learn(work, given)
    elsewhere.fetch_learned(back, given)
    assert (back.folder / "lora" / GGUF).is_file()

    other = dataset.Dataset(given.built.folder, {"id": "another-dataset"})
    changed = Given(other, other, given.weights, given.persona, current=None, parent=None)
    with pytest.raises(elsewhere.PassedOn):
        elsewhere.fetch_learned(back, changed)
    assert work.runs.get(work.run.id).queue == "gpu"


def test_what_a_host_left_after_it_was_replaced_counts_for_nothing(work: Attempt, given: Given) -> None:
    with pytest.raises(elsewhere.PassedOn):
        elsewhere.fetch_learned(work, given)
    slow = retaken(work, "gpu")
    work.runs.hand_back(slow.run, now=datetime.now(UTC))
    retaken(work, "gpu")
    courier = elsewhere.Courier(slow, elsewhere.store_of(slow.settings), elsewhere.identity_of(given))

    with pytest.raises(ServiceTrouble, match="taken over"):
        courier.leave(learned=True)

    assert work.runs.get(work.run.id).artifact == f"runs/{work.run.id}/1-sent"


def test_a_parcel_of_somebody_else_ends_a_run_in_words(work: Attempt, given: Given, tmp_path: Path) -> None:
    back = learn(work, given)
    listed = tmp_path / "store" / f"{back.run.artifact}.json"
    listed.write_text(listed.read_text().replace("evals/", "lora/../evals/"))

    with pytest.raises(ServiceTrouble, match="not signed with this installation's artifacts.key"):
        elsewhere.fetch_learned(back, given)


def test_what_a_store_lost_is_sent_again(work: Attempt, given: Given, tmp_path: Path) -> None:
    back = learn(work, given)
    (tmp_path / "store" / f"{back.run.artifact}.json").unlink()

    with pytest.raises(elsewhere.PassedOn):
        elsewhere.fetch_learned(back, given)


def test_what_is_made_is_left_now_and_then(work: Attempt, given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is finished, and only when there is something new."""
    monkeypatch.setattr(elsewhere, "LEAVE_EVERY_S", 0.02)
    with pytest.raises(elsewhere.PassedOn):
        elsewhere.fetch_learned(work, given)
    there = retaken(work, "gpu")
    store = elsewhere.store_of(there.settings)

    with elsewhere.Courier(there, store, elsewhere.identity_of(given)):
        write_json(there.folder / "lora" / "checkpoints" / "checkpoint-2" / "half", {})
        time.sleep(0.2)
        assert there.runs.get(there.run.id).artifact == f"runs/{there.run.id}/1-sent"
        checkpoint = there.folder / "lora" / "checkpoints" / "checkpoint-1"
        write_json(checkpoint / "whole", {})
        finish_folder(checkpoint, {})
        deadline = time.monotonic() + 10
        while there.runs.get(there.run.id).artifact.endswith("sent"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.1)

    left = there.runs.get(there.run.id).artifact
    assert left == f"runs/{there.run.id}/2-1"
    files = store.look(left).files
    assert "lora/checkpoints/checkpoint-1/whole" in files
    assert "lora/checkpoints/checkpoint-2/half" not in files


def test_ended_runs_leave_nothing_in_the_store(work: Attempt, given: Given, tmp_path: Path) -> None:
    with pytest.raises(elsewhere.PassedOn):
        elsewhere.fetch_learned(work, given)
    elsewhere.tidy(work.settings, work.runs)
    assert (tmp_path / "store" / "runs" / work.run.id).is_dir()

    work.runs.cancel(work.run.id, now=datetime.now(UTC))
    elsewhere.tidy(work.settings, work.runs)

    assert not (tmp_path / "store" / "runs" / work.run.id).exists()


def test_a_host_whose_settings_name_no_store_says_so(work: Attempt) -> None:
    plain = work.settings.model_copy(update={"artifacts": type(work.settings.artifacts)()})
    with pytest.raises(UserMistake, match=r"artifacts\.url and artifacts\.key"):
        elsewhere.store_of(plain)
