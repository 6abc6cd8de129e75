"""Folders sent by way of a store that neither end has to trust: every file by its hash, all of it under a shared key.

    <store>/<batch>/files/<sha256>     what is in the files, each once in a batch
    <store>/<batch>/<name>.json        a parcel: {"parcel", "about", "files": {path: {sha256, bytes}}, "signature"}

A parcel's list comes last, so a parcel that is there is whole, whatever broke on the way. Its signature is HMAC-SHA256
(RFC 2104) over the list without it, as ASCII JSON with sorted keys; it covers the parcel's own name, so that an old one
cannot be passed off as another. Names are never used twice. What is in the files is not encrypted.
"""

import hashlib
import hmac
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from infra import artifacts
from infra.errors import ServiceTrouble
from infra.files import read_json, sha256_of, write_json

# A list of files is kilobytes; what is longer is not ours.
MOST_LISTED_BYTES = 4 << 20


@dataclass(frozen=True)
class Parcel:
    """What is sent: `about` for whoever opens it, and the hash and length in bytes of each file by its path."""

    name: str
    about: Mapping[str, Any]
    files: Mapping[str, tuple[str, int]]


@dataclass(frozen=True)
class Store:
    """A folder here or elsewhere that others may read and write, and the key that both ends share."""

    address: str
    key: str

    def send(self, name: str, files: Mapping[str, Path], about: Mapping[str, Any]) -> Parcel:
        """Put a parcel there; what its batch holds already is not sent again. Raises ServiceTrouble."""
        batch = name.rpartition("/")[0]
        there = set(artifacts.listed(f"{self.address}/{batch}/files"))
        listed: dict[str, tuple[str, int]] = {}
        for path, file in files.items():
            digest = sha256_of(file)
            listed[path] = (digest, file.stat().st_size)
            if digest not in there:
                artifacts.put(file, f"{self.address}/{batch}/files/{digest}")
                there.add(digest)
        parcel = Parcel(name, about, listed)
        with tempfile.TemporaryDirectory() as folder:
            document = Path(folder) / "list.json"
            write_json(document, self._signed(parcel))
            artifacts.put(document, f"{self.address}/{name}.json")
        return parcel

    def look(self, name: str) -> Parcel:
        """What a parcel says that it holds. Raises ServiceTrouble when it is not there, or not signed with our key."""
        address = f"{self.address}/{name}.json"
        size = artifacts.size_of(address)
        if size is None or size > MOST_LISTED_BYTES:
            raise ServiceTrouble(f"There is no parcel {name!r} in {artifacts.shown(self.address)}.", permanent=True)
        with tempfile.TemporaryDirectory() as folder:
            document = Path(folder) / "list.json"
            artifacts.fetch(address, document, size=size)
            found = read_json(document)
        if not isinstance(found, dict) or not hmac.compare_digest(self._signature(found), signature_of(found)):
            raise ServiceTrouble(
                f"The parcel {name!r} is not signed with this installation's artifacts.key: it is not used.",
                permanent=True,
            )
        if found["parcel"] != name:
            raise ServiceTrouble(f"The parcel {name!r} is another one, {found['parcel']!r}.", permanent=True)
        files = {path: (each["sha256"], each["bytes"]) for path, each in found["files"].items()}
        return Parcel(name, found["about"], files)

    def fetch(self, parcel: Parcel, folder: Path, *, wanted: Callable[[str], bool] = lambda path: True) -> None:
        """Put a parcel's files into `folder`, those that are there already excepted. Raises ServiceTrouble.

        Each has its name only once it is whole and its hash is right, so that a second try goes on with the next.
        """
        batch = parcel.name.rpartition("/")[0]
        for path, (digest, size) in parcel.files.items():
            if not wanted(path):
                continue
            target = folder / within(path)
            if target.is_file() and target.stat().st_size == size and sha256_of(target) == digest:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f".{target.name}.part")
            try:
                artifacts.fetch(f"{self.address}/{batch}/files/{digest}", part, size=size)
                if sha256_of(part) != digest:
                    raise ServiceTrouble(f"{path!r} of the parcel {parcel.name!r} was changed on its way.")
                part.replace(target)
            finally:
                part.unlink(missing_ok=True)

    def has(self, name: str) -> bool:
        """Whether a parcel is there, whoever made it."""
        return artifacts.size_of(f"{self.address}/{name}.json") is not None

    def batches(self, kind: str) -> list[str]:
        """The batches below a folder of the store."""
        return [f"{kind}/{each}" for each in artifacts.listed(f"{self.address}/{kind}")]

    def drop(self, batch: str) -> None:
        """Remove a batch with all that is in it."""
        artifacts.remove(f"{self.address}/{batch}")

    def keep_only(self, parcel: Parcel) -> None:
        """Remove what else its batch holds: older parcels, and files of theirs alone."""
        batch, _, name = parcel.name.rpartition("/")
        kept = {digest for digest, _ in parcel.files.values()}
        for each in artifacts.listed(f"{self.address}/{batch}", "*.json"):
            if each != f"{name}.json":
                artifacts.remove(f"{self.address}/{batch}/{each}")
        for each in artifacts.listed(f"{self.address}/{batch}/files"):
            if each not in kept:
                artifacts.remove(f"{self.address}/{batch}/files/{each}")

    def _signed(self, parcel: Parcel) -> dict[str, Any]:
        files = {path: {"sha256": digest, "bytes": size} for path, (digest, size) in parcel.files.items()}
        listed = {"parcel": parcel.name, "about": dict(parcel.about), "files": files}
        return {**listed, "signature": self._signature(listed)}

    def _signature(self, listed: Mapping[str, Any]) -> str:
        said = {name: value for name, value in listed.items() if name != "signature"}
        canonical = json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
        return hmac.new(self.key.encode(), canonical, hashlib.sha256).hexdigest()


def signature_of(found: Mapping[str, Any]) -> str:
    """The signature that a list carries, in characters that can be compared."""
    return str(found.get("signature", "")).encode("ascii", "replace").decode()


def within(path: str) -> PurePosixPath:
    """A file's path inside its folder. Raises ServiceTrouble for one that leads out of it."""
    parts = PurePosixPath(path)
    if not path or parts.is_absolute() or ".." in parts.parts or "\\" in path or "\0" in path:
        raise ServiceTrouble(f"A parcel holds {path!r}, which would lie outside its folder.", permanent=True)
    return parts
