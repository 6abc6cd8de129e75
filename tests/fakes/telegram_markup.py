"""How Telegram reads text: its HTML, the entities it finds by itself, and lengths in UTF-16 code units.

Offsets in errors are UTF-8 bytes and offsets in entities are UTF-16 units, as in the Bot API. Markdown is not read.
"""

import re
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

KINDS = {
    "b": "bold",
    "strong": "bold",
    "i": "italic",
    "em": "italic",
    "u": "underline",
    "ins": "underline",
    "s": "strikethrough",
    "strike": "strikethrough",
    "del": "strikethrough",
    "tg-spoiler": "spoiler",
    "span": "spoiler",
    "code": "code",
    "pre": "pre",
    "blockquote": "blockquote",
    "a": "text_link",
}
NAME = re.compile(r"<([^\s>]*)")
ATTRIBUTES = re.compile(r"""(?:\s+[^\s=>]+(?:\s*=\s*(?:"[^"]*"|'[^']*'|[A-Za-z0-9.-]+))?)*\s*>""")
ATTRIBUTE = re.compile(r"""([^\s=>]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([A-Za-z0-9.-]+)))?""")
END_TAG = re.compile(r"</([^\s>]*)\s*>")
# Telegram knows four names; every other one, `&nbsp;` and `&apos;` too, is shown as it was written.
REFERENCE = re.compile(r"&(#x[0-9a-fA-F]+|#[0-9]+|lt\b|gt\b|amp\b|quot\b);?")
NAMED = {"lt": "<", "gt": ">", "amp": "&", "quot": '"'}
FOUND = re.compile(
    r"(?P<url>https?://[^\s<>]+)"
    r"|(?P<mention>(?<![\w@/])@[A-Za-z]\w{2,31}\b)"
    r"|(?P<bot_command>(?<![\w/])/[a-z0-9_]{1,32}(?:@\w+)?\b)"
    r"|(?P<hashtag>(?<!\w)#\w+)"
)


class MarkupError(ValueError):
    """Text that Telegram refuses to read; the message is the end of the Bot API's description."""


@dataclass(frozen=True)
class Formatted:
    """What is left to read, and where it is styled."""

    text: str
    entities: list[Json] = field(default_factory=list)


def utf16_length(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def utf16_slice(text: str, entity: Json) -> str:
    """The part of the text that an entity covers."""
    units = text.encode("utf-16-le")
    start, end = entity["offset"] * 2, (entity["offset"] + entity["length"]) * 2
    return units[start:end].decode("utf-16-le")


def formatted(text: str, *, html: bool = False, entities: list[Json] | None = None) -> Formatted:
    """Text as it will be shown: parsed, trimmed, with the links and names found that nobody marked."""
    parsed = parse_html(text) if html else Formatted(text, list(entities or []))
    return _with_found(_trimmed(parsed))


def parse_html(html: str) -> Formatted:
    reader = _Reader(html)
    reader.read()
    return Formatted("".join(reader.plain), sorted(reader.entities, key=lambda one: (one["offset"], -one["length"])))


@dataclass
class _OpenTag:
    name: str
    attributes: dict[str, str]
    offset: int


class _Reader:
    """One pass over the HTML, with the tags that are open as a stack."""

    def __init__(self, html: str) -> None:
        self.html = html
        self.at = 0
        self.plain: list[str] = []
        self.length = 0
        self.open: list[_OpenTag] = []
        self.entities: list[Json] = []

    def read(self) -> None:
        while self.at < len(self.html):
            self._step()
        if self.open:
            raise MarkupError(f'Can\'t find end tag corresponding to start tag "{self.open[-1].name}"')

    def _step(self) -> None:
        if self.html.startswith("</", self.at):
            self._end_tag()
        elif self.html[self.at] == "<":
            self._start_tag()
        elif found := REFERENCE.match(self.html, self.at):
            self._put(_referred(found), found.end())
        else:
            self._put(self.html[self.at], self.at + 1)

    def _put(self, text: str, after: int) -> None:
        self.plain.append(text)
        self.length += utf16_length(text)
        self.at = after

    def _where(self) -> str:
        return f"at byte offset {len(self.html[: self.at].encode())}"

    def _start_tag(self) -> None:
        found = NAME.match(self.html, self.at)
        assert found
        name = found[1].lower()
        if found.end() == len(self.html):
            raise MarkupError(f"Unclosed start tag {self._where()}")
        if name not in KINDS:
            raise MarkupError(f'Unsupported start tag "{name}" {self._where()}')
        rest = ATTRIBUTES.match(self.html, found.end())
        if rest is None:
            raise MarkupError(f'Unclosed start tag "{name}" {self._where()}')
        self._push(name, _attributes(rest[0].rstrip(">")))
        self.at = rest.end()

    def _push(self, name: str, attributes: dict[str, str]) -> None:
        if name == "span" and attributes.get("class") != "tg-spoiler":
            raise MarkupError(f'Tag "span" must have class "tg-spoiler" {self._where()}')
        self.open.append(_OpenTag(name, attributes, self.length))

    def _end_tag(self) -> None:
        if not self.open:
            raise MarkupError(f"Unexpected end tag {self._where()}")
        found = END_TAG.match(self.html, self.at)
        if found is None:
            raise MarkupError(f"Unclosed end tag {self._where()}")
        tag, name = self.open[-1], found[1].lower()
        if name not in ("", tag.name):
            raise MarkupError(f'Unmatched end tag {self._where()}, expected "</{tag.name}>", found "</{name}>"')
        self.open.pop()
        self.at = found.end()
        if self.length > tag.offset:
            self._close(tag)

    def _close(self, tag: _OpenTag) -> None:
        entity: Json = {"type": KINDS[tag.name], "offset": tag.offset, "length": self.length - tag.offset}
        if tag.name == "a":
            url = tag.attributes.get("href", "")
            if not re.match(r"(https?|tg|mailto|tel|ton):|[\w-]+\.\w", url):
                return
            entity["url"] = url
        if tag.name == "blockquote" and "expandable" in tag.attributes:
            entity["type"] = "expandable_blockquote"
        if tag.name == "pre" and (language := self._code_inside(entity)):
            entity["language"] = language
        elif tag.name == "code" and tag.attributes.get("class", "").startswith("language-"):
            entity["language"] = tag.attributes["class"].removeprefix("language-")
        self.entities.append(entity)

    def _code_inside(self, pre: Json) -> str:
        """`<pre><code class="language-x">` is one block with a language."""
        last = self.entities[-1] if self.entities else {}
        if last.get("type") == "code" and (last["offset"], last["length"]) == (pre["offset"], pre["length"]):
            return str(self.entities.pop().get("language", ""))
        return ""


def _attributes(text: str) -> dict[str, str]:
    found = ATTRIBUTE.findall(text)
    return {name.lower(): REFERENCE.sub(_referred, "".join(values)) for name, *values in found}


def _referred(found: re.Match[str]) -> str:
    """The character that is meant; a number that is none stays as it was written."""
    reference = found[1]
    if not reference.startswith("#"):
        return NAMED[reference]
    number = int(reference[2:], 16) if reference[1] == "x" else int(reference[1:])
    is_character = 0 < number < 0x10FFFF and not 0xD800 <= number <= 0xDFFF
    return chr(number) if is_character else found[0]


def _trimmed(given: Formatted) -> Formatted:
    """Space around a message is dropped, so that a stream which only adds a newline changes nothing."""
    start = utf16_length(given.text) - utf16_length(given.text.lstrip())
    text = given.text.strip()
    clipped = [_clipped(entity, start, utf16_length(text)) for entity in given.entities]
    return Formatted(text, [entity for entity in clipped if entity["length"] > 0])


def _clipped(entity: Json, start: int, length: int) -> Json:
    first = max(entity["offset"] - start, 0)
    last = min(entity["offset"] + entity["length"] - start, length)
    return {**entity, "offset": first, "length": last - first}


def _with_found(given: Formatted) -> Formatted:
    added = [entity for entity in _found(given.text) if not any(_overlap(entity, one) for one in given.entities)]
    return Formatted(given.text, sorted([*given.entities, *added], key=lambda one: (one["offset"], -one["length"])))


def _found(text: str) -> list[Json]:
    return [
        {"type": found.lastgroup, "offset": utf16_length(text[: found.start()]), "length": utf16_length(found[0])}
        for found in FOUND.finditer(text)
    ]


def _overlap(found: Json, marked: Json) -> bool:
    """Nothing is looked for inside code and links; bold text may hold a mention."""
    if marked["type"] not in ("code", "pre", "text_link", "text_mention"):
        return False
    return bool(
        found["offset"] < marked["offset"] + marked["length"] and marked["offset"] < found["offset"] + found["length"]
    )
