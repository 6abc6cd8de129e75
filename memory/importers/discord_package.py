"""The creator's own Discord data package: what they wrote, without what it answered.

Long messages stand alone and become passages. Short ones only make sense beside a question, which the package does not
hold; they are counted and left out. Nothing is unpacked to disk.
"""

import csv
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from memory.importers.archives import opened
from memory.importers.chunks import Block, cut
from memory.importers.jsonfile import members
from memory.importers.records import MOST_RECORD, ImportContext, Record, Skipped, Utf8, broken, time_of
from memory.messages import Passage, Place, Source, Visibility, name_uuid
from memory.prompt import estimate_tokens

# A message that says something by itself has a few sentences.
STANDS_ALONE_TOKENS = 60
# The folders above are named in the account's language.
MESSAGES = re.compile(r"(^|/)c?\d+/messages\.(json|csv)$", re.MULTILINE)
OWNER = re.compile(r"^[^/]+/user\.json$")
DIRECT = {"DM", "GROUP_DM", "1", "3"}


def sniff(head: str, name: str) -> bool:
    return bool(MESSAGES.search(head))


def read(path: Path, context: ImportContext) -> Iterator[Record]:
    """Passages. Raises UserMistake for a package that is another's, or that swells beyond reason."""
    with opened(path) as package:
        require_owner(path, package, context)
        known = {info.filename: info for info in package.infolist()}
        for info in package.infolist():
            if MESSAGES.search(info.filename):
                about = known.get(f"{PurePosixPath(info.filename).parent}/channel.json")
                yield from channel(package, info, about, context, path)


def require_owner(path: Path, package: zipfile.ZipFile, context: ImportContext) -> None:
    """The package must be the creator's own: what is in it may train."""
    ids = context.ids_on("discord")
    for info in package.infolist():
        if OWNER.search(info.filename):
            owner = str(small(package, info, path).get("id", ""))
            if ids and owner and owner not in ids:
                known = ", ".join(f"discord:{each}" for each in sorted(ids))
                raise broken(path, info.filename, f"the package is discord:{owner}'s, creator.ids has {known}")


def small(package: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> dict[str, Any]:
    """The object in a small JSON file of the package."""
    if info.file_size > MOST_RECORD:
        raise broken(path, info.filename, f"longer than {MOST_RECORD} bytes")
    try:
        found = json.loads(package.read(info))
    except (ValueError, RecursionError) as error:
        raise broken(path, info.filename, "this is not JSON") from error
    return found if isinstance(found, dict) else {}


def channel(
    package: zipfile.ZipFile, info: zipfile.ZipInfo, about: zipfile.ZipInfo | None, context: ImportContext, path: Path
) -> Iterator[Record]:
    """The messages of one channel, streamed; `about` is the file that says which it is."""
    folder = PurePosixPath(info.filename).parent
    facts = small(package, about, path) if about else {}
    place = place_of(folder.name.removeprefix("c"), facts, context)
    with package.open(info) as file:
        try:
            for row in table(file) if info.filename.endswith(".csv") else listed(file, path, info.filename):
                yield from message(row, place, context)
        except (csv.Error, UnicodeDecodeError) as error:
            raise broken(path, info.filename, f"this is not what Discord writes ({error})") from error


def place_of(channel_id: str, facts: dict[str, Any], context: ImportContext) -> Place:
    visibility: Visibility = "private" if str(facts.get("type", "")).upper() in DIRECT else "public"
    name = str(facts.get("name") or f"Discord {channel_id}")
    return Place("discord", channel_id, name=name, community=context.community, visibility=visibility)


def table(file: Any) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(MOST_RECORD)
    yield from csv.DictReader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""))


def listed(file: Any, path: Path, name: str) -> Iterator[dict[str, Any]]:
    for _, _, row in members(Utf8(file), path / name, lists=("item",)):
        yield row if isinstance(row, dict) else {}


def message(row: dict[str, Any], place: Place, context: ImportContext) -> Iterator[Record]:
    """The passages of one message, or why it is left out."""
    said, at, identity = str(row.get("Contents") or "").strip(), time_of(row.get("Timestamp")), row.get("ID")
    if not said:
        yield Skipped("no text, only media")
    elif at is None or not identity:
        yield Skipped("no time or no number")
    elif estimate_tokens(said) < STANDS_ALONE_TOKENS:
        yield Skipped("a short message whose question the package does not hold")
    else:
        for position, piece in enumerate(cut(Block(said))):
            yield Passage(
                id=name_uuid("archive", place.id, str(identity), str(position)),
                document=f"discord-{place.id}-{identity}",
                position=position,
                heading="",
                text=piece.text,
                author=context.creator,
                place=place,
                at=at,
                source=Source.CREATOR_ARCHIVE,
            )
