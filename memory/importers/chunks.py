"""Cuts a document into passages, in the same way for every format: by its structure first, then by size.

A reader says what a document is made of, block by block, with the headings above each; what stays together is decided
here. A passage never goes on under another heading; what is too long is cut between paragraphs, else between sentences,
and code and tables between lines.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, groupby

from memory.importers.records import ImportContext, Record, Skipped
from memory.messages import Passage, Place, Source, name_uuid
from memory.prompt import estimate_tokens

# What recall hands over whole: small enough that two notes fit a small model's prompt.
PASSAGE_TOKENS = 180
# A heading that asks has its answer under it, unless that goes on like a chapter.
ANSWER_TOKENS = 500

# Every passage carries its title, headings and address: a page that calls a chapter its heading must not fill the disk.
MOST_TITLE, MOST_URL = 300, 2_000

# Between sentences; a quote or bracket that closes after the sign belongs to the sentence before.
SENTENCE_END = re.compile(r"(?<=[.!?…])(?=\s)|(?<=[。！？；])(?![”’」』）])")


@dataclass(frozen=True)
class Block:
    """A paragraph, list, table or piece of code of a document.

    `path` holds the headings above it, and blocks of another `section` never share a passage with it. `question` is
    what it answers, where that is marked. `solid` is code or a table. `mark` is its page or its time.
    """

    text: str
    path: tuple[str, ...] = ()
    section: int = 0
    question: str = ""
    solid: bool = False
    mark: str = ""
    title: str = ""
    url: str = ""

    @property
    def asked(self) -> str:
        """The question that this block answers, or seems to."""
        return self.question or (self.path[-1] if self.path and asks(self.path[-1]) else "")


class Headings:
    """The headings above the current line of a document, and how many sections there were."""

    def __init__(self) -> None:
        self._above: list[tuple[int, str]] = []
        self.section = 0

    def enter(self, level: int, title: str) -> None:
        """A heading begins; those as deep as it, or deeper, are over."""
        self._above = [*(each for each in self._above if each[0] < level), (level, title[:MOST_TITLE])]
        self.section += 1

    @property
    def path(self) -> tuple[str, ...]:
        """The titles, outermost first; a chapter that repeats its book's title adds nothing."""
        return tuple(title for title, _ in groupby(title for _, title in self._above if title))


def asks(title: str) -> bool:
    return title.rstrip("*_ ").endswith(("?", "？"))


def records(
    blocks: Iterable[Block], context: ImportContext, *, file: str, title: str = "", url: str = "", joint: str = "\n"
) -> Iterator[Record]:
    """Exchanges for what is asked and answered, passages for the rest, in the order of the document."""
    position = 0
    for _, section in groupby(blocks, key=lambda block: (block.section, block.path)):
        opening, more = opened(section)
        if opening[0].question or (opening[0].asked and not more):
            yield answer(opening, more, context, file)
            continue
        pieces = (piece for block in chain(opening, more) for piece in cut(block))
        for each in packed(pieces, joint):
            yield passage(each, position, context, file=file, title=each.title or title, url=each.url or url)
            position += 1


def opened(section: Iterator[Block]) -> tuple[list[Block], list[Block] | Iterator[Block]]:
    """The beginning of a section, as much as an answer may have; and what follows, empty if nothing does."""
    held, size = [], 0
    for block in section:
        held.append(block)
        size += estimate_tokens(block.text)
        if size > ANSWER_TOKENS:
            return held, section
    return held, []


def answer(opening: list[Block], more: Iterable[Block], context: ImportContext, file: str) -> Record:
    """The pair that a section is."""
    text = "\n\n".join(block.text for block in chain(opening, more)).strip()
    return (
        context.exchange(opening[0].asked, text, file=file)
        if text
        else Skipped("a question without an answer under it")
    )


def packed(pieces: Iterable[Block], joint: str) -> Iterator[Block]:
    """As many neighbours together as fit; a passage is cited by where it begins."""
    held: list[Block] = []
    size = 0
    for piece in pieces:
        weight = estimate_tokens(piece.text)
        if held and size + weight > PASSAGE_TOKENS:
            yield together(held, joint)
            held, size = [], 0
        held.append(piece)
        size += weight
    if held:
        yield together(held, joint)


def together(held: list[Block], joint: str) -> Block:
    return replace(held[0], text=joint.join(block.text for block in held))


def cut(block: Block) -> Iterator[Block]:
    """A block in pieces that fit, each as long as it can be."""
    if estimate_tokens(block.text) <= PASSAGE_TOKENS:
        if block.text.strip():
            yield block
        return
    parts = block.text.splitlines(keepends=True) if block.solid else SENTENCE_END.split(block.text)
    small = (replace(block, text=piece) for part in parts for piece in lengths(part))
    for piece in packed(small, ""):
        yield replace(piece, text=piece.text.rstrip() if block.solid else piece.text.strip())


def lengths(text: str) -> Iterator[str]:
    """A sentence or line in lengths that fit, at spaces where it has any."""
    at = 0
    while at < len(text):
        size = PASSAGE_TOKENS * 4
        if estimate_tokens(text[at : at + size]) > PASSAGE_TOKENS:
            size = PASSAGE_TOKENS
        space = text.rfind(" ", at + size // 2, at + size) if at + size < len(text) else -1
        end = space + 1 if space > 0 else at + size
        yield text[at:end]
        at = end


def passage(block: Block, position: int, context: ImportContext, *, file: str, title: str, url: str) -> Passage:
    heading = " > ".join(block.path)
    return Passage(
        # Named by its words: a piece that a new revision keeps stays the same point of the index.
        id=name_uuid("passage", file, heading, block.text, *([block.url] if block.url else [])),
        document=file,
        position=position,
        heading=heading,
        text=block.text,
        author=context.creator,
        place=Place("import", "documents", name=file, community=context.community),
        at=context.now,
        source=Source.CREATOR_DOCUMENT,
        url=url if len(url) <= MOST_URL else "",
        title=title[:MOST_TITLE],
        mark=block.mark,
    )
