"""The store of adapters: one folder a version, manifest last, and a pointer to those that speak.

`adapters/<version>/` holds adapter.gguf, the PEFT folder, manifest.json, evalcard.json and evalcard.html; a folder
without a manifest does not exist. `adapters/current.json` names the voice, the one before it, any canary and whoever is
pinned to a community or language, and is replaced by rename, so that it is the old or the new one after any crash.
Versions sort by time.
"""

import importlib.metadata
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import psutil

from infra.errors import Refused, ServiceTrouble, UserMistake
from infra.files import (
    MANIFEST,
    finish_folder,
    finished,
    fresh_folder,
    read_json,
    read_object,
    sha256_of,
    sync_folder,
    told_as,
    verify_folder,
    write_json,
)
from infra.voice.chat import EVERYBODY, Audience

GGUF = "adapter.gguf"
CARD = "evalcard.json"
PAGE = "evalcard.html"
BASE = "base"
CURRENT = "current.json"
# What a canary answers when nothing else is said.
SHARE = 0.1


@dataclass(frozen=True)
class Canary:
    """A version that answers a share of the conversations beside the voice; `since` is when it began, as ISO text."""

    version: str
    share: float
    since: str


@dataclass(frozen=True)
class Aim:
    """What shall speak: a version or, as None, the bare base, and a canary's share beside it. The same as JSON."""

    version: str | None = None
    canary: str = ""
    share: float = 0.0


def version_name(now: datetime, dataset_id: str) -> str:
    """A version that sorts by time and names its dataset."""
    return f"{now:%Y%m%dT%H%M%SZ}-{dataset_id[:8]}"


def made_at(version: str) -> datetime | None:
    """When a version was begun; None for a name that does not say so."""
    try:
        return datetime.strptime(version.partition("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


class AdapterStore:
    """Adapters on disk. Every change is one rename; two processes may read while one writes."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def received(self) -> Path:
        """Where files lie that came over HTTP, under their hashes, until they are published."""
        return self._root / ".received"

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

    def card(self, version: str) -> dict[str, Any]:
        """The eval card of a version, as JSON. Raises UserMistake when it has none."""
        path = self.folder(version) / CARD
        if not path.is_file():
            raise UserMistake(f"Adapter {version!r} has no eval card.")
        return read_object(path)

    def listing(self, speaks: str | None) -> list[dict[str, Any]]:
        """Every version, whether it is the one that `speaks`, and whether it may."""
        return [
            {
                "version": version,
                "speaks": version == speaks,
                "verdict": self.manifest(version).get("verdict"),
                "tainted": self.tainted(version),
            }
            for version in self.versions()
        ]

    def verify(self, version: str) -> dict[str, Any]:
        """The manifest, after comparing every file's hash with it. Raises ServiceTrouble on any difference."""
        return verify_folder(self.folder(version))

    def vouch(self, version: str, *names: str) -> None:
        """Let the manifest say that these files are meant to be as they are now."""
        folder, manifest = self.folder(version), self.manifest(version)
        with told_as(folder / MANIFEST):
            files = {**manifest["files"], **{name: sha256_of(folder / name) for name in names}}
        if files != manifest["files"]:
            write_json(folder / MANIFEST, {**manifest, "files": files})

    def stage(self, version: str) -> Path:
        """An empty folder of this process's to fill with a new version; it is invisible until `publish`."""
        for left in self._root.glob(f".*.{os.uname().nodename}.*"):
            if left.is_dir() and not psutil.pid_exists(int(left.suffix[1:])):
                shutil.rmtree(left, ignore_errors=True)
        return fresh_folder(self._staged(version))

    def publish(self, version: str, manifest: Mapping[str, Any]) -> Path:
        """Write the manifest into the staged folder and make it visible by one rename.

        Raises UserMistake where the version is there already.
        """
        staged, final = self._staged(version), self._root / version
        taken = UserMistake(f"Adapter {version!r} is there already; versions are never replaced.")
        if final.exists():
            raise taken
        finish_folder(staged, {**manifest, "version": version})
        try:
            staged.rename(final)
        except OSError as error:
            if final.exists():
                raise taken from error
            raise ServiceTrouble(f"Could not publish {str(final)!r}: {error.strerror}.") from error
        sync_folder(self._root)
        return final

    def discard(self, version: str) -> None:
        """Remove what `stage` began."""
        shutil.rmtree(self._staged(version), ignore_errors=True)

    def _staged(self, version: str) -> Path:
        """Each process's own: one that was frozen in the middle must not publish what its successor has half copied."""
        return self._root / f".{version}.{os.uname().nodename}.{os.getpid()}"

    def current(self) -> str | None:
        """The version that speaks; None is the bare base."""
        version: str | None = self._pointer()["current"]
        return version

    def previous(self) -> str | None:
        """The version that spoke before; None is the bare base."""
        version: str | None = self._pointer()["previous"]
        return version

    def point(self, version: str | None) -> None:
        """Make `version` the voice that a restart begins with, without a canary; once more changes nothing else.

        Raises Refused for one that must not speak.
        """
        if version is not None:
            self.may_speak(version)
        # Several servers of one folder are all told the same.
        before = self.previous() if version == self.current() else self.current()
        self._write_pointer(current=version, previous=before, canary=None)

    def aim(self) -> Aim:
        """What a restart begins with."""
        canary = self.canary()
        return Aim(self.current(), canary.version, canary.share) if canary else Aim(self.current())

    def canary(self) -> Canary | None:
        """The version on trial, if there is one."""
        found = self._pointer()["canary"]
        with told_as(self._root / CURRENT):
            return Canary(str(found["version"]), float(found["share"]), str(found["since"])) if found else None

    def may_try(self, version: str, share: float, *, beside: str | None) -> None:
        """Raise UserMistake or Refused for what must not be a canary beside the version that speaks."""
        check_share(share)
        if version == BASE:
            raise UserMistake("The bare base cannot be a canary: name an adapter, see understudy voices list.")
        self.may_speak(version)
        if version == beside:
            raise UserMistake(f"Adapter {version!r} is the current voice already: a canary is another one.")
        if version in self.pins().values():
            raise UserMistake(f"Adapter {version!r} is pinned: its answers there would count for the trial.")

    def try_out(self, version: str, share: float, *, now: datetime) -> None:
        """Make `version` the canary that a restart begins with; another share of the same one begins no new trial.

        Raises as `may_try`.
        """
        self.may_try(version, share, beside=self.current())
        before = self.canary()
        since = before.since if before and before.version == version else now.isoformat()
        self._write_pointer(canary=asdict(Canary(version, share, since)))

    def on_trial(self, version: str = "") -> Canary:
        """The canary. Raises UserMistake when there is none, or another than `version` where that is given."""
        found = self.canary()
        if found is None or version not in {"", found.version}:
            raise UserMistake(f"Adapter {version!r} is not the canary." if version else "There is no canary.")
        return found

    def end_canary(self, version: str = "") -> Canary:
        """Let a restart begin without the canary; returns what it was. Raises as `on_trial`."""
        found = self.on_trial(version)
        self._write_pointer(canary=None)
        return found

    def pins(self) -> dict[Audience, str | None]:
        """The version that speaks to each audience which has one of its own; None is the bare base."""
        found = self._pointer()["pinned"] or ()
        with told_as(self._root / CURRENT):
            return {Audience(str(each["community"]), str(each["language"])): named(each["version"]) for each in found}

    def may_pin(self, version: str | None, audience: Audience) -> None:
        """Raise UserMistake or Refused for what must not be pinned, or to nobody that there can be."""
        check_audience(audience)
        if version is None:
            return
        self.may_speak(version)
        if (trial := self.canary()) is not None and trial.version == version:
            raise UserMistake(f"Adapter {version!r} is on trial: end that first, or promote it.")

    def pin(self, version: str | None, audience: Audience) -> None:
        """Make `version` the one that a restart lets speak to an audience. Raises as `may_pin`."""
        self.may_pin(version, audience)
        self._write_pins({**self.pins(), audience: version})

    def pinned_to(self, audience: Audience) -> str | None:
        """The version pinned to an audience; None is the bare base. Raises UserMistake when it has none of its own."""
        pins = self.pins()
        if audience not in pins:
            known = ", ".join(map(str, pins)) or "nobody"
            raise UserMistake(f"No voice is pinned to {str(audience)!r}; one is to: {known}.")
        return pins[audience]

    def unpin(self, audience: Audience) -> str | None:
        """Let a restart speak to an audience as to others; returns the version. Raises as `pinned_to`."""
        version = self.pinned_to(audience)
        self._write_pins({each: pinned for each, pinned in self.pins().items() if each != audience})
        return version

    def may_speak(self, version: str) -> None:
        """Raise Refused for an adapter without a passed eval card, or one that learned what was since forgotten."""
        with told_as(self._root / version / MANIFEST):
            verdict = dict(self.manifest(version).get("verdict") or {})
            reasons = "; ".join(verdict.get("reasons", [])) or "it has no eval card"
        if not verdict.get("passed"):
            raise Refused(f"Adapter {version!r} did not pass its gate: {reasons}.")
        if (taint := self.tainted(version)) is not None:
            raise Refused(f"Adapter {version!r} is tainted: {taint}. Retrain without it.")

    def may_load(self, version: str, *, base: str, base_sha256: str) -> None:
        """Raise Refused, with what its manifest says, for one that was made on other weights than those served."""
        made = self.manifest(version)
        if made.get("base_sha256", base_sha256) != base_sha256:
            by, on = made.get("code_version", "of an unknown version"), made.get("base", "an unknown base")
            raise Refused(
                f"Adapter {version!r} was made by Understudy {by} on {on} ({made['base_sha256'][:12]}), "
                f"and here {base} ({base_sha256[:12]}) is served: retrain, or serve that base again."
            )

    def taint(self, version: str, reason: str) -> None:
        """Mark a version as never to speak again. Beside its folder, whose hashes stay true."""
        write_json(self._root / f"{self.folder(version).name}.tainted.json", {"reason": reason})

    def tainted(self, version: str) -> str | None:
        """Why a version may not speak any more, or None."""
        path = self._root / f"{version}.tainted.json"
        # Whatever it says, that it is there is the taint.
        return str(read_object(path).get("reason", "it was marked so")) if path.is_file() else None

    def tried(self, version: str, base_sha256: str) -> bool:
        """Whether this very file was loaded on this base by this llama.cpp before, and the process survived it."""
        path = self._root / f"{version}.tried.json"
        return path.is_file() and read_json(path) == self._trial(version, base_sha256)

    def remember_tried(self, version: str, base_sha256: str) -> None:
        """Let nobody try a version again that was loaded and has spoken. Beside its folder, as a taint is."""
        write_json(self._root / f"{version}.tried.json", self._trial(version, base_sha256))

    def _trial(self, version: str, base_sha256: str) -> dict[str, str]:
        with told_as(self._root / version / MANIFEST):
            sha256 = str(self.manifest(version)["files"][GGUF])
        return {"adapter": sha256, "base": base_sha256, "llama": importlib.metadata.version("llama-cpp-python")}

    def turn_back(self, at: datetime, *, spoke: str | None) -> tuple[str | None, list[str]]:
        """Remove what was made after `at`, and let speak who did then: by its name `spoke`, else by the pointer.

        Falls back to the bare base, without a canary. Returns the version that speaks, and those that were removed.
        """
        later = [version for version in self.versions() if (made_at(version) or datetime.max.replace(tzinfo=UTC)) > at]
        for version in later:
            shutil.rmtree(self._root / version)
            for mark in self._root.glob(f"{version}.*.json"):
                mark.unlink()
        known = [self.current(), self.previous()] if spoke is None else [spoke.partition("+")[2]]
        voice = next((each for each in known if each in self.versions() and self.tainted(each) is None), None)
        kept = {audience: version for audience, version in self.pins().items() if version not in later}
        if (self._root / "current.json").exists():
            self._write_pointer(current=voice, previous=None, canary=None)
            self._write_pins(kept)
        return voice, later

    def _write_pins(self, pins: Mapping[Audience, str | None]) -> None:
        self._write_pointer(pinned=[{**asdict(audience), "version": version} for audience, version in pins.items()])

    def _write_pointer(self, **changed: Any) -> None:
        write_json(self._root / CURRENT, {**self._pointer(), **changed})

    def _pointer(self) -> dict[str, Any]:
        path = self._root / CURRENT
        found = read_object(path) if path.is_file() else {}
        with told_as(path):
            speaking = {name: named(found.get(name)) for name in ("current", "previous")}
        return {**speaking, **{name: found.get(name) for name in ("canary", "pinned")}}


def named(version: object) -> str | None:
    """A version as a pointer has it. Raises TypeError for what is no name."""
    if version is not None and not isinstance(version, str):
        raise TypeError(type(version).__name__)
    return version


def version_of(name: str) -> str | None:
    """A version as stores and engines know it: the bare base has none."""
    return None if name == BASE else name


def voice_name(base: str, version: str | None) -> str:
    """What replies and models are called: the base, and the adapter on it if there is one."""
    return f"{base}+{version}" if version else base


def check_share(share: float) -> None:
    """Raise UserMistake for what is no share: a canary answers some conversations, never all."""
    if not 0 < share < 1:
        raise UserMistake(f"The share must be above 0 and below 1, for example {SHARE}; it is {share}.")


def check_audience(audience: Audience) -> None:
    """Raise UserMistake for a community without its platform, a language that the twin does not speak, or neither."""
    from infra.settings import Language

    platform, _, identity = audience.community.partition(":")
    languages = get_args(Language)
    if audience == EVERYBODY:
        raise UserMistake("Say for which --community or --language; to speak to everybody, promote it.")
    if audience.community and not (platform and identity):
        raise UserMistake(f"A community is PLATFORM:ID, for example 'discord:12345'; it is {audience.community!r}.")
    if audience.language not in {"", *languages}:
        raise UserMistake(f"The language is one of {', '.join(languages)}, not {audience.language!r}.")
