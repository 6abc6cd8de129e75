"""What the creator gives: `import`, `teach`, the inbox, and the kill switch. All of it goes straight to the journal.

The journal takes writers from several processes, so none of these needs the running twin; it notices within a second.
"""

from pathlib import Path
from typing import Any

from infra.cli.compose import creator_person, import_context, now, open_journal, set_silence, settings_of
from infra.cli.console import err, out, print_json, table
from infra.errors import UserMistake


def import_files(home: Path | None, paths: list[Path], *, as_json: bool) -> None:
    """Import files and folders; show what became of every record."""
    from rich.progress import Progress

    from memory.importing import import_paths

    settings = settings_of(home)
    with Progress(console=err(), transient=True) as progress:
        task = progress.add_task("Reading", total=None)
        report = import_paths(
            open_journal(settings),
            paths,
            import_context(settings),
            on_progress=lambda done: progress.update(task, completed=done),
        )
    document: dict[str, Any] = {
        "imported": report.imported,
        "exchanges": report.exchanges,
        "passages": report.passages,
        "skipped": dict(report.skipped),
    }
    if as_json:
        print_json(document)
        return
    out().print(f"{report.imported} new events: {report.exchanges} exchanges, {report.passages} passages.")
    if report.skipped:
        out().print(table("Skipped", ("records", "why"), ((count, why) for why, count in report.skipped.items())))


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
