"""Zip files: looked over before they are read, so that none can fill the disk or climb out of its folder.

Also what a plain zip of documents holds. Discord's package, Word files and books are zips too, and have their readers.
"""

import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from memory.importers.records import broken, decoded, is_chinese

# The second is an empty zip.
BEGINS = (b"PK\x03\x04", b"PK\x05\x06")
# Years of a busy account are some hundred megabytes; more, or text that packs a thousandfold, is a bomb.
MOST_BYTES, MOST_RATIO = 4_000_000_000, 200
# A file whose parts are held at once, as trees that take several times as much.
MOST_HELD, MOST_PART = 500_000_000, 32_000_000
# Spreadsheets, slides and apps are zips of parts that are no documents.
NO_DOCUMENTS = re.compile(r"^(\[Content_Types\]\.xml|META-INF/.*|mimetype)$", re.MULTILINE)
FAILURES = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError, UnicodeDecodeError)
# The first bit of a member's flags says that it is encrypted, the twelfth that its name is UTF-8.
ENCRYPTED, UTF8_NAME = 0x1, 0x800


def sniff(head: str, name: str) -> bool:
    """Whether a zip, of which `head` is the index, may hold documents."""
    return not NO_DOCUMENTS.search(head)


def index_of(path: Path) -> str:
    """The names in a zip, one a line."""
    with opened(path) as archive:
        return "\n".join(name_of(info) for info in archive.infolist())


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip that has been looked over. Raises UserMistake where it cannot be read, then or later."""
    try:
        with zipfile.ZipFile(path) as archive:
            refuse_attacks(path, archive.infolist())
            yield archive
    except FAILURES as error:
        raise broken(path, "its packing", f"this zip cannot be read ({error})") from error


def refuse_attacks(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Names that climb out, sizes that nobody has, and what only a password opens."""
    for info in entries:
        name = PurePosixPath(name_of(info))
        if name.is_absolute() or ".." in name.parts:
            raise broken(path, info.filename, "a name that leads out of the package")
        if info.file_size > 1_000_000 and info.file_size > MOST_RATIO * max(info.compress_size, 1):
            raise broken(path, info.filename, f"it unpacks to {info.file_size} bytes, over {MOST_RATIO} times its size")
        if info.flag_bits & ENCRYPTED:
            raise broken(path, info.filename, "it is encrypted; unpack it with its password and import the folder")
    total = sum(info.file_size for info in entries)
    if total > MOST_BYTES:
        raise broken(path, "its index", f"{total} bytes unpacked are more than {MOST_BYTES}")


def files_in(archive: zipfile.ZipFile) -> list[tuple[str, zipfile.ZipInfo]]:
    """The files that somebody put into a zip, by name; what systems add beside them is left out."""
    return [(name_of(info), info) for info in archive.infolist() if is_file(info)]


def is_file(info: zipfile.ZipInfo) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name_of(info)).parts)
    return not (hidden or info.is_dir() or stat.S_ISLNK(info.external_attr >> 16))


def name_of(info: zipfile.ZipInfo) -> str:
    """A member's name; Chinese Windows writes it as GB18030 and does not say so."""
    name = info.filename.replace("\\", "/")
    if info.flag_bits & UTF8_NAME or name.isascii():
        return name
    raw = name.encode("cp437", "replace")
    if (plain := decoded(raw, "utf-8")) is not None:
        return plain
    chinese = decoded(raw, "gb18030") or ""
    return chinese if is_chinese(chinese) else name


def refuse_parts(path: Path, archive: zipfile.ZipFile) -> None:
    """Parts that are too long to be held, and those that declare entities: how XML reaches other files and swells."""
    total = sum(info.file_size for info in archive.infolist())
    if total > MOST_HELD:
        raise broken(path, "its index", f"{total} bytes unpacked are more than {MOST_HELD}")
    for info in archive.infolist():
        if not info.filename.endswith((".xml", ".rels")):
            continue
        if info.file_size > MOST_PART:
            raise broken(path, info.filename, f"longer than {MOST_PART} bytes")
        with archive.open(info) as part:
            if b"<!DOCTYPE" in part.read(4096):
                raise broken(path, info.filename, "it declares a document type, which no such file needs")
