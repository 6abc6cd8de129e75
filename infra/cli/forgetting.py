"""`understudy forget`: what goes is counted and shown first, and a receipt says what went."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from infra.backup import backups
from infra.cli.compose import now, open_journal, settings_of
from infra.cli.console import err, out, print_json, table
from infra.cli.operations import House
from infra.errors import UserMistake
from infra.settings import Settings
from memory.forget import Forgotten, lift, rehearse, selection_of_exchange
from memory.forget import forget as erase
from memory.journal import Journal
from memory.messages import Source
from memory.retention import Retention, expire
from memory.selection import Selection
from trainer.frozen import Followed

# What a person reads of a receipt, in this order; what is not there was none.
SHOWN = (
    "messages",
    "exchanges",
    "passages",
    "questions",
    "answers",
    "drafts",
    "votes",
    "reports",
    "consents",
    "events",
)


@dataclass(frozen=True)
class Wanted:
    """What was typed."""

    author: str = ""
    place: str = ""
    exchange: str = ""
    document: str = ""
    source: str = ""
    after: str = ""
    before: str = ""


def forget(home: Path | None, wanted: Wanted, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Count, ask, erase, and show the receipt."""
    settings = settings_of(home)
    journal = open_journal(settings)
    selection = selection_for(journal, wanted)
    if dry_run or not yes:
        planned = rehearse(journal, selection, now=now())
        if dry_run:
            tell_counts("Would go", planned.tombstone.counts, as_json=as_json)
            return
        ask(planned)
    done = erase(journal, selection, creator=settings.answering, now=now())
    followed = House(settings, journal).follow_forgotten()
    receipt = receipt_of(settings, done, followed)
    if as_json:
        print_json(receipt)
    else:
        show(receipt)


def selection_for(journal: Journal, wanted: Wanted) -> Selection:
    """What was typed as a selection. Raises UserMistake for what cannot be meant."""
    if wanted == Wanted():
        raise UserMistake(
            "Say what to forget: --author, --place, --exchange, --document, --source, --before or --after."
        )
    if wanted.source and wanted.source not in set(Source):
        raise UserMistake(f"There is no source {wanted.source!r}; known are: {', '.join(Source)}.")
    selection = Selection(
        person=key_of(wanted.author),
        place=key_of(wanted.place),
        exchange=wanted.exchange,
        document=document_of(journal, wanted.document),
        source=wanted.source,
        after=date_of(wanted.after),
        before=date_of(wanted.before),
    )
    return selection_of_exchange(journal, selection) if wanted.exchange else selection


def key_of(text: str) -> str:
    """PLATFORM:ID, or nothing."""
    platform, _, identity = text.partition(":")
    if text and not (platform and identity):
        raise UserMistake(f"{text!r} must be PLATFORM:ID, for example discord:1234.")
    return text


def document_of(journal: Journal, name: str) -> str:
    """The name of a document or table that was imported, or nothing. Raises UserMistake with near names."""
    known = [each.name for each in journal.documents()] if name else []
    if not name or name in known:
        return name
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"near are: {', '.join(near)}" if near else f"{len(known)} are known"
    raise UserMistake(f"There is no document {name!r}; {hint}.")


def date_of(text: str) -> datetime | None:
    """A date or time as ISO 8601; without a zone in UTC."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise UserMistake(f"{text!r} is no date; write it as 2026-03-01 or 2026-03-01T12:00:00.") from error


def ask(planned: Forgotten) -> None:
    """Go on only if a person says so."""
    err().print(f"This erases {words(planned.tombstone.counts)}. It cannot be undone.")
    if not err().is_terminal:
        raise UserMistake("Nobody is here to confirm it: add --yes, or --dry-run to only count.")
    typer.confirm("Forget it?", abort=True, err=True)


def receipt_of(settings: Settings, done: Forgotten, followed: Followed) -> dict[str, Any]:
    """What went, from where, and which backups may still hold it."""
    return {
        "receipt": done.receipt,
        "at": done.tombstone.at,
        **done.tombstone.counts,
        "dataset_files": followed.files,
        "tainted": list(followed.tainted),
        "backups": backups(settings.data_folder) if done.events else [],
    }


def show(receipt: dict[str, Any]) -> None:
    """A receipt for a person."""
    out().print(f"Gone: {words(receipt)}. Receipt {receipt['receipt']}.")
    if receipt["dataset_files"]:
        out().print(f"{receipt['dataset_files']} files of frozen datasets are gone.")
    if receipt["tainted"]:
        out().print(f"Voices that learned it speak no more: {', '.join(receipt['tainted'])}.")
    for path in receipt["backups"]:
        out().print(f"This backup was made before, and holds it until it is rotated: {path}")


def words(counts: Mapping[str, Any]) -> str:
    """Counts as a list."""
    return ", ".join(f"{counts[name]} {name}" for name in SHOWN if counts.get(name)) or "nothing"


def tell_counts(title: str, counts: Mapping[str, int], *, as_json: bool) -> None:
    if as_json:
        print_json(dict(counts))
    else:
        out().print(f"{title}: {words(counts)}.")


def retention(home: Path | None, *, as_json: bool) -> None:
    """Let expire now what was kept long enough."""
    settings = settings_of(home)
    if not settings.retention.limited:
        raise UserMistake("Nothing expires: set retention.days, or days for a place under [retention.places].")
    journal = open_journal(settings)
    rule = Retention(**settings.retention.model_dump())
    counts = expire(journal, rule, creator=settings.answering, now=now())
    House(settings, journal).follow_forgotten()
    tell_counts("Expired", counts, as_json=as_json)


def receipts(home: Path | None, *, as_json: bool) -> None:
    """Everything that was forgotten, without its words."""
    settings = settings_of(home)
    found = open_journal(settings).tombstones()
    if as_json:
        print_json([each.described() for each in found])
        return
    rows = (
        (
            each.receipt,
            f"{each.at:%Y-%m-%d %H:%M}",
            what(each.selection),
            words(each.counts),
            "lifted" * each.lifted,
        )
        for each in found
    )
    out().print(table("Forgotten", ("receipt", "when", "what", "went", ""), rows))


def what(selection: Selection) -> str:
    """A selection in a few words; of a person only that it was one."""
    parts = {**selection.described(), **({"person": "a person"} if selection.person else {})}
    return ", ".join(
        f"{name} {value}" if name != "person" else value
        for name, value in parts.items()
        if name not in {"messages", "undated"}
    )


def lift_receipt(home: Path | None, receipt: str) -> None:
    """Let what a receipt names be imported again."""
    settings = settings_of(home)
    journal = open_journal(settings)
    lift(journal, receipt)
    House(settings, journal).follow_forgotten()
    err().print("Lifted. What it erased is gone all the same; it may be imported again.")
