"""Imitations at rest: how a synthetic row is marked, which of them a training may use, and how they are forgotten.

Fail closed: a row is used only while everything it stands on may train and is trained on: the exchanges that were
shown, those that its question was made of, and the member who asked. Nothing here writes to the journal, and nothing in
memory reads these files; whoever tries to import them is told no.
"""

import fcntl
import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from infra.files import finish_folder, finished, write_atomic
from memory.codec import time_of
from memory.journal import Journal
from memory.messages import Event, Exchange, Kind, Note, Person, Place, Source, name_uuid
from memory.provenance import Permissions, half
from memory.selection import Tombstone
from trainer.dataset import (
    NEARLY,
    SYNTHETIC,
    Mixing,
    Plan,
    Row,
    RowWriter,
    as_lines,
    closeness,
    folded,
    is_synthetic,
)
from trainer.ledger import ANSWERS

ROWS = "rows.jsonl"
FOLDER = "distil"


def row_of(
    question: str,
    answer: str,
    *,
    teacher: str,
    prompt_sha256: str,
    shown: Sequence[str],
    origin: Mapping[str, Any],
    run: str,
) -> dict[str, Any]:
    """An imitation as it is kept. It says twice what it is: for trainings, and for whoever would import it."""
    content = hashlib.sha256(f"{question}\x1f{answer}".encode()).hexdigest()
    provenance = {
        "kind": SYNTHETIC,
        "teacher": teacher,
        "prompt_sha256": prompt_sha256,
        "shown": list(shown),
        "origin": dict(origin),
        "run": run,
        "sha256": content,
    }
    return {"kind": SYNTHETIC, "question": question, "answer": answer, "provenance": provenance}


def learned_from(provenance: Mapping[str, Any]) -> set[str]:
    """The ids of the exchanges that a training row carries something of."""
    if not is_synthetic(provenance):
        return {str(provenance["exchange"])}
    origin = provenance["origin"]
    return {*provenance["shown"], *(str(origin[name]) for name in ("exchange", "beside") if name in origin)}


def members_of(provenance: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The member's question that an imitation answers, if it does."""
    origin = provenance.get("origin") or {}
    return [origin] if origin.get("kind") == "message" else []


def learns_erased(rows: Iterable[Mapping[str, Any]], journal: Journal) -> bool:
    """Whether any of these members' questions was forgotten."""
    asked = list(rows)
    tombstones = journal.tombstones() if asked else []
    return any(erased(each, tombstones) for each in asked)


def mixing(data_folder: Path, journal: Journal, *, share: float, permissions: Permissions, seed: int) -> Mixing:
    """What gives a dataset `share` of imitations, or as many as may be used; what may not is counted in its plan."""

    def mixed(plan: Plan, writer: RowWriter) -> list[Row]:
        lines = chosen(data_folder, journal, plan, share=share, permissions=permissions, seed=seed)
        train = {each.id: each for each in plan.train}
        return [rendered(line, train, writer) for line in lines]

    return mixed


def chosen(
    data_folder: Path, journal: Journal, plan: Plan, *, share: float, permissions: Permissions, seed: int
) -> list[dict[str, Any]]:
    """The imitations that go beside a plan's real rows. Those that may not are counted among what it excluded."""
    excluded: Counter[str] = Counter()
    terms = Terms.of(plan, journal, permissions)
    usable = [line for line in kept_rows(data_folder) if not counted(terms.against(line), excluded)]
    usable = apart(usable, plan.aside, excluded)
    plan.excluded.update(excluded)
    wanted = round(len(plan.train) * share / (1 - share))
    rng = random.Random(seed)  # noqa: S311 - which imitations are learned is no secret
    return rng.sample(usable, min(wanted, len(usable)))


def counted(reason: str, excluded: Counter[str]) -> bool:
    if reason:
        excluded[f"synthetic: {reason}"] += 1
    return bool(reason)


@dataclass(frozen=True)
class Terms:
    """What decides whether an imitation may be used now: what is trained on, who consents, and what was forgotten."""

    train: Mapping[str, Exchange]
    journal: Journal
    permissions: Permissions
    tombstones: Sequence[Tombstone]

    @classmethod
    def of(cls, plan: Plan, journal: Journal, permissions: Permissions) -> "Terms":
        return cls({each.id: each for each in plan.train}, journal, permissions, journal.tombstones())

    def against(self, line: Mapping[str, Any]) -> str:
        """Why an imitation is not used; empty when it is."""
        if not learned_from(line["provenance"]) <= self.train.keys():
            return "an exchange that it was made with is not trained on"
        return next((reason for asked in members_of(line["provenance"]) if (reason := self.against_asker(asked))), "")

    def against_asker(self, asked: Mapping[str, Any]) -> str:
        terms = half(
            Source(asked["source"]),
            asked["author"],
            asked["place_key"],
            consent=self.journal.consent,
            permissions=self.permissions,
        )
        if terms:
            return f"question: {terms}"
        return "its question was forgotten" if erased(asked, self.tombstones) else ""


def erased(asked: Mapping[str, Any], tombstones: Iterable[Tombstone]) -> bool:
    """Whether a member's question was forgotten."""
    platform, _, identity = asked["author"].partition(":")
    line = Event(
        asked["platform"],
        asked["place"],
        asked["message"],
        Kind.MESSAGE,
        0,
        Person(platform, identity),
        Source(asked["source"]),
        time_of(asked["at"]),
    )
    return any(tombstone.covers(line) for tombstone in tombstones)


def kept_rows(data_folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of all finished jobs, each pair once, oldest job first."""
    seen: set[str] = set()
    for folder in sorted((data_folder / FOLDER).glob("*/")):
        if finished(folder) is None:
            continue
        with (folder / ROWS).open(encoding="utf-8") as lines:
            for text in lines:
                line = json.loads(text)
                if line["provenance"]["sha256"] not in seen:
                    seen.add(line["provenance"]["sha256"])
                    yield line


def apart(lines: Sequence[dict[str, Any]], aside: Sequence[Exchange], excluded: Counter[str]) -> list[dict[str, Any]]:
    """The rows whose questions are not nearly the same as one that is held out."""
    if not lines or not aside:
        return list(lines)
    near = closeness([folded(line["question"]) for line in lines], [folded(each.question) for each in aside])
    reason = "question: nearly the same as one that is held out"
    pairs = zip(lines, near, strict=True)
    return [line for line, closest in pairs if not counted(reason if closest >= NEARLY else "", excluded)]


def rendered(line: Mapping[str, Any], train: Mapping[str, Exchange], writer: RowWriter) -> Row:
    """An imitation as a training row, rendered as the real ones are. Its notes are what the teacher was shown.

    So it is never given a note that says something else than it does, such as the answer to what it paraphrases.
    """
    shown = [train[identity] for identity in line["provenance"]["shown"]]
    notes = [Note(e.id, "exchange", e.answer, 1.0, "", e.at, question=e.question) for e in shown][:2]
    own = replace(writer, recall_for=lambda question, hidden: notes)
    row = own.row(as_exchange(line, shown[0]), "train", hidden=frozenset())
    return replace(row, provenance=dict(line["provenance"]))


def as_exchange(line: Mapping[str, Any], like: Exchange) -> Exchange:
    """An imitation in the shape that rows are written from. Its source is one that memory and training refuse."""
    return Exchange(
        id=name_uuid(SYNTHETIC, line["question"], line["answer"]),
        question=line["question"],
        answer=line["answer"],
        author=Person("teacher", line["provenance"]["teacher"], role="twin"),
        place=Place("teacher", SYNTHETIC),
        at=like.at,
        source=Source.TWIN,
        question_source=Source.TWIN,
    )


@contextmanager
def holding(folder: Path) -> Iterator[bool]:
    """Hold a job for this process; False when another one does. A process that dies holds nothing."""
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


def forget_imitations(data_folder: Path, journal: Journal) -> int:
    """Take out of all jobs every line that carries something of what was forgotten; returns how many files changed.

    A job that is being asked is left alone: whoever asks does so at its end.
    """
    changed = 0
    for folder in sorted((data_folder / FOLDER).glob("*/")):
        with holding(folder) as ours:
            changed += forget_in(folder, journal) if ours else 0
    return changed


def forget_in(folder: Path, journal: Journal) -> int:
    """The same in one job's folder. Tasks go too, and with them the answers, which are known by the task."""
    job = folder / "job.json"
    if not job.is_file():
        return 0
    since = json.loads(job.read_text(encoding="utf-8"))["forgotten"]
    forgotten, tombstones = journal.forgotten(after=since), journal.tombstones()

    def gone(line: Mapping[str, Any]) -> bool:
        return not learned_from(line).isdisjoint(forgotten) or any(erased(e, tombstones) for e in members_of(line))

    tasks = [line["number"] for line in lines_of(folder / "tasks.jsonl") if gone({"kind": SYNTHETIC, **line})]
    if not tasks:
        return 0
    doomed = frozenset(tasks)
    changed = [
        without(folder / "tasks.jsonl", lambda line: line["number"] in doomed),
        without(folder / ANSWERS, lambda line: line.get("task") in doomed),
        without(folder / ROWS, lambda line: gone(line["provenance"])),
    ]
    manifest = finished(folder)
    if manifest is not None:
        kept = sum(1 for _ in lines_of(folder / ROWS))
        finish_folder(folder, {**manifest, "kept": kept})
    return sum(changed)


def lines_of(path: Path) -> Iterator[dict[str, Any]]:
    if path.is_file():
        with path.open(encoding="utf-8") as lines:
            yield from (json.loads(line) for line in lines if line.endswith("\n"))


def without(path: Path, gone: Callable[[Mapping[str, Any]], bool]) -> bool:
    """Take lines out of a file; whether there were any."""
    if not any(gone(line) for line in lines_of(path)):
        return False
    write_atomic(path, as_lines(line for line in lines_of(path) if not gone(line)))
    return True
