"""What a teacher said, as it is bought: one line an answer, on disk before it counts, none bought twice.

A line that was being written when the process died is cut off when the file is opened again. Only hashes and places in
files are held in memory, so ten thousand answers cost little.
"""

import asyncio
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from infra.errors import ServiceTrouble
from infra.voice.chat import Sampling, Turn
from trainer.teacher import Said

ANSWERS = "answers.jsonl"


def request_key(teacher: str, turns: Sequence[Turn], sampling: Sampling) -> str:
    """Names a request: the same teacher asked the same words under the same sampling need not be asked again."""
    asked = [teacher, [asdict(turn) for turn in turns], asdict(sampling)]
    return hashlib.sha256(json.dumps(asked, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Spot:
    """Where a line is."""

    path: Path
    start: int


class Ledger:
    """The answers of one run, appended; and those of other runs, looked up. A context manager; for one event loop."""

    def __init__(self, path: Path, others: Iterable[Path] = ()) -> None:
        """Raises ServiceTrouble when the file cannot be opened."""
        cut_torn_line(path)
        self._path = path
        self._known: dict[str, Spot] = {}
        for other in [*others, path]:
            self._known |= {line["key"]: Spot(other, start) for start, line in lines_at(other) if "key" in line}
        self._own = {line["key"] for _, line in lines_at(path) if "key" in line}
        try:
            self._file = path.open("ab")
        except OSError as error:
            raise ServiceTrouble(f"Could not write {str(path)!r}: {error.strerror}.") from error
        self._written = self._synced = self.bought = 0
        self._syncing = asyncio.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def find(self, key: str) -> Said | None:
        """What was said to this request, in this run or another."""
        spot = self._known.get(key)
        if spot is None:
            return None
        line = line_at(spot)
        # Another run's file may have lost lines since, of what was forgotten.
        if line.get("key") != key:
            return None
        return Said(line["text"], line["finished"], line["prompt_tokens"], line["completion_tokens"])

    async def keep(self, key: str, said: Said, *, task: int, role: str, bought: bool) -> None:
        """Write an answer down, unless this run has it; on disk when this returns."""
        if key in self._own:
            return
        self._own.add(key)
        self.bought += bought
        line = {"key": key, "task": task, "role": role, "bought": bought, **asdict(said)}
        self._known[key] = Spot(self._path, self._append(line))
        await self._sync()

    async def fail(self, task: int, reason: str) -> None:
        """Write down that a question was not answered, and why; another attempt may ask it again."""
        self._append({"task": task, "failed": reason})
        await self._sync()

    def lose(self, read: int, written: int) -> None:
        """Write down what an answer has cost that broke off."""
        self._append({"lost": True, "prompt_tokens": read, "completion_tokens": written})

    def spent(self) -> tuple[int, int]:
        """The tokens read and written that this run has paid for so far, over all its attempts."""
        lines = [line for _, line in lines_at(self._path) if line.get("bought") or line.get("lost")]
        return sum(line["prompt_tokens"] for line in lines), sum(line["completion_tokens"] for line in lines)

    def _append(self, line: Mapping[str, Any]) -> int:
        """Where the line begins."""
        start = self._file.tell()
        try:
            self._file.write((json.dumps(line, ensure_ascii=False) + "\n").encode())
            self._file.flush()
        except OSError as error:
            raise ServiceTrouble(f"Could not write {str(self._path)!r}: {error.strerror}. Free some space.") from error
        self._written += 1
        return start

    async def _sync(self) -> None:
        """Wait until everything so far is on disk; those who wait together wait for one sync."""
        wanted = self._written
        async with self._syncing:
            if self._synced < wanted:
                upto = self._written
                await asyncio.to_thread(os.fsync, self._file.fileno())
                self._synced = upto


def cut_torn_line(path: Path) -> None:
    """Cut off what stands after the last whole line: the process died while it wrote it."""
    if not path.is_file():
        return
    with path.open("rb+") as file:
        size = at = file.seek(0, os.SEEK_END)
        while at:
            start = max(0, at - 65536)
            file.seek(start)
            end = file.read(at - start).rfind(b"\n")
            if end >= 0:
                at = start + end + 1
                break
            at = start
        if at < size:
            file.truncate(at)


def lines_at(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Where each whole line of a file begins, and what it says; nothing of a file that is not there."""
    if not path.is_file():
        return
    start = 0
    with path.open("rb") as file:
        for raw in file:
            if raw.endswith(b"\n"):
                yield start, json.loads(raw)
            start += len(raw)


def line_at(spot: Spot) -> dict[str, Any]:
    """The line that begins there; empty when none does any more."""
    try:
        with spot.path.open("rb") as file:
            file.seek(spot.start)
            found = json.loads(file.readline())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
