"""One JSON object a line: plain pairs, alpaca, ShareGPT, OpenAI messages."""

import json
from collections.abc import Iterator
from pathlib import Path

from memory.importers import shapes
from memory.importers.records import ImportContext, Record, broken, open_text

# A line longer than this is not one record; reading it whole would take that much memory.
MOST_LINE = 8_000_000


def sniff(head: str, name: str) -> bool:
    return name.endswith((".jsonl", ".ndjson"))


def read(path: Path, context: ImportContext) -> Iterator[Record]:
    """Lines as exchanges. Raises UserMistake with the line that is not JSON."""
    with open_text(path) as file:
        number = 0
        while line := file.readline(MOST_LINE):
            number += 1
            if len(line) >= MOST_LINE:
                raise broken(path, f"line {number}", f"longer than {MOST_LINE} characters")
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise broken(path, f"line {number}", "this is not JSON") from error
            yield from shapes.exchanges(row, context, file=path.name)
