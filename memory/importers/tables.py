"""CSV and TSV with a header that names a question and an answer column."""

import csv
from collections.abc import Iterator
from pathlib import Path

from memory.importers import shapes
from memory.importers.records import MOST_CHARACTERS, ImportContext, Record, Skipped, broken, open_text


def sniff(head: str, name: str) -> bool:
    return name.endswith((".csv", ".tsv"))


def read(path: Path, context: ImportContext) -> Iterator[Record]:
    """Rows as exchanges. Raises UserMistake with the line for a file that is no table of pairs."""
    csv.field_size_limit(MOST_CHARACTERS * 10)
    with open_text(path) as file:
        head = file.readline()
        if "\x00" in head:
            raise broken(path, "line 1", "it holds NUL characters and is no text table")
        rows = csv.reader(file, delimiter=delimiter(head), strict=True)
        header = next(csv.reader([head], delimiter=delimiter(head)), [])
        named = {name.strip().casefold() for name in header}
        if not named & set(shapes.QUESTION) or not named & set(shapes.ANSWER):
            raise broken(path, "line 1", "no question and answer columns in the header")
        try:
            for row in rows:
                if not row:
                    continue
                if len(row) > len(header):
                    yield Skipped("more fields than the header has columns")
                    continue
                yield from shapes.exchanges(dict(zip(header, row, strict=False)), context, file=path.name)
        except csv.Error as error:
            raise broken(path, f"line {rows.line_num + 1}", str(error)) from error


def delimiter(head: str) -> str:
    """The likeliest separator of a header line."""
    return max("\t,;|", key=head.count)
