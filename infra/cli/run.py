"""`up` and the parts of it: the API, a worker, a scheduler and the bots, each started again when it dies."""

import logging
import os
import signal
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from infra.cli.bots import configured
from infra.cli.compose import open_journal, open_runs, open_twin, open_voices, settings_of
from infra.cli.console import err
from infra.errors import UserMistake
from infra.logs import say
from infra.processes import Child, Supervisor, die_with_parent
from infra.remote import Remote
from infra.settings import Settings, child_environment

if TYPE_CHECKING:
    from infra.desk.playground import Playground

# How long a bot may take to finish the replies it has begun.
REPLIES_S = 25.0
# How long a worker may take: its training finishes a step and writes a checkpoint.
CHECKPOINT_S = 25.0
# And sends that to where the next machine will look for it.
SENDING_S = 95.0
# How long the API may take to put its index in order.
ORDER_S = 60.0


def up(home: Path | None, *, port: int | None, playground: bool = False) -> None:
    """Everything, until Ctrl-C, each part a supervised child; where its page plays, the API has to be here."""
    if playground:
        play(home, port=port)
        return
    settings = settings_of(home, part="up")
    refuse_running(settings)
    refuse_unusable(settings)
    end_when_told()
    api = api_child(settings, port)
    # Whatever ends this process early, the API then dies with it.
    answering(settings, api)
    keep_running(api, *children(settings))


def play(home: Path | None, *, port: int | None) -> None:
    """The API and the page here, over the playground, with everything else beside."""
    from infra.desk.playground import open_playground

    with open_playground(settings_of(home)) as playground:
        settings = settings_of(home, part="api")
        supervisor = Supervisor(children(settings), say=say)
        serve_with(settings, port=port, supervisor=supervisor, playground=playground)


def serve(home: Path | None, *, port: int | None, parent: int | None = None) -> None:
    """The API and the page alone."""
    if parent is not None:
        die_with_parent(parent)
    serve_with(settings_of(home, part="api"), port=port, supervisor=Supervisor([]))


def serve_voice(home: Path | None, *, port: int | None) -> None:
    """The voice alone, for the twins that name this server in `voice.urls`."""
    from infra.desk.server import make_voice_app, run

    settings = settings_of(home, part="voice")
    refuse_running(settings)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with closing(open_voices(settings)) as voices:
        for problem in voices.resume():
            say(problem, level=logging.WARNING)
        wanted, app = settings.api.port if port is None else port, make_voice_app(settings, voices)
        run(settings, app, port=wanted, ready=greet_voice, over=lambda: voices.broken)


def refuse_running(settings: Settings) -> None:
    """Raise UserMistake where this installation is served already."""
    if (running := Remote.here(settings)) is not None:
        raise UserMistake(f"This twin is running already, at {running.url}.")


def refuse_unusable(settings: Settings, *, queues: str = "") -> None:
    """Raise UserMistake for a database that this program cannot use; else it is brought up to date.

    A worker of trainings alone may be on a host that can read the run table and nothing else.
    """
    from infra.database import connect, refuse_newer
    from infra.runs import TRAINING, Runs
    from memory.migrations import MIGRATIONS

    if queues == TRAINING:
        engine = connect(settings.journal_url)
        try:
            Runs(engine)
            refuse_newer(engine, "journal", len(MIGRATIONS))
        finally:
            engine.dispose()
        return
    journal = open_journal(settings)
    try:
        open_runs(settings, journal)
    finally:
        journal.close()


def api_child(settings: Settings, port: int | None) -> Child:
    """`serve` as a child that speaks where we do."""
    arguments = ["-m", "infra.cli.main", "serve", "--home", str(settings.home)]
    wanted = [] if port is None else ["--port", str(port)]
    return Child("api", [*arguments, *wanted], log=None, grace_s=ORDER_S)


def answering(settings: Settings, api: Child) -> None:
    """Start the API and wait until it answers. One that cannot even begin has said why, and ends us as it ended."""
    process = api.start()
    while Remote.here(settings) is None:
        if (status := process.poll()) is not None:
            sys.exit(status)
        time.sleep(0.05)


def serve_with(
    settings: Settings, *, port: int | None, supervisor: Supervisor, playground: "Playground | None" = None
) -> None:
    from infra.desk.server import make_app, run

    refuse_running(settings)
    # uvicorn raises a signal again when it has served; without a handler this process would be gone before its children
    # had ended, and they would die with it in the middle of a reply.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with open_twin(settings) as here:
        supervisor.open()
        try:
            wanted = settings.api.port if port is None else port
            app = make_app(settings, here, playground)
            greeting = greet_at_play if playground else greet
            run(settings, app, port=wanted, ready=greeting, over=lambda: here.voices is not None and here.voices.broken)
        finally:
            supervisor.close()


def greet(url: str) -> None:
    say(f"The twin is up at {url} (Ctrl-C stops it). Talk to it: understudy chat")


def greet_voice(url: str) -> None:
    say(f"The voice is up at {url} (Ctrl-C stops it). Name it in voice.urls of the twin that it speaks for.")


def greet_at_play(url: str) -> None:
    say(f"The playground is at {url}/playground (Ctrl-C stops it). It plays with a copy of the twin's memory.")


def children(settings: Settings) -> list[Child]:
    """What runs beside the API."""
    from infra.queue import QUEUES

    logs = settings.data_folder / "logs"
    # What another host trains is only begun and ended here.
    queues = "default" if settings.artifacts.url else ",".join(QUEUES)
    beat = Child("beat", ["-m", "trainer.app", "beat", "--home", str(settings.home)], logs / "beat.log")
    parts = [worker_child(settings, queues, logs / "worker.log"), beat]
    bots = [
        Child(
            name,
            ["-m", "infra.cli.main", "bot", "--platform", name, "--home", str(settings.home)],
            logs / f"{name}.log",
            grace_s=REPLIES_S,
        )
        for name in configured(settings)
    ]
    return [*parts, *bots]


def worker_child(settings: Settings, queues: str, log: Path | None) -> Child:
    """A worker of these queues as a child."""
    arguments = ["-m", "trainer.app", "worker", "--home", str(settings.home), "--queues", queues]
    return Child("worker", arguments, log=log, grace_s=SENDING_S if settings.artifacts.url else CHECKPOINT_S)


def worker(home: Path | None, *, queues: str, once: bool) -> None:
    """The worker: started again when it ends, or, once, in place of this process."""
    from infra.queue import QUEUES

    if unknown := [each for each in queues.split(",") if each not in QUEUES]:
        raise UserMistake(f"There is no queue {unknown[0]!r}; there are {' and '.join(QUEUES)}.")
    if once:
        if queues != "gpu":
            raise UserMistake("Only trainings are worked on once: say --queue gpu --once.")
        become("worker", home, "--once", queues=queues)
    settings = settings_of(home, part="worker")
    refuse_unusable(settings, queues=queues)
    end_when_told()
    keep_running(worker_child(settings, queues, log=None))


def end_when_told() -> None:
    """On SIGINT too, where it was started in the background of a shell, which lets that be ignored there."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda *_: sys.exit(0))


def keep_running(*children: Child) -> None:
    """These, until this process is told to stop."""
    supervisor = Supervisor([*children], say=say)
    supervisor.open()
    try:
        threading.Event().wait()
    finally:
        supervisor.close()


def health(home: Path | None, part: str) -> None:
    """Whether a part on this host is at work. Raises ServiceTrouble if not."""
    from infra.health import PARTS, check

    chosen = next((each for each in PARTS if each == part), None)
    if chosen is None:
        raise UserMistake(f"The part is one of {', '.join(PARTS)}, not {part!r}.")
    check(settings_of(home), chosen)
    err().print(f"The {part} is at work.")


def beat(home: Path | None) -> None:
    """The scheduler, in place of this process."""
    become("beat", home)


def become(role: str, home: Path | None, *options: str, queues: str = "") -> None:
    settings = settings_of(home)
    refuse_unusable(settings, queues=queues)
    arguments = [sys.executable, "-m", "trainer.app", role, "--home", str(settings.home), *options]
    os.execve(sys.executable, arguments, child_environment())  # noqa: S606  the process becomes another of ours
