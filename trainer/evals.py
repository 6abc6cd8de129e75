"""Measures an adapter on held-out exchanges, beside base + memory and the voice that speaks now.

All systems get the same prompts, with the notes that memory finds when the held-out exchange is not in it, and run on
the served weights through the serving engine: what is measured is what members would hear.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.errors import UserMistake
from infra.files import read_object, told_as, write_atomic, write_json
from infra.voice.chat import Finish, Sampling, Turn
from infra.voice.client import LocalVoice
from infra.voice.engine import Engine
from infra.voice.score import Recited, Scorer
from infra.voice.thinking import visible
from infra.voice.weights import Weights
from memory.encode import Encoder
from memory.persona import PersonaCard
from memory.prompt import render
from trainer import judge, memorisation, metrics
from trainer.ability import Question, compared, counts, probe, sheet
from trainer.card import MEASURES, EvalCard, Interval, Item, Judged, System, from_json, to_json
from trainer.dataset import Dataset, HeldOut, Row, is_synthetic
from trainer.style import Style, learn

STREAMS = 8
CONTEXT_TOKENS = 1024
NOTES_TOKENS = 160
# Greedy, so that the card can be made again; the creator's answers are a few dozen tokens long.
ANSWERING = Sampling(temperature=0, max_tokens=112)
PROBING = Sampling(temperature=0, max_tokens=24)
# Base answers that the style measure learns the difference from: fewer are noise, more cost a minute.
OTHERS = 40

Tell = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Spoken:
    """An answer and whether it ended by itself."""

    text: str
    finished: bool


def evaluate(
    built: Dataset,
    *,
    weights: Weights,
    adapter: Path,
    current: Path | None,
    persona: PersonaCard,
    encoder: Encoder,
    folder: Path,
    seed: int,
    threads: int = 2,
    bench: judge.Bench | None = None,
    on_progress: Tell = lambda done, total, text: None,
) -> EvalCard:
    """Measure `adapter` on the dataset's held-out exchanges; writes evalcard.json and evalcard.html into `folder`.

    `bench` is a judge that is asked too. Raises ServiceTrouble when an adapter cannot be loaded on `weights`.
    """
    began = time.perf_counter()
    subject = Subject.of(built, weights=weights, adapter=adapter, current=current, persona=persona, threads=threads)
    steps = Steps(1 + 2 * len(subject.voices), on_progress)
    heard = hear(subject, bench=bench, seed=seed, steps=steps)
    probed = memorisation.probed(subject.learned, seed=seed)
    scored = {name: score(subject, name, probed, steps) for name in subject.voices}
    ruler = Ruler(subject.heldout, heard.style, encoder, [row.answer for row in subject.learned])
    systems = {
        name: System(name, ruler.items(heard.answers[name], scored[name].nll), heard.ability(name))
        for name in subject.voices
    }
    references = [each.exchange.answer for each in subject.heldout]
    card = EvalCard(
        questions=[each.exchange.question for each in subject.heldout],
        references=references,
        candidate=systems["candidate"],
        base=systems["base"],
        current=systems.get("current"),
        against={
            name: differences(systems["candidate"], each, seed) for name, each in systems.items() if name != "candidate"
        },
        style_auc=heard.style.auc,
        seed=seed,
        wall_s=round(time.perf_counter() - began, 1),
        dataset=built.id,
        facts={"train": built.manifest["train"], "base_sha256": weights.sha256},
        memorisation=memorisation.given_back(
            probed, subject.learned, base=scored["base"].recited, candidate=scored["candidate"].recited
        ),
        sources=[[each.exchange.id, *(note.id for note in each.notes)] for each in subject.heldout],
        style_check=heard.style.check(references, [each.text for each in heard.answers["base"]]),
        judged=heard.judged,
        sheet=compared(heard.sheets["base"], heard.sheets["candidate"], creator=persona.name),
    )
    save_card(card, folder)
    return card


@dataclass(frozen=True)
class Subject:
    """What is measured: the voices by name, the held-out exchanges, and the creator's rows that were learned."""

    weights: Weights
    voices: Mapping[str, Path | None]
    persona: PersonaCard
    heldout: list[HeldOut]
    learned: list[Row]
    threads: int

    @classmethod
    def of(
        cls,
        built: Dataset,
        *,
        weights: Weights,
        adapter: Path,
        current: Path | None,
        persona: PersonaCard,
        threads: int,
    ) -> "Subject":
        voices = {"base": None, "candidate": adapter, **({"current": current} if current else {})}
        return cls(weights, voices, persona, built.heldout(), own_rows(built), threads)

    def prompts(self) -> list[list[Turn]]:
        """What each held-out question becomes."""
        return [prompt(self.persona, each) for each in self.heldout]


def own_rows(built: Dataset) -> list[Row]:
    """The creator's own rows, which their style is learned from.

    What says who speaks is nobody's style, and a teacher's imitations must not say what the creator's manner is.
    """
    rows = [row for row in built.rows("train") if not is_synthetic(row.provenance)]
    return [row for row in rows if row.provenance["source"] != "identity"]


def drawn(rows: Sequence[Row]) -> list[Sequence[Turn]]:
    """The prompts that the base answers too, for the style to be told from, evenly spread."""
    return [row.prompt for row in rows[:: max(1, len(rows) // OTHERS)]]


class Steps:
    """Tells what an evaluation does, step by step."""

    def __init__(self, total: int, tell: Tell) -> None:
        self.total, self._tell, self._done = total, tell, 0

    def next(self, text: str) -> None:
        """Tell that the next step begins."""
        self._tell(min(self._done, self.total - 1), self.total, text)
        self._done += 1


@dataclass(frozen=True)
class Heard:
    """What every voice said."""

    style: Style
    answers: dict[str, list[Spoken]]
    sheets: dict[str, list[str]]
    judged: Judged | None

    def ability(self, name: str) -> float:
        """A voice's share of the ability probe."""
        return ability(asked_of(name), self.sheets[name])


def asked_of(name: str) -> tuple[Question, ...]:
    """The questions for a voice: all for those that the sheet compares, the probe's for the current one."""
    return probe() if name == "current" else sheet()


def hear(subject: Subject, *, bench: judge.Bench | None, seed: int, steps: Steps) -> Heard:
    """Ask every voice the held-out questions and the sheet, one voice after the other on one engine."""
    learned, answers, sheets = subject.learned, {}, {}
    engine = Engine(
        subject.weights.path,
        base="base",
        base_sha256=subject.weights.sha256,
        streams=STREAMS,
        waiting=4096,
        context_tokens=CONTEXT_TOKENS,
        threads=subject.threads,
    )
    try:
        steps.next("learning the style")
        others = speak(engine, drawn(learned), ANSWERING)
        style = learn([row.answer for row in learned], [each.text for each in others], seed=seed)
        for name, path in subject.voices.items():
            steps.next(f"asking {name}")
            engine.promote(name if path else None, path)
            answers[name] = speak(engine, subject.prompts(), ANSWERING)
            sheets[name] = answers_on(engine, asked_of(name), subject.persona)
        judged = (
            before_the_judge(bench, engine, subject.heldout, answers, learned=learned, seed=seed) if bench else None
        )
    finally:
        engine.close()
    return Heard(style, answers, sheets, judged)


@dataclass(frozen=True)
class Scored:
    """How likely a voice finds the creator's own answers, in nats per token, and what it recites of its rows."""

    nll: list[float]
    recited: list[Recited]


def score(subject: Subject, name: str, probed: Sequence[Row], steps: Steps) -> Scored:
    """Score a voice; what it recites is asked of the base and of the candidate only."""
    steps.next(f"scoring {name}")
    with Scorer(subject.weights.path, subject.voices[name], threads=subject.threads) as scorer:
        scored = [
            scorer.answer(turns, each.exchange.answer)
            for turns, each in zip(subject.prompts(), subject.heldout, strict=True)
        ]
        recited = [scorer.recited(memorisation.bare(row), row.answer) for row in (probed if name != "current" else ())]
    return Scored([each.per_token for each in scored], recited)


def answers_to(questions: Path, *, weights: Weights, adapter: Path, persona: PersonaCard) -> list[dict[str, str]]:
    """The base's and an adapter's answers to a jsonl file of questions, without notes.

    Raises UserMistake for a file that holds no questions.
    """
    asked = [str(row["question"]) for row in question_rows(questions)]
    prompts = [render(persona, notes=(), history=(), question=each, budget_tokens=0) for each in asked]
    engine = Engine(
        weights.path, base="base", base_sha256=weights.sha256, waiting=len(prompts), context_tokens=CONTEXT_TOKENS
    )
    try:
        before = speak(engine, prompts, ANSWERING)
        engine.promote("adapter", adapter)
        after = speak(engine, prompts, ANSWERING)
    finally:
        engine.close()
    return [
        {"question": question, "base": one.text, "adapter": other.text}
        for question, one, other in zip(asked, before, after, strict=True)
    ]


def question_rows(path: Path) -> list[dict[str, object]]:
    """The rows of a jsonl file that have a question."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise UserMistake(f"{str(path)!r} cannot be read as jsonl: {error}.") from error
    found = [row for row in rows if isinstance(row, dict) and row.get("question")]
    if not found:
        raise UserMistake(f"{str(path)!r} holds no rows with a question.")
    return found


def prompt(persona: PersonaCard, held: HeldOut) -> list[Turn]:
    """What a member's question becomes, exactly as answering renders it."""
    return render(
        persona, notes=held.notes, history=held.history, question=held.exchange.question, budget_tokens=NOTES_TOKENS
    )


def speak(engine: Engine, prompts: Sequence[Sequence[Turn]], sampling: Sampling) -> list[Spoken]:
    """The current voice's answers to all prompts, batched."""
    voice = LocalVoice(engine)

    async def one(turns: Sequence[Turn]) -> Spoken:
        said, finish = "", None
        async for piece in voice.stream(turns, sampling):
            said += piece.text
            finish = piece.finish or finish
        assert isinstance(finish, Finish)
        # As members would hear it.
        return Spoken(visible(said), finish.reason == "stop")

    async def all_of_them() -> list[Spoken]:
        return list(await asyncio.gather(*(one(turns) for turns in prompts)))

    return asyncio.run(all_of_them())


def answers_on(engine: Engine, questions: Sequence[Question], persona: PersonaCard) -> list[str]:
    """The current voice's answers to questions of the sheet: the persona's as members ask them, all others bare."""

    def turns(each: Question) -> list[Turn]:
        if each.group != "identity":
            return [Turn("user", each.question)]
        return render(persona, notes=(), history=(), question=each.question, budget_tokens=0)

    return [each.text for each in speak(engine, [turns(each) for each in questions], PROBING)]


def ability(questions: Sequence[Question], said: Sequence[str]) -> float:
    """The share of the ability probe that was answered right."""
    right = [each.right(answer) for each, answer in zip(questions, said, strict=True) if each.probe]
    return sum(right) / len(right)


def ability_of(engine: Engine, persona: PersonaCard) -> float:
    """The current voice's share of the ability probe."""
    return ability(probe(), answers_on(engine, probe(), persona))


def sheet_of(weights: Weights, adapter: Path, *, persona: PersonaCard) -> dict[str, Any]:
    """The whole sheet, asked of the bare base and of an adapter on it."""
    engine = Engine(weights.path, base="base", base_sha256=weights.sha256, streams=STREAMS, waiting=len(sheet()))
    try:
        before = answers_on(engine, sheet(), persona)
        engine.promote("adapter", adapter)
        after = answers_on(engine, sheet(), persona)
    finally:
        engine.close()
    answers = compared(before, after, creator=persona.name)
    return {"counts": counts(answers), "answers": answers}


def before_the_judge(
    bench: judge.Bench,
    engine: Engine,
    heldout: Sequence[HeldOut],
    answers: Mapping[str, Sequence[Spoken]],
    *,
    learned: Sequence[Row],
    seed: int,
) -> Judged:
    """What the judge makes of the creator's answers, the candidate's and the base's."""
    if bench.ask is None:
        engine.promote(None, None)
    contestants = {
        judge.CREATOR: [each.exchange.answer for each in heldout],
        **{name: [each.text for each in answers[name]] for name in (judge.CANDIDATE, judge.BASE)},
    }
    return judge.judged(
        [each.exchange.question for each in heldout],
        contestants,
        [row.answer for row in learned[-judge.SAMPLES :]],
        bench=bench,
        ask=bench.ask or judge.asking(LocalVoice(engine)),
        seed=seed,
    )


@dataclass(frozen=True)
class Ruler:
    """What answers are measured against."""

    heldout: Sequence[HeldOut]
    style: Style
    encoder: Encoder
    learned: Sequence[str]

    def items(self, spoken: Sequence[Spoken], nll: Sequence[float]) -> list[Item]:
        """Every measure of every answer of one system."""
        runs = metrics.learned_runs(self.learned)
        styles = self.style.score([each.text or " " for each in spoken])
        said = self.encoder.dense([each.text or " " for each in spoken])
        wanted = self.encoder.dense([each.exchange.answer for each in self.heldout])
        similarities = (said * wanted).sum(axis=1).clip(0, 1)
        return [
            self.item(spoken[n], held, runs, nll=nll[n], style=styles[n], similarity=float(similarities[n]))
            for n, held in enumerate(self.heldout)
        ]

    def item(
        self,
        spoken: Spoken,
        held: HeldOut,
        runs: set[tuple[str, ...]],
        *,
        nll: float,
        style: float,
        similarity: float,
    ) -> Item:
        answer, reference = spoken.text, held.exchange.answer
        given = "\n".join([held.exchange.question, *(note.text for note in held.notes)])
        found = {
            "nll": nll,
            "rouge_1": metrics.rouge_n(answer, reference, 1),
            "rouge_2": metrics.rouge_n(answer, reference, 2),
            "rouge_l": metrics.rouge_l(answer, reference),
            "similarity": similarity,
            "style": style,
            "groundedness": metrics.groundedness(answer, given),
            "verbatim": metrics.verbatim(answer, runs, given),
            "unhealthy": metrics.unhealthy(answer, finished=spoken.finished),
        }
        return Item(answer, found)


def differences(candidate: System, other: System, seed: int) -> dict[str, Interval]:
    """Candidate minus other, for every measure."""
    return {
        name: metrics.paired_bootstrap(
            [item.measures[name] for item in candidate.items], [item.measures[name] for item in other.items], seed=seed
        )
        for name in MEASURES
    }


def save_card(card: EvalCard, folder: Path) -> None:
    """Write evalcard.json and evalcard.html."""
    from trainer.evalcard import page
    from trainer.gate import decide

    write_json(folder / "evalcard.json", to_json(card))
    write_atomic(folder / "evalcard.html", page(card, decide(card)))


def load_card(folder: Path) -> EvalCard:
    """The card that `save_card` wrote into `folder`."""
    path = folder / "evalcard.json"
    with told_as(path):
        card = from_json(read_object(path))
        card.headline()
    return card
