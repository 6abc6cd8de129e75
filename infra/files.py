"""Files that are either whole or absent: atomic replacement, content hashes, folders whose manifest comes last."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from infra.errors import ServiceTrouble

MANIFEST = "manifest.json"


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace `path` with `content` so that a reader or a crash sees the old file or the new one, never a part.

    Raises ServiceTrouble when the disk is full or the folder cannot be written; the old file then stays.
    """
    raw = content.encode() if isinstance(content, str) else content
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise ServiceTrouble(
            f"Could not write {str(path)!r}: {error.strerror}. Free some space or check its owner."
        ) from error


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Mapping[str, Any] | list[Any]) -> None:
    """`write_atomic` of readable JSON with stable key order."""
    write_atomic(path, json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    """The JSON value in `path`. Raises ServiceTrouble naming the file when it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ServiceTrouble(f"Could not read {str(path)!r}: it is nested too deep.", permanent=True) from error
    except OSError as error:
        raise ServiceTrouble(f"Could not read {str(path)!r}: {error.strerror}.", permanent=True) from error
    except ValueError as error:
        raise ServiceTrouble(f"Could not read {str(path)!r}: it is not JSON ({error}).", permanent=True) from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises ServiceTrouble as `read_json`, and for another value."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise ServiceTrouble(f"Could not read {str(path)!r}: it holds no JSON object.", permanent=True)
    return found


@contextlib.contextmanager
def told_as(path: Path) -> Iterator[None]:
    """Tell as ServiceTrouble that what was read of `path` is not what we write there: a field is missing or wrong."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        why = f"Could not use {str(path)!r}: it does not hold what it should ({type(error).__name__})."
        raise ServiceTrouble(why, permanent=True) from error


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Wait for whoever is in this block for the same folder, in any process; one that dies is out of it."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def finish_folder(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write `manifest.json`, with the sha256 of every other file in `folder`, as the last act of filling it."""
    files = {
        str(p.relative_to(folder)): sha256_of(p)
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != MANIFEST
    }
    write_json(folder / MANIFEST, {**manifest, "files": files})


def finished(folder: Path) -> dict[str, Any] | None:
    """The manifest of a finished folder, or None: a folder without a manifest does not exist."""
    path = folder / MANIFEST
    return read_object(path) if path.is_file() else None


def verify_folder(folder: Path) -> dict[str, Any]:
    """The manifest of `folder` after comparing every file's hash with it; raises ServiceTrouble on any difference."""
    manifest = finished(folder)
    if manifest is None:
        raise ServiceTrouble(f"{str(folder)!r} has no {MANIFEST}: it was never finished.", permanent=True)
    with told_as(folder / MANIFEST):
        files = {str(name): str(expected) for name, expected in manifest["files"].items()}
    for name, expected in files.items():
        path = inside(folder, name)
        found = sha256_of(path) if path.is_file() else "no file"
        if found != expected:
            raise ServiceTrouble(
                f"{str(path)!r} changed: expected sha256 {expected[:12]}, found {found[:12]}.", permanent=True
            )
    return manifest


def inside(folder: Path, name: str) -> Path:
    """The file of that name in a folder. Raises ServiceTrouble for a name that leads out of it, or is none."""
    path = PurePosixPath(name)
    if "\x00" in name or path.is_absolute() or ".." in path.parts:
        raise ServiceTrouble(f"{str(folder / MANIFEST)!r} names a file outside of its folder.", permanent=True)
    return folder / path


def fresh_folder(folder: Path) -> Path:
    """An empty `folder`; what an earlier, unfinished attempt left there is removed."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder
