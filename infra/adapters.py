"""The store of adapters: one folder a version, manifest last, and a pointer to the one that speaks.

`adapters/<version>/` holds adapter.gguf, the PEFT folder, manifest.json, evalcard.json and evalcard.html; a folder
without a manifest does not exist. `adapters/current.json` names the voice and the one before it and is replaced by
rename, so that it is the old or the new one after any crash. Versions sort by time.
"""

import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from infra.errors import Refused, UserMistake
from infra.files import finish_folder, finished, fresh_folder, read_json, sync_folder, verify_folder, write_json

GGUF = "adapter.gguf"
BASE = "base"


def version_name(now: datetime, dataset_id: str) -> str:
    """A version that sorts by time and names its dataset."""
    return f"{now:%Y%m%dT%H%M%SZ}-{dataset_id[:8]}"


class AdapterStore:
    """Adapters on disk. Every change is one rename; two processes may read while one writes."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def versions(self) -> list[str]:
        """Finished adapters, oldest first."""
        if not self._root.is_dir():
            return []
        return sorted(path.name for path in self._root.iterdir() if not path.name.startswith(".") and finished(path))

    def folder(self, version: str) -> Path:
        """The folder of a finished version. Raises UserMistake when there is none."""
        folder = self._root / version
        if version not in self.versions():
            known = ", ".join(self.versions()) or "none"
            raise UserMistake(f"There is no adapter {version!r}; known are: {known}.")
        return folder

    def gguf(self, version: str) -> Path:
        return self.folder(version) / GGUF

    def manifest(self, version: str) -> dict[str, Any]:
        """What the version's manifest says."""
        found = finished(self.folder(version))
        assert found is not None
        return found

    def verify(self, version: str) -> dict[str, Any]:
        """The manifest, after comparing every file's hash with it. Raises ServiceTrouble on any difference."""
        return verify_folder(self.folder(version))

    def stage(self, version: str) -> Path:
        """An empty folder to fill with a new version; it is invisible until `publish`."""
        return fresh_folder(self._root / f".{version}")

    def publish(self, version: str, manifest: Mapping[str, Any]) -> Path:
        """Write the manifest into the staged folder and make it visible by one rename."""
        staged, final = self._root / f".{version}", self._root / version
        if final.exists():
            raise UserMistake(f"Adapter {version!r} is there already; versions are never replaced.")
        finish_folder(staged, {**manifest, "version": version})
        staged.rename(final)
        sync_folder(self._root)
        return final

    def discard(self, version: str) -> None:
        """Remove what `stage` began."""
        shutil.rmtree(self._root / f".{version}", ignore_errors=True)

    def current(self) -> str | None:
        """The version that speaks; None is the bare base."""
        return self._pointer()["current"]

    def previous(self) -> str | None:
        """The version that spoke before; None is the bare base."""
        return self._pointer()["previous"]

    def point(self, version: str | None) -> None:
        """Make `version` the voice that a restart begins with. Raises Refused for one that must not speak."""
        if version is not None:
            self.may_speak(version)
        self._root.mkdir(parents=True, exist_ok=True)
        write_json(self._root / "current.json", {"current": version, "previous": self.current()})

    def may_speak(self, version: str) -> None:
        """Raise Refused for an adapter without a passed eval card, or one that learned what was since forgotten."""
        verdict = self.manifest(version).get("verdict") or {}
        if not verdict.get("passed"):
            reasons = "; ".join(verdict.get("reasons", [])) or "it has no eval card"
            raise Refused(f"Adapter {version!r} did not pass its gate: {reasons}.")
        if (taint := self.tainted(version)) is not None:
            raise Refused(f"Adapter {version!r} is tainted: {taint}. Retrain without it.")

    def taint(self, version: str, reason: str) -> None:
        """Mark a version as never to speak again. Beside its folder, whose hashes stay true."""
        write_json(self._root / f"{self.folder(version).name}.tainted.json", {"reason": reason})

    def tainted(self, version: str) -> str | None:
        """Why a version may not speak any more, or None."""
        path = self._root / f"{version}.tainted.json"
        return str(read_json(path)["reason"]) if path.is_file() else None

    def _pointer(self) -> dict[str, str | None]:
        path = self._root / "current.json"
        if not path.is_file():
            return {"current": None, "previous": None}
        found = read_json(path)
        return {"current": found["current"], "previous": found["previous"]}
