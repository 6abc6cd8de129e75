"""Learning on another host, which has neither journal nor data folder: what goes there, and what comes back.

    queue default, at the journal     harvest, dataset ─ parcel ─┐            ┌─ gate, publish, swap
    queue gpu, anywhere                                          └ LoRA, GGUF, evals ─ parcel

What is sent are folders that are finished, which nobody changes any more, so that a parcel is whole at any time. The
other host leaves what it has made so far every ten minutes and when it is told to stop: the next one, wherever it
runs, goes on from the last checkpoint. It keeps nothing of a run that it has handed back.
"""

import logging
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from infra.errors import ServiceTrouble, UnderstudyError, UserMistake
from infra.files import MANIFEST, finish_folder, finished, fresh_folder, read_json, write_json
from infra.parcels import Parcel, Store
from infra.runs import TRAINING, Run, Runs
from infra.settings import CustomModel, Settings, TrainingSettings
from infra.voice.weights import Weights
from memory.persona import PersonaCard
from trainer import dataset
from trainer.frozen import active
from trainer.learning import Attempt, Cancelled, Given, learn

LEAVE_EVERY_S = 600.0
JOB, RECEIVED = "job", "received.json"
# What learning makes, and what goes from host to host: not the harvest, which holds members' words beyond the rows.
STAGES = ("lora", "grpo", "tune", "gguf", "evals")
SENT = (JOB, "dataset", "worked", *STAGES)

log = logging.getLogger(__name__)


class PassedOn(UnderstudyError):
    """This part of a run is done, and the run waits for the workers of another queue."""


def store_of(settings: Settings) -> Store:
    """Where this installation's parcels go. Raises UserMistake where the settings name no place."""
    if not settings.artifacts.url or settings.artifacts.key is None:
        raise UserMistake(
            "This training was sent by way of a store: artifacts.url and artifacts.key must name it here."
        )
    return Store(settings.artifacts.url.rstrip("/"), settings.artifacts.key.get_secret_value())


def fetch_learned(work: Attempt, given: Given) -> None:
    """Put what another host learned of this where learning here would have put it.

    Raises PassedOn after sending it there, where nobody has learned it yet.
    """
    store, artifact = store_of(work.settings), work.run.artifact
    if artifact and store.has(artifact):
        parcel = store.look(artifact)
        # Something may have been forgotten since, or the base be another: then that one was learned for nothing.
        if parcel.about == {"job": identity_of(given), "learned": True}:
            fetch_once(work, store, parcel, fresh=STAGES, wanted=published_of)
            return
    work.tell("send", 0, 0)
    artifact = send(work, store, given)
    work.runs.pass_on(work.run, TRAINING, artifact, now=work.runs.now())
    raise PassedOn(f"Run {work.run.id!r} waits for a machine that trains.")


def published_of(path: str) -> bool:
    """Whether a file is among what a host that has the rest makes a voice of."""
    stage, _, rest = path.partition("/")
    return stage in STAGES and (stage != "tune" or rest == MANIFEST)


def fetch_once(
    work: Attempt, store: Store, parcel: Parcel, *, fresh: Sequence[str], wanted: Callable[[str], bool] = lambda _: True
) -> None:
    """Put a parcel into the run's folder, in place of what the `fresh` ones of its folders held, unless it is here."""
    known = work.folder / RECEIVED
    if known.is_file() and read_json(known) == {"artifact": parcel.name}:
        return
    for name in fresh:
        shutil.rmtree(work.folder / name, ignore_errors=True)
    store.fetch(parcel, work.folder, wanted=wanted)
    write_json(known, {"artifact": parcel.name})


def identity_of(given: Given) -> dict[str, str]:
    """What a training is for: its rows, and the base that the twin serves."""
    return {"dataset": given.built.id, "base": given.weights.sha256}


def send(work: Attempt, store: Store, given: Given) -> str:
    """Put there what learning needs, the base too unless it is there already; returns the parcel's name."""
    job = fresh_folder(work.folder / JOB)
    settings = work.settings.model_dump(mode="json", include={"preset", "custom", "training"})
    told = {"settings": settings, "persona": asdict(given.persona), "base_format": given.weights.format}
    write_json(job / "job.json", told)
    if given.current is not None:
        shutil.copy2(given.current, job / "current.gguf")
    if given.parent is not None:
        shutil.copytree(given.parent, job / "parent")
    finish_folder(job, identity_of(given))
    base = base_parcel(given.weights.sha256)
    if not signed(store, base):
        store.send(base, {"base.gguf": given.weights.path}, {})
    parcel = store.send(
        f"runs/{work.run.id}/{work.run.token}-sent",
        whole_in(work.folder),
        {"job": identity_of(given), "learned": False},
    )
    store.keep_only(parcel)
    return parcel.name


def base_parcel(sha256: str) -> str:
    """The parcel of a base, which all runs share."""
    return f"bases/{sha256}/base"


def signed(store: Store, name: str) -> bool:
    """Whether a parcel of ours is there."""
    try:
        store.look(name)
    except ServiceTrouble as trouble:
        if not trouble.permanent:
            raise
        return False
    return True


def whole_in(folder: Path) -> dict[str, Path]:
    """The files of every finished folder of a run that goes from host to host, by their paths in it."""
    made = [manifest.parent for name in SENT for manifest in (folder / name).rglob(MANIFEST)]
    files = {path for each in made for path in each.rglob("*") if path.is_file() and not path.is_symlink()}
    return {path.relative_to(folder).as_posix(): path for path in sorted(files)}


def learn_for_another(work: Attempt, *, ready: Callable[[Settings], None]) -> dict[str, Any]:
    """Learn what was sent here, send it back and hand the run over. `ready` is told the settings to train by.

    Raises PassedOn at the end, and as `learn`.
    """
    store = store_of(work.settings)
    work.tell("receive", 0, 0)
    work, given = received(work, store)
    ready(work.settings)
    courier = Courier(work, store, identity_of(given))
    try:
        with courier:
            learn(work, given)
    except Cancelled:
        if not work.runs.get(work.run.id).cancel_requested:
            courier.leave()
        raise
    work.report("send", {"done": 0, "total": 0, "text": ""})
    work.runs.pass_on(work.run, "default", courier.leave(learned=True), now=work.runs.now())
    shutil.rmtree(work.folder)
    raise PassedOn(f"Run {work.run.id!r} has been learned and waits for its gate.")


def received(work: Attempt, store: Store) -> tuple[Attempt, Given]:
    """What was sent, and the attempt under the settings that came with it; goes on with what is here of the same."""
    folder, artifact = work.folder, work.run.artifact
    fetch_once(work, store, store.look(artifact), fresh=SENT)
    job = finished(folder / JOB)
    if job is None:
        raise ServiceTrouble(f"The parcel {artifact!r} holds no job.", permanent=True)
    told = read_json(folder / JOB / "job.json")
    built, worked = dataset.load(folder / "dataset"), folder / "worked"
    current, parent = folder / JOB / "current.gguf", folder / JOB / "parent"
    given = Given(
        built,
        dataset.load(worked) if finished(worked) is not None else built,
        base_of(work.settings, store, job["base"], str(told["base_format"])),
        PersonaCard(**told["persona"]),
        current=current if current.is_file() else None,
        parent=parent if parent.is_dir() else None,
    )
    return replace(work, settings=as_told(work.settings, told["settings"])), given


def as_told(settings: Settings, told: dict[str, Any]) -> Settings:
    """This host's settings, with the other's for what and how to train."""
    custom = CustomModel(**told["custom"]) if told["custom"] else None
    training = TrainingSettings(**told["training"])
    return settings.model_copy(update={"preset": told["preset"], "custom": custom, "training": training})


def base_of(settings: Settings, store: Store, sha256: str, form: str) -> Weights:
    """The base that the twin serves, fetched once. Raises ServiceTrouble where the store has another under its name."""
    folder = settings.data_folder / "models" / "received" / sha256
    parcel = store.look(base_parcel(sha256))
    if [digest for digest, _ in parcel.files.values()] != [sha256]:
        raise ServiceTrouble(f"The parcel {parcel.name!r} holds another base.", permanent=True)
    store.fetch(parcel, folder)
    return Weights(folder / next(iter(parcel.files)), sha256, form)


class Courier:
    """Leaves in the store what a training has made so far: now and then while it is entered, and when told to."""

    def __init__(self, work: Attempt, store: Store, job: dict[str, str]) -> None:
        self._work, self._store, self._job = work, store, job
        self._count, self._left = 0, set(whole_in(work.folder))
        self._over, self._alone = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._leave_now_and_then, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def leave(self, *, learned: bool = False) -> str:
        """Send what is whole, and let the run go on from there; returns the parcel's name.

        Raises ServiceTrouble, and Superseded where another attempt has taken over.
        """
        with self._alone:
            self._count += 1
            name = f"runs/{self._work.run.id}/{self._work.run.token}-{self._count}"
            files = whole_in(self._work.folder)
            parcel = self._store.send(name, files, {"job": self._job, "learned": learned})
            self._work.runs.leave(self._work.run, name)
            write_json(self._work.folder / RECEIVED, {"artifact": name})
            self._left = set(files)
            self._store.keep_only(parcel)
            return name

    def _leave_now_and_then(self) -> None:
        while not self._over.wait(LEAVE_EVERY_S):
            try:
                if set(whole_in(self._work.folder)) != self._left:
                    self.leave()
            # A checkpoint may have been replaced while it was sent, and the network may be down: there is a next time.
            except (OSError, ServiceTrouble) as trouble:
                log.warning("run %s could not be left in the store: %s", self._work.run.id, trouble)


def is_for_another(run: Run) -> bool:
    """Whether a run was sent here by a host that has its journal."""
    return run.queue == TRAINING and bool(run.artifact)


def tidy(settings: Settings, runs: Runs) -> None:
    """Remove what runs left in the store that have ended, however they did."""
    store = store_of(settings)
    for batch in store.batches("runs"):
        if not active(runs, batch.rpartition("/")[2]):
            store.drop(batch)
