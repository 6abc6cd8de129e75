"""What Discord refuses in a body it is sent, as pure checks: no state, no sockets.

The numbers are Discord's own. Each check raises `Refusal` with the status, code and error tree that the real API
answers, so that the client library builds the same exception it would build in production. Polls and stickers are
not checked.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Json = dict[str, Any]

MOST_CONTENT = 2000
MOST_EMBED_CHARACTERS = 6000
MOST_EMBEDS = 10
MOST_ROWS = 5
MOST_BUTTONS = 5
MOST_V2_COMPONENTS = 40
MOST_V2_TEXT = 4000
MOST_CUSTOM_ID = 100
MOST_FILES = 10
MOST_BYTES = 10 * 1024 * 1024

EPHEMERAL = 1 << 6
LOADING = 1 << 7
COMPONENTS_V2 = 1 << 15

EMBED_FIELDS = {"title": 256, "description": 4096}
EMBED_PARTS = {("footer", "text"): 2048, ("author", "name"): 256}

ROW, BUTTON, TEXT_INPUT, SECTION, TEXT_DISPLAY, LABEL = 1, 2, 4, 9, 10, 18
SELECTS = (3, 5, 6, 7, 8)
LINK, PREMIUM = 5, 6

EVERYONE = re.compile(r"@(?:everyone|here)\b")
ROLE = re.compile(r"<@&(\d+)>")
USER = re.compile(r"<@!?(\d+)>")


class Refusal(Exception):
    """An answer of the API that is an error."""

    def __init__(self, status: int, code: int, message: str, errors: Json | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.errors = errors

    def body(self) -> Json:
        tree = {"errors": self.errors} if self.errors else {}
        return {"message": str(self), "code": self.code, **tree}


def invalid(field: str, code: str, message: str) -> Refusal:
    """An "Invalid Form Body" whose tree names `field`, written with dots."""
    tree: Json = {"_errors": [{"code": code, "message": message}]}
    for part in reversed(field.split(".")):
        tree = {part: tree}
    return Refusal(400, 50035, "Invalid Form Body", tree)


def at_most(field: str, text: str, most: int) -> None:
    if len(text) > most:
        raise invalid(field, "BASE_TYPE_MAX_LENGTH", f"Must be {most} or fewer in length.")


def between(field: str, text: str, least: int, most: int) -> None:
    if not least <= len(text) <= most:
        raise invalid(field, "BASE_TYPE_BAD_LENGTH", f"Must be between {least} and {most} in length.")


def at_most_items(field: str, items: Sequence[Any], most: int) -> None:
    if len(items) > most:
        raise invalid(field, "BASE_TYPE_MAX_LENGTH", f"Must be {most} or fewer in length.")


def check_parts(body: Json, files: Mapping[str, bytes], flags: int) -> None:
    """Every part that is there must be within its limit; an edit may leave parts out."""
    at_most("content", body.get("content") or "", MOST_CONTENT)
    check_embeds(body.get("embeds") or [])
    if flags & COMPONENTS_V2 and (body.get("content") or body.get("embeds")):
        raise invalid("content", "MESSAGE_CANNOT_USE_LEGACY_FIELDS_WITH_COMPONENTS_V2", "Use components instead.")
    check_components(body.get("components") or [], v2=bool(flags & COMPONENTS_V2))
    at_most_items("attachments", list(files), MOST_FILES)
    if sum(map(len, files.values())) > MOST_BYTES:
        raise Refusal(413, 40005, "Request entity too large")


def check_not_empty(content: str, *parts: Sequence[Any]) -> None:
    """White space is cut off before Discord looks, so a message of blanks is an empty one."""
    if not content.strip() and not any(parts):
        raise Refusal(400, 50006, "Cannot send an empty message")


def check_embeds(embeds: Sequence[Json]) -> None:
    at_most_items("embeds", embeds, MOST_EMBEDS)
    for index, embed in enumerate(embeds):
        _check_embed(f"embeds.{index}", embed)
    if sum(len(text) for embed in embeds for _, text, _ in _embed_texts(embed)) > MOST_EMBED_CHARACTERS:
        raise invalid("embeds", "MAX_EMBED_SIZE_EXCEEDED", "Embed size exceeds maximum size of 6000")


def _check_embed(field: str, embed: Json) -> None:
    at_most_items(f"{field}.fields", embed.get("fields", []), 25)
    for name, text, most in _embed_texts(embed):
        at_most(f"{field}.{name}", text, most)


def _embed_texts(embed: Json) -> Iterator[tuple[str, str, int]]:
    for key, most in EMBED_FIELDS.items():
        yield key, embed.get(key) or "", most
    for (part, key), most in EMBED_PARTS.items():
        yield f"{part}.{key}", (embed.get(part) or {}).get(key) or "", most
    for index, row in enumerate(embed.get("fields", [])):
        yield f"fields.{index}.name", row.get("name", ""), 256
        yield f"fields.{index}.value", row.get("value", ""), 1024


def walk(components: Sequence[Json]) -> Iterator[Json]:
    """Every component, with those inside rows, sections, containers and labels."""
    for component in components:
        yield component
        inside = [component[key] for key in ("accessory", "component") if component.get(key)]
        yield from walk([*component.get("components", []), *inside])


def check_components(components: Sequence[Json], v2: bool) -> None:
    if v2:
        _check_layout(components)
    else:
        _check_rows(components)
    ids = [one["custom_id"] for one in walk(components) if one.get("custom_id")]
    if len(ids) != len(set(ids)):
        raise invalid("components", "COMPONENT_CUSTOM_ID_DUPLICATED", "Component custom id cannot be duplicated")


def _check_layout(components: Sequence[Json]) -> None:
    everything = list(walk(components))
    at_most_items("components", everything, MOST_V2_COMPONENTS)
    if sum(len(one.get("content", "")) for one in everything if one["type"] == TEXT_DISPLAY) > MOST_V2_TEXT:
        raise invalid("components", "COMPONENT_DISPLAYABLE_TEXT_SIZE_EXCEEDED", "Too much text in components")
    for one in everything:
        _check_control("components", one)


def _check_rows(components: Sequence[Json]) -> None:
    at_most_items("components", components, MOST_ROWS)
    for index, row in enumerate(components):
        field = f"components.{index}"
        if row["type"] != ROW:
            raise invalid(f"{field}.type", "UNION_TYPE_CHOICES", 'Value of field "type" must be one of (1,).')
        _check_row(f"{field}.components", row.get("components", []))


def _check_row(field: str, controls: Sequence[Json]) -> None:
    selects = [one for one in controls if one["type"] in SELECTS]
    if not 1 <= len(controls) <= MOST_BUTTONS or (selects and len(controls) > 1):
        raise invalid(field, "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 5 in length.")
    for index, control in enumerate(controls):
        _check_control(f"{field}.{index}", control)


def _check_control(field: str, control: Json) -> None:
    if control["type"] == BUTTON:
        at_most(f"{field}.label", control.get("label") or "", 80)
        if control["style"] in (LINK, PREMIUM):
            return
    if control["type"] in (BUTTON, *SELECTS):
        between(f"{field}.custom_id", control.get("custom_id", ""), 1, MOST_CUSTOM_ID)
        at_most_items(f"{field}.options", control.get("options", []), 25)


def check_modal(modal: Json) -> None:
    between("data.title", modal.get("title", ""), 1, 45)
    between("data.custom_id", modal.get("custom_id", ""), 1, MOST_CUSTOM_ID)
    if not 1 <= len(modal.get("components", [])) <= MOST_ROWS:
        raise invalid("data.components", "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 5 in length.")
    for one in walk(modal["components"]):
        if one["type"] in (TEXT_INPUT, LABEL) and one.get("label") is not None:
            between("data.components.label", one["label"], 1, 45)


def pings_unasked(content: str, allowed: Json | None) -> bool:
    """Whether this text could ping somebody because nobody said that it must not."""
    everyone, role = EVERYONE.search(content), ROLE.search(content)
    if not (everyone or role or USER.search(content)):
        return False
    parse = None if allowed is None else allowed.get("parse", [])
    return parse is None or "everyone" in parse or bool(role and "roles" in parse)


def pinged_users(content: str, allowed: Json | None) -> list[int]:
    """The people whom a bot's message reaches: those it names, as far as `allowed_mentions` lets it."""
    named = list(dict.fromkeys(map(int, USER.findall(content))))
    if allowed is None or "users" in allowed.get("parse", []):
        return named
    chosen = {int(one) for one in allowed.get("users") or []}
    return [one for one in named if one in chosen]
