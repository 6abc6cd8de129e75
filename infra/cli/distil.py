"""`understudy distil`: what it will cost, a yes, the teacher's imitations, and what the filters left of them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from infra.cli.compose import now, open_journal, open_speakers, settings_of, voice_of
from infra.cli.console import err, out, print_json, table
from infra.errors import UserMistake
from infra.remote import Remote
from infra.settings import Settings, revealed

if TYPE_CHECKING:
    from infra.voice.chat import Voice
    from memory.journal import Journal
    from memory.messages import Exchange
    from trainer.distil import Estimate, Job
    from trainer.teacher import Budget

SMALL = (
    "The twin's own voice is the teacher: a small model imitates badly and teaches little, and what it teaches are its "
    "own habits. Set [teacher] url and name for a strong one."
)


@dataclass(frozen=True)
class Asked:
    """What was typed."""

    rows: int
    money: float | None
    tokens: int | None
    yes: bool
    resume: str


def distil(home: Path | None, asked: Asked, *, as_json: bool) -> None:
    """Decide, estimate, ask for a yes, then ask the teacher and show what came of it."""
    from trainer.distil import distil as run
    from trainer.distil import estimated, promised
    from trainer.imitations import FOLDER, forget_imitations
    from trainer.ledger import ANSWERS

    settings = settings_of(home)
    journal = open_journal(settings)
    budget, pace = budget_of(settings, asked), pace_of(settings)
    job = begun(settings, journal, asked)
    others = [path for path in (settings.data_folder / FOLDER).glob(f"*/{ANSWERS}") if path.parent != job.folder]
    estimate = estimated(job, budget, **pace, others=others)
    if not asked.resume:
        job = promised(job, estimate)
    confirm(settings, job, estimate, budget, yes=asked.yes)
    try:
        with teacher_of(settings) as (voice, conversation), telling(as_json) as tell:
            manifest = run(
                job, voice, budget=budget, **pace, others=others, conversation=conversation, on_progress=tell
            )
    finally:
        forget_imitations(settings.data_folder, journal)
        journal.close()
    show(job, manifest, as_json=as_json)


def budget_of(settings: Settings, asked: Asked) -> "Budget":
    """The bounds that were typed, with the teacher's prices. Raises UserMistake for a bound that could not hold."""
    from trainer.teacher import Budget

    teacher = settings.teacher
    if asked.money is not None and not (teacher.price_in or teacher.price_out):
        raise UserMistake(
            "A budget in money needs prices: set teacher.price_in and teacher.price_out, per million tokens."
        )
    return Budget(asked.money, asked.tokens, teacher.price_in, teacher.price_out)


def pace_of(settings: Settings) -> dict[str, Any]:
    """How fast the teacher may be asked; the twin's own voice has no limit but its places."""
    teacher = settings.teacher
    if teacher.url:
        return {"per_minute": teacher.per_minute, "concurrency": teacher.concurrency}
    return {"per_minute": 0.0, "concurrency": settings.voice.streams}


def begun(settings: Settings, journal: "Journal", asked: Asked) -> "Job":
    """The job that is to go on, or a new one."""
    from trainer.distil import load
    from trainer.imitations import FOLDER
    from trainer.planning import planned

    forgotten = journal.last_forgotten()
    pool = planned(settings, journal).train
    if asked.resume:
        folder = settings.data_folder / FOLDER / Path(asked.resume).name
        job = load(folder, {each.id: each for each in pool})
        if job.teacher != name_of(settings):
            raise UserMistake(
                f"This was begun with the teacher {job.teacher!r}; the settings name {name_of(settings)!r}."
            )
        return job
    return new_job(settings, journal, pool, rows=asked.rows, forgotten=forgotten)


def new_job(settings: Settings, journal: "Journal", pool: "list[Exchange]", *, rows: int, forgotten: int) -> "Job":
    """A job of `rows` questions, frozen; of `pool` may be shown and asked."""
    from memory.graph_store import GraphStore
    from trainer.distil import prepare
    from trainer.imitations import FOLDER
    from trainer.planning import permissions_of
    from trainer.questions import mixed, of_graph, paraphrases, unanswered

    eligible = {each.id: each for each in pool}
    found = unanswered(journal, answering=settings.answering, permissions=permissions_of(settings))
    graph = GraphStore(journal)
    graph.drain_all()
    kinds = [found.questions, of_graph(graph.graph, graph.topics(), eligible), paraphrases(pool)]
    at = now()
    return prepare(
        settings.data_folder / FOLDER / f"{at:%Y-%m-%dT%H%M%S}",
        mixed(kinds, rows),
        pool,
        creator=settings.creator.name,
        teacher=name_of(settings),
        max_length=settings.models.max_length,
        forgotten=forgotten,
        created=at,
        excluded=found.excluded,
    )


def name_of(settings: Settings) -> str:
    """What the rows say of who wrote them."""
    teacher = settings.teacher
    return f"{teacher.name} at {teacher.url}" if teacher.url else f"the voice {settings.models.base}"


def confirm(settings: Settings, job: "Job", estimate: "Estimate", budget: "Budget", *, yes: bool) -> None:
    """Say what it will take and where words go, and go on only if somebody wants that."""
    say = err()
    if not settings.teacher.url:
        say.print(SMALL, markup=False)
    say.print(f"Distillation {job.folder.name}: {words(estimate, budget)}", markup=False)
    if settings.teacher.url:
        say.print(f"Exchanges of the creator and members' questions go to {settings.teacher.url}.", markup=False)
    if yes:
        return
    if not say.is_terminal:
        raise UserMistake(f"Nobody is here to confirm it: add --yes --resume {job.folder.name}.")
    typer.confirm("Ask the teacher?", abort=True, err=True)


def words(estimate: "Estimate", budget: "Budget") -> str:
    """An estimate as a sentence."""
    known = f" ({estimate.known} more are answered already)" if estimate.known else ""
    money = f", {estimate.money:g} in money, {estimate.most_money:g} at the most" if estimate.most_money else ""
    bounds = [f"{budget.money:g} in money"] if budget.money is not None else []
    bounds += [f"{budget.tokens} tokens"] if budget.tokens is not None else []
    bound = f" It stops before it has taken {' or '.join(bounds)}." if bounds else ""
    tokens = f"{estimate.prompt_tokens} tokens read and {estimate.completion_tokens} written"
    return (
        f"{estimate.rows} rows: about {estimate.requests} requests{known}, {tokens}{money}, "
        f"{estimate.minutes:g} minutes or more.{bound}"
    )


@contextmanager
def teacher_of(settings: Settings) -> "Iterator[tuple[Voice, str]]":
    """Who teaches, and the conversation of its requests: a voice that answers members too hears them first."""
    from infra.voice.client import HttpVoice

    teacher, remote = settings.teacher, Remote.find(settings)
    if teacher.url:
        yield HttpVoice(teacher.url, model=teacher.name, token=revealed(teacher.token)), ""
    elif remote is not None:
        yield HttpVoice(remote.url, model=settings.models.base, token=remote.token), "distil"
    else:
        speakers = open_speakers(settings)
        try:
            yield voice_of(settings, speakers), "distil"
        finally:
            if speakers is not None:
                speakers.close()


@contextmanager
def telling(as_json: bool) -> Iterator[Any]:
    """Progress: a bar on a terminal, a line for each hundredth elsewhere, nothing for a script."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("asking"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[words]}"))
    with Progress(*columns, TimeRemainingColumn(), console=err(), transient=True, disable=as_json) as progress:
        bar = progress.add_task("asking", total=None, words="")

        def tell(done: int, total: int, text: str) -> None:
            progress.update(bar, completed=done, total=total, words=text)
            if not (as_json or err().is_terminal) and done % max(1, total // 100) == 0:
                err().print(f"{done}/{total} {text}", markup=False)

        yield tell


def show(job: "Job", manifest: Mapping[str, Any], *, as_json: bool) -> None:
    """What came of it."""
    if as_json:
        print_json({"run": job.folder.name, **{n: v for n, v in manifest.items() if n != "files"}})
        return
    out().print(
        f"{manifest['kept']} of {manifest['rows']} imitations are worth learning from. They took "
        f"{manifest['prompt_tokens']} tokens read, {manifest['completion_tokens']} written, {manifest['money']:g} in "
        f"money and {manifest['minutes']:g} minutes.",
        markup=False,
    )
    if manifest["stopped"]:
        out().print(f"{manifest['stopped']} Go on with --resume {job.folder.name}.", markup=False)
    out().print(table("Left out", ("rows", "why"), ((n, why) for why, n in manifest["excluded"].items())))
    out().print("A training uses them if training.synthetic_share says so; see docs/training.md.", markup=False)
