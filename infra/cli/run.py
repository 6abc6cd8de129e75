"""`up` and the parts of it: one process that answers, a worker and a scheduler beside it."""

import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from infra.cli.bots import configured
from infra.cli.compose import open_twin, settings_of
from infra.cli.console import err
from infra.errors import UserMistake
from infra.processes import Child, Supervisor
from infra.remote import Remote
from infra.settings import Settings, child_environment

if TYPE_CHECKING:
    from infra.desk.playground import Playground

# How long a bot may take to finish the replies it has begun.
REPLIES_S = 25.0


def up(home: Path | None, *, port: int | None, playground: bool = False) -> None:
    """Everything, until Ctrl-C: API and page here, worker and scheduler as supervised children."""
    settings = settings_of(home)
    with ExitStack() as stack:
        playing = None
        if playground:
            from infra.desk.playground import open_playground

            playing = stack.enter_context(open_playground(settings))
            settings = settings_of(home)
        supervisor = Supervisor(children(settings), say=err().print)
        serve_with(settings, port=port, supervisor=supervisor, playground=playing)


def serve(home: Path | None, *, port: int | None) -> None:
    """The API and the page alone."""
    serve_with(settings_of(home), port=port, supervisor=Supervisor([]))


def serve_with(
    settings: Settings, *, port: int | None, supervisor: Supervisor, playground: "Playground | None" = None
) -> None:
    from infra.desk.server import run

    if (running := Remote.find(settings)) is not None:
        raise UserMistake(f"This twin is running already, at {running.url}.")
    # uvicorn raises a signal again when it has served; without a handler this process would be gone before its children
    # had ended, and they would die with it in the middle of a reply.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with open_twin(settings) as here:
        supervisor.open()
        try:
            wanted = settings.api.port if port is None else port
            run(settings, here, port=wanted, ready=greet_at_play if playground else greet, playground=playground)
        finally:
            supervisor.close()


def greet(url: str) -> None:
    err().print(f"The twin is up at {url} (Ctrl-C stops it). Talk to it: understudy chat")


def greet_at_play(url: str) -> None:
    err().print(f"The playground is at {url}/playground (Ctrl-C stops it). It plays with a copy of the twin's memory.")


def children(settings: Settings) -> list[Child]:
    """What runs beside the API."""
    logs = settings.data_folder / "logs"
    parts = [
        Child(role, ["-m", "trainer.app", role, "--home", str(settings.home)], logs / f"{role}.log")
        for role in ("worker", "beat")
    ]
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


def worker(home: Path | None) -> None:
    """The worker, in place of this process."""
    become("worker", home)


def beat(home: Path | None) -> None:
    """The scheduler, in place of this process."""
    become("beat", home)


def become(role: str, home: Path | None) -> None:
    settings = settings_of(home)
    arguments = [sys.executable, "-m", "trainer.app", role, "--home", str(settings.home)]
    os.execve(sys.executable, arguments, child_environment())  # noqa: S606  the process becomes another of ours
