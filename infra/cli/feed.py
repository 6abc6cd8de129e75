"""What the creator gives: `import`, `teach`, the inbox, and the kill switch. All of it goes straight to the journal.

The journal takes writers from several processes, so none of these needs the running twin; it notices within a second.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.cli.compose import creator_person, import_context, now, open_journal, set_silence, settings_of
from infra.cli.console import err, out, print_json, table
from infra.errors import UserMistake

if TYPE_CHECKING:
    from memory.importing import ImportReport, Progress

# What of a file's name is shown beside the bar.
SHOWN_NAME = 40


def import_files(home: Path | None, paths: list[Path], *, prune: bool, as_json: bool) -> None:
    """Import files and folders; show what became of every record. Exit code 1 when some files were refused."""
    from memory.importing import import_paths

    settings = settings_of(home)
    if prune and not any(path.is_dir() for path in paths):
        raise UserMistake("--prune is for folders: it removes what one of them no longer holds. Name a folder.")
    with following() as follow:
        report = import_paths(open_journal(settings), paths, import_context(settings), prune=prune, on_progress=follow)
    if as_json:
        print_json({**asdict(report), "skipped": dict(report.skipped)})
    else:
        show_report(report)
    if report.refused:
        raise UserMistake(f"{len(report.refused)} of these files could not be used; the others are imported.")


def show_report(report: "ImportReport") -> None:
    """What an import did, for a person."""
    out().print(f"{report.imported} new events: {report.exchanges} exchanges, {report.passages} passages.")
    if report.skipped:
        out().print(table("Skipped", ("records", "why"), ((count, why) for why, count in report.skipped.items())))
    if report.removed:
        out().print(table("Removed", ("document",), ((name,) for name in report.removed)))
    if report.refused:
        out().print(table("Refused", ("file", "why"), report.refused.items()))


@contextmanager
def following() -> "Iterator[Callable[[Progress], None]]":
    """A bar over the files, with what is read now: an import of thousands takes minutes."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("Reading"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[now]}", markup=False))
    with Bar(*columns, TimeElapsedColumn(), console=err(), transient=True) as bar:
        task = bar.add_task("Reading", total=None, now="")

        def follow(progress: "Progress") -> None:
            now = f"{progress.records} records, {progress.name[-SHOWN_NAME:]}"
            bar.update(task, completed=progress.done, total=progress.files, now=now)

        yield follow


def documents(home: Path | None, *, as_json: bool) -> None:
    """Show the files that memory knows, by name: the name is what `forget` and a later import know them by."""
    found = open_journal(settings_of(home)).documents()
    if as_json:
        print_json([asdict(each) for each in found])
        return
    if not found:
        out().print("No file was imported yet.")
        return
    columns = ("document", "passages", "exchanges", "imported", "source")
    rows = ((d.name, d.passages, d.exchanges, f"{d.at:%Y-%m-%d %H:%M}", d.source) for d in found)
    out().print(table("Documents", columns, rows))


def teach(home: Path | None, question: str, answer: str, *, as_json: bool) -> None:
    """Journal one exchange in the creator's own words."""
    from bot.inbox import teach as write

    settings = settings_of(home)
    exchange = write(open_journal(settings), question, answer=answer, creator=creator_person(settings), now=now())
    tell({"exchange": exchange.id}, "Learned; the twin can answer it now.", as_json=as_json)


def inbox_list(home: Path | None, *, as_json: bool) -> None:
    """Show what waits for the creator, oldest first."""
    items = open_journal(settings_of(home)).inbox()
    if as_json:
        print_json([{"number": i.number, "question": i.question, "count": i.count, "at": i.at} for i in items])
        return
    if not items:
        out().print("Nothing waits.")
        return
    out().print(table("Inbox", ("#", "asked", "question"), ((i.number, i.count, i.question) for i in items)))


def inbox_answer(home: Path | None, number: int, answer: str, *, as_json: bool) -> None:
    """Answer question `number`."""
    from bot.inbox import answer_question

    settings = settings_of(home)
    creator = creator_person(settings)
    exchange = answer_question(open_journal(settings), number, answer=answer, creator=creator, now=now())
    tell({"exchange": exchange.id}, "Answered; the twin can answer it now.", as_json=as_json)


def inbox_dismiss(home: Path | None, number: int, *, as_json: bool) -> None:
    """Dismiss question `number`."""
    from bot.inbox import dismiss

    settings = settings_of(home)
    dismiss(open_journal(settings), number, creator=creator_person(settings), now=now())
    tell({"dismissed": number}, "Dismissed.", as_json=as_json)


def silence(home: Path | None, state: str) -> None:
    """Throw the kill switch, or lift it."""
    settings = settings_of(home)
    if state not in {"on", "off"}:
        raise UserMistake(f"silence takes 'on' or 'off', not {state!r}.")
    set_silence(open_journal(settings), on=state == "on")
    err().print(f"The twin is {'silenced' if state == 'on' else 'speaking again'}.")


def tell(document: dict[str, Any], sentence: str, *, as_json: bool) -> None:
    """The outcome for a script, or for a person."""
    if as_json:
        print_json(document)
    else:
        err().print(sentence)
