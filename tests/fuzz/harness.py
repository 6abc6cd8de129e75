"""One case against one target: whatever the bytes are, a result or one of our sentences, in time and inside its folder.

Hypothesis (`test_fuzz.py`) and atheris (`run.py`) both go through `try_case`, and share how inputs are changed.
"""

import os
import random
import signal
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree
from types import FrameType
from typing import Any

from infra.errors import UnderstudyError

ROOT = Path(__file__).parents[2]
# Processor time: a busy machine makes no case slow. The slowest honest one takes half a second.
SECONDS = 10.0
MOST_INPUT = 1 << 16
# A sentence can name a file and quote a little of it.
MOST_SAID = 2_000

# What a process may open besides its room: its own code, time zones, and what Linux says of the machine.
READABLE = tuple(
    {
        str(ROOT), sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(),
        "/usr/share", "/usr/lib", "/proc", "/sys", "/dev/null", "/dev/urandom",
    }
)  # fmt: skip
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}
REACHES = {"socket.connect", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"}


@dataclass(frozen=True)
class Target:
    """Something that reads what strangers write: `feed` raises nothing but UnderstudyError, whatever it is given.

    `seeds` makes whole inputs, `words` are pieces of the format that changes put in.
    """

    name: str
    feed: Callable[[bytes, Path], None]
    seeds: Callable[[], Sequence[bytes]]
    words: Sequence[bytes] = ()


class TooSlow(BaseException):
    """Not an Exception, so that nothing on the way up takes it for a broken file."""


@dataclass
class Watch:
    """What the running case did outside its room."""

    room: Path | None = None
    outside: list[str] = field(default_factory=list)

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if self.room is None:
            return
        if event == "open":
            path, _, flags = args
            if isinstance(path, str | bytes) and not self._may(os.fsdecode(path), writes=bool(flags & WRITES)):
                self.outside.append(f"open {path!r}")
        elif event in CHANGES:
            # A name relative to an open folder has been looked at when that was opened.
            paths = [each for each in args if isinstance(each, str | bytes) and os.path.isabs(each)]
            self.outside += [f"{event} {each!r}" for each in paths if not self._may(os.fsdecode(each), writes=True)]
        elif event in REACHES:
            self.outside.append(event)

    def _may(self, path: str, *, writes: bool) -> bool:
        if not path or not os.path.isabs(path):
            return True
        whole = os.path.normpath(path)
        known = (str(self.room),) if writes else (str(self.room), *READABLE)
        return whole == os.devnull or whole.startswith(known)


WATCH = Watch()


@contextmanager
def watched(room: Path) -> Iterator[None]:
    """Audit what happens inside; raises AssertionError for anything outside of `room`."""
    if not getattr(WATCH, "hooked", False):
        sys.addaudithook(WATCH)
        WATCH.hooked = True
    before, tempfile.tempdir = tempfile.tempdir, str(room)
    WATCH.room, WATCH.outside = room, []
    try:
        yield
    finally:
        WATCH.room, tempfile.tempdir = None, before
    assert not WATCH.outside, WATCH.outside


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise TooSlow after so much processor time; regular expressions and Python code look, C code is left to run."""

    def late(number: int, frame: FrameType | None) -> None:
        raise TooSlow(f"not done after {seconds} s of processor time")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def try_case(target: Target, data: bytes, room: Path, *, seconds: float = SECONDS) -> None:
    """Raises AssertionError, or whatever the target raises that is none of our sentences."""
    rmtree(room, ignore_errors=True)
    room.mkdir()
    try:
        with watched(room), within(seconds):
            target.feed(data, room)
    except UnderstudyError as error:
        said = str(error)
        assert said, "an error without a sentence"
        assert "\n" not in said, said
        assert len(said) <= MOST_SAID, said
    except TooSlow as error:
        raise AssertionError(str(error)) from None


def changed(target: Target, data: bytes, rng: random.Random, *, most: int = MOST_INPUT) -> bytes:
    """An input of the format with one to four pieces changed, so that what reads it gets beyond its beginning."""
    for _ in range(rng.randint(1, 4)):
        data = rng.choice(CHANGE_BY)(target, data, rng)[:most]
    return data


def piece(target: Target, data: bytes, rng: random.Random) -> bytes:
    """A few bytes that mean something here, or anywhere."""
    kind = rng.randrange(4)
    if kind == 0 and data:
        at = rng.randrange(len(data))
        return data[at : at + rng.choice((1, 2, 4, 16, 64))]
    if kind == 1:
        return bytes(rng.randrange(256) for _ in range(rng.choice((1, 1, 2, 4, 8))))
    return rng.choice(target.words) if kind == 2 and target.words else rng.choice(ANYWHERE)


def inserted(target: Target, data: bytes, rng: random.Random) -> bytes:
    at = rng.randint(0, len(data))
    return data[:at] + piece(target, data, rng) + data[at:]


def replaced(target: Target, data: bytes, rng: random.Random) -> bytes:
    at, size = rng.randint(0, len(data)), rng.choice((1, 1, 2, 4, 8, 32))
    return data[:at] + piece(target, data, rng) + data[at + size :]


def removed(target: Target, data: bytes, rng: random.Random) -> bytes:
    at = rng.randint(0, len(data))
    return data[:at] + data[at + rng.choice((1, 2, 8, 64, 1024)) :]


def cut_off(target: Target, data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randint(0, len(data))]


def pumped(target: Target, data: bytes, rng: random.Random) -> bytes:
    """A piece again and again: what is quadratic shows itself."""
    at, again = rng.randint(0, len(data)), b"".join(piece(target, data, rng) for _ in range(rng.choice((1, 1, 2, 3))))
    times = rng.choice((8, 200, MOST_INPUT)) // max(len(again), 1)
    return data[:at] + again * times + data[at:]


def in_place_of_a_value(target: Target, data: bytes, rng: random.Random) -> bytes:
    """Another kind of value after a colon, an equals sign or a bracket, as JSON, TOML and XML have them."""
    places = [at for at, sign in enumerate(data) if sign in b":=,[>"]
    if not places:
        return data
    begin = rng.choice(places) + 1
    end = next((at for at in range(begin, len(data)) if data[at] in b',}]<\n"' and at > begin + 1), len(data))
    return data[:begin] + rng.choice(VALUES) + data[end + (data[end : end + 1] == b'"') :]


CHANGE_BY = (inserted, replaced, replaced, removed, cut_off, pumped, in_place_of_a_value, in_place_of_a_value)
VALUES = (
    b"null", b"true", b"-1", b"0", b"1e999", b"NaN", b"99999999999999999999", b'"x"', b'""', b"[]", b"{}", b"[null]",
    b'[["x"]]', b'{"id":1}', b'{"":{}}', b'"\\ud800"', b'"\\u0000"', b"1.5", b'"../../x"', b'"/etc/passwd"', b"inf",
    b'"-"', b"9" * 5000, b"[" * 2000, b'{"a":' * 1500,
)  # fmt: skip
ANYWHERE = (
    b"\x00", b" ", b"\t", b"\n", b"\r\n", b"\n\n", b'"', b"'", b"{", b"}", b"[", b"]", b"(", b")", b"<", b">", b"&",
    b"/", b"\\", b"../", b"-", b".", b",", b":", b"=", b"*", b"_", b"`", b"```", b"~~~", b"#", b"|", b"@", b"0", b"1",
    b"a", b"A", b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", "问".encode(), "：".encode(), "面团。".encode(), "👩‍🚀".encode(),
    "🇨🇳".encode(), "1️⃣".encode(), "é".encode(), "\u200d".encode(), "\u2028".encode(), "\x85".encode(), b"\xed\xa0\x80",
    b"https://a.example/b", b"[a](https://a.example)", b"a@b.example", b"x ",
)  # fmt: skip
