"""What trainings froze of the journal, and what learned from it, once something of it is forgotten.

The journal keeps the ids of what was forgotten, in order; a harvest keeps how far that list was when it was made. So
whoever holds datasets and adapters finds out by itself, also after a crash or on another machine. Safe to repeat.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from infra.adapters import CARD, PAGE, AdapterStore
from infra.errors import UserMistake
from infra.files import finished
from infra.runs import Runs
from memory.journal import Journal
from trainer.card import without


@dataclass(frozen=True)
class Followed:
    """What a forgetting cost trainings: versions that are tainted now, and files of frozen runs that are gone."""

    tainted: tuple[str, ...] = ()
    files: int = 0


def follow_forgotten(data_folder: Path, journal: Journal, runs: Runs) -> Followed:
    """Taint the adapters that learned what was forgotten, and remove the ended runs that hold it.

    What a run under way froze is its own to remove: it begins anew when it is taken up again, and publishes nothing.
    """
    store = AdapterStore(data_folder / "adapters")
    clean = (version for version in store.versions() if store.tainted(version) is None)
    tainted = [version for version in clean if learned_forgotten(store, version, journal)]
    for version in tainted:
        store.taint(version, "it learned what was forgotten since")
    for version in store.versions():
        silence_card(store, version, journal)
    ended = [each for each in (data_folder / "runs").glob("*/") if not active(runs, each.name)]
    gone = [folder for folder in ended if holds_forgotten(folder, journal)]
    files = sum(path.is_file() for folder in gone for path in folder.rglob("*"))
    for folder in gone:
        shutil.rmtree(folder, ignore_errors=True)
    return Followed(tuple(tainted), files)


def silence_card(store: AdapterStore, version: str, journal: Journal) -> None:
    """Take the words out of a version's eval card that were examined with what was forgotten since."""
    from trainer.evals import load_card, save_card

    forgotten = journal.forgotten(after=store.manifest(version).get("forgotten", 0))
    if not forgotten or not (store.folder(version) / CARD).is_file():
        return
    card = load_card(store.folder(version))
    if (silent := without(card, forgotten)) != card:
        save_card(silent, store.folder(version))
    # Also when a crash came between the two.
    store.vouch(version, CARD, PAGE)


def learned_forgotten(store: AdapterStore, version: str, journal: Journal) -> bool:
    """Whether an adapter learned from an exchange that was forgotten after its harvest; ours say what they learned."""
    manifest = store.manifest(version)
    return not journal.forgotten(after=manifest.get("forgotten", 0)).isdisjoint(manifest.get("examples", ()))


def holds_forgotten(folder: Path, journal: Journal) -> bool:
    """Whether a run's folder holds an exchange that was forgotten after its harvest."""
    manifest = finished(folder / "harvest")
    forgotten = journal.forgotten(after=manifest["forgotten"]) if manifest else set()
    if not forgotten:
        return False
    with (folder / "harvest" / "exchanges.jsonl").open(encoding="utf-8") as lines:
        return any(json.loads(line)["id"] in forgotten for line in lines)


def active(runs: Runs, run_id: str) -> bool:
    try:
        return runs.get(run_id).active
    except UserMistake:
        return False  # a folder of another journal
