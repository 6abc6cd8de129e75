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

from bot.published import Outside
from infra.cli.compose import (
    TwinHere,
    creator_person,
    manner,
    now,
    open_model_reader,
    open_runs,
    silenced,
    voice_of,
)
from infra.cli.operations import House
from infra.desk.api import Parts, router
from infra.desk.metrics import metrics_route
from infra.desk.playground import Playground, add_playground
from infra.desk.published import Door, KeysApart, bound, listen, published_app
from infra.errors import ServiceTrouble, UnderstudyError
from infra.published import Published
from infra.remote import announce, withdraw
from infra.settings import Settings, revealed
from infra.voice.api import Voices, install, routes
from infra.voice.engine import BROKEN
from infra.voice.replica import replica_routes

# What a browser fetches before it can show a token.
OPEN = ("/healthz", "/", "/desk.css", "/desk.js")
# How often the index looks for what other processes taught; a taught answer is recallable in well under a second.
DRAIN_S = 0.2
# How often a model that reads for the graph takes the next few sources.
READ_S = 1.0
# How often it looks for what was forgotten elsewhere, and at the canary; what is forgotten here is followed at once.
OBEY_S = 30.0


def make_app(settings: Settings, here: TwinHere, playground: Playground | None = None) -> FastAPI:
    """The application over the opened parts."""
    from importlib.resources import files

    house = House(settings, here.memory.journal)
    runs = open_runs(settings, here.memory.journal)

    async def drain() -> None:
        await asyncio.to_thread(here.memory.drain_all)

    def status() -> dict[str, Any]:
        speaking = here.voices.voice if here.voices else settings.voice.url
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
        retrain=house.retrain,
        drain=drain,
        status=status,
        clock=now,
    )

    outside, door = published(settings, here), bound(settings)

    @contextlib.asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        reader = open_model_reader(settings, here)
        followers = [asyncio.create_task(follow(drain)) for drain in here.memory.drains]
        followers += [asyncio.create_task(follow(reader.read_some, pause=READ_S))] if reader else []
        tasks = [*followers, asyncio.create_task(obey(house))]
        tasks += [asyncio.create_task(listen(outside, door))] if door else []
        yield
        for task in tasks:
            task.cancel()

    app = FastAPI(title="Understudy", lifespan=life, docs_url=None, redoc_url=None)
    install(app, token=revealed(settings.api.token), open_paths=OPEN, here_only=settings.api.loopback)
    app.add_middleware(KeysApart, published=outside)  # the last one added is asked first
    if here.voices is not None:
        app.include_router(routes(here.voices))
    app.include_router(router(parts))
    app.include_router(metrics_route(settings, journal=here.memory.journal, voices=here.voices))
    if playground is not None:
        add_playground(app, playground)
    app.mount("/", StaticFiles(directory=str(files("infra") / "desk" / "static"), html=True))
    return app


def published(settings: Settings, here: TwinHere) -> FastAPI:
    """The twin for whoever shows a published key."""
    journal = here.memory.journal
    outside = Outside(here.memory.recall, manner(settings, journal), lambda: silenced(journal), now)
    return published_app(Door(outside, voice_of(settings, here.voices), Published(journal.engine), now))


def make_voice_app(settings: Settings, voices: Voices) -> FastAPI:
    """The voice alone, under the orders of a twin elsewhere."""
    app = FastAPI(title="Understudy's voice", docs_url=None, redoc_url=None, openapi_url=None)
    install(app, token=revealed(settings.api.token), here_only=settings.api.loopback)
    app.include_router(routes(voices))
    app.include_router(replica_routes(voices))
    app.include_router(metrics_route(settings, journal=None, voices=voices))
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
    """See to it that no voice speaks on from what any process had the journal forget, and no canary that does badly."""
    while True:
        for duty in (house.follow_forgotten, house.watch_canary):
            with contextlib.suppress(UnderstudyError):  # what it needs is briefly not to be had; the next round does it
                await asyncio.to_thread(duty)
        await asyncio.sleep(OBEY_S)


def run(settings: Settings, app: FastAPI, *, port: int, ready: Callable[[str], None], over: Callable[[], bool]) -> None:
    """Serve until SIGINT or SIGTERM; `ready` gets the address when it answers.

    Raises ServiceTrouble when it cannot listen, or the voice has ended, which `over` says.
    """
    config = uvicorn.Config(
        app, host=settings.api.host, port=port, log_config=None, log_level="warning", timeout_graceful_shutdown=3
    )
    server = Announcing(config, settings, ready, over=over)
    try:
        server.run()
    finally:
        withdraw(settings)
    if over():
        raise ServiceTrouble(BROKEN)  # whoever supervises this process starts it anew
    if not server.started:
        raise ServiceTrouble(f"Could not listen on {settings.api.host}:{port}; is another Understudy running?")


class Announcing(uvicorn.Server):
    """A uvicorn server that says where it listens as soon as it does, and ends when it is all `over`."""

    def __init__(
        self, config: uvicorn.Config, settings: Settings, ready: Callable[[str], None], *, over: Callable[[], bool]
    ) -> None:
        super().__init__(config)
        self._settings, self._ready, self._over = settings, ready, over

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self._over()

    async def startup(self, sockets: list[Any] | None = None) -> None:
        await super().startup(sockets)
        if not self.started:
            return
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"  # noqa: S104  read, not bound
        announce(self._settings, url=url, token=revealed(self._settings.api.token), pid=os.getpid())
        self._ready(url)
