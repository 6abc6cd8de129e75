"""Stack Exchange's Posts.xml, and any list of elements that hold a question and an answer.

Documents that declare a type are refused whole: entities are how XML reaches other files and swells.
"""

import contextlib
import re
from collections import Counter
from collections.abc import Generator, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from memory.importers.records import SHOWN_AUTHORS, ImportContext, Record, Skipped, broken

QUESTION_POST, ANSWER_POST = "1", "2"
# As a tree so many take some hundred megabytes.
MOST_ELEMENTS = 1_000_000


def sniff(head: str, name: str) -> bool:
    return name.endswith(".xml") or head.lstrip("\ufeff \t\r\n").startswith("<?xml")


def read(path: Path, context: ImportContext) -> Iterator[Record]:
    """Posts of the creator, or pairs. Raises UserMistake with the line where the file stops being XML."""
    with contextlib.closing(iter(Elements(path))) as walk:
        first = list(islice(walk, 3))
    if any(element.tag == "row" and "PostTypeId" in element.attrib for element in first):
        yield from posts(path, context)
    else:
        yield from pairs(path, context)


class Elements:
    """Every element of a file as it closes; nothing that it declares is loaded, expanded or looked up.

    Raises UserMistake with the line where the file stops being XML, and when too many elements came that nobody forgot.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._kept = path, 0

    def __iter__(self) -> Generator[Any, None, None]:
        from lxml import etree

        options: dict[str, Any] = {"resolve_entities": False, "no_network": True, "load_dtd": False, "huge_tree": False}
        with self._path.open("rb") as file:
            try:
                for event, element in etree.iterparse(file, events=("start", "end"), **options):
                    if event == "end":
                        self._keep(file.tell())
                        yield element
                    elif element.getparent() is None and element.getroottree().docinfo.doctype:
                        why = "it declares a document type; remove the DOCTYPE and its entities"
                        raise broken(self._path, "its top", why)
            except etree.XMLSyntaxError as error:
                raise broken(self._path, f"line {error.lineno}", f"this is not XML ({error.msg})") from error

    def _keep(self, at: int) -> None:
        self._kept += 1
        if self._kept > MOST_ELEMENTS:
            why = f"over {MOST_ELEMENTS} elements in which there is no post, nor a question with its answer"
            raise broken(self._path, f"near byte {at}", why)

    def forget(self, element: Any) -> None:
        """Free an element that was used and those before it, which a parser would keep to the end."""
        self._kept = 0
        element.clear()
        while element.getprevious() is not None:
            del element.getparent()[0]


def pairs(path: Path, context: ImportContext) -> Iterator[Record]:
    """The pairs of a list: `<qa><question/><answer/></qa>` for each, or questions and answers in turn."""
    found, file, walk = False, context.name_of(path), Elements(path)
    for element in walk:
        parent = element.getparent()
        halves = [child for child in element if child.tag in {"question", "answer"}]
        if element.tag == "answer" and parent is not None and parent.getparent() is None:
            # Directly under the root: its pair is complete, and the root will not close before the end of the file.
            asked = next(element.itersiblings("question", preceding=True), None)
            if asked is not None:
                found = True
                yield pair(asked, element, element, context=context, file=file)
                walk.forget(element)
        elif halves and parent is not None:
            found = True
            yield from held(element, halves, context, file)
            walk.forget(element)
        elif halves and not found:
            found = True
            yield from held(element, halves, context, file)
    if not found:
        raise broken(path, "its top", "neither Stack Exchange posts nor elements with a question and an answer")


def held(element: Any, halves: list[Any], context: ImportContext, file: str) -> Iterator[Record]:
    """The pairs inside one element."""
    asked = None
    for half in halves:
        if half.tag == "answer" and asked is not None:
            yield pair(asked, half, element, context=context, file=file)
            asked = None
        elif half.tag == "answer":
            yield Skipped("the question is empty")
        else:
            if asked is not None:
                yield Skipped("the answer is empty")
            asked = half
    if asked is not None:
        yield Skipped("the answer is empty")


def pair(asked: Any, answered: Any, about: Any, *, context: ImportContext, file: str) -> Record:
    question, answer = ("".join(half.itertext()).strip() for half in (asked, answered))
    return context.exchange(
        question,
        answer,
        dates=[about.get("date"), about.findtext("date")],
        thread=about.get("conversation") or "",
        title=about.findtext("topic") or "",
        url=about.findtext("url") or "",
        file=file,
    )


def posts(path: Path, context: ImportContext) -> Iterator[Record]:
    """The creator's answers with their questions. Two passes: the first learns which questions are wanted."""
    ids = context.ids_on("stackexchange")
    wanted, authors = Counter[str](), Counter[str]()
    for row in rows(path):
        if row.get("PostTypeId") == ANSWER_POST:
            authors[row.get("OwnerUserId", "?")] += 1
            if answers(row, ids):
                wanted[row["ParentId"]] += 1
    if not wanted:
        most = ", ".join(f"stackexchange:{each} ({count})" for each, count in authors.most_common(SHOWN_AUTHORS))
        why = f"none of its {authors.total()} answers is by one of creator.ids; who answered most: {most or 'nobody'}"
        raise broken(path, "all of it", f"{why}. Add the creator's id to `ids` under [creator]")
    asked: dict[str, tuple[str, str]] = {}
    for row in rows(path):
        if row.get("PostTypeId") == QUESTION_POST and row.get("Id") in wanted:
            asked[row["Id"]] = (row.get("Title", ""), plain(row.get("Body", "")))
        elif answers(row, ids):
            yield answer_of(row, asked.get(row["ParentId"]), context, context.name_of(path))
            wanted[row["ParentId"]] -= 1
            if not wanted[row["ParentId"]]:
                asked.pop(row["ParentId"], None)
        elif row.get("PostTypeId") == ANSWER_POST:
            yield Skipped("an answer by somebody else")


def rows(path: Path) -> Iterator[dict[str, str]]:
    walk = Elements(path)
    for element in walk:
        if element.tag == "row":
            yield dict(element.attrib)
            walk.forget(element)


def answers(row: dict[str, str], ids: set[str]) -> bool:
    return row.get("PostTypeId") == ANSWER_POST and row.get("OwnerUserId") in ids and bool(row.get("ParentId"))


def answer_of(row: dict[str, str], asked: tuple[str, str] | None, context: ImportContext, file: str) -> Record:
    if asked is None:
        return Skipped("its question is not in the file before it")
    question, answer = "\n".join(part for part in asked if part).strip(), plain(row.get("Body", ""))
    return context.exchange(
        question, answer, dates=[row.get("CreationDate")], thread=row["ParentId"], title=asked[0], file=file
    )


def plain(html: str) -> str:
    """The text of a post's HTML; paragraphs and code keep their lines."""
    from lxml import html as parser

    if not html.strip():
        return ""
    text = parser.fromstring(f"<div>{html}</div>").text_content()
    lines = (line.rstrip(" \t\r") for line in text.split("\n"))
    return re.sub(r"\n{2,}", "\n\n", "\n".join(line if line.strip() else "" for line in lines)).strip()
