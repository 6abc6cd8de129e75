"""`understudy restore --until`: what a backup holds, turned back to a moment before it was made."""

import shutil
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from infra.cli.compose import adapter_store, open_journal, open_runs
from infra.cli.forgetting import date_of
from infra.database import copy_rows, reading, writing
from infra.errors import UserMistake
from infra.published import Published
from infra.settings import Settings
from infra.spool import Spool
from memory.codec import time_text
from memory.journal import Journal
from memory.replay import last_written, replay, spoke, written


@dataclass(frozen=True)
class Moment:
    """The last event of a moment, when that was written down, who speaks then, and the adapters that came later."""

    number: int
    at: datetime
    voice: str | None
    left_out: tuple[str, ...]


def turn_back(settings: Settings, journal_file: Path, until: str) -> Moment:
    """Turn what was unpacked into the data folder of `settings` back to `until`: a time, or an event's number.

    Raises UserMistake for what is neither, or is before the first event.
    """
    later = journal_file.parent / ".later"
    later.mkdir()
    journal_file.rename(later / journal_file.name)
    with ExitStack() as stack:
        source = stack.enter_context(closing(Journal.open(beside(settings, later).journal_url)))
        target = stack.enter_context(closing(open_journal(settings)))
        scratch = stack.enter_context(closing(Journal.open(beside(settings, later / "scratch").journal_url)))
        number, at = moment_of(source, until)
        replay(source, target, scratch, until=number, creator=settings.answering)
        copy_others(settings, source, target, at)
        voice, left_out = adapter_store(settings).turn_back(at, spoke=spoke(target))
    shutil.rmtree(later)
    return Moment(number, at, voice, tuple(left_out))


def beside(settings: Settings, folder: Path) -> Settings:
    """The same installation in another folder."""
    return settings.model_copy(update={"data": folder})


def moment_of(source: Journal, until: str) -> tuple[int, datetime]:
    """The number of the last event of a moment, and the moment."""
    if until.isdecimal():
        number = int(until)
        at = written(source, number)
    else:
        at = date_of(until)
        number = last_written(source, at) if at else 0
    if not number or at is None:
        first = written(source, source.events(limit=1)[0][0]) if source.last() else None
        begins = f"its first event was written down at {first:%Y-%m-%dT%H:%M:%SZ}" if first else "it is empty"
        raise UserMistake(f"{until!r} is before everything in this backup: {begins}. Nothing was restored.")
    return number, at


def copy_others(settings: Settings, source: Journal, target: Journal, at: datetime) -> None:
    """The tables beside the journal: what had happened by then, and keys as they are, so that none opens again."""
    for engine in (source.engine, target.engine):
        Published(engine)
        Spool(engine, "")
    for journal in (source, target):
        open_runs(settings, journal)
    by = time_text(at)
    with reading(source.engine) as before, writing(target.engine) as connection:
        copy_rows(before, connection, "published_keys")
        copy_rows(before, connection, "published_use")
        # One that was active then has lost its worker.
        copy_rows(before, connection, "runs", where="ended <> '' AND ended <= :by", by=by)
        copy_rows(before, connection, "meanings", where="at <= :by", by=by)
