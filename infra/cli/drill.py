"""A restore drill: questions that were asked when a backup was made are asked again of what is in it.

The manifest keeps what was asked and found by id, with scores, and no words: those are in the journal beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.cli.compose import memory_of, open_memory
from infra.cli.console import err
from infra.errors import UnderstudyError
from infra.remote import Remote
from infra.settings import Settings
from memory.index import dense_text
from memory.journal import Journal
from memory.recall import Recaller

PROBES = 5
# Characters of a passage that are asked about: it may be as long as what the twin reads of a question.
MOST = 500
# Scores are rounded to four places; another machine's floats may differ in the last ones.
SAME = 0.005


@dataclass(frozen=True)
class Drill:
    """Which embedder was asked, for how much, and the notes to each question: {id: [[note's id, score], ...]}."""

    embedder: str
    limit: int
    budget_tokens: int
    found: Mapping[str, Sequence[Any]]


def rehearsed(settings: Settings, folder: Path) -> dict[str, Any] | None:
    """What a backup's manifest says of a drill: answers of the twin that runs, or of the index that is here.

    `folder` has the copy of the journal that goes into the backup. None where nobody can be asked.
    """
    twin = Remote.find(settings)
    if twin is None and not settings.index.url and not (settings.data_folder / "index").exists():
        return None
    copy = Journal.open(file_in(settings, folder).journal_url)
    try:
        if twin is not None:
            return drill(settings, copy, asked_elsewhere(twin))
        with open_memory(settings) as memory:
            return drill(settings, copy, memory.recall)
    except UnderstudyError as error:
        err().print(f"No questions for a restore drill are in this backup: {error}", markup=False)
        return None
    finally:
        copy.close()


def file_in(settings: Settings, folder: Path) -> Settings:
    """The settings of the same installation with its data, and its journal, as files in `folder`."""
    journal = settings.journal.model_copy(update={"url": ""})
    return settings.model_copy(update={"data": folder, "journal": journal})


def asked_elsewhere(twin: Remote) -> Recaller:
    from memory.elsewhere import RecallElsewhere

    return RecallElsewhere(lambda: twin)


def drill(settings: Settings, copy: Journal, recaller: Recaller) -> dict[str, Any]:
    """Ask some of what the copy knows; an answer with a note that came after the copy is left out."""
    limit, budget = settings.recall.limit, settings.recall.budget_tokens
    exchanges, passages = ids(copy, "exchanges"), ids(copy, "passages")
    chosen = questions(copy, [*some(exchanges), *some(passages)])
    found = ask(chosen, recaller, limit=limit, budget_tokens=budget)
    known = {*exchanges, *passages}
    kept = {asked: notes for asked, notes in found.items() if all(note in known for note, _ in notes)}
    return {"embedder": settings.models.embedder, "limit": limit, "budget_tokens": budget, "found": kept}


def ids(journal: Journal, table: str) -> list[str]:
    with journal.looking() as reader:
        return [row["id"] for row in reader.run(f"SELECT id FROM {table} ORDER BY id")]


def questions(journal: Journal, wanted: Sequence[str]) -> dict[str, str]:
    """What is asked about exchanges and passages, by their ids."""
    found: dict[str, str] = {each.id: dense_text(each)[:MOST] for each in journal.exchanges(wanted)}
    return found | {each.id: dense_text(each)[:MOST] for each in journal.passages(wanted)}


def some(known: Sequence[str]) -> Sequence[str]:
    """A handful from all over memory: ids are hashes, so their order says nothing."""
    return known[:: max(1, len(known) // PROBES)][:PROBES]


def ask(chosen: Mapping[str, str], recaller: Recaller, *, limit: int, budget_tokens: int) -> dict[str, Any]:
    """The notes to each question, by id, with their scores."""
    return {
        asked: [[note.id, note.score] for note in recaller.recall(text, limit=limit, budget_tokens=budget_tokens).notes]
        for asked, text in chosen.items()
    }


def asked_again(settings: Settings, journal: Journal, folder: Path, said: Mapping[str, Any]) -> list[str]:
    """What a restored journal answers otherwise than `said`, in words; its index is made anew in `folder`.

    Closes the journal.
    """
    embedded = settings.model_copy(update={"index": settings.index.model_copy(update={"url": ""})})
    with memory_of(embedded, journal, folder) as memory:
        return wrong_answers(memory.journal, memory.recall, said)


def wrong_answers(journal: Journal, recaller: Recaller, said: Mapping[str, Any]) -> list[str]:
    """What is answered otherwise than `said`, in words."""
    known = Drill(**said)
    chosen = questions(journal, list(known.found))
    found = ask(chosen, recaller, limit=known.limit, budget_tokens=known.budget_tokens)
    missing = [f"{asked} is missing" for asked in known.found if asked not in chosen]
    return missing + [each for asked, notes in found.items() for each in differences(asked, known.found[asked], notes)]


def differences(asked: str, then: Sequence[Any], now: Sequence[Any]) -> list[str]:
    """In words what is found now to a question and was not, the other way round, or with another score or rank."""
    before, after = dict(then), dict(now)
    lines = [f"to {asked}, {note} is not found any more" for note in before if note not in after]
    lines += [f"to {asked}, {note} is found instead" for note in after if note not in before]
    lines += [
        f"to {asked}, {note} scores {after[note]:g} and not {score:g}"
        for note, score in before.items()
        if note in after and abs(after[note] - score) > SAME
    ]
    return lines or ([f"to {asked}, notes come in another order"] if list(before) != list(after) else [])
