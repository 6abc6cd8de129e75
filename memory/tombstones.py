"""What was forgotten, in a file beside the journal: so it outlives a journal that is replaced by an older one.

The journal and the file follow each other: what only the journal knows is written down, what only the file knows is
forgotten again. Safe to repeat, and cheap when both agree.
"""

from pathlib import Path

from infra.files import read_object, told_as, write_json
from memory.forget import bury_again
from memory.journal import Journal
from memory.selection import Tombstone, tombstone_from

FILE = "forgotten.json"


def follow_tombstones(data_folder: Path, journal: Journal, *, creator: frozenset[str]) -> int:
    """Bring journal and file to the same tombstones; returns how many the journal did not know."""
    written, last = read_tombstones(data_folder)
    new = bury_again(journal, written, last=last, creator=creator)
    agreed = journal.tombstones(), max(last, journal.last_forgotten())
    if agreed != (written, last):
        write_tombstones(data_folder, *agreed)
    return new


def read_tombstones(data_folder: Path) -> tuple[list[Tombstone], int]:
    """The tombstones of the file, and the number of the latest forgetting."""
    path = data_folder / FILE
    if not path.is_file():
        return [], 0
    found = read_object(path)
    with told_as(path):
        return [tombstone_from(each) for each in found["tombstones"]], int(found["last"])


def write_tombstones(data_folder: Path, tombstones: list[Tombstone], last: int) -> None:
    described = [each.described() for each in tombstones]
    write_json(data_folder / FILE, {"tombstones": described, "last": last})
