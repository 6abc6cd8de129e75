"""PDF: the text page by page, so that a passage is cited with its page."""

import logging
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from memory.importers.chunks import Block, records
from memory.importers.records import ImportContext, Record, Skipped, broken

if TYPE_CHECKING:
    from pypdf import PdfReader

# What programs write where a title should be.
NO_TITLE = re.compile(r"microsoft word|untitled|无标题|.*\.(docx?|indd|tex|qxd|pptx?|pages|rtf)$", re.IGNORECASE)
# Lines of a page end where the paper does: a word may go on, and Chinese has no space there.
BROKEN_WORD = re.compile(r"(?<=[a-zà-ÿ])-\n(?=[a-zà-ÿ])")
CHINESE_LINE = re.compile(r"(?<=[\u2e80-\u9fff\uff00-\uffef])\n(?=[\u2e80-\u9fff\uff00-\uffef])")
# The dots between a title and its page in a table of contents.
LEADERS = re.compile(r"(?:\s?\.){5,}")
# What pypdf raises on files that are broken in ways it did not think of.
FAILURES = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    AssertionError,
    NotImplementedError,
    zlib.error,
)


def sniff(head: str, name: str) -> bool:
    return "%PDF-" in head[:1024]


def read(path: Path, context: ImportContext) -> Iterator[Record]:
    """Passages. Raises UserMistake for a file that is cut off or locked, and for one that is only pictures."""
    words = 0
    with opened(path) as reader:
        title = title_of(reader) or context.stem_of(path)
        for number, page in enumerate(reader.pages, 1):
            text = running(page.extract_text())
            words += bool(text)
            if not text:
                yield Skipped("a page without text")
            block = Block(text, section=number, mark=f"p. {number}")
            yield from records([block], context, file=context.name_of(path), title=title)
        if not words:
            raise broken(path, "all of it", f"its {len(reader.pages)} pages are pictures; recognise their text first")


@contextmanager
def opened(path: Path) -> Iterator["PdfReader"]:
    """The PDF, readable; whatever is wrong with it, then or later, as one sentence."""
    from pypdf import PdfReader
    from pypdf.errors import DependencyError, PyPdfError

    # Its warnings quote the file.
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        with path.open("rb") as file:
            reader = PdfReader(file)
            if reader.is_encrypted and not reader.decrypt(""):
                raise broken(path, "its top", "it is locked with a password; save it without one")
            yield reader
    except DependencyError as error:
        raise broken(path, "its top", "it is encrypted; print it to a new PDF and import that") from error
    except (PyPdfError, *FAILURES) as error:
        raise broken(path, "its structure", f"this PDF cannot be read ({type(error).__name__})") from error


def title_of(reader: "PdfReader") -> str:
    """What the document calls itself; empty where that is no title."""
    given = " ".join(str((reader.metadata and reader.metadata.title) or "").split())
    return "" if NO_TITLE.match(given) else given


def running(text: str) -> str:
    """A page's text as it would run on wider paper; empty lines stay."""
    joined = LEADERS.sub(" …", CHINESE_LINE.sub("", BROKEN_WORD.sub("", text)))
    paragraphs = (" ".join(each.split()) for each in re.split(r"\n\s*\n", joined))
    return "\n".join(each for each in paragraphs if each)
