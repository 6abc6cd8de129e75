"""Markdown and plain text: an FAQ becomes exchanges, anything else becomes passages under their headings."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from memory.importers.chunks import Block, Headings, asks, records
from memory.importers.records import ImportContext, Record, broken, lines_of, open_text

# A section that goes on for longer is cut before its end is known; it becomes passages either way.
MOST_SECTION = 100_000
# Facts about a page that stand above it, between lines of dashes, are a few short lines.
MOST_FACTS, LONGEST_FACT = 60, 1_000

HEADING = re.compile(r"(#{1,6})\s+(.+?)\s*#*$")
ASKED = re.compile(
    r"(?:\*\*)?(?:Q|Question|问|問|提问|问题)\s*+\d*+(?:\*\*)?\s*+[:：.]\s*(?:\*\*)?\s*(.+?)(?:\*\*)?$", re.IGNORECASE
)
ANSWERED = re.compile(r"(?:\*\*)?(?:A|Answer|答|回答)\s*+\d*+(?:\*\*)?\s*+[:：.]\s*(?:\*\*)?\s*(.*)$", re.IGNORECASE)
FENCE = re.compile(r"\s*(```|~~~)")
FACTS = "---"
# A line beyond this is no heading, and matching it would take long.
LONGEST_HEADING = 1_000


def sniff(head: str, name: str) -> bool:
    return name.endswith((".md", ".markdown", ".txt"))


@dataclass
class Part:
    """The lines under a heading, or under a question.

    `marked` is a question that was written after "Q:" and whose "A:" has not come yet.
    """

    path: tuple[str, ...] = ()
    section: int = 0
    question: str = ""
    lines: list[str] = field(default_factory=list)
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
    found = False
    with open_text(path) as file:
        facts, lines = without_facts(each.rstrip("\r\n") for each in lines_of(path, file))
        url = facts.get("url", "")
        blocks = (block for part in parts_of(lines) for block in blocks_of(part))
        for record in records(
            blocks,
            context,
            file=context.name_of(path),
            title=facts.get("title", ""),
            url=url if url.startswith(("http://", "https://")) else "",
        ):
            found = True
            yield record
    if not found:
        raise broken(path, "its top", "there is no text in it")


def without_facts(lines: Iterator[str]) -> tuple[dict[str, str], Iterator[str]]:
    """What a page says of itself above its text, as note and site programs write it, and the lines of the text."""
    first = next(lines, "")
    if first.rstrip() != FACTS:
        return {}, chain([first], lines)
    held: list[str] = []
    for line in lines:
        if line.rstrip() == FACTS:
            pairs = (each.partition(":") for each in held)
            return {key.strip().casefold(): value.strip(" \"'") for key, _, value in pairs}, lines
        held.append(line)
        if len(held) > MOST_FACTS or len(line) > LONGEST_FACT:
            break
    return {}, chain([first], held, lines)


def parts_of(lines: Iterable[str]) -> Iterator[Part]:
    """The text cut at headings and at lines that ask; code between fences is never cut."""
    part, above, fenced = Part(), Headings(), False
    for line in lines:
        fenced ^= bool(FENCE.match(line))
        heading = None if fenced else heading_of(line)
        asked = None if fenced or heading else ASKED.match(line.strip())
        if heading:
            yield part
            above.enter(len(heading[1]), heading[2])
            part = Part(above.path, above.section)
        elif asked:
            yield part
            above.section += 1
            part = Part(above.path, above.section, asked[1], marked=True)
        elif not fenced and part.marked and (answered := ANSWERED.match(line.strip())):
            # What stood between "Q:" and "A:" belongs to the question.
            part.question = "\n".join([part.question, part.text]).strip()
            part.lines, part.marked = [answered[1]], False
        elif part.size > MOST_SECTION and not part.question:
            yield part
            part = Part(part.path, part.section, lines=[line], size=len(line))
        else:
            part.add(line)
    yield part


def heading_of(line: str) -> re.Match[str] | None:
    """The sharps and the title, if a line is a heading."""
    return HEADING.match(line) if len(line) <= LONGEST_HEADING else None


def blocks_of(part: Part) -> Iterator[Block]:
    """The paragraphs of a part; one that asks has a block even if nothing is under it, to be counted."""
    if part.question:
        yield Block("" if part.marked else part.text, part.path, part.section, part.question)
        return
    asked = bool(part.path) and asks(part.path[-1])
    if asked and not part.text:
        yield Block("", part.path, part.section)
    for paragraph in paragraphs(part.lines):
        solid = bool(FENCE.match(paragraph)) or all(line.lstrip().startswith("|") for line in paragraph.split("\n"))
        yield Block(paragraph, part.path, part.section, solid=solid)


def paragraphs(lines: Iterable[str]) -> Iterator[str]:
    """Lines between empty ones; code between fences with its empty lines."""
    held: list[str] = []
    fenced = False
    for line in chain(lines, [""]):
        edge = bool(FENCE.match(line))
        if held and not fenced and (edge or not line.strip()):
            yield "\n".join(held).strip()
            held = []
        fenced ^= edge
        if fenced or line.strip():
            held.append(line)
        if edge and not fenced:
            yield "\n".join(held).strip()
            held = []
    if held:
        yield "\n".join(held).strip()
