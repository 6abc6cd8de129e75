"""Web pages that somebody saved: title, headings, text, lists, tables and code, without what stands around them."""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memory.importers.chunks import Block, Headings, records
from memory.importers.records import (
    MOST_RECORD,
    SAMPLE_BYTES,
    ImportContext,
    Record,
    broken,
    decoded,
    encoding_of,
    open_text,
)

# Atomic, so that a page of nothing but comments is not tried in every way that these can be grouped.
BEGINS = re.compile(
    r"\ufeff?\s*(<\?xml[^>]*>\s*)?(?>(<!--.*?-->\s*)*)<(!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL
)
DECLARED = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?([\w-]+)", re.IGNORECASE)
# Telegram Desktop and DiscordChatExporter also write web pages, which name people without their ids.
CHAT = re.compile(r'class="(chatlog__message|page_wrap"[^§]{0,2000}class="history")')
# As a tree a page takes some fifty times as much memory.
MOST_PAGE = 8_000_000
# Where a page says what made it.
MOST_TOP = 1_000_000
CUT_OFF = re.compile("excessive depth|huge", re.IGNORECASE)
UNREAD = ("script", "style", "noscript", "template", "svg", "nav", "footer", "button", "select", "textarea", "iframe")
# What a page does not show may say anything, to search engines or to whoever reads along.
UNSEEN = (
    "//*[@hidden or @aria-hidden='true' or @role='navigation' or @role='banner' or @role='contentinfo' or "
    "contains(translate(@style, ' ', ''), 'display:none')]"
)
HEADINGS = {f"h{level}": level for level in range(1, 7)}
APART = re.compile(
    "address|article|aside|blockquote|body|br|caption|dd|details|div|dl|dt|fieldset|figcaption|figure|form|h[1-6]|"
    "header|hr|li|main|ol|p|pre|section|summary|table|tbody|td|tfoot|th|thead|tr|ul"
)
BULLET = "-"


def sniff(head: str, name: str) -> bool:
    return name.endswith((".html", ".htm", ".xhtml")) or bool(BEGINS.match(head))


def read(path: Path, context: ImportContext) -> Iterator[Record]:
    """Passages and pairs. Raises UserMistake for a page without text, and for a chat saved as one."""
    text = text_of(path)
    if CHAT.search(text, 0, MOST_TOP):
        why = "this is a chat saved as a web page, which does not say by which id anybody wrote; export it as JSON"
        raise broken(path, "its top", why)
    page = page_of(path, text)
    title, found = title_of(page), False
    for record in records(blocks(page, Headings()), context, file=context.name_of(path), title=title, url=url_of(page)):
        found = True
        yield record
    if not found:
        raise broken(path, "its top", "there is no text in it")


def text_of(path: Path) -> str:
    """A page whole, in the encoding that fits it or that it declares. Raises UserMistake when it is too long."""
    if path.stat().st_size > MOST_RECORD:
        raise broken(path, "its size", f"longer than {MOST_RECORD} bytes")
    raw = path.read_bytes()
    declared = DECLARED.search(raw[:4096])
    if declared and encoding_of(path) == "utf-8-sig" and decoded(raw[:SAMPLE_BYTES], "utf-8") is None:
        try:
            return raw.decode(plain_codec(declared[1].decode()), "replace")
        except (LookupError, UnicodeError) as error:
            raise broken(path, "its top", f"it declares the encoding {declared[1].decode()!r}, unknown here") from error
    with open_text(path) as file:
        return file.read()


def plain_codec(name: str) -> str:
    """A declared encoding. Raises LookupError for what Python knows beside those that pages are written in."""
    known = codecs.lookup(name).name
    if known in {"idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape"}:
        raise LookupError(known)
    return known


def page_of(path: Path, text: str) -> Any:
    """The page as a tree. Nothing it refers to is fetched. Raises UserMistake for one beyond what a tree can hold."""
    from lxml import etree, html

    if len(text) > MOST_PAGE:
        raise broken(path, "its size", f"longer than {MOST_PAGE} characters")

    # Bytes, because a text that declares an encoding of its own is refused.
    parser = html.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, no_network=True)
    try:
        page = html.document_fromstring(text.encode("utf-8", "replace"), parser=parser)
    except etree.ParserError as error:
        raise broken(path, "its top", "there is no text in it") from error
    # The parser ends there without a word, and what it has read until then looks whole.
    if any(CUT_OFF.search(entry.message) for entry in parser.error_log):
        raise broken(path, "its elements", "they are nested too deep, or one of them is too long")
    return page


def title_of(page: Any) -> str:
    return " ".join((page.findtext(".//title") or "").split())


def url_of(page: Any) -> str:
    """The address that the page says it stands at; empty when it does not say."""
    for found in page.xpath("//link[@rel='canonical']/@href | //meta[@property='og:url']/@content"):
        if found.startswith(("http://", "https://")):
            return str(found)
    return ""


def blocks(page: Any, above: Headings) -> Iterator[Block]:
    """What a page shows, in order, under the headings that are `above` it already."""
    from lxml import etree

    body = shown(page)
    words: list[str] = []
    walk = etree.iterwalk(body, events=("start", "end"))
    for event, element in walk:
        tag = element.tag
        whole = event == "start" and (tag in HEADINGS or tag == "pre" or (tag == "table" and is_data(element)))
        if APART.fullmatch(tag):
            yield from paragraph(words, above)
        if whole:
            yield from entire(element, above)
            walk.skip_subtree()
        elif event == "start":
            words.append(f"{BULLET} " if tag == "li" else "")
            words.append(element.text or "")
        elif element is not body:
            words.append(element.tail or "")
    yield from paragraph(words, above)


def shown(page: Any) -> Any:
    """The part of a page that is its matter, without what nobody reads there."""
    from lxml import etree

    for element in page.xpath(UNSEEN):
        if element.getparent() is not None:
            element.drop_tree()
    etree.strip_elements(page, *UNREAD, with_tail=False)
    articles = page.findall(".//article")
    main = page.find(".//main")
    if main is not None:
        return main
    return articles[0] if len(articles) == 1 else page.find("body") if page.find("body") is not None else page


def paragraph(words: list[str], above: Headings) -> Iterator[Block]:
    """The words so far as a block, if there are any; a bullet waits for what it stands before."""
    text = " ".join("".join(words).split())
    if text == BULLET:
        return
    words.clear()
    if text:
        yield Block(text, above.path, above.section)


def entire(element: Any, above: Headings) -> Iterator[Block]:
    """A heading, which is entered, or a table or code, which stays in one piece."""
    if element.tag in HEADINGS:
        above.enter(HEADINGS[element.tag], " ".join("".join(element.itertext()).split()))
        return
    text = "".join(element.itertext()).strip("\n").rstrip() if element.tag == "pre" else "\n".join(rows_of(element))
    if text.strip():
        yield Block(text, above.path, above.section, solid=True)


def is_data(table: Any) -> bool:
    """Whether a table holds facts; old pages also lay themselves out with tables."""
    return next(table.iterdescendants("table", "pre", *HEADINGS), None) is None


def rows_of(table: Any) -> Iterator[str]:
    for row in table.iter("tr"):
        cells = (" ".join("".join(cell.itertext()).split()) for cell in row.iterchildren("td", "th"))
        if text := " | ".join(cells).strip(" |"):
            yield text
