"""What importers yield, what they are told, and how they read text: the same for every format.

Knows nothing of any one format and writes nothing. All reading is bounded: no line, value or record is held that is
longer than its limit, so that a large or hostile file costs time, not memory.
"""

import codecs
import io
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePath, PurePosixPath
from typing import BinaryIO, TextIO

from infra.errors import UserMistake
from memory.codec import YEARS
from memory.messages import Exchange, Message, Passage, Person, Place, Source, pair_id

# How much of a file decides its encoding; a file whose first megabyte is UTF-8 is UTF-8.
SAMPLE_BYTES = 1 << 20
# A question or an answer longer than this is not a person's.
MOST_CHARACTERS = 200_000
# A line or record longer than this is refused: reading it whole would take that much memory.
MOST_RECORD = 16_000_000
# Chinese text is nearly all of GB2312's 7,445 signs; other legacy encodings read as GB18030 give rarer ones.
COMMON_SIGNS = 0.8
SHOWN_AUTHORS = 5
# Of a name or reason that a broken file gives itself, a sentence can hold so much.
MOST_SHOWN = 300
# What would move a terminal, or begin a line of its own.
UNSHOWN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
ENCODINGS = {"utf-8-sig": "UTF-8 (nor UTF-16 with a mark, nor GB18030)", "utf-16": "UTF-16", "gb18030": "GB18030"}


@dataclass(frozen=True)
class Skipped:
    """A record that cannot be used, and why, in words that are counted."""

    reason: str


@dataclass(frozen=True)
class Sourced:
    """A message with where it came from."""

    message: Message
    source: Source


Record = Exchange | Passage | Sourced | Skipped


@dataclass(frozen=True)
class ImportContext:
    """Who the creator is, by person and by every key they write under, and the hour that pairs without a date get.

    `folder` is the folder that is imported as a whole, if one is: its files are known by their path in it.
    """

    creator: Person
    creator_keys: frozenset[str]
    now: datetime
    community: str = "main"
    folder: Path | None = None

    def __post_init__(self) -> None:
        # Telegram Desktop writes "user42" for whom the Bot API and this project call "42".
        plain = {key.replace("telegram:user", "telegram:", 1) for key in self.creator_keys}
        object.__setattr__(self, "creator_keys", self.creator_keys | plain)

    def name_of(self, path: Path) -> str:
        """What a file is called in sources and citations; stable when it is imported again.

        Bytes of a name that are not UTF-8 stand as escapes in it, so that two such files are not taken for one.
        """
        name = path.relative_to(self.folder.parent) if self.folder else PurePath(path.name)
        return os.fsencode(name.as_posix()).decode("utf-8", "backslashreplace")

    def stem_of(self, path: Path) -> str:
        """What a document is called that does not say it itself."""
        return PurePosixPath(self.name_of(path)).stem

    def ids_on(self, platform: str) -> set[str]:
        """The creator's ids on one platform."""
        return {key.split(":", 1)[1] for key in self.creator_keys if key.startswith(f"{platform}:")}

    def exchange(
        self,
        question: str,
        answer: str,
        *,
        file: str,
        dates: Sequence[object] = (),
        thread: str = "",
        title: str = "",
        url: str = "",
    ) -> Exchange | Skipped:
        """A pair from the creator's own export or FAQ, or why it cannot be used.

        The first of `dates` that can be read counts; a pair that was given none is of the hour of the import.
        """
        if not question:
            return Skipped("the question is empty")
        if not answer:
            return Skipped("the answer is empty")
        if len(question) > MOST_CHARACTERS or len(answer) > MOST_CHARACTERS:
            return Skipped(f"longer than {MOST_CHARACTERS} characters")
        given = [date for date in dates if date is not None and str(date).strip()]
        at = next((found for date in given if (found := time_of(date))), None)
        if given and at is None:
            return Skipped("its date is none that can be kept")
        return Exchange(
            id=pair_id(question, answer, at),
            question=question,
            answer=answer,
            author=self.creator,
            place=Place("import", "qa", thread=thread, name=file, community=self.community),
            at=at or self.now,
            source=Source.CREATOR_QA,
            question_source=Source.CREATOR_QA,
            title=title,
            url=url,
        )


class Speakers:
    """Who wrote a chat export, to say which id the creator has when it is not one of the configured ones."""

    def __init__(self) -> None:
        self._said: Counter[str] = Counter()
        self._creators = 0

    def count(self, record: Record) -> None:
        if isinstance(record, Sourced):
            self._said[record.message.person.key] += 1
            self._creators += record.message.person.role == "creator"

    def require_creator(self, path: Path, *, hint: str = "") -> None:
        """Raises UserMistake when there are no messages, or none by the creator. Names are not shown, only ids."""
        if not self._said:
            raise broken(path, "its top", "there are no messages with text in it")
        if self._creators:
            return
        most = ", ".join(f"{key} ({count})" for key, count in self._said.most_common(SHOWN_AUTHORS))
        why = f"none of its {self._said.total()} messages is by one of creator.ids; who wrote most: {most}"
        raise broken(path, "all of it", f"{why}{hint}. Add the creator's id to `ids` under [creator]")


def broken(path: Path, where: str, why: str) -> UserMistake:
    """The error of a file that cannot be read as what it is: nothing of it is imported."""
    said = (" ".join(UNSHOWN.sub(" ", each).split())[:MOST_SHOWN] for each in (where, why))
    return UserMistake(f"{str(path)!r}, {': '.join(said)}. Nothing of this file was imported.")


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """The file as text, in the encoding it is in: UTF-8, UTF-16 with a mark, or GB18030.

    Raises UserMistake with the byte where none of them fits.
    """
    encoding = encoding_of(path)
    with path.open("rb") as raw:
        reader = io.TextIOWrapper(raw, encoding=encoding, newline="")
        try:
            yield reader
        except UnicodeDecodeError as error:
            where = f"near byte {raw.tell() - len(error.object) + error.start}"
            raise broken(path, where, f"this is not {ENCODINGS[encoding]} text; save it as UTF-8") from error


@contextmanager
def open_utf8(path: Path) -> Iterator["Utf8"]:
    """The file's text as UTF-8 bytes without a mark, whatever its encoding, for parsers that take nothing else."""
    if encoding_of(path) == "utf-8-sig":
        with path.open("rb") as raw:
            if raw.read(3) != codecs.BOM_UTF8:
                raw.seek(0)
            file = Utf8(raw)
            try:
                yield file
            except UnicodeDecodeError as error:
                raise broken(path, f"near byte {file.at}", f"this is not {ENCODINGS['utf-8-sig']} text") from error
    else:
        with open_text(path) as text:
            yield Utf8(text)


class Utf8:
    """Bytes of a text or binary file, counted as they are read."""

    def __init__(self, file: TextIO | BinaryIO) -> None:
        self._file = file
        self.at = 0

    def read(self, size: int = -1) -> bytes:
        piece = self._file.read(size)
        raw = piece.encode() if isinstance(piece, str) else piece
        self.at += len(raw)
        return raw


def encoding_of(path: Path) -> str:
    """The encoding of a text file, told from its mark or its first megabyte; "utf-8-sig" unless another one fits.

    A file that no encoding fits is taken for UTF-8, so that reading it names the first byte that is not.
    """
    with path.open("rb") as file:
        head = file.read(SAMPLE_BYTES)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if decoded(head, "utf-8") is None and is_chinese(decoded(head, "gb18030") or ""):
        return "gb18030"
    return "utf-8-sig"


def decoded(head: bytes, encoding: str) -> str | None:
    """The text of a file's beginning, which may be cut in the middle of a sign; None if it is not in this encoding."""
    try:
        return codecs.getincrementaldecoder(encoding)().decode(head, final=False)
    except UnicodeDecodeError:
        return None


def is_chinese(text: str) -> bool:
    """Whether what is not ASCII in a text is what Chinese is written with."""
    signs = [sign for sign in text if not sign.isascii()]
    return bool(signs) and sum(map(in_gb2312, signs)) >= COMMON_SIGNS * len(signs)


def in_gb2312(sign: str) -> bool:
    try:
        sign.encode("gb2312")
    except UnicodeEncodeError:
        return False
    return True


def lines_of(path: Path, file: TextIO) -> Iterator[str]:
    """The lines of a text with their ends. Raises UserMistake for one that is longer than `MOST_RECORD`."""
    number = 0
    while line := file.readline(MOST_RECORD):
        number += 1
        if len(line) >= MOST_RECORD:
            raise broken(path, f"line {number}", f"longer than {MOST_RECORD} characters")
        yield line


def time_of(value: object) -> datetime | None:
    """A time as exports write it: ISO 8601, or (milli)seconds since 1970; without a zone in UTC.

    None if it is neither, or of a year that cannot be kept.
    """
    if isinstance(value, bool) or value is None:
        return None
    text = str(value).strip()
    try:
        if isinstance(value, int | float) or text.isdecimal():
            seconds = float(text)
            found = datetime.fromtimestamp(seconds / 1000 if seconds > 1e11 else seconds, UTC)
        else:
            # Years with slashes are what spreadsheets write.
            found = datetime.fromisoformat(text.replace("/", "-"))
            found = found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return found if found.year in YEARS else None


def revision_of(edited: object) -> int:
    """The revision of a message last edited then: seconds since 1970, so that a later edit is a higher one."""
    at = time_of(edited)
    return max(0, int(at.timestamp())) if at else 0
