"""`understudy backup` and `restore`: everything but the base models and what can be made again, in one file.

What was forgotten stays forgotten: a restored journal is brought to every tombstone that this installation knows, and
to every decision that people made about their data since, before anything reads it.
"""

import shutil
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import tomli_w

from infra.adapters import BASE
from infra.artifacts import fetch, is_address, put, shown
from infra.backup import LISTED, SEALED, note_backup, peek, rotate, seal, unpack, unseal, write_backup
from infra.cli.compose import now
from infra.cli.console import err, out, print_json
from infra.cli.drill import asked_again, file_in, rehearsed
from infra.cli.moments import Moment, turn_back
from infra.cli.operations import House
from infra.database import KEYED, copy_database, encrypt
from infra.errors import ServiceTrouble, UnderstudyError, UserMistake
from infra.files import sync_folder
from infra.moved import unmark
from infra.remote import Remote
from infra.settings import CONFIG, Settings, find_home, load_settings, without_secrets
from memory.forget import bury_again
from memory.journal import Journal
from memory.messages import Event, Kind
from memory.remember import remember
from memory.replay import DECISIONS
from memory.retention import Retention, expire
from memory.tombstones import FILE, follow_tombstones, read_tombstones

JOURNAL = "journal.db"
# What a restored installation keeps of the one it replaces: it is no part of a backup, and holds nothing forgotten.
STAYS = ("models", "run", "logs", LISTED)


def backup(home: Path | None, target: str, *, keep: int, recipients: Sequence[str] = (), as_json: bool) -> None:
    """Write a backup, here or elsewhere; with `keep` into a folder where older ones go."""
    settings, made = load_settings(find_home(home)), now()
    recipients = recipients or settings.backup.recipients
    named = f"{target.rstrip('/')}/understudy-{made:%Y%m%dT%H%M%SZ}.tar" if keep else target
    place = named if is_address(named) else str(Path(named).resolve())
    if not is_address(place) and (Path(place).exists() or Path(f"{place}{SEALED}").exists()):
        raise UserMistake(f"{place!r} is there already; name another file, or a folder with --keep 7.")
    Journal.open(settings.journal_url).close()  # in words, what is wrong with it
    with tempfile.TemporaryDirectory(prefix=".backup-", dir=settings.data_folder) as folder:
        path = Path(folder) / "backup" / Path(place).name if is_address(place) or recipients else Path(place)
        manifest = pack(settings, Path(folder), path, made)
        if recipients:
            path, place = seal(path, recipients), f"{place}{SEALED}"
        size = path.stat().st_size
        if is_address(place):
            put(path, place)
        elif path != Path(place):
            move(path, Path(place))
    gone = [shown(each) for each in rotate(place.rpartition("/")[0], keep)] if keep else []
    place = shown(place)
    note_backup(settings.data_folder, place)
    if as_json:
        print_json({"backup": place, "files": len(manifest["files"]), "removed": gone})
    else:
        out().print(f"{place}: {len(manifest['files'])} files, {size / 1e6:.1f} MB.", markup=False)
        for each in gone:
            out().print(f"Removed {each}.", markup=False)


def pack(settings: Settings, folder: Path, path: Path, made: datetime) -> dict[str, Any]:
    """Write a backup into `path`, with copies of what may change meanwhile in `folder`; returns its manifest."""
    files = staged(settings, folder)
    return write_backup(path, files, {"made": made.isoformat(), **described_of(settings, folder)})


def described_of(settings: Settings, folder: Path) -> dict[str, Any]:
    """What the manifest says of the copy of the journal in `folder`: counts, and a restore drill where one can be."""
    copy = Journal.open(file_in(settings, folder).journal_url)
    try:
        counts = copy.counts()
    finally:
        copy.close()
    drill = rehearsed(settings, folder)
    return {"counts": counts, **({"drill": drill} if drill else {})}


def move(path: Path, place: Path) -> None:
    """Put a finished file where it belongs, whole or not at all, also on another disk."""
    part = place.with_name(f".{place.name}.part")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        part.touch(mode=0o600)
        shutil.copyfile(path, part)
        part.replace(place)
    except OSError as error:
        raise ServiceTrouble(f"Could not write {str(place)!r}: {error.strerror or error}.") from error
    finally:
        part.unlink(missing_ok=True)


def staged(settings: Settings, folder: Path) -> dict[str, Path]:
    """The files of a backup by their names in it; those that may change meanwhile are copied into `folder` first."""
    data = settings.data_folder
    copy_database(settings.journal_url, folder / JOURNAL)
    given = (settings.home / CONFIG).read_bytes()
    (folder / CONFIG).write_bytes(harmless(given))
    changing = [data / FILE, *(data / "adapters").glob("*.json")]
    for path in (each for each in changing if each.is_file()):
        copy = folder / path.relative_to(data)
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(path, copy)
    # A version's folder never changes once it is there; one whose name begins with a dot is not there yet.
    versions = [each for each in (data / "adapters").glob("*/") if not each.name.startswith(".")]
    found = {str(each.relative_to(folder)): each for each in folder.rglob("*") if each.is_file()}
    found |= {str(f.relative_to(data)): f for each in versions for f in sorted(each.rglob("*")) if f.is_file()}
    return found


def encrypt_journal(home: Path | None) -> None:
    """Encrypt the journal that is here with the key that the settings name."""
    settings = load_settings(find_home(home))
    if settings.key_file is None:
        raise UserMistake("Set journal.key_file first, to a file outside the data folder: openssl rand -hex 32 > FILE")
    refuse_running(settings)
    file = Path(settings.journal_url.removeprefix("sqlite:///").partition(KEYED)[0])
    if not file.is_file():
        raise UserMistake("There is no journal here yet; it will be encrypted from the start.")
    encrypt(file, settings.key_file)
    err().print("The journal is encrypted. Without its key nobody can read it again: keep a copy of the key.")


def refuse_running(settings: Settings) -> None:
    if (running := Remote.here(settings)) is not None:
        raise UserMistake(f"This twin is running, at {running.url}; stop it first.")


def harmless(given: bytes) -> bytes:
    """A settings file without its secrets."""
    return tomli_w.dumps(without_secrets(tomllib.loads(given.decode()))).encode()


def restore(
    home: Path | None,
    source: str,
    *,
    replace: bool,
    identity: Path | None = None,
    check: bool = False,
    until: str = "",
    as_json: bool,
) -> None:
    """Fetch a backup, open it, and bring it back, perhaps as of a moment, or only say that it could be."""
    if check and until:
        raise UserMistake("--check looks at the whole backup: leave --until away.")
    with tempfile.TemporaryDirectory(prefix="understudy-") as folder:
        path = Path(folder) / Path(source).name if is_address(source) else Path(source)
        if is_address(source):
            fetch(source, path)
        if path.suffix == SEALED:
            sealed, path = path, Path(folder) / path.stem
            unseal(sealed, identity, path)
        if check:
            settings = settings_here_or_in(path, find_home(home).resolve())
            tell_checked(shown(source), checked(path, Path(folder) / "checked", settings), as_json=as_json)
        else:
            bring_back(home, path, shown(source), replace=replace, until=until, as_json=as_json)


@dataclass(frozen=True)
class Checked:
    """What a backup's journal holds, and how many questions it answers as it did; or why none was asked."""

    counts: dict[str, int]
    asked: int
    why_not: str = ""


def checked(path: Path, folder: Path, settings: Settings) -> Checked:
    """Open a backup as a restore would, count, and ask again what was asked when it was made.

    Raises UserMistake where it does not hold or answer what it says.
    """
    folder.mkdir()
    manifest = unpack(path, folder)
    journal = Journal.open(file_in(settings, folder).journal_url)
    try:
        found = journal.counts()
        said = manifest["counts"]
        if different := [name for name in said if found.get(name) != said[name] and name != "outbox"]:
            raise UserMistake(f"The backup says {said} and holds {found}: {', '.join(different)} differ.")
        drill, embedder = manifest.get("drill"), settings.models.embedder
        if drill is None:
            return Checked(found, 0, "the backup was made where nobody could be asked")
        if drill["embedder"] != embedder:
            return Checked(found, 0, f"{drill['embedder']} was asked then, and the settings name {embedder}")
        # Models that are prepared here are used; where there is no installation, none is begun.
        models = settings if settings.data_folder.exists() else file_in(settings, folder)
        if wrong := asked_again(models, journal, folder / "index", drill):
            raise UserMistake(f"The backup does not answer as it did when it was made: {'; '.join(wrong)}.")
        return Checked(found, len(drill["found"]))
    finally:
        journal.close()


def tell_checked(source: str, checked: Checked, *, as_json: bool) -> None:
    if as_json:
        why = {"why_not": checked.why_not} if checked.why_not else {}
        print_json({"checked": source, "counts": checked.counts, "asked": checked.asked, **why})
        return
    out().print(f"{source} is whole: {in_words(checked)}.", markup=False)


def in_words(checked: Checked) -> str:
    known = ", ".join(f"{count:,} {name}" for name, count in checked.counts.items())
    asked = f"{checked.asked} questions are answered as they were when it was made"
    return f"{known}; {f'no question was asked of it, as {checked.why_not}' if checked.why_not else asked}"


def bring_back(home: Path | None, source: Path, name: str, *, replace: bool, until: str, as_json: bool) -> None:
    """Unpack beside the data folder, forget again what was forgotten, and only then take the data folder's place."""
    place = find_home(home).resolve()
    settings = settings_here_or_in(source, place)
    data = settings.data_folder
    put_back(data)
    refuse_restore(settings, replace=replace)
    fresh = data / ".restoring" if data.is_mount() else data.with_name(f".{data.name}.restoring")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fresh.mkdir(parents=True)
        manifest = unpack(source, fresh)
        restored = settings.model_copy(update={"data": fresh})
        moment = turn_back(restored, fresh / JOURNAL, until) if until else None
        again = bring_up_to_date(settings, fresh)
        given = (fresh / CONFIG).read_bytes()
        (fresh / CONFIG).unlink()
        move_in(fresh, data) if data.is_mount() else take_place(fresh, data)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    if not (place / CONFIG).exists():
        (place / CONFIG).write_bytes(given)
    tell_restored(name, manifest["made"], again, moment, as_json=as_json)


def tell_restored(name: str, made: str, again: int, moment: Moment | None, *, as_json: bool) -> None:
    if as_json:
        then = {"event": moment.number, "at": moment.at.isoformat(), "voice": moment.voice or BASE} if moment else {}
        left = {"left_out": list(moment.left_out)} if moment else {}
        print_json({"restored": name, "made": made, "forgotten_again": again, **then, **left})
        return
    out().print(f"Restored what was backed up at {made}. {again} forgettings since were applied again.")
    if moment is not None:
        out().print(
            f"It is as it was at event {moment.number}, {moment.at:%Y-%m-%dT%H:%M:%SZ}, but for what was forgotten and "
            f"what people decided about themselves since. {moment.voice or BASE} speaks; "
            f"{len(moment.left_out)} adapters that were made later are left out.",
            markup=False,
        )


def settings_here_or_in(source: Path, home: Path) -> Settings:
    """The settings of the installation that is here; of the backup where there is none."""
    if (home / CONFIG).exists():
        return load_settings(home)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / CONFIG).write_bytes(peek(source, CONFIG))
        return load_settings(Path(folder)).model_copy(update={"home": home})


def refuse_restore(settings: Settings, *, replace: bool) -> None:
    """Raise UserMistake where a restore would do harm."""
    data = settings.data_folder
    if settings.journal.url:
        raise UserMistake(
            "journal.url names a database of its own: restore that with its own tools, then start the twin."
        )
    refuse_running(settings)
    if data.is_mount():  # a volume of a container: nothing can stand beside it until all of it is there
        if (data / JOURNAL).exists():
            raise UserMistake(f"{str(data)!r} is a mount point with a journal in it: mount an empty one instead.")
    elif not replace and any(path.name not in STAYS for path in data.glob("*")):
        raise UserMistake(f"{str(data)!r} is not empty: add --replace to put the backup in its place.")


def bring_up_to_date(settings: Settings, fresh: Path) -> int:
    """Let the restored journal know what was forgotten and decided since; returns how many forgettings that was."""
    restored = settings.model_copy(update={"data": fresh})
    journal = Journal.open(restored.journal_url)
    try:
        decisions = known_here(settings)
        remember(journal, decisions, creator=settings.answering)
        tombstones, last = read_tombstones(settings.data_folder)
        again = bury_again(journal, tombstones, last=last, creator=settings.answering)
        expire(journal, Retention(**settings.retention.model_dump()), creator=settings.answering, now=now())
        House(restored, journal).follow_forgotten()
        unmark(journal.engine)  # a backup of one that had moved: it is wanted here now
        if settings.index.url:
            journal.outbox_rebuild()
    finally:
        journal.close()
    return again


def known_here(settings: Settings) -> list[Event]:
    """The decisions in the journal that is to be replaced; its tombstones are written beside it on the way."""
    if not (settings.data_folder / JOURNAL).is_file():
        return []
    try:
        journal = Journal.open(settings.journal_url)  # one that moved, too
    except UnderstudyError as error:
        err().print(f"The journal here cannot be read, so choices made since the backup are lost: {error}")
        return []
    try:
        follow_tombstones(settings.data_folder, journal, creator=settings.answering)
        return [event for kind in DECISIONS for event in every(journal, kind)]
    finally:
        journal.close()


def every(journal: Journal, kind: Kind) -> list[Event]:
    """All events of a kind."""
    found: list[Event] = []
    last = 0
    while batch := journal.events(kind=kind, after=last):
        found += [event for _, event in batch]
        last = batch[-1][0]
    return found


def aside_of(data: Path) -> Path:
    """Where the data folder stands while another takes its place."""
    return data.with_name(f".{data.name}.replaced")


def put_back(data: Path) -> None:
    """Undo what a restore left that was killed between its two renames."""
    if aside_of(data).exists() and not data.exists():
        aside_of(data).rename(data)


def move_in(fresh: Path, data: Path) -> None:
    """Into a mount point without a journal, which comes last: what was cut off before it is no twin, and repeated."""
    for each in sorted(fresh.iterdir(), key=lambda path: path.name == JOURNAL):
        if (data / each.name).is_dir():
            shutil.rmtree(data / each.name)
        each.replace(data / each.name)
    sync_folder(data)


def take_place(fresh: Path, data: Path) -> None:
    """Two renames; until the second one, what was there is whole beside it. What is no part of a backup moves over."""
    aside = aside_of(data)
    try:
        shutil.rmtree(aside, ignore_errors=True)
        if data.exists():
            data.rename(aside)
        fresh.rename(data)
    except OSError as error:
        put_back(data)
        why = f"{error.strerror}; it must not be a mount point"
        raise ServiceTrouble(f"{str(data)!r} could not be replaced: {why}. Nothing was restored.") from error
    for name in STAYS:
        if (aside / name).exists():
            (aside / name).rename(data / name)
    shutil.rmtree(aside, ignore_errors=True)
