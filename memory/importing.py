"""Imports files: tells the format, reads the whole file once to be sure of it, then journals it in batches.

A broken file imports nothing, because the first pass only reads. A killed import can be repeated: what is in the
journal already is not added twice. Neither pass holds more than a batch in memory.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
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
from memory.importers.records import ImportContext, Record, Skipped, Sourced, encoding_of
from memory.journal import Journal
from memory.messages import Event, Exchange, Passage
from memory.remember import document_event, exchange_event, message_event, passage_event, remember

# The first format that knows a file reads it; the particular ones come before the general.
FORMATS: tuple[ModuleType, ...] = (
    discord_package,
    telegram_export,
    discord_export,
    tables,
    jsonlines,
    jsonfile,
    xml,
    documents,
)
HEAD_CHARACTERS = 4000
BATCH = 500


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
    for path in expanded(paths):
        chosen = format_of(path)
        for batch in batches(chosen.read(path, context)):
            read += len(batch)
            on_progress(read)
        journal_file(journal, path, chosen.read(path, context), context=context, report=report)
    return report


def expanded(paths: Sequence[Path]) -> Iterator[Path]:
    """The files that `paths` mean, folders walked in a stable order."""
    for path in paths:
        if path.is_dir():
            files = [found for found in sorted(path.rglob("*")) if found.is_file() and not found.name.startswith(".")]
            if not files:
                raise UserMistake(f"{str(path)!r} is an empty folder.")
            yield from files
        elif path.is_file():
            yield path
        else:
            raise UserMistake(f"There is no file {str(path)!r}.")


def format_of(path: Path) -> ModuleType:
    """The importer that knows this file. Raises UserMistake for an empty or unknown one."""
    try:
        if os.path.getsize(path) == 0:
            raise UserMistake(f"{str(path)!r} is empty.")
        with path.open("rb") as file:
            head = file.read(HEAD_CHARACTERS).decode(encoding_of(path), "replace")
    except OSError as error:
        raise UserMistake(f"{str(path)!r} cannot be read: {error.strerror}.") from error
    name = path.name.casefold()
    for each in FORMATS:
        if each.sniff(head, name):
            return each
    kinds = "csv, tsv, json, jsonl, xml, md, txt, Telegram's result.json, DiscordChatExporter's json, a Discord zip"
    raise UserMistake(f"{str(path)!r} is none of the formats read here: {kinds}.")


def journal_file(
    journal: Journal, path: Path, records: Iterable[Record], *, context: ImportContext, report: ImportReport
) -> None:
    """The second pass: everything of one file, in batches."""
    pieces: list[Passage] = []
    for batch in batches(records):
        report.skipped.update(record.reason for record in batch if isinstance(record, Skipped))
        pieces += [record for record in batch if isinstance(record, Passage)]
        add(journal, [event for record in batch if (event := event_of(record))], context, report)
    for document, parts in groupby(pieces, key=lambda piece: piece.document):
        journal_document(journal, list(parts), sha256=f"{sha256_of(path)}:{document}", context=context, report=report)


def journal_document(
    journal: Journal, parts: list[Passage], *, sha256: str, context: ImportContext, report: ImportReport
) -> None:
    """A document's pieces, as a new revision unless this is what was imported last."""
    known = journal.document(parts[0].document)
    if known is not None and known[1] == sha256:
        report.skipped["already known"] += len(parts)
        return
    revision = known[0] + 1 if known else 0
    events = [passage_event(part, revision=revision) for part in parts]
    add(journal, [*events, document_event(parts, revision=revision, sha256=sha256)], context, report)


def add(journal: Journal, events: list[Event], context: ImportContext, report: ImportReport) -> None:
    receipt = remember(journal, events, creator=context.creator_keys)
    report.imported += receipt.appended
    report.exchanges += receipt.exchanges
    report.passages += receipt.passages
    report.skipped.update({"already known": receipt.duplicates} if receipt.duplicates else {})


def event_of(record: Record) -> Event | None:
    """The event of a record that is journalled by itself."""
    if isinstance(record, Exchange):
        return exchange_event(record)
    return message_event(record.message, record.source) if isinstance(record, Sourced) else None


def batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    iterator = iter(records)
    while batch := list(islice(iterator, BATCH)):
        yield batch
