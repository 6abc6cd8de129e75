"""A twin for tests of platforms: a real journal, index and embedder on a small memory, and a voice that reads a script."""

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Engine, event

from bot.community import Community
from bot.twin import Manner, Twin
from infra.errors import Refused, ServiceTrouble, UserMistake
from infra.voice.chat import EVERYBODY, Audience, Finish, Piece, Sampling, Turn
from memory.encode import Encoder
from memory.index import Index
from memory.journal import Journal
from memory.members import Members
from memory.messages import Exchange, Person, Place, Source, name_uuid
from memory.persona import PersonaCard
from memory.ranking import THRESHOLD
from memory.recall import Recall
from memory.remember import exchange_event, remember
from memory.vectors import EdgeStore
from tests.weights import EMBEDDER, prepared_embedder

KNOWN = {
    "How warm should the sourdough be?": "Keep it at 24 degrees, friend. Trust the dough.",
    "Which flour do you use for baguettes?": "T65 from the mill in the valley.",
    "酵母放冰箱能活多久？": "密封放冷藏，两周没问题。",
}
TESTS = str(Path(__file__).parent)
BOT = str(Path(__file__).parents[2] / "bot")
ENCODER: list[Encoder] = []
PREPARED: list[tempfile.TemporaryDirectory[str]] = []


class Remembering(Encoder):
    """The real embedder, which reads each text once: every test stands on the same few."""

    def __init__(self) -> None:
        # A question is too short to share, and the threads would wait for each other.
        super().__init__(EMBEDDER, threads=1, folder=prepared_embedder())
        self._known: dict[str, np.ndarray] = {}

    def dense(self, texts: list[str]) -> np.ndarray:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        self._known |= dict(zip(new, super().dense(new), strict=True)) if new else {}
        return np.stack([self._known[text] for text in texts])


@dataclass
class Script:
    """What the voice says and how: `words` in pieces `pace_s` apart; then it stalls, breaks off or ends."""

    words: str = "Keep it at 24 degrees, friend. Trust the dough."
    pace_s: float = 0.0
    breaks_after: int = -1
    stalls_after: int = -1
    asked: list[Sequence[Turn]] = field(default_factory=list)
    conversations: list[str] = field(default_factory=list)
    audiences: list[Audience] = field(default_factory=list)

    async def stream(
        self, turns: Sequence[Turn], sampling: Sampling, *, conversation: str = "", audience: Audience = EVERYBODY
    ) -> AsyncGenerator[Piece, None]:
        self.asked.append(turns)
        self.conversations.append(conversation)
        self.audiences.append(audience)
        pieces = [f"{word} " for word in self.words.split(" ")]
        for number, piece in enumerate(pieces):
            if number == self.breaks_after:
                raise ServiceTrouble("The voice broke off.", voice="tiny+test")
            if number == self.stalls_after:
                await asyncio.sleep(3600)
            if self.pace_s:
                await asyncio.sleep(self.pace_s)
            yield Piece(piece)
        yield Piece("", Finish("stop", "tiny+test", 10, len(pieces), 0, 0.0, 1.0, 2.0))


@dataclass
class Backstage:
    """Operations whose every outcome a test decides."""

    plan_is: dict[str, Any] = field(
        default_factory=lambda: {"rows": 60, "train": 40, "validation": 8, "heldout": 12, "excluded": {"too short": 3}}
    )
    refusal: str = ""
    down: bool = False
    runs: list[dict[str, Any]] = field(default_factory=list)
    speaks: str = "tiny+20260101T000000Z-aaaaaaaa"
    trial: dict[str, Any] | None = None
    quiet: bool = False
    followed: int = 0

    def plan(self) -> dict[str, Any]:
        if self.refusal:
            raise Refused(self.refusal)
        return self.plan_is

    def retrain(self) -> tuple[str, bool]:
        active = [run for run in self.runs if run["state"] in {"queued", "running"}]
        if active:
            return active[0]["id"], False
        self.runs.append(
            {"id": f"run{len(self.runs)}", "state": "queued", "stage": "", "progress": {}, "result": {}, "error": ""}
        )
        return self.runs[-1]["id"], True

    def failures(self) -> list[dict[str, Any]]:
        return [run for run in self.runs if run["state"] == "failed"]

    def run(self, run_id: str) -> dict[str, Any]:
        return next(run for run in self.runs if run["id"] == run_id)

    def succeed(self, run_id: str) -> None:
        """Let a run end well, with figures."""
        measures = {"nll": 3.5, "style": 0.4, "unhealthy": 0.3}
        card = {"heldout": 12, "base": measures, "candidate": {"nll": 3.0, "style": 0.6, "unhealthy": 0.1}}
        result = {"card": card, "verdict": {"passed": True, "reasons": []}, "adapter": "v2", "swap": {"running": True}}
        self.run(run_id).update(state="succeeded", result=result)

    def voices(self) -> dict[str, Any]:
        self.reach()
        adapters = [
            {"version": "v1", "speaks": True, "verdict": {"passed": True}},
            {"version": "v0", "speaks": False, "verdict": {"passed": False}},
        ]
        return {"voice": self.speaks, "previous": "v0", "canary": self.trial, "pinned": [], "adapters": adapters}

    def start_canary(self, version: str, share: float) -> None:
        self.reach()
        if version != "v0":
            raise UserMistake(f"There is no adapter {version!r}; known are: v0.")
        since = datetime.now(UTC).isoformat()
        self.trial = {"version": version, "share": share, "since": since, "voice": f"tiny+{version}", "speaks": True}

    def stop_canary(self, version: str) -> str:
        self.reach()
        if self.trial is None or self.trial["version"] != version:
            raise UserMistake(f"Adapter {version!r} is not the canary.")
        self.trial = None
        return self.speaks

    def promote_canary(self, version: str) -> str:
        self.stop_canary(version)
        self.speaks = f"tiny+{version}"
        return self.speaks

    def rollback(self) -> str:
        self.reach()
        self.speaks = "tiny"
        return self.speaks

    def picture(self, version: str) -> bytes:
        return b"\x89PNG\r\n\x1a\n" + bytes(64)

    def silence(self, *, on: bool) -> None:
        self.quiet = on

    def silenced(self) -> bool:
        return self.quiet

    def follow_forgotten(self) -> None:
        self.followed += 1

    def permission(self) -> tuple[str, str] | None:
        return None

    def reach(self) -> None:
        if self.down:
            raise ServiceTrouble("The voice cannot be reached.")


@dataclass
class Stage:
    """The community and everything a test may want to look at or break."""

    community: Community
    journal: Journal
    index: Index
    voice: Script
    operations: Backstage

    def teach(self, question: str, answer: str) -> None:
        """Let the twin know one more answer, at once."""
        self.learn({question: answer})

    def learn(self, answers: Mapping[str, str]) -> None:
        events = [exchange_event(known(question, answer)) for question, answer in answers.items()]
        remember(self.journal, events, creator=self.community.creator)
        self.index.drain_all()


def known(question: str, answer: str) -> Exchange:
    place = Place("own", "creator", name="taught")
    ada = Person("own", "creator", "Ada", role="creator")
    surface = Source.CREATOR_SURFACE
    identity = name_uuid("stage", question, answer)
    return Exchange(
        identity, question, answer, ada, place, datetime.now(UTC), surface, surface, url="https://ada.example/faq"
    )


@asynccontextmanager
async def staged(
    folder: Path, *, creator: str, teachers: frozenset[str] = frozenset(), voice: Script | None = None
) -> AsyncIterator[Stage]:
    """A community whose creator and only admin has the key `creator`, for example "discord:7"; the index follows."""
    shutil.copytree(prepared(), folder, dirs_exist_ok=True, copy_function=copied_without_holes)
    journal = Journal.open(f"sqlite:///{folder / 'journal.db'}")
    index = Index(journal, EdgeStore(folder / "index"), ENCODER[0])
    persona = PersonaCard("Ada", "A baker.", "en")
    script, operations = voice or Script(), Backstage()
    twin = Twin(
        journal,
        Recall(journal, index),
        voice=script,
        manner=Manner(persona, Sampling(), 2, 320, THRESHOLD),
        creator=frozenset({creator, "own:creator"}) | teachers,
        silenced=operations.silenced,
        clock=lambda: datetime.now(UTC),
    )
    community = Community(
        twin,
        journal,
        Members(journal),
        operations,
        persona,
        creator=frozenset({creator, "own:creator"}),
        teachers=teachers,
        admins=frozenset({creator}),
        clock=lambda: datetime.now(UTC),
    )
    stage = Stage(community, journal, index, script, operations)
    following = asyncio.create_task(follow(index))
    waited = waits_on_the_loop(journal.engine)
    try:
        yield stage
        assert not waited, f"the event loop waits for the database in {sorted(waited)}"
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        index.close()
        journal.close()


def prepared() -> Path:
    """A folder with a journal and an index that know `KNOWN`: made once for a whole run, since each test takes a copy."""
    if not PREPARED:
        ENCODER.append(Remembering())
        PREPARED.append(tempfile.TemporaryDirectory())
        folder = Path(PREPARED[0].name)
        journal = Journal.open(f"sqlite:///{folder / 'journal.db'}")
        index = Index(journal, EdgeStore(folder / "index"), ENCODER[0])
        events = [exchange_event(known(question, answer)) for question, answer in KNOWN.items()]
        remember(journal, events, creator=frozenset({"own:creator"}))
        index.drain_all()
        index.close()
        journal.close()
    return Path(PREPARED[0].name)


def copied_without_holes(source: str, target: str) -> None:
    """Copy what a file holds: an index of three answers has half a megabyte of it in files of 180."""
    with open(source, "rb") as read, open(target, "wb") as written:
        size, at = os.fstat(read.fileno()).st_size, 0
        written.truncate(size)
        with contextlib.suppress(OSError):  # there is no more data after the last hole
            while at < size:
                at = os.lseek(read.fileno(), at, os.SEEK_DATA)
                end = os.lseek(read.fileno(), at, os.SEEK_HOLE)
                os.pwrite(written.fileno(), os.pread(read.fileno(), end - at, at), at)
                at = end


def waits_on_the_loop(engine: Engine) -> set[str]:
    """Where in `bot/` SQL was run on the thread of the event loop: filled while the tests go on."""
    found: set[str] = set()

    def noted(*_: Any) -> None:
        with contextlib.suppress(RuntimeError):  # there is no loop in a thread of its own
            asyncio.get_running_loop()
            if (place := caller_in_bot()) is not None:
                found.add(place)

    event.listen(engine, "before_cursor_execute", noted)
    return found


def caller_in_bot() -> str | None:
    """The function of `bot/` that this call comes from; None when a test asks by itself, or before anything runs."""
    frame = sys._getframe(2)
    while frame := frame.f_back:
        code = frame.f_code
        folder, _, name = code.co_filename.rpartition("/")
        if folder == TESTS or code.co_name == "__init__":
            return None
        if folder == BOT:
            return f"{name}:{frame.f_lineno} {code.co_name}"
    return None


async def follow(index: Index) -> None:
    """Keep the index up to date, as the API's process does."""
    while True:
        await asyncio.to_thread(index.drain_all)
        await asyncio.sleep(0.05)
