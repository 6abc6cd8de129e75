"""The creator's own Discord data package: what they wrote, without what it answered.

Long messages stand alone and become passages. Short ones only make sense beside a question, which the package does not
hold; they are counted and left out.
"""

import csv
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from memory.importers.documents import pieces
from memory.importers.records import ImportContext, Record, Skipped, broken, time_of
from memory.messages import Passage, Place, Source, name_uuid

# A message that says something by itself has a few sentences.
STANDS_ALONE = 280
# Discord's largest packages hold channels of some tens of megabytes; more is a bomb.
MOST_BYTES = 400_000_000


def sniff(head: str, name: str) -> bool:
    return name.endswith(".zip")


def read(path: Path, context: ImportContext) -> Iterator[Record]:
    """Passages. Raises UserMistake for a zip that is no data package, or swells beyond reason."""
    try:
        with zipfile.ZipFile(path) as package:
            channels = [info for info in package.infolist() if is_messages(info.filename)]
            if not channels:
                raise broken(path, "its index", "no messages/*/messages.json or .csv: not a Discord data package")
            for info in channels:
                if info.file_size > MOST_BYTES:
                    raise broken(path, info.filename, f"{info.file_size} bytes unpacked is more than a channel holds")
                yield from channel(package, info, context, path)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise broken(path, "its index", f"this zip cannot be read ({error})") from error


def is_messages(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return len(parts) >= 3 and parts[-1] in {"messages.json", "messages.csv"} and parts[-3].casefold() == "messages"


def channel(package: zipfile.ZipFile, info: zipfile.ZipInfo, context: ImportContext, path: Path) -> Iterator[Record]:
    """The messages of one channel."""
    with package.open(info) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig")
        try:
            rows: list[dict[str, Any]] = (
                json.load(text) if info.filename.endswith(".json") else list(csv.DictReader(text))
            )
        except (ValueError, csv.Error) as error:
            raise broken(path, info.filename, "this is not what Discord writes") from error
    place = PurePosixPath(info.filename).parts[-2].removeprefix("c")
    for row in rows:
        yield from message(row, place, context)


def message(row: dict[str, Any], channel_id: str, context: ImportContext) -> Iterator[Record]:
    said = str(row.get("Contents") or "").strip()
    at = time_of(row.get("Timestamp"))
    if not said or at is None:
        yield Skipped("no text, only media")
        return
    if len(said) < STANDS_ALONE:
        yield Skipped("a short message whose question the package does not hold")
        return
    identity = str(row.get("ID"))
    place = Place("discord", channel_id, name=f"Discord {channel_id}", community=context.community)
    for position, text in enumerate(pieces(said)):
        yield Passage(
            id=name_uuid("archive", channel_id, identity, str(position)),
            document=f"discord-{channel_id}-{identity}",
            position=position,
            heading="",
            text=text,
            author=context.creator,
            place=place,
            at=at,
            source=Source.CREATOR_ARCHIVE,
        )
