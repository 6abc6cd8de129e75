"""Imports files: tells the format, reads the whole file once to be sure of it, then journals it in batches.

A broken file imports nothing, because the first pass only reads. A killed import can be repeated: files that are whole
in the journal and have not changed are passed over, and of the others nothing is added twice. Memory holds a batch of
records, and the ids of one file's.

A file is known by its name, or by its path in the folder or zip that it came with. When it comes again with other
contents, it has these and no others; what a zip no longer holds goes with it. What a folder no longer holds goes only
when `prune` asks for that, because a folder may be half copied.
"""

import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from pathlib import Path, PurePosixPath
from shutil import copyfileobj
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from infra.errors import UserMistake
from infra.files import sha256_of
from memory.importers import (
    archives,
    discord_export,
    discord_package,
    documents,
    docx,
    epub,
    html,
    jsonfile,
    jsonlines,
    links,
    pdf,
    subtitles,
    tables,
    telegram_export,
    xml,
)
from memory.importers.records import ImportContext, Record, Skipped, Sourced, broken, encoding_of
from memory.journal import Journal
from memory.messages import Event, Exchange, Passage, Place, Source
from memory.remember import exchange_event, file_event, message_event, passage_event, remember

# The first format that knows a file reads it; the particular ones come before the general.
FORMATS: tuple[ModuleType, ...] = (
    pdf,
    links,
    subtitles,
    telegram_export,
    discord_export,
    jsonlines,
    jsonfile,
    html,
    xml,
    tables,
    documents,
)
# The same for zips, which are told by their index.
PACKED: tuple[ModuleType, ...] = (discord_package, docx, epub, archives)
# Who the creator is decides what these give, so that they are read again when they come again.
CHATS = frozenset({discord_package, telegram_export, discord_export, xml})
HEAD_BYTES = 1 << 16
BATCH = 500
# A zip may hold zips, as a download of a download does; these hold no more.
DEEPEST = 2
KINDS = (
    "csv, tsv, json, jsonl, xml, md, txt, html, pdf, docx, epub, srt, vtt, lists of addresses, zips of these, "
    "Telegram's result.json, DiscordChatExporter's json, a Discord zip"
)
UNCHANGED = "a file that has not changed since it was imported"
NO_FORMAT = "a file of a format that is not read"


@dataclass
class ImportReport:
    """What an import did: new events, exchanges and passages that changed, and why records were left out.

    `refused` has the files among many that could not be used, with the reason; `removed` the documents that were gone.
    """

    imported: int = 0
    exchanges: int = 0
    passages: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    refused: dict[str, str] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Progress:
    """How far an import is: files done of those known so far, records read, and the file that is read now."""

    done: int = 0
    files: int = 0
    records: int = 0
    name: str = ""


def import_paths(
    journal: Journal,
    paths: Sequence[Path],
    context: ImportContext,
    *,
    prune: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> ImportReport:
    """Import files, and the files of folders.

    Raises UserMistake for a file of `paths` that cannot be used; those before it stay. Such a file in a folder or zip
    is reported, and the others are imported. With `prune`, what came from these folders before and is gone, goes.
    """
    found = list(expanded(paths))
    run = Import(journal, prune=prune, files=len(found), on_progress=on_progress)
    for folder, files in groupby(found, key=lambda each: each[1]):
        known = replace(context, folder=folder)
        run.take_all((path for path, _ in files), known, within=folder.name if folder else "")
    return run.report


class Import:
    """One import under way."""

    def __init__(self, journal: Journal, *, prune: bool, files: int, on_progress: Callable[[Progress], None]) -> None:
        self._journal, self._prune, self._tell = journal, prune, on_progress
        self._progress = Progress(files=files)
        self._seen: set[str] = set()
        self.report = ImportReport()

    def take_all(self, paths: Iterable[Path], context: ImportContext, *, within: str) -> None:
        """Files that were given by name, or those of a folder."""
        for path in paths:
            self._take(path, context, alone=not within)
        if within and self._prune:
            self._remove_vanished(within, context)

    def _take(self, path: Path, context: ImportContext, *, alone: bool, depth: int = 0, room: str = "") -> None:
        """One file; unless it stands alone, what is wrong with it is only reported."""
        name = context.name_of(path)
        self._seen.add(name)
        self._on(name=name)
        try:
            self._read(path, name, context, alone=alone, depth=depth)
        except UserMistake as error:
            if alone:
                raise
            self.report.refused[name] = str(error).replace(f"{room}/", "") if room else str(error)
        self._on(done=self._progress.done + 1)

    def _read(self, path: Path, name: str, context: ImportContext, *, alone: bool, depth: int) -> None:
        """Pass over what is known, unpack what is packed, import the rest."""
        with readable(path):
            if os.path.getsize(path) == 0:
                raise UserMistake(f"{str(path)!r} is empty.")
            sha256 = sha256_of(path)
        if self._is_known(name, sha256):
            self.report.skipped[UNCHANGED] += 1
            return
        chosen = format_of(path)
        if chosen is None and not alone:
            self.report.skipped[NO_FORMAT] += 1
        elif chosen is None:
            raise UserMistake(f"{str(path)!r} is none of the formats read here: {KINDS}.")
        elif chosen is archives:
            self._read_zip(path, name, sha256, context, alone=alone, depth=depth + 1)
        else:
            with readable(path):
                found = sure(lambda: chosen.read(path, context), self._count)
                document = "" if chosen in CHATS else name
                journal_file(
                    self._journal, path, found, context=context, report=self.report, document=document, sha256=sha256
                )

    def _read_zip(self, path: Path, name: str, sha256: str, context: ImportContext, *, alone: bool, depth: int) -> None:
        """A zip of documents; it is known as a whole once all of them are."""
        unread = self.report.skipped[NO_FORMAT]
        members = self._unpack(path, name, context, depth=depth)
        if alone and self.report.skipped[NO_FORMAT] - unread == members:
            raise broken(path, "its index", f"none of its files is of a format read here: {KINDS}")
        self._remove_vanished(name, context)
        if not any(each.startswith(f"{name}/") for each in self.report.refused):
            self._journal_whole(name, sha256, context)

    def _unpack(self, path: Path, name: str, context: ImportContext, *, depth: int) -> int:
        """The files of a zip, each by itself in a folder that is gone after it; how many they are."""
        if depth > DEEPEST:
            raise broken(path, "its contents", "a zip in a zip in a zip; unpack it and import the folder")
        with archives.opened(path) as archive, readable(path):
            members = dict(files := archives.files_in(archive))
            if not members:
                raise broken(path, "its index", "there is no file in it")
            twice = len(files) - len(members)
            self.report.skipped.update({"a file whose name is twice in its zip": twice} if twice else {})
            self._on(files=self._progress.files + len(members))
            for member, info in members.items():
                self._take_member(archive, info, f"{name}/{member}", context, depth=depth)
        return len(members)

    def _take_member(
        self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, context: ImportContext, *, depth: int
    ) -> None:
        with TemporaryDirectory(prefix="understudy-") as room:
            known = replace(context, folder=Path(room) / PurePosixPath(name).parts[0])
            path = Path(room) / name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(info) as packed, path.open("wb") as file:
                    copyfileobj(packed, file)
            except archives.FAILURES as error:
                self._seen.add(name)
                self.report.refused[name] = f"{name!r} cannot be unpacked ({error})."
                return
            self._take(path, known, alone=False, depth=depth, room=room)

    def _is_known(self, name: str, sha256: str) -> bool:
        before = self._journal.document(name)
        return before is not None and before[1] == sha256

    def _remove_vanished(self, within: str, context: ImportContext) -> None:
        """What came from inside a folder or zip before and was not there this time, nor in a zip that was."""
        for known in self._journal.documents():
            if known.name.startswith(f"{within}/") and not self._seen.intersection(steps(known.name, within)):
                self._journal_whole(known.name, "", context)
                self.report.removed.append(known.name)

    def _journal_whole(self, name: str, sha256: str, context: ImportContext) -> None:
        """A zip that is done, or a file that is gone: nothing is known from it by its own name."""
        before = self._journal.document(name)
        revision = before[0] + 1 if before else 0
        whole = file_event(
            name, context.creator, place_of(name, context), at=context.now, revision=revision, sha256=sha256
        )
        remember(self._journal, [whole], creator=context.creator_keys)

    def _count(self, records: int) -> None:
        self._on(records=self._progress.records + records)

    def _on(self, **changes: Any) -> None:
        self._progress = replace(self._progress, **changes)
        self._tell(self._progress)


def steps(name: str, within: str) -> Iterator[str]:
    """The names on the way from a folder or zip to a file in it: "a/b", "a/b/c.md"."""
    parts = name.removeprefix(f"{within}/").split("/")
    return ("/".join([within, *parts[: end + 1]]) for end in range(len(parts)))


def sure(read: Callable[[], Iterator[Record]], count: Callable[[int], None]) -> Iterable[Record]:
    """Every record of a file that was read to its end: from memory if they fit a batch, else read once more."""
    found = read()
    first = list(islice(found, BATCH))
    count(len(first))
    if len(first) < BATCH:
        return first
    for batch in batches(found):
        count(len(batch))
    return read()


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
        # "." has no name that its files could be known by.
        named = path if path.name not in {"", ".."} else path.resolve()
        with readable(named):
            found = files_at(named)
        yield from ((file, named if file != named else None) for file in found)


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
    """The importer that knows this file, or None. Raises UserMistake for text with NUL bytes and for a false zip."""
    with readable(path), path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    name = path.name.casefold()
    if head.startswith(archives.BEGINS):
        index = archives.index_of(path)
        return next((each for each in PACKED if each.sniff(index, name)), None)
    if name.endswith(".zip"):
        raise broken(path, "its packing", "this is no zip file")
    text = head.decode(encoding_of(path), "replace")
    chosen = next((each for each in FORMATS if each.sniff(text, name)), None)
    if chosen not in {None, pdf} and "\x00" in text:
        where = f"character {text.index(chr(0))}"
        raise broken(path, where, "it holds NUL bytes and is no text; save UTF-16 with a byte order mark")
    return chosen


def journal_file(
    journal: Journal,
    path: Path,
    records: Iterable[Record],
    *,
    context: ImportContext,
    report: ImportReport,
    document: str = "",
    sha256: str = "",
) -> None:
    """The second pass: everything of one file, in batches. If it is a `document`, it has these pieces and no others."""

    def named(record: Record) -> str:
        return record.document if isinstance(record, Passage) else ""

    # The pairs between a document's pieces must not cut it in two: they wait until it ends.
    pieces = Pieces(journal, sha256 or sha256_of(path), context=context, report=report)
    pieces.open(document)
    for batch in batches(records):
        report.skipped.update(record.reason for record in batch if isinstance(record, Skipped))
        add(journal, [event for record in batch if (event := event_of(record))], context, report)
        pieces.pair(record.id for record in batch if isinstance(record, Exchange))
        for name, parts in groupby((record for record in batch if isinstance(record, Passage)), key=named):
            pieces.add(name, list(parts))
    pieces.close()


class Pieces:
    """The document that is being journalled: its pieces go in as they come, its end makes them the whole of it."""

    def __init__(self, journal: Journal, sha256: str, *, context: ImportContext, report: ImportReport) -> None:
        self._journal, self._sha256, self._context, self._report = journal, sha256, context, report
        self._name = ""
        self._known = False
        self._revision = 0
        self._passages: list[str] = []
        self._exchanges: list[str] = []
        self._first: Passage | None = None

    def open(self, name: str) -> None:
        """The document that begins, unless it has begun already."""
        if name == self._name:
            return
        self.close()
        self._name = name
        before = self._journal.document(name)
        self._known = before is not None and before[1] == self._sha256
        self._revision = before[0] + 1 if before else 0

    def pair(self, exchanges: Iterable[str]) -> None:
        """Pairs of the document; what holds several documents has its pairs from messages."""
        self._exchanges += exchanges if self._name else ()

    def add(self, name: str, parts: list[Passage]) -> None:
        """More pieces, of the same document or the next."""
        self.open(name)
        if self._known:
            self._report.skipped["already known"] += len(parts)
            return
        self._first = self._first or parts[0]
        self._passages += [part.id for part in parts]
        events = [passage_event(part, revision=self._revision) for part in parts]
        add(self._journal, events, self._context, self._report)

    def close(self) -> None:
        """The document that is open, if one is, is whole."""
        if self._name and not self._known:
            first = self._first
            whole = file_event(
                self._name,
                self._context.creator,
                first.place if first else place_of(self._name, self._context),
                at=first.at if first else self._context.now,
                revision=self._revision,
                sha256=self._sha256,
                passages=self._passages,
                exchanges=self._exchanges,
                source=first.source if first else Source.CREATOR_QA,
            )
            remember(self._journal, [whole], creator=self._context.creator_keys)
        self._name, self._first, self._passages, self._exchanges = "", None, [], []


def place_of(name: str, context: ImportContext) -> Place:
    """Where documents stand that came as files."""
    return Place("import", "documents", name=name, community=context.community)


def add(journal: Journal, events: list[Event], context: ImportContext, report: ImportReport) -> None:
    if not events:
        return
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
