"""One JSON document with a list of rows, at its top or under a key; and the streaming that other JSON exports share."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memory.importers import shapes
from memory.importers.records import MOST_RECORD, ImportContext, Record, Utf8, broken, open_utf8

# Where lists of rows are found.
LISTS = ("item", "items.item", "data.item", "rows.item", "questions.item", "examples.item", "qa.item", "faq.item")
# A single conversation may be the whole document.
ALONE = ("conversations.item", "messages.item")
# People's exports nest a dozen levels; more is an attack on whatever walks it.
DEEPEST = 64
STARTS, ENDS = {"start_map", "start_array"}, {"end_map", "end_array"}


def sniff(head: str, name: str) -> bool:
    return name.endswith(".json") or looks_like_json(head)


def looks_like_json(head: str) -> bool:
    """Whether a text begins as a JSON object or list of such does."""
    return bool(re.match(r'\s*(\{\s*["}]|\[\s*(\{\s*["}]|\[))', head))


def read(path: Path, context: ImportContext) -> Iterator[Record]:
    """Rows as exchanges. Raises UserMistake for a file that is not JSON or holds no list of rows."""
    found, before, file = False, None, context.name_of(path)
    for where, _, row in items(path, (*LISTS, *ALONE)):
        found = True
        if where in ALONE and shapes.is_turn(row):
            # One conversation: a turn is nothing by itself.
            yield from shapes.exchanges_between(before, row, context, file=file)
            before = row
        else:
            yield from shapes.exchanges(row, context, file=file)
    if not found:
        raise broken(path, "its top", "no list of questions and answers")


def items(path: Path, lists: tuple[str, ...], facts: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """The members of every list at one of the paths `lists`, one at a time, with the scalars met so far at `facts`.

    Memory holds one member, however large the file. Raises UserMistake with the byte where the file stops being JSON,
    nests too deep, or holds a member beyond `MOST_RECORD`.
    """
    with open_utf8(path) as file:
        yield from members(file, path, lists=lists, facts=facts)


def members(
    file: Utf8, path: Path, *, lists: tuple[str, ...], facts: tuple[str, ...] = ()
) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """`items` of an open file; `path` is for the message when it is broken."""
    import ijson

    met: dict[str, Any] = {}
    trail: list[str] = []  # the key in each open object, "item" in each open list
    building, base, began = ijson.ObjectBuilder(), -1, 0
    for event, value in events(file, path):
        if event in ENDS:
            trail.pop()
        if base < 0 and event != "map_key":
            here = ".".join(trail) if len(trail) < 8 else ""
            if event in STARTS and here in lists:
                building, base, began = ijson.ObjectBuilder(), len(trail), file.at
            elif event == "start_map":
                met = {fact: known for fact, known in met.items() if not fact.startswith(f"{here}.")}
            elif event not in STARTS | ENDS and here in lists:
                yield here, met, value
            elif event not in STARTS | ENDS and here in facts:
                met[here] = value
        if base >= 0:
            building.event(event, value)
            if event in ENDS and len(trail) == base:
                yield ".".join(trail), met, building.value
                base = -1
            elif file.at - began > MOST_RECORD:
                raise broken(path, f"near byte {began}", f"one record is longer than {MOST_RECORD} bytes")
        if event == "map_key":
            trail[-1] = value
        elif event in STARTS:
            trail.append("item" if event == "start_array" else "")
            if len(trail) > DEEPEST:
                raise broken(path, f"near byte {file.at}", f"nested deeper than {DEEPEST} levels")


def events(file: Utf8, path: Path) -> Iterator[tuple[str, Any]]:
    """The parser's events, none of them for a value beyond `MOST_RECORD`."""
    import ijson

    class Bounded:
        """The file, refusing to go on feeding one value for ever."""

        last = 0

        def read(self, size: int = -1) -> bytes:
            if file.at - self.last > MOST_RECORD:
                raise broken(path, f"near byte {self.last}", f"one value is longer than {MOST_RECORD} bytes")
            return file.read(size)

    bounded = Bounded()
    try:
        for event, value in ijson.basic_parse(bounded, use_float=True):
            bounded.last = file.at
            yield event, value
    except UnicodeDecodeError:
        raise  # open_text knows the byte
    except (ijson.JSONError, ValueError) as error:
        raise broken(path, f"near byte {file.at}", f"this is not JSON ({kind_of(error)})") from error


def kind_of(error: Exception) -> str:
    """What is wrong, without the excerpt of the file that the parser adds on the next line."""
    said = error.args[0] if error.args else ""
    text = said.decode("ascii", "replace") if isinstance(said, bytes) else str(said)
    return text.split("\n", 1)[0].strip()[:80]
