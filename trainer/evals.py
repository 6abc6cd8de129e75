"""Measures an adapter on held-out exchanges, beside base + memory and the voice that speaks now.

All systems get the same prompts, with the notes that memory finds when the held-out exchange is not in it, and run on
the served weights through the serving engine: what is measured is what members would hear.
"""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.errors import UserMistake
from infra.files import read_json, write_atomic, write_json
from infra.voice.chat import Finish, Sampling, Turn
from infra.voice.client import LocalVoice
from infra.voice.engine import Engine
from infra.voice.score import Scorer
from infra.voice.weights import Weights
from memory.encode import Encoder
from memory.persona import PersonaCard
from memory.prompt import render
from trainer import metrics
from trainer.ability import PROBE
from trainer.card import MEASURES, EvalCard, Interval, Item, System, from_json, to_json
from trainer.dataset import Dataset, HeldOut
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
    on_progress: Tell = lambda done, total, text: None,
) -> EvalCard:
    """Measure `adapter` on the dataset's held-out exchanges; writes evalcard.json and evalcard.html into `folder`.

    Raises ServiceTrouble when an adapter cannot be loaded on `weights`.
    """
    began = time.perf_counter()
    heldout = built.heldout()
    prompts = [prompt(persona, each) for each in heldout]
    adapters = {"base": None, "candidate": adapter, **({"current": current} if current else {})}
    steps = 1 + 2 * len(adapters)
    learned = built.rows("train")
    answers: dict[str, list[Spoken]] = {}
    abilities: dict[str, float] = {}
    engine = Engine(
        weights.path,
        base="base",
        base_sha256=weights.sha256,
        streams=STREAMS,
        waiting=4096,
        context_tokens=CONTEXT_TOKENS,
        threads=threads,
    )
    try:
        on_progress(0, steps, "learning the style")
        sampled = [row.prompt for row in learned[:: max(1, len(learned) // OTHERS)]]
        others = speak(engine, sampled, ANSWERING)
        style = learn([row.answer for row in learned], [each.text for each in others], seed=seed)
        for name, path in adapters.items():
            on_progress(1 + len(answers), steps, f"asking {name}")
            engine.promote(name if path else None, path)
            answers[name] = speak(engine, prompts, ANSWERING)
            abilities[name] = ability(engine)
    finally:
        engine.close()
    likelihoods: dict[str, list[float]] = {}
    for name, path in adapters.items():
        on_progress(1 + len(adapters) + len(likelihoods), steps, f"scoring {name}")
        with Scorer(weights.path, path, threads=threads) as scorer:
            scored = [scorer.answer(turns, each.exchange.answer) for turns, each in zip(prompts, heldout, strict=True)]
        likelihoods[name] = [each.nll / each.tokens for each in scored]
    judge = Judge(heldout, style, encoder, [row.answer for row in learned])
    systems = {name: System(name, judge.items(answers[name], likelihoods[name]), abilities[name]) for name in adapters}
    card = EvalCard(
        questions=[each.exchange.question for each in heldout],
        references=[each.exchange.answer for each in heldout],
        candidate=systems["candidate"],
        base=systems["base"],
        current=systems.get("current"),
        against={
            name: differences(systems["candidate"], systems[name], seed) for name in adapters if name != "candidate"
        },
        style_auc=style.auc,
        seed=seed,
        wall_s=round(time.perf_counter() - began, 1),
        dataset=built.id,
        facts={"train": built.manifest["train"], "base_sha256": weights.sha256},
        sources=[[each.exchange.id, *(note.id for note in each.notes)] for each in heldout],
    )
    save_card(card, folder)
    return card


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
    return render(persona, notes=held.notes, history=(), question=held.exchange.question, budget_tokens=NOTES_TOKENS)


def speak(engine: Engine, prompts: Sequence[Sequence[Turn]], sampling: Sampling) -> list[Spoken]:
    """The current voice's answers to all prompts, batched."""
    voice = LocalVoice(engine)

    async def one(turns: Sequence[Turn]) -> Spoken:
        said, finish = "", None
        async for piece in voice.stream(turns, sampling):
            said += piece.text
            finish = piece.finish or finish
        assert isinstance(finish, Finish)
        return Spoken(said.strip(), finish.reason == "stop")

    async def all_of_them() -> list[Spoken]:
        return list(await asyncio.gather(*(one(turns) for turns in prompts)))

    return asyncio.run(all_of_them())


def ability(engine: Engine) -> float:
    """The share of the ability probe that the current voice gets right."""
    said = speak(engine, [[Turn("user", question.text)] for question in PROBE], PROBING)
    return sum(question.right(each.text) for question, each in zip(PROBE, said, strict=True)) / len(PROBE)


@dataclass(frozen=True)
class Judge:
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
    return from_json(read_json(folder / "evalcard.json"))
