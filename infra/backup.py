"""A backup: one tar with a manifest of its files' hashes, whole or absent, and the way back out of it.

Knows nothing of what is in the files. Whatever a tar says that its manifest does not, or that would land outside the
folder it is unpacked into, is refused.
"""

import io
import json
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from infra.artifacts import is_address, listed, remove
from infra.errors import ServiceTrouble, UserMistake
from infra.files import MANIFEST, inside, read_json, sha256_of, sync_folder, told_as, write_json

FORMAT = 1
# A manifest has a hundred bytes for each file, settings a few thousand.
MOST_PEEKED = 64_000_000
# Where an installation remembers the backups it made; also the pattern of those that rotate.
LISTED = "backups.json"
SEALED = ".age"
ROTATING = ("understudy-*.tar", f"understudy-*.tar{SEALED}")


def write_backup(path: Path, files: Mapping[str, Path], described: Mapping[str, Any]) -> dict[str, Any]:
    """Pack `files` under their names, the manifest first; readable by its owner only. Returns the manifest.

    Raises ServiceTrouble when it cannot be written; nothing is left of it then.
    """
    manifest = {**described, "format": FORMAT, "files": {name: sha256_of(file) for name, file in files.items()}}
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch(mode=0o600)
        with part.open("r+b") as out:
            with tarfile.open(fileobj=out, mode="w:gz" if path.name.endswith("gz") else "w") as tar:
                add_manifest(tar, manifest)
                for name, file in files.items():
                    tar.add(file, name, recursive=False, filter=anonymous)
            os.fsync(out.fileno())
        part.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise ServiceTrouble(f"Could not write {str(path)!r}: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            part.unlink()
    return manifest


def add_manifest(tar: tarfile.TarFile, manifest: Mapping[str, Any]) -> None:
    content = json.dumps(manifest, ensure_ascii=False, indent=2, sort_keys=True).encode()
    entry = tarfile.TarInfo(MANIFEST)
    entry.size, entry.mode = len(content), 0o600
    tar.addfile(entry, io.BytesIO(content))


def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """An entry that does not say who owned the file."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def peek(path: Path, name: str) -> bytes:
    """One file of a backup. Raises UserMistake when it is none, or has no such file."""
    with opened(path) as tar:
        try:
            entry = tar.getmember(name)
        except KeyError:
            entry = None
        found = tar.extractfile(entry) if entry is not None and entry.isreg() else None
        if found is None:
            raise UserMistake(f"{str(path)!r} has no {name!r} in it; it is no backup of an Understudy.")
        content = found.read(MOST_PEEKED + 1)
    if len(content) > MOST_PEEKED:
        raise UserMistake(f"{name!r} in {str(path)!r} is longer than {MOST_PEEKED} bytes, which none of ours is.")
    return content


def unpack(path: Path, folder: Path) -> dict[str, Any]:
    """Unpack a backup into an empty `folder`, and compare every file's hash; returns its manifest.

    Raises UserMistake for what is no backup, or was changed since it was made.
    """
    manifest = manifest_of(path)
    with opened(path) as tar:
        for entry in tar:
            if entry.name != MANIFEST:
                unpack_entry(tar, entry, folder, known=manifest["files"])
    for name, expected in manifest["files"].items():
        file = inside(folder, name)
        if not file.is_file() or sha256_of(file) != expected:
            raise UserMistake(f"{name!r} in the backup {str(path)!r} is missing or damaged. Nothing was restored.")
    return manifest


def manifest_of(path: Path) -> dict[str, Any]:
    """What a backup says that it holds. Raises UserMistake for one of another program."""
    try:
        found = json.loads(peek(path, MANIFEST))
        form, files = found["format"], dict(found["files"])
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserMistake(f"{str(path)!r} has no manifest of ours; it is no backup of an Understudy.") from error
    if form != FORMAT:
        raise UserMistake(f"{str(path)!r} has format {form!r}; this program reads {FORMAT}.")
    return {**found, "files": files}


def unpack_entry(tar: tarfile.TarFile, entry: tarfile.TarInfo, folder: Path, *, known: Mapping[str, str]) -> None:
    """One plain file of the manifest; anything else, such as a link or a path out of the folder, is refused."""
    path = PurePosixPath(entry.name)
    source = tar.extractfile(entry) if entry.isreg() else None
    if source is None or entry.name not in known or path.is_absolute() or ".." in path.parts:
        raise UserMistake(f"The backup holds {entry.name!r}, which no backup of ours does. Nothing was restored.")
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as out:
        shutil.copyfileobj(source, out)


@contextmanager
def opened(path: Path) -> Iterator[tarfile.TarFile]:
    """The tar. Raises UserMistake when it cannot be read as one, or what is in it cannot be written."""
    try:
        with tarfile.open(path, "r:*") as tar:
            yield tar
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or "it is no tar, or it is cut off"
        raise UserMistake(f"The backup {str(path)!r} cannot be unpacked: {why}.") from error


def seal(path: Path, recipients: Sequence[str]) -> Path:
    """Encrypt a file for age's recipients (https://age-encryption.org), and remove it; returns the encrypted one.

    Whoever has one of their identities, and nobody else, opens it: this installation cannot. Raises UserMistake for
    what is no recipient.
    """
    import pyrage

    try:
        keys = [pyrage.x25519.Recipient.from_str(each) for each in recipients]
    except pyrage.RecipientError as error:
        raise UserMistake(f"A recipient is a public key of age, age1...: {error}.") from error
    sealed = path.with_name(f"{path.name}{SEALED}")
    part = path.with_name(f".{sealed.name}.{os.getpid()}.part")
    try:
        part.touch(mode=0o600)
        pyrage.encrypt_file(str(path), str(part), keys)
        part.replace(sealed)
        path.unlink()
    except OSError as error:
        raise ServiceTrouble(f"Could not write {str(sealed)!r}: {error.strerror or error}.") from error
    finally:
        part.unlink(missing_ok=True)
    return sealed


def unseal(path: Path, identity: Path | None, opened: Path) -> None:
    """Decrypt a backup into `opened`. Raises UserMistake without the identity that it was encrypted for."""
    import pyrage

    if identity is None:
        raise UserMistake(f"{str(path)!r} is encrypted: name the file with its identity, --identity FILE.")
    try:
        lines = [line.strip() for line in identity.read_text(encoding="utf-8").splitlines()]
        keys = [pyrage.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
        opened.touch(mode=0o600)
        pyrage.decrypt_file(str(path), str(opened), keys)
    except (OSError, UnicodeDecodeError, pyrage.IdentityError, pyrage.DecryptError) as error:
        raise UserMistake(f"{str(path)!r} cannot be opened with that identity: {error}.") from error


def rotate(folder: str, keep: int) -> list[str]:
    """Remove all but the newest `keep` backups of a folder, here or elsewhere; returns those that went."""
    if is_address(folder):
        names = sorted(name for pattern in ROTATING for name in listed(folder, pattern))
        gone = [f"{folder}/{name}" for name in names[:-keep]]
        for each in gone:
            remove(each)
        return gone
    old = sorted(path for pattern in ROTATING for path in Path(folder).glob(pattern))[:-keep]
    for path in old:
        path.unlink()
    return [str(path) for path in old]


def note_backup(data_folder: Path, path: str) -> None:
    """Remember where a backup is, and no longer those that are gone."""
    write_json(data_folder / LISTED, sorted({*backups(data_folder), path}))


def backups(data_folder: Path) -> list[str]:
    """The backups that were made here and are still where they were written; of those elsewhere nobody asks."""
    path = data_folder / LISTED
    with told_as(path):
        found = [os.fspath(each) for each in (read_json(path) if path.is_file() else [])]
        return [each for each in found if is_address(each) or Path(each).is_file()]
