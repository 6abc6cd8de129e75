"""One process that answers: the voice's API, the twin's API and the page, over one memory and one engine."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from infra.cli.compose import TwinHere, creator_person, now, open_model_reader, open_runs
from infra.cli.operations import House
from infra.desk.api import Parts, router
from infra.desk.playground import Playground, add_playground
from infra.errors import ServiceTrouble, UnderstudyError
from infra.remote import announce, withdraw
from infra.settings import Settings
from infra.voice.api import install, routes
from trainer.app import queue_app

# How often the index looks for what other processes taught; a taught answer is recallable in well under a second.
DRAIN_S = 0.2
# How often a model that reads for the graph takes the next few sources.
READ_S = 1.0
# How often it looks for what was forgotten elsewhere; what is forgotten on this machine is followed at once.
FORGOTTEN_S = 30.0


def make_app(settings: Settings, here: TwinHere, playground: Playground | None = None) -> FastAPI:
    """The application over the opened parts."""
    from importlib.resources import files

    from infra.queue import ring

    celery = queue_app(settings)
    runs = open_runs(settings, here.memory.journal)

    async def drain() -> None:
        await asyncio.to_thread(here.memory.drain_all)

    def status() -> dict[str, Any]:
        speaking = here.voices.engine.voice if here.voices else settings.voice.url
        filling = here.memory.index.filling
        return {
            "creator": settings.creator.name,
            "voice": speaking,
            "memory": here.memory.journal.counts(),
            "index": asdict(filling) if filling else None,
        }

    parts = Parts(
        twin=here.twin,
        journal=here.memory.journal,
        recall=here.memory.recall,
        runs=runs,
        creator=creator_person(settings),
        ring=lambda run_id: ring(celery, run_id),
        drain=drain,
        status=status,
        clock=now,
    )

    @contextlib.asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        reader = open_model_reader(settings, here)
        followers = [asyncio.create_task(follow(drain)) for drain in here.memory.drains]
        followers += [asyncio.create_task(follow(reader.read_some, pause=READ_S))] if reader else []
        tasks = [*followers, asyncio.create_task(obey(House(settings, here.memory.journal)))]
        yield
        for task in tasks:
            task.cancel()

    app = FastAPI(title="Understudy", lifespan=life, docs_url=None, redoc_url=None, openapi_url=None)
    token = settings.api.token.get_secret_value() if settings.api.token and not settings.api.loopback else None
    install(app, token=token, open_paths=("/healthz", "/", "/desk.css", "/desk.js"))
    if here.voices is not None:
        app.include_router(routes(here.voices))
    app.include_router(router(parts))
    if playground is not None:
        add_playground(app, playground)
    app.mount("/", StaticFiles(directory=str(files("infra") / "desk" / "static"), html=True))
    return app


async def follow(drain: Callable[[], object], *, pause: float = DRAIN_S) -> None:
    """Bring what any process journals into index or graph, for as long as this process lives."""
    while True:
        try:
            await asyncio.to_thread(drain)
        except ServiceTrouble:
            # Something is briefly not to be had; what waits stays in the outbox for the next round.
            await asyncio.sleep(5)
        await asyncio.sleep(pause)


async def obey(house: House) -> None:
    """See to it that no voice speaks on from what any process had the journal forget, also one that died over it."""
    while True:
        with contextlib.suppress(UnderstudyError):  # what it needs is briefly not to be had; the next round does it
            await asyncio.to_thread(house.follow_forgotten)
        await asyncio.sleep(FORGOTTEN_S)


def run(
    settings: Settings,
    here: TwinHere,
    *,
    port: int,
    ready: Callable[[str], None],
    playground: Playground | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; `ready` gets the address when it answers."""
    app = make_app(settings, here, playground)
    config = uvicorn.Config(app, host=settings.api.host, port=port, log_level="warning", timeout_graceful_shutdown=3)
    server = Announcing(config, settings, ready)
    try:
        server.run()
    finally:
        withdraw(settings)
    if not server.started:
        raise ServiceTrouble(f"Could not listen on {settings.api.host}:{port}; is another Understudy running?")


class Announcing(uvicorn.Server):
    """A uvicorn server that says where it listens as soon as it does."""

    def __init__(self, config: uvicorn.Config, settings: Settings, ready: Callable[[str], None]) -> None:
        super().__init__(config)
        self._settings, self._ready = settings, ready

    async def startup(self, sockets: list[Any] | None = None) -> None:
        await super().startup(sockets)
        if not self.started:
            return
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"  # noqa: S104  read, not bound
        token = self._settings.api.token
        announce(self._settings, url=url, token=token.get_secret_value() if token else None, pid=os.getpid())
        self._ready(url)
