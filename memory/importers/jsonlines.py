"""One JSON object a line: plain pairs, alpaca, ShareGPT, OpenAI messages."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from memory.importers import shapes
from memory.importers.records import ImportContext, Record, broken, lines_of, open_text


def sniff(head: str, name: str) -> bool:
    return name.endswith((".jsonl", ".ndjson")) or bool(re.match(r'\s*\{\s*".*\}[^\S\n]*+\n\s*+\{\s*"', head))


def read(path: Path, context: ImportContext) -> Iterator[Record]:
    """Lines as exchanges. Raises UserMistake with the line that is not JSON."""
    found = False
    with open_text(path) as file:
        for number, line in enumerate(lines_of(path, file), start=1):
            if not line.strip():
                continue
            found = True
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise broken(path, f"line {number}", "this is not JSON") from error
            yield from shapes.exchanges(row, context, file=context.name_of(path))
    if not found:
        raise broken(path, "its top", "there is no line in it")
