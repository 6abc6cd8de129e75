"""`understudy status`: how the twin is, in one look; with --json for whoever watches."""

import shutil
from pathlib import Path
from typing import Any

from infra.cli.bots import configured
from infra.cli.compose import open_journal, open_runs, settings_of
from infra.cli.console import err, out, print_json
from infra.errors import UnderstudyError
from infra.health import SILENT_S, silences
from infra.remote import Remote
from infra.settings import Settings

# With less room than this a training may not find place for its checkpoints.
ROOM_BYTES = 2 * 1024**3


def status(home: Path | None, *, as_json: bool) -> None:
    """Print it, and end with 1 where something is wrong."""
    settings = settings_of(home)
    found = overview(settings)
    if as_json:
        print_json(found)
    else:
        for name, value in lines(found):
            out().print(f"{name:<10} {value}", markup=False, highlight=False, soft_wrap=True)
    if found["wrong"]:
        for each in found["wrong"]:
            err().print(each, markup=False)
        raise SystemExit(1)


def overview(settings: Settings) -> dict[str, Any]:
    """Everything, and what of it is wrong, in sentences."""
    journal = open_journal(settings)
    try:
        runs, counts = open_runs(settings, journal).recent(), journal.counts()
    finally:
        journal.close()
    voice, wrong = speaking(settings)
    last = {"id": runs[0].id, "state": runs[0].state, "stage": runs[0].stage, "error": runs[0].error} if runs else None
    if last and last["state"] == "failed":
        wrong.append(f"Training {last['id']} failed: {last['error']}")
    parts = {part: silent for part, _, silent in sorted(silences(settings), key=lambda each: -each[2])}
    if voice is not None:
        wanted = {"worker", "beat", *(["bot"] if configured(settings) else [])}
        wrong += [f"The {part} gives no sign of life." for part in sorted(wanted) if parts.get(part, 1e9) > SILENT_S]
    free = shutil.disk_usage(settings.data_folder).free
    if free < ROOM_BYTES:
        wrong.append(f"{free / 1024**3:.1f} GiB are free where the data folder is; a training needs about 2.")
    return {
        "creator": settings.creator.name,
        "up": voice is not None,
        "voice": voice,
        "memory": counts,
        "last_run": last,
        "silent_s": {part: round(silent, 1) for part, silent in parts.items()},
        "free_gib": round(free / 1024**3, 1),
        "wrong": wrong,
    }


def speaking(settings: Settings) -> tuple[str | None, list[str]]:
    """The voice of the running twin, None where there is no such, and what is wrong with it."""
    remote = Remote.find(settings)
    if remote is None:
        return None, ['The twin is not running. Start it with "understudy up".']
    try:
        return str(remote.get("/api/status")["voice"]), []
    except UnderstudyError as error:
        return None, [str(error)]


def lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    """The same for people."""
    memory, last = found["memory"], found["last_run"]
    known = f"{memory['exchanges']:,} exchanges, {memory['passages']:,} passages, {memory['documents']:,} documents"
    run = f"{last['id']}, {last['state']}{', ' + last['stage'] if last['stage'] else ''}" if last else "none yet"
    parts = ", ".join(f"{part} {silent:.0f} s ago" for part, silent in found["silent_s"].items())
    return [
        ("creator", found["creator"]),
        ("voice", found["voice"] or "not running"),
        ("memory", known),
        ("inbox", f"{memory['waiting questions']:,} questions wait"),
        ("index", f"{memory['outbox']:,} changes wait" if memory["outbox"] else "up to date"),
        ("training", run),
        ("signs", parts or "none"),
        ("disk", f"{found['free_gib']:.1f} GiB free"),
    ]
