"""A voice server's side of an order for several: it takes an adapter's bytes, prepares a version, and points at it.

Bytes arrive under their hash. They are streamed to a file that nobody looks for, bounded by what an adapter for this
base can measure; only when the hash is right and the strict check of `gguf_check.py` finds an adapter for this very
base does the file get its name. A server that shares the giver's folder has the version already, and is sent nothing.
"""

import asyncio
import contextlib
import hashlib
import os
import tempfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Annotated, Any

from fastapi import APIRouter, Request
from fastapi import Path as InPath
from pydantic import BaseModel, Field

from infra.adapters import GGUF, Aim
from infra.errors import ServiceTrouble, UnderstudyError, UserMistake
from infra.files import fresh_folder
from infra.voice.api import Voices
from infra.voice.gguf_check import check_adapter, check_base, most_bytes

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
Version = Annotated[str, Field(pattern=f"^{NAME}$")]
SHA256 = r"^[0-9a-f]{64}$"


class Wanted(BaseModel):
    """A version to prepare: its file by hash, and what its gate said."""

    version: Version
    sha256: Annotated[str, Field(pattern=SHA256)]
    verdict: dict[str, Any]


class Pointing(BaseModel):
    """An `Aim`, as JSON."""

    version: Version | None
    canary: Annotated[str, Field(pattern=f"^({NAME})?$")] = ""
    share: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Replica:
    """The voices of this process, under orders."""

    def __init__(self, voices: Voices) -> None:
        self._voices, self._engine, self._store = voices, voices.engine, voices.store
        self._received = self._store.received
        self._publishing = threading.Lock()

    async def take(self, sha256: str, chunks: AsyncIterator[bytes]) -> None:
        """Keep an adapter's file under its hash. Raises UserMistake or ServiceTrouble, and keeps nothing then."""
        most = most_bytes(await asyncio.to_thread(check_base, self._engine.weights))
        try:
            self._received.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._received, suffix=".part") as part:
                await write_checked(part, chunks, sha256=sha256, most=most)
                await asyncio.to_thread(self._keep, Path(part.name), sha256)
        except OSError as error:
            raise ServiceTrouble(f"The adapter cannot be kept here: {error.strerror}.") from error

    def prepare(self, wanted: Wanted) -> bool:
        """Load and probe a version that answers nobody yet; returns whether its bytes are missing. Raises as `Voices`.

        Raises UserMistake where another adapter has that name here.
        """
        with self._publishing:
            if wanted.version not in self._store.versions():
                if not (self._received / wanted.sha256).is_file():
                    return True
                self._publish(wanted)
        if self._store.manifest(wanted.version)["files"][GGUF] != wanted.sha256:
            raise UserMistake(f"Here is another adapter named {wanted.version!r}.")
        self._voices.prepare(wanted.version)
        return False

    def follow(self, pointing: Pointing) -> None:
        """Speak as the order says. Raises as `Voices`."""
        self._voices.follow(Aim(pointing.version, pointing.canary, pointing.share))

    def _keep(self, part: Path, sha256: str) -> None:
        """Give a file its name, if it is an adapter for this base."""
        base = check_base(self._engine.weights)
        check_adapter(part, base, base_name=self._engine.base, base_sha256=self._engine.base_sha256)
        with contextlib.suppress(FileExistsError):
            os.link(part, self._received / sha256)

    def _publish(self, wanted: Wanted) -> None:
        """Make a version of a file that came. Of the giver's manifest only the verdict is needed here."""
        staged = self._store.stage(wanted.version)
        try:
            (self._received / wanted.sha256).replace(staged / GGUF)
            self._store.publish(
                wanted.version, {"base_sha256": self._engine.base_sha256, "verdict": wanted.verdict, "received": True}
            )
        except UnderstudyError:
            self._store.discard(wanted.version)
            raise


async def write_checked(part: IO[bytes], chunks: AsyncIterator[bytes], *, sha256: str, most: int) -> None:
    """Write what comes. Raises UserMistake for more than `most` bytes, and for others than those of the hash."""
    digest, size = hashlib.sha256(), 0
    async for chunk in chunks:
        size += len(chunk)
        if size > most:
            raise UserMistake(f"This is more than the {most} bytes that an adapter for this base can have.")
        digest.update(chunk)
        part.write(chunk)
    if digest.hexdigest() != sha256:
        raise UserMistake(f"These bytes have the sha256 {digest.hexdigest()[:12]}, not {sha256[:12]}: send them again.")
    part.flush()
    await asyncio.to_thread(os.fsync, part.fileno())


def replica_routes(voices: Voices) -> APIRouter:
    """What a server takes orders by. What an earlier process received and did not publish is dropped."""
    router, replica = APIRouter(), Replica(voices)
    if voices.store.received.is_dir():
        fresh_folder(voices.store.received)

    @router.put("/admin/adapters/{sha256}")
    async def take(request: Request, sha256: Annotated[str, InPath(pattern=SHA256)]) -> dict[str, str]:
        await replica.take(sha256, request.stream())
        return {"received": sha256}

    @router.post("/admin/voices/prepare")
    def prepare(wanted: Wanted) -> dict[str, Any]:
        return {"version": wanted.version, "missing": replica.prepare(wanted)}

    @router.post("/admin/voices/point")
    def point(pointing: Pointing) -> dict[str, Any]:
        replica.follow(pointing)
        return {"voice": voices.voice}

    return router
