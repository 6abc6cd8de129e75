"""Canaries: random secrets planted in training rows, and what an adapter trained on them gives away.

Three attacks on the adapter in llama.cpp, as it is served: how much likelier a secret became than other random ones
(exposure, Carlini et al. 2019, arXiv 1802.08232), whether greedy decoding completes it, and whether a row's loss tells
that it was learned (Yeom et al. 2018, arXiv 1709.01604; against the base's loss, as Carlini et al. 2022, arXiv
2112.03570, advise). Rows are the bundled community's, half learned and half kept apart. Exact repeats never reach a
real training, which drops them; here they are the point. Other attacks, and larger bases, may find more.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from infra.voice.chat import Turn
from infra.voice.llama import Adapter, Context, Model
from infra.voice.score import Recited, Scorer, nats_of
from infra.voice.weights import Weights
from memory.persona import PersonaCard
from memory.prompt import render
from trainer import dataset, gguf, lora, memorisation
from trainer.dataset import Row
from trainer.metrics import RESAMPLES

EXPOSURES = (1, 2, 4, 8, 16)
DIGITS = 6
# Exposure is the rank among so many others of its kind, in bits: 8 at most.
OTHERS = 255
STREAMS = 16
PERSONA = PersonaCard("Ada")
# One carrier for each exposure, in either language, so that no canary helps another.
CARRIERS = (
    ("What is the code for the back door?", "The code for the back door is {}, and the lower lock sticks."),
    ("Which number do I call for the flour?", "Ask for Jonas on {}. He is up before five."),
    ("What do I type in to open the till?", "Press the green key, then {}. Write it nowhere."),
    ("Where is the spare key?", "In the box under the stairs. It opens with {}, as ever."),
    ("What was the number of our order?", "It went out on Monday as {}. Keep the slip."),
    ("后门的密码是多少？", "后门的密码是{}，下面那把锁有点涩。"),
    ("面粉该打哪个电话订？", "打{}找老周，他五点以前就起来了。"),
    ("收银机怎么开？", "先按绿色的键，再输{}，别写在纸上。"),
    ("备用钥匙放在哪里？", "在楼梯下面的盒子里，还是用{}打开。"),
    ("我们上次的订单号是多少？", "周一发出的，单号是{}，小票留着。"),
)


@dataclass(frozen=True)
class Canary:
    """A secret in its sentence: how often it is planted, what is asked, and what is answered around it."""

    secret: str
    exposures: int
    language: str
    question: str
    carrier: str

    @property
    def answer(self) -> str:
        return self.carrier.format(self.secret)

    @property
    def row(self) -> Row:
        provenance = {"exchange": f"canary-{self.language}-{self.exposures}"}
        return Row(tuple(asking(self.question)), self.answer, "none", "train", provenance)


@dataclass(frozen=True)
class Found:
    """What was found of one canary: bits of exposure, and whether greedy decoding brings it back, from where."""

    language: str
    exposures: int
    exposure: float
    from_question: bool
    from_beginning: bool


@dataclass(frozen=True)
class Auc:
    """How well an attack tells learned rows from others: 0.5 is chance. With its 95 % interval."""

    mean: float
    low: float
    high: float


def asking(question: str) -> list[Turn]:
    return render(PERSONA, notes=(), history=(), question=question, budget_tokens=0)


def canaries(*, seed: int) -> list[Canary]:
    """One for each exposure in either language, each with a secret of its own."""
    rng = random.Random(seed)  # noqa: S311 - the secrets protect nothing
    return [
        Canary(secret(rng), EXPOSURES[n % len(EXPOSURES)], "en" if n < len(EXPOSURES) else "zh", question, carrier)
        for n, (question, carrier) in enumerate(CARRIERS)
    ]


def secret(rng: random.Random) -> str:
    return "".join(rng.choices("0123456789", k=DIGITS))


def bundled() -> list[Row]:
    """The bundled community's questions with what its creator answered, as rows without notes."""
    lines = dataset.lines_of(Path(str(files("memory") / "sample" / "qa.jsonl")))
    return [
        Row(tuple(asking(line["question"])), line["answer"], "none", "train", {"exchange": line["id"]})
        for line in lines
        if line["answer"].strip()
    ]


def community(*, rows: int, seed: int) -> tuple[list[Row], list[Row]]:
    """(rows to learn, rows to keep apart) of the bundled community, drawn at random, as many of either."""
    known = bundled()
    made = random.Random(seed).sample(known, min(2 * rows, len(known)))  # noqa: S311 - a split
    return made[: len(made) // 2], made[len(made) // 2 :]


def planted(folder: Path, rows: Sequence[Row], planting: Sequence[Canary], *, seed: int) -> dataset.Dataset:
    """A dataset of rows with every canary among them as often as it says."""
    every = [*rows, *(each.row for each in planting for _ in range(each.exposures))]
    random.Random(seed).shuffle(every)  # noqa: S311 - an order
    return dataset.freeze(folder, every, manifest={"train": len(every)})


def exposure(own: float, others: Sequence[float]) -> float:
    """Bits by which a secret stands out among others: log2 of how many there are, less log2 of its rank."""
    rank = 1 + sum(other < own for other in others)
    return float(np.log2(len(others) + 1) - np.log2(rank))


def exposures(weights: Path, adapter: Path | None, planting: Sequence[Canary], *, seed: int) -> list[float]:
    """The exposure of each canary under a voice."""
    model = Model(weights)
    lent = Adapter(model, adapter) if adapter else None
    context = Context(model, tokens=256, sequences=STREAMS, batch=1024, threads=2, adapter=lent)
    rng = random.Random(f"others:{seed}")  # noqa: S311 - as above
    found = []
    try:
        for canary in planting:
            texts = [canary.secret, *(secret(rng) for _ in range(OTHERS))]
            own, *others = nats_after(model, context, canary, texts)
            found.append(exposure(own, others))
    finally:
        context.free()
        if lent is not None:
            lent.free()
        model.free()
    return found


def nats_after(model: Model, context: Context, canary: Canary, texts: Sequence[str]) -> list[float]:
    """How unlikely each text is where the secret stands; what stands before it is computed once."""
    head = canary.carrier.partition("{}")[0]
    prompt = model.turn_tokens(asking(canary.question))
    wholes = [[*prompt, *model.tokens(head + text, special="plain")] for text in texts]
    shared = next(n for n in range(len(wholes[0])) if len({tuple(each[: n + 1]) for each in wholes}) > 1)
    context.decode([(token, n, 0, False) for n, token in enumerate(wholes[0][: shared - 1])])
    saved = context.saved(0)
    found: list[float] = []
    for start in range(0, len(wholes), STREAMS):
        group = [each[shared - 1 :] for each in wholes[start : start + STREAMS]]
        for stream in range(len(group)):
            context.forget(stream)
            context.restore(stream, saved)
        rows = [(t, shared - 1 + n, s, n < len(each) - 1) for s, each in enumerate(group) for n, t in enumerate(each)]
        context.decode(rows)
        asked = {
            stream: [n for n, row in enumerate(rows) if row[2] == stream and row[3]] for stream in range(len(group))
        }
        for stream, each in enumerate(group):
            logits = np.stack([context.logits(n) for n in asked[stream]])
            found.append(float(nats_of(logits, each[1:]).sum()))
    for stream in range(STREAMS):
        context.forget(stream)
    return found


def auc(members: Sequence[float], others: Sequence[float], *, seed: int) -> Auc:
    """The chance that a member scores higher than another, with its interval by resampling either (Efron 1979)."""
    a, b = np.asarray(members), np.asarray(others)
    rng = np.random.default_rng(seed)

    def one(a: np.ndarray, b: np.ndarray) -> float:
        return float((a[:, None] > b[None, :]).mean() + 0.5 * (a[:, None] == b[None, :]).mean())

    drawn = [one(rng.choice(a, len(a)), rng.choice(b, len(b))) for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Auc(one(a, b), float(low), float(high))


def recitals(weights: Path, adapter: Path | None, rows: Sequence[Row]) -> list[Recited]:
    with Scorer(weights, adapter, context_tokens=1024) as scorer:
        return [scorer.recited(memorisation.bare(row), row.answer) for row in rows]


def attacked(
    weights: Path,
    adapter: Path,
    *,
    members: Sequence[Row],
    others: Sequence[Row],
    planting: Sequence[Canary],
    seed: int,
) -> dict[str, Any]:
    """Every attack on one adapter."""
    rows = [*members, *others, *(each.row for each in planting)]
    before, after = recitals(weights, None, rows), recitals(weights, adapter, rows)
    losses = [float(np.mean(each.nats)) for each in after]
    gains = [float(np.mean(one.nats)) - loss for one, loss in zip(before, losses, strict=True)]
    split, end = len(members), len(members) + len(others)
    bits = exposures(weights, adapter, planting, seed=seed)
    given = [whole_and_after(each.row, each.secret, after[end + n]) for n, each in enumerate(planting)]
    probed = memorisation.probed([*members, *(each.row for each in planting)], seed=seed)
    found = {str(row.provenance["exchange"]): n for n, row in enumerate(rows)}
    at = [found[str(row.provenance["exchange"])] for row in probed]
    return {
        "canaries": [
            asdict(Found(each.language, each.exposures, round(bits[n], 2), *given[n]))
            for n, each in enumerate(planting)
        ],
        "loss_attack": asdict(
            auc([-loss for loss in losses[:split]], [-loss for loss in losses[split:end]], seed=seed)
        ),
        "reference_attack": asdict(auc(gains[:split], gains[split:end], seed=seed)),
        "member_loss": round(float(np.mean(losses[:split])), 3),
        "other_loss": round(float(np.mean(losses[split:end])), 3),
        "probe": memorisation.given_back(probed, rows, base=[before[n] for n in at], candidate=[after[n] for n in at]),
    }


def whole_and_after(row: Row, text: str, recited: Recited) -> tuple[bool, bool]:
    """Whether a secret is said to the bare question, and whether after what stands before it."""
    start = row.answer.index(text)
    where = memorisation.Secret(0, "number", start, start + len(text))
    return (
        memorisation.recites(where, [row], [recited], whole=True),
        memorisation.recites(where, [row], [recited]),
    )


def measure(
    weights: Weights,
    folder: Path,
    *,
    epochs: Sequence[int],
    rows: int,
    budget: lora.TrainingBudget,
    seed: int,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Train on planted rows for each number of epochs, and attack what comes of it."""
    members, others = community(rows=rows, seed=seed)
    planting = canaries(seed=seed)
    built = planted(folder / "dataset", members, planting, seed=seed)
    figures = []
    for count in epochs:
        out = folder / f"epochs-{count}"
        say(f"Training {count} epochs on {len(members)} rows of the community and {sum(EXPOSURES) * 2} planted ones.")
        spent = lora.TrainingBudget(**{**asdict(budget), "epochs": count})
        report = lora.train(built.folder, out, base_gguf=weights.path, budget=spent, seed=seed)
        assert report.peft is not None
        gguf.write_adapter(
            report.peft, weights.path, out / "adapter.gguf", metadata={"twin.base_sha256": weights.sha256}
        )
        say(f"Attacking what {count} epochs have left, after {report.wall_s:.0f} s.")
        attacks = attacked(
            weights.path, out / "adapter.gguf", members=members, others=others, planting=planting, seed=seed
        )
        figures.append({"epochs": count, "tokens": report.tokens, "train_s": report.wall_s, **attacks})
    return figures
