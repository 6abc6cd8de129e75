"""The playground: a Discord and a Telegram of our own on this machine, the real bots on them, and a page to talk there.

The two doubles run in a thread with a loop of its own, which outlives the API and the bots: both end in good order.
The twin there is a copy, made anew at each start, so nothing said in the playground reaches the memory itself.
"""

import asyncio
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field

import infra
from infra.database import copy_database
from infra.errors import UserMistake
from infra.remote import Remote
from infra.settings import Settings, overrule

CHECKOUT = Path(infra.__file__).parent.parent
PAGE = Path(__file__).parent / "playground_page"
# What a browser may show; everything else it saves.
PICTURES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
}

Json = dict[str, Any]
Platform = Literal["discord", "telegram"]


class Room(Protocol):
    """One platform's double as the page meets it. Everything runs in the doubles' loop and raises UserMistake."""

    creator: str
    """Ada, as PLATFORM:ID."""

    def view(self, person: int, place: int) -> Json:
        """What a person sees in a place; somebody or something unknown becomes the first there is."""
        ...

    async def say(self, person: int, place: int, text: str, reply_to: int | None) -> Json: ...

    async def press(self, person: int, place: int, message: int, action: str) -> Json: ...

    async def submit(self, form: str, values: Mapping[str, str]) -> Json: ...

    async def choose(self, person: int, place: int, message: int, name: str) -> Json:
        """Use a menu on a message, or react to it with an emoji."""
        ...

    def file(self, place: int, message: int, name: str) -> bytes | None: ...


@dataclass(frozen=True)
class Playground:
    """Both rooms and the way into their loop."""

    rooms: Mapping[Platform, Room]
    portal: BlockingPortal

    async def do(self, work: Callable[..., Any], *given: Any) -> Any:
        """The result of a function or coroutine function that ran where the doubles live."""
        return await asyncio.wrap_future(self.portal.start_task_soon(work, *given))


@contextmanager
def open_playground(settings: Settings) -> Iterator[Playground]:
    """Start the doubles and point this process and its children at them. Raises UserMistake where that cannot be."""
    discord_room, telegram_room = doubles()
    refuse_unfit(settings)
    with ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal())
        discord = stack.enter_context(portal.wrap_async_context_manager(discord_room.double()))
        telegram = stack.enter_context(portal.wrap_async_context_manager(telegram_room.double()))
        rooms: dict[Platform, Room] = {
            "discord": portal.call(discord_room.build, discord, settings.creator),
            "telegram": portal.call(telegram_room.build, telegram, settings.creator),
        }
        overrule({**apart(settings), **discord_room.variables(discord), **telegram_room.variables(telegram)})
        overrule(creators(settings, [room.creator for room in rooms.values()]))
        yield Playground(rooms, portal)


def doubles() -> tuple[Any, Any]:
    """The modules that know the doubles, which are part of a checkout and not of the installed package."""
    if not (CHECKOUT / "tests" / "fakes" / "discord.py").is_file():
        raise UserMistake("The playground needs the doubles of Understudy's tests: run it from a checkout.")
    if str(CHECKOUT) not in sys.path:
        sys.path.insert(0, str(CHECKOUT))
    from infra.desk import playground_discord, playground_telegram

    return playground_discord, playground_telegram


def refuse_unfit(settings: Settings) -> None:
    """Raise UserMistake where somebody else could reach the playground, or while another one is in use."""
    if not settings.api.loopback:
        raise UserMistake(
            f"In the playground everybody may speak as the creator, and api.host {settings.api.host!r} is reachable "
            "from outside. Set it to 127.0.0.1."
        )
    for each in (settings, settings.model_copy(update={"data": folder_of(settings)})):
        if (running := Remote.here(each)) is not None:
            raise UserMistake(f"This twin is running already, at {running.url}; stop it first.")


def folder_of(settings: Settings) -> Path:
    return settings.data_folder / "playground"


def apart(settings: Settings) -> dict[str, str]:
    """Everything that the twin keeps, as a copy on this machine."""
    copy_memory(settings, folder_of(settings))
    services = ("JOURNAL__URL", "INDEX__URL", "QUEUE__URL", "BOT__API")
    # Nor may it give orders to the twin's voice servers, or answer holders of keys: the engine here speaks.
    doors = {"VOICE__URLS": "[]", "VOICE__VLLM": "", "PUBLISH__PORT": "0"}
    return {"DATA": str(folder_of(settings)), **dict.fromkeys(services, ""), **doors}


def copy_memory(settings: Settings, folder: Path) -> None:
    """Journal, index and voices, copied anew; a journal or index on a server stays there. The models are shared."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    journal, models = settings.data_folder / "journal.db", settings.data_folder / "models"
    models.mkdir(exist_ok=True)
    (folder / "models").symlink_to(models, target_is_directory=True)
    if not settings.journal.url and journal.exists():
        copy_database(settings.journal_url, folder / "journal.db")
        for name in ("index", "adapters"):
            if (settings.data_folder / name).is_dir():
                shutil.copytree(settings.data_folder / name, folder / name)


def creators(settings: Settings, ada: list[str]) -> dict[str, str]:
    """Ada is the creator. Other ids of these platforms are left out: a bot would look for its inbox there, in vain."""
    elsewhere = [each for each in settings.creator.ids if not each.startswith(("discord:", "telegram:"))]
    admins = {"CREATOR__ADMINS": json.dumps(ada)} if settings.creator.admins else {}
    return {"CREATOR__IDS": json.dumps([*ada, *elsewhere]), **admins}


class Said(BaseModel):
    person: int
    place: int
    text: str = Field(min_length=1, max_length=4000)
    reply_to: int | None = None


class Chosen(BaseModel):
    """A button or a menu under a message."""

    person: int
    place: int
    message: int
    action: str


class Filled(BaseModel):
    form: str
    values: dict[str, str]


def add_playground(app: FastAPI, playground: Playground) -> None:
    """The page at /playground and what it calls."""
    app.include_router(routes(playground))
    app.mount("/playground", StaticFiles(directory=str(PAGE)))


def routes(playground: Playground) -> APIRouter:
    """All routes under `/playground`."""
    router = APIRouter(prefix="/playground")
    rooms = playground.rooms

    @router.get("")
    def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    @router.get("/{platform}/view")
    async def view(platform: Platform, person: int = 0, place: int = 0) -> Json:
        return dict(await playground.do(rooms[platform].view, person, place))

    @router.post("/{platform}/say")
    async def say(platform: Platform, body: Said) -> Json:
        return dict(await playground.do(rooms[platform].say, body.person, body.place, body.text, body.reply_to))

    @router.post("/{platform}/press")
    async def press(platform: Platform, body: Chosen) -> Json:
        return dict(await playground.do(rooms[platform].press, body.person, body.place, body.message, body.action))

    @router.post("/{platform}/choose")
    async def choose(platform: Platform, body: Chosen) -> Json:
        return dict(await playground.do(rooms[platform].choose, body.person, body.place, body.message, body.action))

    @router.post("/{platform}/submit")
    async def submit(platform: Platform, body: Filled) -> Json:
        return dict(await playground.do(rooms[platform].submit, body.form, body.values))

    @router.get("/{platform}/files/{place}/{message}/{name}")
    async def file(platform: Platform, place: int, message: int, name: str) -> Response:
        content = await playground.do(rooms[platform].file, place, message, name)
        return Response(status_code=404) if content is None else shown(content, name)

    return router


def shown(content: bytes, name: str) -> Response:
    """A file as the page gets it: a picture to look at, or something to save, which is never run."""
    kind = PICTURES.get(Path(name).suffix.lower())
    headers = {"X-Content-Type-Options": "nosniff", **({} if kind else {"Content-Disposition": "attachment"})}
    return Response(content, media_type=kind or "application/octet-stream", headers=headers)


async def until(condition: Callable[[], object], within_s: float) -> bool:
    """Whether something became true in time."""
    for _ in range(int(within_s / 0.02)):
        if condition():
            return True
        await asyncio.sleep(0.02)
    return False
