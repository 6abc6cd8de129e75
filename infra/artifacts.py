"""Files elsewhere, by address: whatever fsspec knows, such as s3://bucket/folder or sftp://user@host/folder.

Who may write there is told to fsspec and its libraries in their own ways (~/.config/fsspec, ~/.ssh, ~/.aws), not to us.
A file is there whole or not at all: it is written beside its name and then moved.
"""

import fnmatch
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from infra.errors import ServiceTrouble


def is_address(place: str) -> bool:
    """Whether it is somewhere else than in a folder here."""
    return "://" in place


def shown(place: str) -> str:
    """A place as it may be printed and noted: without the password that an address can hold."""
    if not is_address(place):
        return place
    parts = urlsplit(place)
    user, at, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}{at}{host}"))


def put(file: Path, address: str) -> None:
    """Copy a file there. Raises ServiceTrouble when it cannot be; nothing of its name is there then."""
    with reached(address) as (system, path):
        part = f"{path}.{os.getpid()}.part"
        system.makedirs(path.rpartition("/")[0], exist_ok=True)
        system.put_file(str(file), part)
        system.mv(part, path)


def fetch(address: str, file: Path) -> None:
    """Copy a file from there. Raises ServiceTrouble when it cannot be."""
    with reached(address) as (system, path):
        system.get_file(path, str(file))


def listed(folder: str, pattern: str) -> list[str]:
    """The names in a folder there that fit, sorted; none where there is no such folder."""
    with reached(folder) as (system, path):
        names = [each.rpartition("/")[2] for each in system.ls(path, detail=False)] if system.exists(path) else []
        return sorted(fnmatch.filter(names, pattern))


def remove(address: str) -> None:
    """Remove a file there."""
    with reached(address) as (system, path):
        system.rm_file(path)


@contextmanager
def reached(address: str) -> Iterator[tuple[Any, str]]:
    """The file system of an address, and the path in it."""
    from fsspec.core import url_to_fs

    try:
        yield url_to_fs(address)
    except Exception as error:
        place = address.partition("://")[0]
        raise ServiceTrouble(f"{place}:// cannot be used as asked: {type(error).__name__}: {error}") from error
