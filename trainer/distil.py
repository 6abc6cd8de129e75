"""Distillation: a teacher answers new questions in the creator's manner, shown exchanges that never give the answer.

Read `distil` and you know it: a job is decided and frozen, its cost estimated, the teacher asked, what it said sifted.
A job is a folder under `data/distil`: `tasks.jsonl` and `job.json` say what is asked, `answers.jsonl` grows as answers
come (`ledger.py`), `rows.jsonl` is what the filters left, and `manifest.json` comes last. So a job that was killed, or
whose budget was spent, goes on where it was.

The rows are imitations. They are marked so, and no part of memory reads this folder; `imitations.py` gives them to a
training, if the settings ask for it.
"""

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from infra.errors import ServiceTrouble, UnderstudyError, UserMistake
from infra.files import finish_folder, read_json, write_atomic, write_json
from infra.voice.chat import Sampling, Turn, Voice
from memory.messages import Exchange
from memory.prompt import as_data, estimate_tokens, prompt_sha256
from memory.wording import asks
from trainer import sift
from trainer.dataset import ANSWER_SHARE, as_lines, folded
from trainer.exemplars import SHOWN, Exemplars
from trainer.imitations import ROWS, holding, row_of
from trainer.ledger import ANSWERS, Ledger, request_key
from trainer.questions import Question, cleaned, language_of
from trainer.teacher import Budget, BudgetSpent, Said, Teacher, estimate_read, most_read

TASKS, JOB = "tasks.jsonl", "job.json"
# Real questions that the teacher answers as itself, briefly: what the measure of style tells the creator from.
BARE, BARE_TOKENS = 40, 80
# A new question is as short as a real one; a little warmth, or all paraphrases of one would be the same.
PARAPHRASE_TOKENS, PARAPHRASE_TEMPERATURE, TEMPERATURE = 96, 0.9, 0.7
# So many questions in a row without an answer, and the teacher is taken for gone.
MOST_FAILED = 20
# Real exchanges that the bars are taken from: more move no quantile that matters.
MEASURED = 300
# What a request takes where nothing limits the pace: a guess, said to be one.
GUESSED_S = 3.0

# Imitations that are sifted at a time.
SLICE = 256

Tell = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Task:
    """One question for the teacher. `bare` ones are answered without examples and become no row."""

    number: int
    text: str
    origin: Mapping[str, Any]
    shown: tuple[str, ...] = ()
    paraphrase: bool = False
    variation: int = 0
    bare: bool = False


@dataclass(frozen=True)
class Request:
    """What is sent, and the name that it is known by."""

    turns: tuple[Turn, ...]
    sampling: Sampling
    key: str


@dataclass(frozen=True)
class Estimate:
    """What a job will take. `most_money` is what it cannot exceed; `known` requests were answered before."""

    rows: int
    requests: int
    known: int
    prompt_tokens: int
    completion_tokens: int
    money: float
    most_money: float
    minutes: float


@dataclass(frozen=True)
class Job:
    """A frozen job, and the exchanges that may be shown, by id, as they are now."""

    folder: Path
    facts: Mapping[str, Any]
    eligible: Mapping[str, Exchange]

    @property
    def teacher(self) -> str:
        return str(self.facts["teacher"])

    def tasks(self) -> Iterator[Task]:
        with (self.folder / TASKS).open(encoding="utf-8") as lines:
            for line in lines:
                found = json.loads(line)
                yield Task(**{**found, "shown": tuple(found["shown"])})

    def fits(self, task: Task) -> bool:
        """Whether everything that a task stands on is still there and may still train."""
        made_of = [task.origin[name] for name in ("exchange", "beside") if name in task.origin]
        return all(identity in self.eligible for identity in (*task.shown, *made_of))

    def first(self, task: Task) -> Request | None:
        """The request for a paraphrase, where the task is one."""
        if not task.paraphrase:
            return None
        sampling = Sampling(PARAPHRASE_TEMPERATURE, 0.95, PARAPHRASE_TOKENS, seed=task.variation)
        return self._request(paraphrasing(task.text), sampling)

    def second(self, task: Task, question: str) -> Request:
        """The request for the answer to `question`."""
        most = BARE_TOKENS if task.bare else self.facts["max_tokens"]
        sampling = Sampling(TEMPERATURE, 0.9, most, seed=task.variation)
        shown = [self.eligible[identity] for identity in task.shown]
        turns = [Turn("user", as_data(question))] if task.bare else imitating(self.facts["creator"], shown, question)
        return self._request(turns, sampling)

    def _request(self, turns: Sequence[Turn], sampling: Sampling) -> Request:
        return Request(tuple(turns), sampling, request_key(self.teacher, turns, sampling))


def distil(
    job: Job,
    voice: Voice,
    *,
    budget: Budget,
    per_minute: float,
    concurrency: int,
    others: Sequence[Path] = (),
    conversation: str = "",
    on_progress: Tell = lambda done, total, text: None,
    **patience: float,
) -> dict[str, Any]:
    """Ask everything that was not asked yet, sift what was said, and write rows and manifest; returns the manifest.

    `others` are the answers of other jobs, `patience` is the teacher's. Raises ServiceTrouble when the teacher fails
    for good: what it said until then is kept, and calling this again goes on. A spent budget is no error.
    """
    began = time.monotonic()
    with held(job.folder), Ledger(job.folder / ANSWERS, others) as ledger:
        budget.read, budget.written = ledger.spent()
        teacher = Teacher(
            voice, per_minute=per_minute, budget=budget, conversation=conversation, on_lost=ledger.lose, **patience
        )
        asking = Asking(job, teacher, ledger, on_progress)
        asyncio.run(asking.all(concurrency))
        kept, excluded, bars = sifted(job, ledger)
        earlier = read_json(job.folder / JOB)["seconds"]
        seconds = earlier + time.monotonic() - began
        write_json(job.folder / JOB, {**job.facts, "seconds": round(seconds, 1)})
        manifest = {
            "kind": "imitations",
            **{name: job.facts[name] for name in ("teacher", "rows", "created", "forgotten", "estimate")},
            "kept": kept,
            "excluded": dict(sorted(excluded.items())),
            "bars": asdict(bars),
            "stopped": asking.stopped,
            "prompt_tokens": budget.read,
            "completion_tokens": budget.written,
            "money": round(budget.spent, 4),
            "minutes": round(seconds / 60, 2),
        }
        finish_folder(job.folder, manifest)
    return manifest


def prepare(
    folder: Path,
    questions: Sequence[Question],
    pool: Sequence[Exchange],
    *,
    creator: str,
    teacher: str,
    max_length: int,
    forgotten: int,
    created: datetime,
    excluded: Mapping[str, int],
) -> Job:
    """Decide what is asked and freeze it. `pool` may be shown; `excluded` are counts of questions left out.

    Raises UserMistake where nothing can be asked.
    """
    exemplars = Exemplars.of(pool)
    chosen = exemplars.near([each.text for each in questions], [each.made_of for each in questions])
    left_out = Counter(excluded)
    tasks = [Task(n, each.question, {"kind": "bare", "exchange": each.id}, bare=True) for n, each in bare_of(pool)]
    for question, shown in zip(questions, chosen, strict=True):
        if len(shown) < SHOWN:
            left_out["question: too few exchanges to show that do not give the answer"] += 1
            continue
        paraphrase = question.made_of is not None
        tasks.append(Task(len(tasks), question.text, question.origin, shown, paraphrase, question.variation))
    rows = sum(not task.bare for task in tasks)
    if not rows:
        raise UserMistake("No question can be made: import or teach more, or let members consent to training.")
    lengths = [estimate_tokens(each.answer) for each in pool]
    # What is longer than the creator ever writes is cut, and goes; a tokenizer may need twice the estimate for Chinese.
    longest = min(ANSWER_SHARE * max_length, float(np.quantile(lengths, sift.LONG)))
    chinese = sum(language_of(each.answer) == "zh" for each in pool) > len(pool) // 20
    write_atomic(folder / TASKS, as_lines(asdict(task) for task in tasks))
    facts = {
        "creator": creator,
        "teacher": teacher,
        "rows": rows,
        "max_tokens": 16 + round((2.0 if chinese else 1.2) * longest),
        "mean_tokens": round(float(np.mean(lengths)), 1),
        "most_tokens": int(ANSWER_SHARE * max_length),
        "forgotten": forgotten,
        "created": created.isoformat(),
        "excluded": dict(left_out),
        "seconds": 0.0,
        "estimate": {},
    }
    write_json(folder / JOB, facts)
    return Job(folder, facts, {each.id: each for each in pool})


def bare_of(pool: Sequence[Exchange]) -> Iterable[tuple[int, Exchange]]:
    """Real questions from all over the pool, numbered."""
    return enumerate(pool[:: max(1, len(pool) // BARE)][:BARE])


def load(folder: Path, eligible: Mapping[str, Exchange]) -> Job:
    """A job that was prepared. Raises UserMistake where there is none."""
    if not (folder / JOB).is_file():
        raise UserMistake(f"There is no distillation {folder.name!r}, or it was never begun.")
    return Job(folder, read_json(folder / JOB), eligible)


def estimated(
    job: Job, budget: Budget, *, per_minute: float, concurrency: int, others: Sequence[Path] = ()
) -> Estimate:
    """What the rest of a job will take. Raises UserMistake when another process is at it."""
    requests = known = read = written = rows = 0
    most = 0.0
    with held(job.folder), Ledger(job.folder / ANSWERS, others) as ledger:
        for task in job.tasks():
            rows += not task.bare
            if not job.fits(task):
                continue
            for request in foreseen(job, task, ledger):
                if ledger.find(request.key):
                    known += 1
                    continue
                requests += 1
                read += estimate_read(request.turns)
                written += min(request.sampling.max_tokens, round(1.3 * job.facts["mean_tokens"]) + 1)
                most += budget.cost(most_read(request.turns), request.sampling.max_tokens)
    seconds = requests * max(60 / per_minute if per_minute else 0, GUESSED_S / concurrency)
    return Estimate(
        rows,
        requests,
        known,
        read,
        written,
        money=round(budget.cost(read, written), 4),
        most_money=round(most, 4),
        minutes=round(seconds / 60, 1),
    )


def foreseen(job: Job, task: Task, ledger: Ledger) -> Iterator[Request]:
    """What a task will ask: of a paraphrase that nobody has written yet, as if it were the original."""
    question, first = task.text, job.first(task)
    if first is not None:
        yield first
        said = ledger.find(first.key)
        question = paraphrased(said.text, task.text) if said else task.text
    if question:
        yield job.second(task, question)


def promised(job: Job, estimate: Estimate) -> Job:
    """The job with the estimate that it was begun with, to be compared with what it took."""
    facts = {**job.facts, "estimate": asdict(estimate)}
    write_json(job.folder / JOB, facts)
    return replace(job, facts=facts)


def imitating(creator: str, shown: Sequence[Exchange], question: str) -> list[Turn]:
    """The prompt for an imitation: the exchanges as turns of a chat, the nearest last, and the new question."""
    told = (
        f"You write as {creator}. The answers in this conversation are {creator}'s own words. Answer the last question "
        f"as {creator} would: in the same manner and language, about as long, saying only what these answers support. "
        "Copy no sentence, and never say who or what you are."
    )
    talk = [
        turn
        for each in reversed(shown)
        for turn in (Turn("user", as_data(each.question)), Turn("assistant", as_data(each.answer)))
    ]
    return [Turn("system", told), *talk, Turn("user", as_data(question))]


def paraphrasing(question: str) -> list[Turn]:
    """The prompt for a paraphrase."""
    told = (
        "Ask the question below again in other words and in the same language, as another person would. "
        "Write the new question and nothing else."
    )
    return [Turn("system", told), Turn("user", as_data(question))]


def paraphrased(said: str, original: str) -> str:
    """The question in what a teacher wrote; empty when there is none, or none but the original."""
    lines = [line.strip().strip('"“”') for line in said.splitlines() if line.strip()]
    question = cleaned(lines[0].removeprefix("Question:").strip()) if len(lines) == 1 else ""
    return question if question and asks(question) and folded(question) != folded(original) else ""


@dataclass
class Asking:
    """The asking of one job. `stopped` says why it ended before its end: the budget, or the teacher's own trouble."""

    job: Job
    teacher: Teacher
    ledger: Ledger
    on_progress: Tell
    stopped: str = ""
    trouble: UnderstudyError | None = None
    done: int = 0
    failed_in_a_row: int = 0
    total: int = field(init=False)
    # Two paraphrases may come out the same: whoever asks second waits for the first's answer.
    asked: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    def __post_init__(self) -> None:
        self.total = sum(1 for _ in self.job.tasks())

    async def all(self, concurrency: int) -> None:
        """Ask all tasks, so many at once. Raises the teacher's trouble."""
        tasks = self.job.tasks()
        async with self.teacher.kept_open(concurrency), asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, self.total)):
                group.create_task(self.work(tasks))
        if self.trouble is not None:
            raise self.trouble

    async def work(self, tasks: Iterator[Task]) -> None:
        """Ask one task after the other until there are none or somebody has to stop."""
        for task in tasks:
            if self.stopped:
                return
            try:
                if self.job.fits(task):
                    await self.one(task)
                self.failed_in_a_row = 0
            except BudgetSpent as spent:
                self.stopped = str(spent)
            except UserMistake as refusal:
                # The server takes this question for none; the next may be one.
                await self.failed(task, refusal, lasting=self.failed_in_a_row + 1 >= MOST_FAILED)
            except ServiceTrouble as trouble:
                await self.failed(task, trouble, lasting=trouble.permanent or self.failed_in_a_row + 1 >= MOST_FAILED)
            self.done += 1
            self.on_progress(self.done, self.total, f"{self.ledger.bought} answers bought")

    async def failed(self, task: Task, error: UnderstudyError, *, lasting: bool) -> None:
        """Write a failure down; one that lasts stops everybody."""
        self.failed_in_a_row += 1
        await self.ledger.fail(task.number, str(error))
        if lasting and self.trouble is None:
            self.stopped, self.trouble = str(error), error

    async def one(self, task: Task) -> None:
        """Everything that a task asks for, one request after the other."""
        question = task.text
        first = self.job.first(task)
        if first is not None:
            question = paraphrased((await self.said(task, "question", first)).text, task.text)
        if question:
            await self.said(task, "answer", self.job.second(task, question))

    async def said(self, task: Task, role: str, request: Request) -> Said:
        """The answer to a request, bought only if nobody has it."""
        async with self.asked.setdefault(request.key, asyncio.Lock()):
            known = self.ledger.find(request.key)
            said = known or await self.teacher.ask(request.turns, request.sampling)
            await self.ledger.keep(request.key, said, task=task.number, role=role, bought=known is None)
        return said


def sifted(job: Job, ledger: Ledger) -> tuple[int, Counter[str], sift.Bars]:
    """Write what the filters leave into `rows.jsonl`; how many rows that is, what went and why, and the bars."""
    bars, style = bars_for(job, ledger)
    excluded, kept = Counter(job.facts["excluded"]), 0
    answers, questions = sift.Repeats(), sift.Repeats()
    part = job.folder / f".{ROWS}.part"
    with part.open("w", encoding="utf-8") as file:
        asked = (task for task in job.tasks() if not task.bare)
        while tasks := list(islice(asked, SLICE)):
            pairs = [(task, found) for task in tasks if (found := imitated(job, ledger, task, excluded))]
            scores = style.score([each.answer for _, each in pairs]) if style and pairs else [1.0] * len(pairs)
            for (task, imitation), score in zip(pairs, scores, strict=True):
                reason = sift.reason_against(imitation, bars) or sift.unlike(score, bars)
                # Only paraphrases come out alike: what the graph asks is alike and means something else.
                if not reason and task.paraphrase and not questions.take(imitation.question):
                    reason = "question: nearly the same as another's"
                if not reason and not answers.take(imitation.answer):
                    reason = "answer: nearly the same as another's"
                if reason:
                    excluded[reason] += 1
                    continue
                kept += 1
                file.write(as_lines([line_of(job, task, imitation)]))
        file.flush()
        os.fsync(file.fileno())
    part.replace(job.folder / ROWS)
    return kept, excluded, bars


def imitated(job: Job, ledger: Ledger, task: Task, excluded: Counter[str]) -> sift.Imitation | None:
    """What came of a task; None when nothing did, which is counted."""
    question, first = task.text, job.first(task) if job.fits(task) else None
    if not job.fits(task):
        excluded["what it stands on may not train any more"] += 1
        return None
    if first is not None:
        said = ledger.find(first.key)
        question = paraphrased(said.text, task.text) if said else ""
        if said and not question:
            excluded["question: no paraphrase"] += 1
            return None
    found = ledger.find(job.second(task, question).key) if question else None
    if found is None:
        excluded["not answered"] += 1
        return None
    return sift.Imitation(question, found.text, found.finished, [job.eligible[each] for each in task.shown])


def line_of(job: Job, task: Task, imitation: sift.Imitation) -> dict[str, Any]:
    """A row, marked as what it is."""
    prompt = prompt_sha256(job.second(task, imitation.question).turns)
    return row_of(
        imitation.question,
        imitation.answer,
        teacher=job.teacher,
        prompt_sha256=prompt,
        shown=task.shown,
        origin=task.origin,
        run=job.folder.name,
    )


def bars_for(job: Job, ledger: Ledger) -> tuple[sift.Bars, Any]:
    """The bars, from the exchanges that may be shown and what the teacher says as itself."""
    pool = list(job.eligible.values())
    some = pool[:: max(1, len(pool) // MEASURED)]
    near = Exemplars.of(pool).near([each.question for each in some], list(some))
    real = [(each, [job.eligible[one] for one in shown]) for each, shown in zip(some, near, strict=True)]
    bare = [task for task in job.tasks() if task.bare]
    said = [found.text for task in bare if (found := ledger.find(job.second(task, task.text).key))]
    return sift.bars_of(real, said, most_tokens=job.facts["most_tokens"], seed=1)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a job, so that no other process asks the same. Raises UserMistake when another one holds it."""
    with holding(folder) as ours:
        if not ours:
            raise UserMistake(f"Distillation {folder.name!r} is under way in another process.")
        yield
