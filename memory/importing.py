"""Imports files: tells the format, reads the whole file once to be sure of it, then journals it in batches.

A broken file imports nothing, because the first pass only reads. A killed import can be repeated: what is in the
journal already is not added twice. Neither pass holds more than a batch in memory.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from pathlib import Path
from types import ModuleType

from infra.errors import UserMistake
from infra.files import sha256_of
from memory.importers import (
    discord_export,
    discord_package,
    documents,
    jsonfile,
    jsonlines,
    tables,
    telegram_export,
    xml,
)
from memory.importers.records import ImportContext, Record, Skipped, Sourced, broken, encoding_of
from memory.journal import Journal
from memory.messages import Event, Exchange, Passage
from memory.remember import document_event, exchange_event, message_event, passage_event, remember

# The first format that knows a file reads it; the particular ones come before the general.
FORMATS: tuple[ModuleType, ...] = (
    discord_package,
    telegram_export,
    discord_export,
    jsonlines,
    jsonfile,
    xml,
    tables,
    documents,
)
HEAD_BYTES = 1 << 16
BATCH = 500
KINDS = "csv, tsv, json, jsonl, xml, md, txt, Telegram's result.json, DiscordChatExporter's json, a Discord zip"


@dataclass
class ImportReport:
    """What an import did: new events, exchanges and passages that changed, and why records were left out."""

    imported: int = 0
    exchanges: int = 0
    passages: int = 0
    skipped: Counter[str] = field(default_factory=Counter)


def import_paths(
    journal: Journal,
    paths: Sequence[Path],
    context: ImportContext,
    *,
    on_progress: Callable[[int], None] = lambda records: None,
) -> ImportReport:
    """Import files, and the files of folders. Raises UserMistake for one that cannot be used; those before it stay."""
    report = ImportReport()
    read = 0
    for path, folder in expanded(paths):
        chosen = format_of(path)
        if chosen is None and folder is not None:
            report.skipped["a file of a format that is not read"] += 1
            continue
        if chosen is None:
            raise UserMistake(f"{str(path)!r} is none of the formats read here: {KINDS}.")
        known = replace(context, folder=folder)
        with readable(path):
            for batch in batches(chosen.read(path, known)):
                read += len(batch)
                on_progress(read)
            journal_file(journal, path, chosen.read(path, known), context=known, report=report)
    return report


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """What the operating system says of a file, as a sentence."""
    try:
        yield
    except OSError as error:
        raise UserMistake(f"{str(path)!r} cannot be read: {error.strerror or error}.") from error


def expanded(paths: Sequence[Path]) -> Iterator[tuple[Path, Path | None]]:
    """The files that `paths` mean, each with the folder it was found in if one was given; in a stable order."""
    for path in paths:
        with readable(path):
            found = files_at(path)
        yield from ((file, path if file != path else None) for file in found)


def files_at(path: Path) -> list[Path]:
    """A file itself, or all files in a folder. Raises UserMistake when there is none, OSError when it cannot look."""
    if path.is_dir():
        files = [found for found in sorted(path.rglob("*")) if found.is_file() and not found.name.startswith(".")]
        if not files:
            raise UserMistake(f"{str(path)!r} is an empty folder.")
        return files
    if path.is_file():
        return [path]
    if path.exists():
        raise UserMistake(f"{str(path)!r} is neither a file nor a folder.")
    raise UserMistake(f"There is no file {str(path)!r}.")


def format_of(path: Path) -> ModuleType | None:
    """The importer that knows this file, or None. Raises UserMistake for one that is empty, or text with NUL bytes."""
    with readable(path):
        if os.path.getsize(path) == 0:
            raise UserMistake(f"{str(path)!r} is empty.")
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES).decode(encoding_of(path), "replace")
    name = path.name.casefold()
    chosen = next((each for each in FORMATS if each.sniff(head, name)), None)
    if chosen not in {None, discord_package} and "\x00" in head:
        where = f"character {head.index(chr(0))}"
        raise broken(path, where, "it holds NUL bytes and is no text; save UTF-16 with a byte order mark")
    return chosen


def journal_file(
    journal: Journal, path: Path, records: Iterable[Record], *, context: ImportContext, report: ImportReport
) -> None:
    """The second pass: everything of one file, in batches; the pieces of a document together."""
    sha256 = sha256_of(path)

    def named(record: Record) -> str:
        return record.document if isinstance(record, Passage) else ""

    # The pairs between a document's pieces must not cut it in two: they wait until it ends.
    document = Pieces(journal, sha256, context=context, report=report)
    for batch in batches(records):
        report.skipped.update(record.reason for record in batch if isinstance(record, Skipped))
        add(journal, [event for record in batch if (event := event_of(record))], context, report)
        for name, parts in groupby((record for record in batch if isinstance(record, Passage)), key=named):
            document.add(name, list(parts))
    document.finish()


class Pieces:
    """The document that is being journalled: its pieces go in as they come, its end makes them the whole of it."""

    def __init__(self, journal: Journal, sha256: str, *, context: ImportContext, report: ImportReport) -> None:
        self._journal, self._sha256, self._context, self._report = journal, sha256, context, report
        self._name = ""
        self._known = False
        self._revision = 0
        self._kept: list[Passage] = []

    def add(self, name: str, parts: list[Passage]) -> None:
        """More pieces, of the same document or the next."""
        if name != self._name:
            self.finish()
            self._name = name
            before = self._journal.document(name)
            self._known = before is not None and before[1] == self._sha256
            self._revision = before[0] + 1 if before else 0
        if self._known:
            self._report.skipped["already known"] += len(parts)
            return
        # The words are in the journal then; what is kept to name them at the end is small.
        self._kept += [replace(part, text="") for part in parts]
        events = [passage_event(part, revision=self._revision) for part in parts]
        add(self._journal, events, self._context, self._report)

    def finish(self) -> None:
        """Close the document that is open, if one is."""
        if self._kept:
            whole = document_event(self._kept, revision=self._revision, sha256=self._sha256)
            add(self._journal, [whole], self._context, self._report)
        self._kept = []


def add(journal: Journal, events: list[Event], context: ImportContext, report: ImportReport) -> None:
    receipt = remember(journal, events, creator=context.creator_keys)
    report.imported += receipt.appended
    report.exchanges += receipt.exchanges
    report.passages += receipt.passages
    left_out = {"already known": receipt.duplicates, "forgotten": receipt.forgotten}
    report.skipped.update({reason: count for reason, count in left_out.items() if count})


def event_of(record: Record) -> Event | None:
    """The event of a record that is journalled by itself."""
    if isinstance(record, Exchange):
        return exchange_event(record)
    return message_event(record.message, record.source) if isinstance(record, Sourced) else None


def batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    iterator = iter(records)
    while batch := list(islice(iterator, BATCH)):
        yield batch
