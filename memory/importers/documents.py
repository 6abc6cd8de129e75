"""Markdown and plain text: an FAQ becomes exchanges, anything else becomes passages under their headings."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from memory.importers.records import MOST_CHARACTERS, ImportContext, Record, Skipped, broken, open_text
from memory.messages import Passage, Place, Source, name_uuid
from memory.prompt import estimate_tokens

# What recall hands over whole: small enough that two notes fit a small model's prompt.
PASSAGE_TOKENS = 180

HEADING = re.compile(r"#{1,6}\s+(.+?)\s*#*$")
ASKED = re.compile(r"(?:\*\*)?(?:Q|Question|问|問)(?:\*\*)?\s*[:：.]\s*(.+?)(?:\*\*)?$", re.IGNORECASE)
ANSWERED = re.compile(r"(?:\*\*)?(?:A|Answer|答)(?:\*\*)?\s*[:：.]\s*(.*)$", re.IGNORECASE)


def sniff(head: str, name: str) -> bool:
    return name.endswith((".md", ".markdown", ".txt"))


@dataclass
class Part:
    """A heading, or a question, and the lines under it."""

    heading: str
    lines: list[str] = field(default_factory=list)
    asked: bool = False

    @property
    def text(self) -> str:
        return "\n".join(self.lines).strip()


def read(path: Path, context: ImportContext) -> Iterator[Record]:
    """Exchanges for what is asked and answered, passages for the rest, in the order of the file."""
    with open_text(path) as file:
        lines = file.read(MOST_CHARACTERS * 100).splitlines()
    if any("\x00" in line for line in lines):
        raise broken(path, "somewhere in it", "it holds NUL characters and is no text")
    parts = list(parts_of(lines))
    if not any(part.text for part in parts):
        raise broken(path, "its top", "there is no text in it")
    position = 0
    for part in parts:
        if part.asked:
            yield pair(part, context, path.name)
            continue
        for text in pieces(part.text):
            yield passage(text, part.heading, position, context, path.name)
            position += 1


def parts_of(lines: list[str]) -> Iterator[Part]:
    """The file cut at headings and at lines that ask."""
    part = Part("")
    for line in lines:
        heading, asked, answered = HEADING.match(line), ASKED.match(line.strip()), ANSWERED.match(line.strip())
        if heading:
            yield part
            title = heading.group(1)
            part = Part(title, asked=title.rstrip("*_ ").endswith(("?", "？")))
        elif asked:
            yield part
            part = Part(asked.group(1), asked=True)
        elif answered and part.asked and not part.text:
            part.lines.append(answered.group(1))
        else:
            part.lines.append(line)
    yield part


def pair(part: Part, context: ImportContext, file: str) -> Record:
    if not part.text:
        return Skipped("a question without an answer under it")
    return context.exchange(part.heading, part.text, at=None, thread="", title="", url="", file=file)


def pieces(text: str) -> Iterator[str]:
    """A text in pieces of about `PASSAGE_TOKENS`, cut between paragraphs, else between sentences."""
    held: list[str] = []
    for unit in units(text):
        if held and estimate_tokens("\n".join([*held, unit])) > PASSAGE_TOKENS:
            yield "\n".join(held)
            held = []
        held.append(unit)
    if held:
        yield "\n".join(held)


def units(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text):
        stripped = paragraph.strip()
        if not stripped:
            continue
        if estimate_tokens(stripped) <= PASSAGE_TOKENS:
            yield stripped
            continue
        for sentence in re.split(r"(?<=[.!?])\s+|(?<=[。！？])", stripped):
            size = PASSAGE_TOKENS * (1 if estimate_tokens(sentence) > len(sentence) // 2 else 4)
            yield from (sentence[at : at + size] for at in range(0, len(sentence), size))


def passage(text: str, heading: str, position: int, context: ImportContext, file: str) -> Passage:
    place = Place("import", "documents", name=file, community=context.community)
    return Passage(
        # Named by its words: a piece that a new revision keeps stays the same point of the index.
        id=name_uuid("passage", file, heading, text),
        document=file,
        position=position,
        heading=heading,
        text=text,
        author=context.creator,
        place=place,
        at=context.now,
        source=Source.CREATOR_DOCUMENT,
    )
