"""What importers yield, what they are told, and how they read text: the same for every format."""

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from infra.errors import UserMistake
from memory.messages import Exchange, Message, Passage, Person, Place, Source, name_uuid

# How much of a file decides its encoding; a file whose first megabyte is UTF-8 is UTF-8.
SAMPLE_BYTES = 1 << 20
# A record longer than this is no question or answer of a person.
MOST_CHARACTERS = 200_000


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
    """Who the creator is, by person and by every key they write under, and the hour that undated records get."""

    creator: Person
    creator_keys: frozenset[str]
    now: datetime
    community: str = "main"

    def exchange(
        self, question: str, answer: str, *, at: datetime | None, thread: str, title: str, url: str, file: str
    ) -> Exchange:
        """A pair from the creator's own export or FAQ."""
        return Exchange(
            # Named by its words, so that the same pair in two files is one exchange, and an import may be repeated.
            id=name_uuid("qa", question, answer, at.isoformat() if at else ""),
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


def broken(path: Path, where: str, why: str) -> UserMistake:
    """The error of a file that cannot be read as what it is: nothing of it is imported."""
    return UserMistake(f"{str(path)!r}, {where}: {why}. Nothing of this file was imported.")


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
            raise broken(path, where, f"this is not {encoding} text") from error


def encoding_of(path: Path) -> str:
    """The encoding of a file, told from its mark or its first megabyte."""
    with path.open("rb") as file:
        head = file.read(SAMPLE_BYTES)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, final=False)
    except UnicodeDecodeError:
        return "gb18030"
    return "utf-8-sig"


def time_of(value: object) -> datetime | None:
    """A time as exports write it: ISO 8601, or seconds since 1970; without a zone in UTC. None if neither."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        if isinstance(value, int | float) or str(value).strip().isdigit():
            return datetime.fromtimestamp(float(str(value)), UTC)
        # Seven digits of fraction, as some exporters write, are one more than Python reads before 3.12.
        found = datetime.fromisoformat(str(value).strip().replace("Z", "+00:00"))
    except (ValueError, OverflowError, OSError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def without_words(question: str, answer: str) -> Skipped | None:
    """Why a pair cannot be used, or None."""
    if not question:
        return Skipped("the question is empty")
    if not answer:
        return Skipped("the answer is empty")
    if len(question) > MOST_CHARACTERS or len(answer) > MOST_CHARACTERS:
        return Skipped(f"longer than {MOST_CHARACTERS} characters")
    return None
