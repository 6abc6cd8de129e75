"""Books: the chapters of an EPUB in their order, under the titles of its table of contents."""

import posixpath
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from memory.importers import html
from memory.importers.archives import opened
from memory.importers.chunks import Block, Headings, records
from memory.importers.records import MOST_RECORD, ImportContext, Record, broken

CONTAINER, LOCKS = "META-INF/container.xml", "META-INF/encryption.xml"


def sniff(head: str, name: str) -> bool:
    return CONTAINER in head.split("\n")


def read(path: Path, context: ImportContext) -> Iterator[Record]:
    """Passages and pairs. Raises UserMistake for a book that is locked, or does not say what it consists of."""
    found = False
    with opened(path) as archive:
        book = Book(path, archive)
        title = book.title or context.stem_of(path)
        for record in records(book.blocks(), context, file=context.name_of(path), title=title):
            found = True
            yield record
    if not found:
        raise broken(path, "its chapters", "there is no text in them")


class Book:
    """An EPUB that is open: what it says that it is called, if it does, and what is in it."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path, self._archive = path, archive
        where = self._xml(CONTAINER).find(".//{*}rootfile")
        if where is None:
            raise broken(path, CONTAINER, "it does not say where the book is")
        self._package_name = str(where.get("full-path", ""))
        self._package = self._xml(self._package_name)
        self.title = " ".join((self._package.findtext(".//{*}metadata/{*}title") or "").split())
        self._items = {item.get("id"): item for item in self._package.iterfind(".//{*}manifest/{*}item")}

    def blocks(self) -> Iterator[Block]:
        """Every chapter, in the order of the spine."""
        above, titles, locked = Headings(), self._titles(), self._locked()
        for name in self._chapters():
            if name in locked:
                raise broken(self._path, name, "the book is locked against copying (DRM)")
            if name in titles:
                above.enter(0, titles[name])
            page = html.page_of(self._path, self._text(name))
            yield from html.blocks(page, above)

    def _chapters(self) -> list[str]:
        named = [self._items.get(each.get("idref")) for each in self._package.iterfind(".//{*}spine/{*}itemref")]
        found = [self._beside(self._package_name, item.get("href", "")) for item in named if item is not None]
        if not found:
            raise broken(self._path, "its spine", "it lists no chapters")
        # A book may name a chapter as often as it likes.
        return list(dict.fromkeys(found))

    def _titles(self) -> dict[str, str]:
        """What the table of contents calls each chapter; of several entries in one chapter, the first."""
        titles: dict[str, str] = {}
        for item in self._items.values():
            name = self._beside(self._package_name, item.get("href", ""))
            if "nav" in (item.get("properties") or "").split():
                links = html.page_of(self._path, self._text(name)).iter("a")
                entries = [(link.get("href"), "".join(link.itertext())) for link in links]
            elif item.get("media-type") == "application/x-dtbncx+xml":
                points = self._xml(name).iter("{*}navPoint")
                entries = [
                    (point.find("{*}content").get("src"), point.findtext("{*}navLabel/{*}text"))
                    for point in points
                    if point.find("{*}content") is not None
                ]
            else:
                continue
            for target, title in entries:
                if target and title and title.strip():
                    titles.setdefault(self._beside(name, target), " ".join(title.split()))
        return titles

    def _locked(self) -> set[str]:
        """The parts that are encrypted; fonts often are, in books that may be read."""
        if LOCKS not in self._archive.namelist():
            return set()
        return {unquote(each.get("URI", "")) for each in self._xml(LOCKS).iter("{*}CipherReference")}

    def _beside(self, name: str, target: str) -> str:
        """The part that a part refers to."""
        return posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(target.partition("#")[0])))

    def _raw(self, name: str) -> bytes:
        try:
            info = self._archive.getinfo(name)
        except KeyError as error:
            raise broken(self._path, name or "its container", "the book refers to it and does not hold it") from error
        if info.file_size > MOST_RECORD:
            raise broken(self._path, name, f"longer than {MOST_RECORD} bytes")
        return self._archive.read(info)

    def _text(self, name: str) -> str:
        raw = self._raw(name)
        return raw.decode("utf-16" if raw[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8", "replace")

    def _xml(self, name: str) -> Any:
        """A part as a tree; nothing that it declares is loaded, and where it declares entities it is refused."""
        from lxml import etree

        parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
        try:
            root = etree.fromstring(self._raw(name), parser)
        except etree.XMLSyntaxError as error:
            raise broken(self._path, name, f"this is not XML ({error.msg})") from error
        declared = root.getroottree().docinfo.internalDTD
        if declared is not None and next(declared.iterentities(), None) is not None:
            raise broken(self._path, name, "it declares entities")
        return root
