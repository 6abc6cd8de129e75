"""Stack Exchange's Posts.xml, and any list of elements that hold a question and an answer."""

import contextlib
from collections.abc import Generator, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from memory.importers.records import (
    ImportContext,
    Record,
    Skipped,
    broken,
    time_of,
    without_words,
)

QUESTION_POST, ANSWER_POST = "1", "2"


def sniff(head: str, name: str) -> bool:
    return name.endswith(".xml") or head.lstrip().startswith("<?xml")


def read(path: Path, context: ImportContext) -> Iterator[Record]:
    """Posts of the creator, or pairs. Raises UserMistake with the line where the file stops being XML."""
    if any(element.tag == "row" and "PostTypeId" in element.attrib for element in first_elements(path)):
        yield from posts(path, context)
        return
    found = False
    for element in elements(path):
        if element.find("question") is not None and element.find("answer") is not None:
            found = True
            yield pair(element, context, path.name)
            element.clear()
    if not found:
        raise broken(path, "its top", "neither Stack Exchange posts nor elements with a question and an answer")


def elements(path: Path) -> Generator[Any, None, None]:
    """Every element as it closes. Entities stay closed: a file cannot reach others or swell."""
    from lxml import etree

    options: dict[str, Any] = {"resolve_entities": False, "no_network": True, "load_dtd": False, "huge_tree": False}
    with path.open("rb") as file:
        try:
            for _, element in etree.iterparse(file, events=("end",), **options):
                if any(True for _ in element.iter(etree.Entity)):
                    raise broken(path, f"line {element.sourceline}", "it uses entities of its own")
                yield element
        except etree.XMLSyntaxError as error:
            raise broken(path, f"line {error.lineno}", f"this is not XML ({error.msg})") from error


def first_elements(path: Path) -> list[Any]:
    """The first few elements, to tell what the file is."""
    with contextlib.closing(elements(path)) as walk:
        return list(islice(walk, 3))


def pair(element: Any, context: ImportContext, file: str) -> Record:
    question, answer = ("".join(element.find(name).itertext()).strip() for name in ("question", "answer"))
    return without_words(question, answer) or context.exchange(
        question,
        answer,
        at=time_of(element.get("date") or element.findtext("date")),
        thread=element.get("conversation") or "",
        title=element.findtext("topic") or "",
        url=element.findtext("url") or "",
        file=file,
    )


def posts(path: Path, context: ImportContext) -> Iterator[Record]:
    """The creator's answers with their questions. Two passes: the first learns which questions are wanted."""
    ids = {key.removeprefix("stackexchange:") for key in context.creator_keys if key.startswith("stackexchange:")}
    if not ids:
        raise broken(path, "its top", "whose answers? Set creator.ids to stackexchange:OWNER-USER-ID first")
    wanted = {row["ParentId"] for row in rows(path) if answers(row, ids)}
    asked: dict[str, tuple[str, str]] = {}
    for row in rows(path):
        if row.get("PostTypeId") == QUESTION_POST and row.get("Id") in wanted:
            asked[row["Id"]] = (row.get("Title", ""), plain(row.get("Body", "")))
        elif answers(row, ids):
            yield answer_of(row, asked.pop(row["ParentId"], None), context, path.name)
        elif row.get("PostTypeId") == ANSWER_POST:
            yield Skipped("an answer by somebody else")


def rows(path: Path) -> Iterator[dict[str, str]]:
    for element in elements(path):
        if element.tag == "row":
            yield dict(element.attrib)
            element.clear()
            while element.getprevious() is not None:
                del element.getparent()[0]


def answers(row: dict[str, str], ids: set[str]) -> bool:
    return row.get("PostTypeId") == ANSWER_POST and row.get("OwnerUserId") in ids and bool(row.get("ParentId"))


def answer_of(row: dict[str, str], asked: tuple[str, str] | None, context: ImportContext, file: str) -> Record:
    if asked is None:
        return Skipped("its question is not in the file before it")
    question, answer = "\n".join(part for part in asked if part).strip(), plain(row.get("Body", ""))
    return without_words(question, answer) or context.exchange(
        question, answer, at=time_of(row.get("CreationDate")), thread=row["ParentId"], title=asked[0], url="", file=file
    )


def plain(html: str) -> str:
    """The text of a post's HTML."""
    from lxml import html as parser

    return " ".join(parser.fromstring(f"<div>{html}</div>").text_content().split()) if html.strip() else ""
