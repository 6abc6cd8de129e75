"""What trainings froze of the journal, and what learned from it, once something of it is forgotten.

The journal keeps the ids of what was forgotten, in order; a harvest keeps how far that list was when it was made. So
whoever holds datasets and adapters finds out by itself, also after a crash or on another machine. Safe to repeat.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.adapters import CARD, PAGE, AdapterStore
from infra.errors import UserMistake
from infra.files import finished, read_json
from infra.runs import Runs
from memory.journal import Journal
from trainer import oddness
from trainer.card import without
from trainer.imitations import forget_imitations, learns_erased, members_of
from trainer.preference import FILE as OPINIONS

# What a harvest knows of its exchanges, the exchanges before them too.
KEPT = "kept.json"


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
    files += oddness.follow_forgotten(data_folder, journal) + forget_imitations(data_folder, journal)
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
    """Whether an adapter learned from what was forgotten after its harvest; ours say what they learned.

    Most of that are exchanges; imitations may answer members' questions that are none.
    """
    manifest = store.manifest(version)
    forgotten = journal.forgotten(after=manifest.get("forgotten", 0))
    return not forgotten.isdisjoint(manifest.get("examples", ())) or learns_erased(
        manifest.get("questions", ()), journal
    )


def holds_forgotten(folder: Path, journal: Journal) -> bool:
    """Whether a run's folder holds an exchange that was forgotten after its harvest, or a member's question."""
    manifest = finished(folder / "harvest")
    if learns_erased(imitated_questions(folder / "dataset"), journal):
        return True
    forgotten = journal.forgotten(after=manifest["forgotten"]) if manifest else set()
    if not forgotten:
        return False
    # What the creator and members made of answers has ids of its own; unfinished, it does not say which.
    built = finished(folder / "dataset") or {"learned": forgotten if (folder / "dataset" / OPINIONS).exists() else ()}
    if not forgotten.isdisjoint(built.get("learned", ())):
        return True
    with (folder / "harvest" / "exchanges.jsonl").open(encoding="utf-8") as lines:
        if any(json.loads(line)["id"] in forgotten for line in lines):
            return True
    kept = folder / "harvest" / KEPT
    found = read_json(kept).values() if kept.is_file() else ()
    return any(each["before"] and each["before"]["id"] in forgotten for each in found)


def imitated_questions(folder: Path) -> list[Mapping[str, Any]]:
    """The members' questions that a dataset holds imitations of answers to."""
    manifest = finished(folder)
    if not manifest or not manifest.get("synthetic"):
        return []
    with (folder / "train.jsonl").open(encoding="utf-8") as lines:
        return [asked for line in lines for asked in members_of(json.loads(line)["provenance"])]


def active(runs: Runs, run_id: str) -> bool:
    try:
        return runs.get(run_id).active
    except UserMistake:
        return False  # a folder of another journal
