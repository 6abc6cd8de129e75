"""One JSON document with a list of rows, at its top or under a key; and the streaming that other JSON exports share."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memory.importers import shapes
from memory.importers.records import ImportContext, Record, broken

# Where lists of rows are found.
LISTS = ("item", "items.item", "data.item", "rows.item", "questions.item", "conversations.item", "examples.item")


def sniff(head: str, name: str) -> bool:
    return name.endswith(".json")


def read(path: Path, context: ImportContext) -> Iterator[Record]:
    """Rows as exchanges. Raises UserMistake for a file that is not JSON or holds no list of rows."""
    found = False
    for _, row in items(path, LISTS):
        found = True
        yield from shapes.exchanges(row, context, file=path.name)
    if not found:
        raise broken(path, "its top", "no list of questions and answers")


def items(path: Path, lists: tuple[str, ...], facts: tuple[str, ...] = ()) -> Iterator[tuple[dict[str, Any], Any]]:
    """The members of every list at one of the paths `lists`, one at a time, with the scalars met so far at `facts`.

    Memory holds one member, however large the file. Raises UserMistake with the byte where the file stops being JSON.
    """
    import ijson

    met: dict[str, Any] = {}
    with path.open("rb") as file:
        building, base, depth = ijson.ObjectBuilder(), "", 0
        try:
            for prefix, event, value in ijson.parse(skip_mark(file), use_float=True):
                if base:
                    building.event(event, value)
                    depth += (event in {"start_map", "start_array"}) - (event in {"end_map", "end_array"})
                    if depth == 0:
                        yield met, building.value
                        base = ""
                elif prefix in lists and event in {"start_map", "start_array"}:
                    building, base, depth = ijson.ObjectBuilder(), prefix, 1
                    building.event(event, value)
                elif prefix in lists and event not in {"end_map", "end_array"}:
                    yield met, value
                elif prefix in facts:
                    met[prefix] = value
        except (ijson.JSONError, UnicodeDecodeError, RecursionError) as error:
            raise broken(
                path, f"near byte {file.tell()}", f"this is not JSON ({' '.join(str(error).split())[:80]})"
            ) from error


def skip_mark(file: Any) -> Any:
    """The file after a UTF-8 byte order mark, which ijson does not know."""
    if file.read(3) != b"\xef\xbb\xbf":
        file.seek(0)
    return file
