"""What a preference gains over the voice that it is learned on: `understudy bench preference`.

The bundled community's creator is taken to edit every draft into what they really answered: a voice is tuned on one
part of their answers, drafts answers to the questions of another, and learns from the pairs; a third part judges. So
the edits are larger than a creator's would be, and there are no votes.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from infra.files import finish_folder, write_atomic
from infra.voice.chat import Sampling
from infra.voice.engine import Engine
from infra.voice.score import Scorer
from infra.voice.weights import Weights
from trainer import canaries, dataset, evals, gguf, lora, metrics, prefer, style
from trainer.dataset import Row
from trainer.preference import FILE, Method
from trainer.preference import Row as Choice

# As in conversation: the drafts of a greedy voice are all alike.
DRAFTING = Sampling(temperature=0.7, max_tokens=80)
SAYING = Sampling(temperature=0, max_tokens=80)
JUDGING_PAIRS = 0.2


@dataclass(frozen=True)
class Variant:
    """One way to learn: the method, its learning rate, and the share of the chosen text's likelihood beside DPO's."""

    method: Method
    lr: float
    sft: float

    @property
    def name(self) -> str:
        beside = f" + {self.sft:g} x likelihood" if self.sft and self.method == "dpo" else ""
        return f"{self.method.upper()}{beside}, rate {self.lr:g}"


VARIANTS = (
    Variant("dpo", 5e-6, 0.0),
    Variant("dpo", 5e-5, 0.0),
    Variant("dpo", 5e-5, 1.0),
    Variant("kto", 5e-5, 0.0),
)


@dataclass(frozen=True)
class Parts:
    """Rows to tune on, to draft for, and to judge by."""

    tuned: list[Row]
    drafted: list[Row]
    judging: list[Row]


def parts_of(*, rows: int, pairs: int, heldout: int, seed: int) -> Parts:
    """The bundled community in three, at random."""
    made = canaries.bundled()
    random.Random(seed).shuffle(made)  # noqa: S311 - a split
    made = made[: rows + pairs + heldout]
    return Parts(made[:rows], made[rows : rows + pairs], made[rows + pairs :])


def measure(
    weights: Weights,
    folder: Path,
    *,
    parts: Parts,
    variants: Sequence[Variant] = VARIANTS,
    budget: lora.TrainingBudget,
    seed: int,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Tune a voice, let it draft, learn from what was written instead in each of the ways, and judge all of it."""
    say(f"Tuning a voice on {len(parts.tuned)} rows.")
    voice = lora.train(
        canaries.planted(folder / "rows", parts.tuned, (), seed=seed).folder,
        folder / "voice",
        base_gguf=weights.path,
        budget=budget,
        seed=seed,
    )
    assert voice.peft is not None
    speaking = as_gguf(weights, voice.peft)
    say(f"Drafting {len(parts.drafted)} answers.")
    pairs = paired(folder / "pairs", parts.drafted, spoken(weights, speaking, parts.drafted, DRAFTING))
    others = spoken(weights, None, parts.tuned[: evals.OTHERS], SAYING)
    manner = style.learn([row.answer for row in parts.tuned], [each.text or " " for each in others], seed=seed)
    before = nats(weights, speaking, parts.judging)
    figures = [
        judged("base", weights, None, parts.judging, manner),
        judged("tuned", weights, speaking, parts.judging, manner),
    ]
    for variant in variants:
        say(f"Learning by {variant.name}.")
        report = prefer.train(
            pairs,
            folder / variant.name.replace(" ", ""),
            base_gguf=weights.path,
            warm=voice.peft,
            method=variant.method,
            sft=variant.sft,
            budget=replace(prefer.BUDGET, lr=variant.lr, max_length=budget.max_length),
            seed=seed,
        )
        assert report.peft is not None
        adapter = as_gguf(weights, report.peft)
        gained = metrics.paired_bootstrap(nats(weights, adapter, parts.judging), before, seed=seed)
        figures.append(
            {
                **judged(variant.name, weights, adapter, parts.judging, manner),
                "nll_change": [round(value, 3) for value in (gained.mean, gained.low, gained.high)],
                **{name: report.hyperparameters["held_out"].get(name) for name in ("accuracy", "margin", "chosen")},
                "steps": report.steps,
                "seconds": report.wall_s,
                "mib": report.peak_memory_mib,
            }
        )
        say(json.dumps(figures[-1]))
    return figures


def as_gguf(weights: Weights, peft: Path) -> Path:
    path = peft.parent / "adapter.gguf"
    if not path.exists():
        gguf.write_adapter(peft, weights.path, path, metadata={"twin.base_sha256": weights.sha256})
    return path


def spoken(weights: Weights, adapter: Path | None, rows: Sequence[Row], sampling: Sampling) -> list[evals.Spoken]:
    """What a voice answers to the questions of rows."""
    engine = Engine(weights.path, base="base", base_sha256=weights.sha256, waiting=4096, context_tokens=768)
    try:
        if adapter is not None:
            engine.promote("voice", adapter)
        return evals.speak(engine, [row.prompt for row in rows], sampling)
    finally:
        engine.close()


def paired(folder: Path, rows: Sequence[Row], drafts: Sequence[evals.Spoken]) -> Path:
    """The drafts beside what the creator really answered, as a dataset of opinions."""
    both = [(row, draft.text) for row, draft in zip(rows, drafts, strict=True) if draft.text]
    first = len(both) - round(len(both) * JUDGING_PAIRS)
    choices = [
        Choice(row.prompt, row.answer, draft, "train" if n < first else "judge", "voice", (str(n),))
        for n, (row, draft) in enumerate(both)
    ]
    write_atomic(folder / FILE, dataset.as_lines(asdict(choice) for choice in choices))
    finish_folder(folder, {"kind": "dataset", "id": f"pairs-{len(choices)}"})
    return folder


def nats(weights: Weights, adapter: Path | None, rows: Sequence[Row]) -> list[float]:
    """How unlikely the creator's own answers are under a voice, per token."""
    with Scorer(weights.path, adapter, context_tokens=1024) as scorer:
        found = [scorer.answer(row.prompt, row.answer) for row in rows]
    return [each.per_token for each in found]


def judged(
    name: str, weights: Weights, adapter: Path | None, rows: Sequence[Row], manner: style.Style
) -> dict[str, Any]:
    """A voice on questions that nothing was learned from."""
    said, likely = spoken(weights, adapter, rows, SAYING), nats(weights, adapter, rows)

    def mean(values: Sequence[float]) -> float:
        return round(sum(values) / len(values), 3)

    return {
        "voice": name,
        "nll": mean(likely),
        "style": mean(manner.score([each.text or " " for each in said])),
        "words": mean([len(metrics.units(each.text)) for each in said]),
        "creators_words": mean([len(metrics.units(row.answer)) for row in rows]),
        "unhealthy": mean([metrics.unhealthy(each.text, finished=each.finished) for each in said]),
    }
