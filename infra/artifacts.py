"""Files elsewhere, by address: whatever fsspec knows, such as s3://bucket/folder or sftp://user@host/folder.

Who may write there is told to fsspec and its libraries in their own ways (~/.config/fsspec, ~/.ssh, ~/.aws), not to us.
A file is there whole or not at all. What the network breaks is tried again; a host that falls silent is given up.
"""

import fnmatch
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from infra.errors import ServiceTrouble

# Seconds before each next try.
WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0)
# How long a host may say nothing; S3's library has limits of its own.
SILENCE_S = 20.0
PIECE = 4 << 20
# Their uploads appear at once and whole; elsewhere a file is written beside its name and then moved.
WHOLE = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"}
# What no later try changes, beside what is missing or forbidden.
PERMANENT = {"AuthenticationException", "BadHostKeyException", "NoCredentialsError"}

T = TypeVar("T")


def is_address(place: str) -> bool:
    """Whether it is somewhere else than in a folder here."""
    return "://" in place


def shown(place: str) -> str:
    """A place as it may be printed and noted: without the password that an address can hold."""
    if not is_address(place):
        return place
    parts = urlsplit(place)
    if not parts.password:
        return place
    user, at, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}{at}{host}"))


def put(file: Path, address: str) -> None:
    """Copy a file there. Raises ServiceTrouble when it cannot be; nothing of its name is there then."""

    def copy(system: Any, path: str) -> None:
        if urlsplit(address).scheme in WHOLE:
            system.put_file(str(file), path)
            return
        system.makedirs(path.rpartition("/")[0], exist_ok=True)
        part = f"{path}.{os.getpid()}.part"
        system.put_file(str(file), part)
        system.mv(part, path)

    patiently(address, copy)


def fetch(address: str, file: Path, *, size: int | None = None) -> None:
    """Copy a file from there, going on where an earlier try broke off. Raises ServiceTrouble when it cannot be.

    With `size`, in bytes, a file of another size is refused before more than that of it is written.
    """

    def copy(system: Any, path: str) -> None:
        there = int(system.size(path))
        if size is not None and there != size:
            raise ServiceTrouble(f"{shown(address)} has {there} bytes and should have {size}.", permanent=True)
        done = file.stat().st_size if file.exists() else 0
        with file.open("r+b" if done <= there and done else "wb") as out, system.open(path, "rb") as source:
            source.seek(out.seek(0, os.SEEK_END))
            if hasattr(source, "prefetch"):  # SFTP asks for 32 KiB at a time, and waits for each unless told
                source.prefetch(there)
            while out.tell() < there and (piece := source.read(min(PIECE, there - out.tell()))):
                out.write(piece)
            if out.tell() != there:
                raise ConnectionError("it ended early")

    file.unlink(missing_ok=True)
    patiently(address, copy)


def size_of(address: str) -> int | None:
    """How many bytes a file there has; None when there is none."""

    def ask(system: Any, path: str) -> int | None:
        info = info_of(system, path)
        return int(info["size"]) if info and info["type"] == "file" else None

    return patiently(address, ask)


def listed(folder: str, pattern: str = "*") -> list[str]:
    """The names in a folder there that fit, sorted; none where there is no such folder."""

    def ask(system: Any, path: str) -> list[str]:
        names = system.ls(path, detail=False) if info_of(system, path) else []
        return sorted(fnmatch.filter((each.rstrip("/").rpartition("/")[2] for each in names), pattern))

    return patiently(folder, ask)


def remove(address: str) -> None:
    """Remove a file there, or a folder with all that is in it; nothing where there is none."""

    def delete(system: Any, path: str) -> None:
        info = info_of(system, path)
        if info is None:
            return
        try:
            system.rm(path, recursive=info["type"] == "directory")
        except FileNotFoundError as error:
            raise ConnectionError("it was there, and could not be removed") from error

    patiently(address, delete)


def info_of(system: Any, path: str) -> dict[str, Any] | None:
    """What there is of a path; None for nothing. Not `exists`, to which a broken connection is nothing, too."""
    try:
        return dict(system.info(path))
    except FileNotFoundError:
        return None


def patiently(address: str, action: Callable[[Any, str], T]) -> T:
    """What `action` makes of a file system and the path in it; tried again, after longer waits, while that helps."""
    for wait in WAITS_S:
        try:
            with reached(address) as (system, path):
                return action(system, path)
        except Passing:
            time.sleep(wait)
    with reached(address) as (system, path):
        return action(system, path)


class Passing(ServiceTrouble):
    """What another try may find mended."""


@contextmanager
def reached(address: str) -> Iterator[tuple[Any, str]]:
    """The file system of an address, and the path in it. Raises ServiceTrouble for all that goes wrong there."""
    from fsspec.core import url_to_fs

    scheme = urlsplit(address).scheme
    if scheme in {"sftp", "ssh"}:
        with_known_hosts()
    system = None
    try:
        system, path = url_to_fs(address)
        system.invalidate_cache()  # others write there too
        yield system, path
    except ServiceTrouble:
        raise
    except Exception as error:
        # A connection that broke must not be what the next try is given.
        if system is not None:
            type(system).clear_instance_cache()
        said = f"{type(error).__name__}: {error}".replace(address, shown(address)).rstrip(": ")
        message = f"{scheme or 'The folder'}{'://' if scheme else ''} cannot be used as asked: {said}"
        lasting = isinstance(error, FileNotFoundError | PermissionError | ValueError | ImportError)
        if lasting or type(error).__name__ in PERMANENT:
            raise ServiceTrouble(message, permanent=True) from error
        raise Passing(message) from error


def with_known_hosts() -> None:
    """Let fsspec's SFTP talk only to hosts that ssh knows: by itself it takes any host for the right one."""
    import fsspec
    import paramiko
    from fsspec.implementations import sftp

    class Reject(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]
        def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
            sentence = f"ssh does not know the host {hostname}: connect to it once by hand, and compare its key."
            raise ServiceTrouble(sentence, permanent=True)

    class KnownHosts(sftp.SFTPFileSystem):  # type: ignore[misc]
        def _connect(self) -> None:
            self.client = paramiko.SSHClient()
            self.client.set_missing_host_key_policy(Reject())
            self.client.load_system_host_keys()
            limits = {"timeout": SILENCE_S, "banner_timeout": SILENCE_S, "auth_timeout": SILENCE_S}
            self.client.connect(self.host, **{**limits, **self.ssh_kwargs})
            self.ftp = self.client.open_sftp()
            self.ftp.get_channel().settimeout(SILENCE_S)

        def put_file(self, lpath: str, rpath: str, **_: Any) -> None:
            self.ftp.put(lpath, rpath)  # which does not wait for an answer to every 32 KiB

    if fsspec.get_filesystem_class("sftp").__name__ != KnownHosts.__name__:
        for name in ("sftp", "ssh"):
            fsspec.register_implementation(name, KnownHosts, clobber=True)
