"""Lists of addresses: a text or Markdown file of them, or a browser's bookmarks. Nothing is fetched.

What the creator wrote about an address is what can be found and said; the address is where it is cited from.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from memory.importers import html
from memory.importers.chunks import Block, Headings, cut, passage
from memory.importers.documents import heading_of
from memory.importers.records import ImportContext, Record, Skipped, broken, lines_of, open_text

BOOKMARKS = re.compile(r"\ufeff?\s*<!DOCTYPE\s+NETSCAPE-Bookmark", re.IGNORECASE)
MARKER = re.compile(r"\s*(?:[-*+]|\d+[.)])?\s*(?:\[[ xX]\]\s*)?")
TITLED = re.compile(r"\[([^\]]+)\]\(\s*(https?://[^\s)]+)[^)]*\)")
URL = re.compile(r"<?(https?://[^\s<>\"|，。；（）]+)>?")
# What stands between a title, an address and a note.
BETWEEN = " \t-–—:：|,，"
# The share of a list's lines that are its entries; the others are notes on them.
LEAST_SHARE = 0.5
# A line of prose may end in an address too.
MOST_TITLE = 120
LONGEST_ENTRY = 4_000


def sniff(head: str, name: str) -> bool:
    if BOOKMARKS.match(head):
        return True
    if not name.endswith((".txt", ".md", ".markdown", ".urls")):
        return False
    lines = [line for line in head.splitlines() if line.strip() and not heading_of(line)]
    return bool(lines) and sum(map(is_entry, lines)) >= LEAST_SHARE * len(lines)


def is_entry(line: str) -> bool:
    """Whether a line is an address with a title or a note, and no sentence that mentions one."""
    if len(line) > LONGEST_ENTRY:
        return False
    rest = MARKER.sub("", line, count=1).strip()
    found = TITLED.match(rest) or URL.search(rest)
    if found is None:
        return False
    return found.start() == 0 or (found.end() == len(rest) and found.start() <= MOST_TITLE)


def read(path: Path, context: ImportContext) -> Iterator[Record]:
    """A passage for each address that something is said about."""
    position, found, file = 0, False, context.name_of(path)
    with open_text(path) as text:
        marked = BOOKMARKS.match(text.read(1000))
    for entry in bookmarks(path) if marked else listed(path):
        found = True
        if not entry.text:
            yield Skipped("an address without a title or a note")
        for piece in cut(entry):
            yield passage(piece, position, context, file=file, title=entry.title, url=entry.url)
            position += 1
    if not found:
        raise broken(path, "its top", "there is no address in it")


def listed(path: Path) -> Iterator[Block]:
    """The entries of a text, each with the lines below it that say more."""
    above, entry, more = Headings(), None, []
    with open_text(path) as file:
        for line in (each.strip() for each in lines_of(path, file)):
            heading, begins = heading_of(line), is_entry(line)
            if entry and (heading or begins or not line):
                yield with_notes(entry, more)
                entry, more = None, []
            if heading:
                above.enter(len(heading[1]), heading[2])
            elif begins:
                entry = entry_of(line, above)
            elif entry:
                more.append(line)
    if entry:
        yield with_notes(entry, more)


def with_notes(entry: Block, notes: list[str]) -> Block:
    return replace(entry, text="\n".join([entry.text, *notes]).strip())


def entry_of(line: str, above: Headings) -> Block:
    """The title, address and note of one line."""
    rest = MARKER.sub("", line, count=1)
    titled = TITLED.search(rest)
    if titled:
        title, url, note = titled[1], titled[2], rest[: titled.start()] + rest[titled.end() :]
    else:
        found = URL.search(rest)
        assert found is not None
        title, url, note = rest[: found.start()], found[1], rest[found.end() :]
    title, note = title.strip(BETWEEN), note.strip(BETWEEN)
    text = "\n".join(part for part in (title, note) if part)
    return Block(text, above.path, title=title or note, url=url)


def bookmarks(path: Path) -> Iterator[Block]:
    """The entries of a browser's bookmarks, under the names of their folders."""
    folders: list[tuple[int, str]] = []
    entry, more = None, []
    for element in html.page_of(path, html.text_of(path)).iter("h3", "a", "dd"):
        depth = sum(1 for _ in element.iterancestors("dl"))
        words = " ".join((element.text_content() if element.tag == "a" else element.text or "").split())
        if element.tag == "dd":
            more.append(words)
            continue
        if entry:
            yield with_notes(entry, more)
        entry, more = None, []
        folders = [each for each in folders if each[0] < depth]
        if element.tag == "h3":
            folders.append((depth, words))
        elif element.get("href", "").startswith(("http://", "https://")):
            entry = Block(words, tuple(name for _, name in folders), title=words, url=element.get("href"))
    if entry:
        yield with_notes(entry, more)
