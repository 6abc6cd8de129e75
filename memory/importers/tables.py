"""CSV and TSV with a header that names a question and an answer column."""

import csv
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from memory.importers import shapes
from memory.importers.records import MOST_RECORD, ImportContext, Record, Skipped, broken, lines_of, open_text


def sniff(head: str, name: str) -> bool:
    return name.endswith((".csv", ".tsv"))


def read(path: Path, context: ImportContext) -> Iterator[Record]:
    """Rows as exchanges. Raises UserMistake with the line for a file that is no table of pairs."""
    csv.field_size_limit(MOST_RECORD)
    file_name = context.name_of(path)
    with open_text(path) as file:
        head = file.readline(MOST_RECORD)
        separator = delimiter(head)
        header = next(csv.reader([head], delimiter=separator), [])
        named = {name.strip().casefold() for name in header}
        if not named & set(shapes.QUESTION) or not named & set(shapes.ANSWER):
            known = f"{', '.join(shapes.QUESTION[:4])} ... and {', '.join(shapes.ANSWER[:4])} ..."
            raise broken(path, "line 1", f"no question and answer columns in the header; known names are {known}")
        rows = csv.reader(lines_of(path, file), delimiter=separator, strict=True)
        try:
            for row in rows:
                if not any(field.strip() for field in row):
                    continue
                if len(row) > len(header):
                    yield Skipped("more fields than the header has columns")
                    continue
                yield from shapes.exchanges(dict(zip_longest(header, row, fillvalue="")), context, file=file_name)
        except csv.Error as error:
            raise broken(path, f"line {rows.line_num + 1}", str(error)) from error


def delimiter(head: str) -> str:
    """The likeliest separator of a header line."""
    return max("\t,;|", key=head.count)
