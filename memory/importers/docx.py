"""Word documents: headings, paragraphs, lists and tables. Pictures, notes and what was struck out are left out."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memory.importers import archives
from memory.importers.chunks import Block, Headings, records
from memory.importers.records import ImportContext, Record, broken

if TYPE_CHECKING:
    from docx.document import Document
    from docx.text.paragraph import Paragraph

# Word's own names of these styles are English in every language.
HEADING = re.compile(r"heading (\d)$", re.IGNORECASE)
LIST = re.compile(r"list\b", re.IGNORECASE)


def sniff(head: str, name: str) -> bool:
    return "word/document.xml" in head.split("\n")


def read(path: Path, context: ImportContext) -> Iterator[Record]:
    """Passages and pairs. Raises UserMistake for a file that Word could not read either."""
    found = False
    with opened(path) as document:
        title = (document.core_properties.title or "").strip()
        for record in records(blocks(document), context, file=context.name_of(path), title=title):
            found = True
            yield record
    if not found:
        raise broken(path, "its top", "there is no text in it")


@contextmanager
def opened(path: Path) -> Iterator["Document"]:
    """The document; whatever is wrong with it as one sentence."""
    from docx import Document
    from docx.opc.exceptions import OpcError
    from lxml import etree

    with archives.opened(path) as archive:
        archives.refuse_parts(path, archive)
        try:
            yield Document(str(path))
        except (OpcError, etree.XMLSyntaxError, LookupError, ValueError, AttributeError) as error:
            raise broken(path, "its structure", f"this Word file cannot be read ({type(error).__name__})") from error


def blocks(document: "Document") -> Iterator[Block]:
    """What the document says, in order."""
    from docx.table import Table

    above = Headings()
    for item in document.iter_inner_content():
        if isinstance(item, Table):
            rows = "\n".join(rows_of(item._element))
            yield Block(rows, above.path, above.section, solid=True)
            continue
        text, style = words_of(item._element).strip(), style_of(item)
        if heading := HEADING.match(style):
            above.enter(int(heading[1]), text)
        elif style == "Title":
            above.enter(0, text)
        elif text:
            yield Block(f"- {text}" if LIST.match(style) else text, above.path, above.section)


def style_of(paragraph: "Paragraph") -> str:
    return str((paragraph.style and paragraph.style.name) or "")


def words_of(element: Any) -> str:
    """The text in an element, with what was inserted under review and without what was deleted there."""
    from docx.oxml.ns import qn

    text, tab, line = qn("w:t"), qn("w:tab"), qn("w:br")
    plain = {tab: "\t", line: "\n"}
    return "".join(plain.get(each.tag) or each.text or "" for each in element.iter(text, tab, line))


def rows_of(table: Any) -> Iterator[str]:
    for row in table.tr_lst:
        cells = (" ".join(words_of(paragraph) for paragraph in cell.p_lst).strip() for cell in row.tc_lst)
        if text := " | ".join(cells).strip(" |"):
            yield text
