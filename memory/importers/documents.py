"""Markdown and plain text: an FAQ becomes exchanges, anything else becomes passages under their headings."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from memory.importers.records import ImportContext, Record, Skipped, broken, lines_of, open_text
from memory.messages import Passage, Place, Source, name_uuid
from memory.prompt import estimate_tokens

# What recall hands over whole: small enough that two notes fit a small model's prompt.
PASSAGE_TOKENS = 180

# A section that goes on for longer is cut before its end is known; it becomes passages either way.
MOST_SECTION = 100_000

HEADING = re.compile(r"#{1,6}\s+(.+?)\s*#*$")
ASKED = re.compile(
    r"(?:\*\*)?(?:Q|Question|问|問|提问|问题)\s*\d*(?:\*\*)?\s*[:：.]\s*(?:\*\*)?\s*(.+?)(?:\*\*)?$", re.IGNORECASE
)
ANSWERED = re.compile(r"(?:\*\*)?(?:A|Answer|答|回答)\s*\d*(?:\*\*)?\s*[:：.]\s*(?:\*\*)?\s*(.*)$", re.IGNORECASE)
FENCE = re.compile(r"\s*(```|~~~)")


def sniff(head: str, name: str) -> bool:
    return name.endswith((".md", ".markdown", ".txt"))


@dataclass
class Part:
    """A heading, or a question, and the lines under it.

    `marked` is a question that was written after "Q:" and whose "A:" has not come yet.
    """

    heading: str
    lines: list[str] = field(default_factory=list)
    asked: bool = False
    marked: bool = False
    size: int = 0

    @property
    def text(self) -> str:
        return "\n".join(self.lines).strip()

    def add(self, line: str) -> None:
        self.lines.append(line)
        self.size += len(line)


def read(path: Path, context: ImportContext) -> Iterator[Record]:
    """Exchanges for what is asked and answered, passages for the rest, in the order of the file."""
    position, found, name = 0, False, context.name_of(path)
    with open_text(path) as file:
        for part in parts_of(lines_of(path, file)):
            found = found or bool(part.text)
            if part.asked:
                yield pair(part, context, name)
                continue
            for text in pieces(part.text):
                yield passage(text, part.heading, position, context, name)
                position += 1
    if not found:
        raise broken(path, "its top", "there is no text in it")


def parts_of(lines: Iterable[str]) -> Iterator[Part]:
    """The file cut at headings and at lines that ask; code between fences is never cut."""
    part, fenced = Part(""), False
    for line in (each.rstrip("\r\n") for each in lines):
        fenced ^= bool(FENCE.match(line))
        following = None if fenced else start_of(line)
        if following is not None:
            yield part
            part = following
        elif not fenced and part.marked and (answered := ANSWERED.match(line.strip())):
            # What stood between "Q:" and "A:" belongs to the question.
            part.heading = "\n".join([part.heading, part.text]).strip()
            part.lines, part.marked = [answered.group(1)], False
        elif part.size > MOST_SECTION and not part.asked:
            yield part
            part = Part(part.heading, [line], size=len(line))
        else:
            part.add(line)
    yield part


def start_of(line: str) -> Part | None:
    """The part that begins with this line, if one does."""
    if heading := HEADING.match(line):
        title = heading.group(1)
        return Part(title, asked=title.rstrip("*_ ").endswith(("?", "？")))
    asked = ASKED.match(line.strip())
    return Part(asked.group(1), asked=True, marked=True) if asked else None


def pair(part: Part, context: ImportContext, file: str) -> Record:
    if not part.text or part.marked:
        return Skipped("a question without an answer under it")
    return context.exchange(part.heading, part.text, file=file)


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
