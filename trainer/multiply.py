"""The multiplication experiment: can a small model be taught a procedure by worked examples, and how far does it carry?

Multiplications are written out step by step, digit by digit and with every carry, and trained on with `lora.py`. Asked
are pairs of numbers that no training question had, in either order, in words that no training question used. The same
questions go to the bare base, to the base with one worked example before the question, and to the trained adapter.

What it does not hold apart: the products of two digits. Each of them is a step inside many longer multiplications, so
the row for one digit by one digit says how well the table was learned, not how well it carries over.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from infra.errors import UserMistake
from infra.files import finished, fresh_folder, write_json
from infra.presets import Preset
from infra.voice.chat import Sampling, Turn
from infra.voice.engine import Engine
from infra.voice.weights import Weights, prepare, source_of
from trainer import gguf, lora
from trainer.dataset import Row, freeze
from trainer.evals import speak

SYSTEM = 'Multiply step by step and end with "Answer: " and the number.'
TRAINED = ("What is {a} × {b}?", "{a} × {b} = ?", "Multiply {a} by {b}.", "Calculate {a} times {b}.")
TESTED = (
    "Please work out the product of {a} and {b} for me.",
    "I have {a} boxes with {b} pens in each. How many pens do I have?",
    "How much do {b} tickets cost if one costs {a} dollars?",
    "If you take {a} and multiply it with {b}, which number do you get?",
)
# Questions for each pair of lengths at most; of one digit by one digit there are only 36 pairs.
ASKED = 40
# Pairs that decide when training stops, for each pair of lengths.
STOP = 2
# What stands before a question where the base is shown how; neither number is asked or taught with the other.
EXAMPLE = (58, 34)
# The steps of two digits by two take 140 tokens of the packaged base, of three by three about 280.
ANSWERING = {1: Sampling(temperature=0, max_tokens=48), 2: Sampling(temperature=0, max_tokens=160)}
ANSWERING_LONG = Sampling(temperature=0, max_tokens=320)
CONTEXT = 1024
# Steps are written for so many digits; more would not fit into an answer.
MOST_DIGITS = 3
# A procedure is more to learn than a manner: higher than for a persona, as high as pays on 135M.
RANK, BATCH = 32, 4

Kind = tuple[int, int]
Pair = tuple[int, int]
Say = Callable[[str], None]


def kinds(digits: int) -> list[Kind]:
    """Pairs of lengths up to `digits`, the longer first: (1, 1), (2, 1), (2, 2) for two."""
    return [(long, short) for long in range(1, digits + 1) for short in range(1, long + 1)]


def pairs(kind: Kind) -> Iterator[Pair]:
    """Every pair of numbers of these lengths once, whichever way round."""
    long, short = (range(2 if n == 1 else 10 ** (n - 1), 10**n) for n in kind)
    return ((a, b) for a in long for b in short if kind[0] != kind[1] or a >= b)


def digits_of(number: int) -> list[int]:
    """From the ones up."""
    return [int(each) for each in reversed(str(number))]


def worked(a: int, b: int) -> str:
    """The steps from the question to the line with the answer."""
    if a < 10 and b < 10:
        return f"{a}*{b}={a * b}\nAnswer: {a * b}"
    return "\n".join([*lines(a, b), f"Answer: {a * b}"])


def lines(a: int, b: int) -> Iterator[str]:
    """One line for each digit of `b`, and one for each sum of what they give."""
    total = 0
    for place, digit in enumerate(digits_of(b)):
        yield f"{a}*{digit}: {by_columns(a, digit)}, so {a * digit}"
        shifted = a * digit * 10**place
        if place:
            yield f"{total}+{shifted}: {added(total, shifted)}, so {total + shifted}"
        total += shifted


def by_columns(a: int, digit: int) -> str:
    """As at school: from the ones up, and what is carried is added to the next. The last one is written whole."""
    said, carry = [], 0
    for each in digits_of(a):
        product = each * digit
        said.append(f"{each}*{digit}={product}" + (f"+{carry}={product + carry}" if carry else ""))
        carry = (product + carry) // 10
        said[-1] += f" carry {carry}" if carry and len(said) < len(str(a)) else ""
    return ", ".join(said)


def added(one: int, other: int) -> str:
    """Two numbers added digit by digit from the ones up, with every carry."""
    said, carry = [], 0
    first, second = digits_of(one), digits_of(other)
    longest = max(len(first), len(second))
    for place in range(longest):
        x, y = (each[place] if place < len(each) else 0 for each in (first, second))
        total = x + y + carry
        carried = " carry 1" if total > 9 and place < longest - 1 else ""
        said.append(f"{x}+{y}" + ("+1" if carry else "") + f"={total}{carried}")
        carry = total // 10
    return ", ".join(said)


def answer_of(said: str) -> int | None:
    """The number that an answer stands by: that of its "Answer:" line. Two that differ are none."""
    found = {int(each.replace(",", "")) for each in re.findall(r"(?im)^\W*answer\W{1,4}(\d[\d,]*)\W*$", said)}
    return found.pop() if len(found) == 1 else None


def named_in(said: str, product: int) -> bool:
    """Whether the product stands anywhere in an answer: what a base that keeps to no form is given credit for."""
    return str(product) in re.findall(r"\d+", said.replace(",", ""))


@dataclass(frozen=True)
class Split:
    """Questions of one pair of lengths. No pair of `asked` or `stop` is in `taught`, whichever way round."""

    kind: Kind
    taught: list[Pair]
    stop: list[Pair]
    asked: list[Pair]


def split(kind: Kind, rows: int, rng: random.Random, *, most: int) -> Split:
    """Drawn once for what is asked; what is taught repeats only where there are fewer pairs than rows."""
    found = [pair for pair in pairs(kind) if pair != EXAMPLE]
    rng.shuffle(found)
    asked = min(most, len(found) // 4)
    rest = found[asked + STOP :]
    taught = [rest[n % len(rest)] for n in range(rows)]
    return Split(kind, taught, found[asked : asked + STOP], found[:asked])


def splits(digits: int, rows: int, *, asked: int = ASKED, seed: int) -> list[Split]:
    """`rows` shared out by how many single products a question needs: a digit by a digit gets least."""
    rng, every = random.Random(seed), kinds(digits)  # noqa: S311 - a draw, not a secret
    weight = {kind: kind[0] * kind[1] for kind in every}
    return [split(kind, rows * weight[kind] // sum(weight.values()), rng, most=asked) for kind in every]


def question(pair: Pair, words: Sequence[str], rng: random.Random) -> list[Turn]:
    a, b = pair
    return [Turn("system", SYSTEM), Turn("user", rng.choice(words).format(a=a, b=b))]


def turned(pair: Pair, rng: random.Random) -> Pair:
    """A pair or, as often, the other way round."""
    return pair if rng.random() < 0.5 else pair[::-1]


def row(pair: Pair, rng: random.Random, *, use: Literal["train", "stop"] = "train") -> Row:
    """A question either way round; the steps take the longer number first."""
    pair = turned(pair, rng)
    a, b = sorted(pair, key=lambda number: -len(str(number)))
    return Row(tuple(question(pair, TRAINED, rng)), worked(a, b), "none", use, {"generated": "multiply"})


def write_dataset(found: Sequence[Split], folder: Path, *, seed: int) -> Path:
    """A dataset as `lora.train` reads it."""
    rng = random.Random(seed)  # noqa: S311
    train = [row(pair, rng) for each in found for pair in each.taught]
    stop = [row(pair, rng, use="stop") for each in found for pair in each.stop]
    return freeze(folder, train, stop, manifest={"train": len(train), "validation": len(stop)}).folder


@dataclass(frozen=True)
class Score:
    """How one pair of lengths was answered: questions asked, right ones, and those that at least name the product."""

    kind: Kind
    asked: int
    right: int
    named: int
    said: tuple[str, ...]


def multiplying(
    folder: Path,
    *,
    preset: Preset,
    digits: int,
    rows: int,
    epochs: int,
    asked: int = ASKED,
    seed: int = 20,
    say: Say = lambda line: None,
) -> list[dict[str, Any]]:
    """Before and after by length; `rows` worked examples, `epochs` times. Goes on in `folder` where it was cut off.

    Raises UserMistake for more digits than steps can be written for, ServiceTrouble when the training fails.
    """
    if not 1 <= digits <= MOST_DIGITS:
        raise UserMistake(f"Digits must be 1 to {MOST_DIGITS}, not {digits}.")
    threads = psutil.cpu_count(logical=False) or 2
    weights = prepare(source_of(preset.gguf), folder / "weights", threads=threads, say=say)
    found = splits(digits, rows, asked=asked, seed=seed)
    name = f"{digits}-{rows}-{epochs}-{asked}-{seed}-{weights.sha256[:8]}"
    data, out = folder / f"rows-{name}", folder / f"lora-{name}"
    if finished(data) is None:
        write_dataset(found, fresh_folder(data), seed=seed)
    budget = lora.TrainingBudget(
        epochs=epochs, rank=RANK, alpha=2 * RANK, lr=preset.learning_rate, batch=BATCH, max_length=preset.max_length
    )
    report = lora.train(
        data,
        out,
        base_gguf=weights.path,
        trainable=preset.trainable,
        budget=budget,
        seed=seed,
        on_progress=lambda now: say(f"step {now.step}/{now.steps}, loss {now.loss:.3f}, {now.seconds:.0f} s"),
    )
    assert report.peft is not None
    say(f"trained {report.tokens} tokens in {report.wall_s:.0f} s, {report.peak_memory_mib} MiB, {report.precision}")
    adapter = out / "adapter.gguf"
    gguf.write_adapter(report.peft, weights.path, adapter, metadata={"twin.base_sha256": weights.sha256})
    scores = asked_of_all(weights, adapter, found, threads=threads, say=say)
    write_json(folder / f"answers-{name}.json", {who: [asdict(one) for one in each] for who, each in scores.items()})
    return table(scores)


def asked_of_all(
    weights: Weights, adapter: Path, found: Sequence[Split], *, threads: int, say: Say
) -> dict[str, list[Score]]:
    """The same questions to the base, to the base with an example before each, and to the adapter."""
    engine = Engine(
        weights.path,
        base="base",
        base_sha256=weights.sha256,
        waiting=4096,
        context_tokens=CONTEXT,
        threads=threads,
    )
    scores = {}
    try:
        for name, path, example in (
            ("base", None, False),
            ("base, one example", None, True),
            ("after", adapter, False),
        ):
            say(f"asking {name}")
            engine.promote(name if path else None, path)
            scores[name] = [score(engine, each, example=worked(*EXAMPLE) if example else "") for each in found]
    finally:
        engine.close()
    return scores


def score(engine: Engine, found: Split, *, example: str) -> Score:
    """How the current voice answers the questions of one pair of lengths."""
    rng = random.Random(f"{found.kind}")  # noqa: S311 - the same words for every system
    prompts = [shown(question(turned(pair, rng), TESTED, rng), example=example) for pair in found.asked]
    said = [each.text for each in speak(engine, prompts, ANSWERING.get(found.kind[0], ANSWERING_LONG))]
    products = [a * b for a, b in found.asked]
    right = sum(answer_of(one) == product for one, product in zip(said, products, strict=True))
    named = sum(named_in(one, product) for one, product in zip(said, products, strict=True))
    return Score(found.kind, len(products), right, named, tuple(said))


def shown(turns: Sequence[Turn], *, example: str) -> list[Turn]:
    """A question, with a worked example before it where there is one."""
    asked = TRAINED[0].format(a=EXAMPLE[0], b=EXAMPLE[1])
    before = [Turn("user", asked), Turn("assistant", example)] if example else []
    return [turns[0], *before, *turns[1:]]


def table(scores: dict[str, list[Score]]) -> list[dict[str, Any]]:
    """One line for each pair of lengths."""
    lines = []
    for together in zip(*scores.values(), strict=True):
        long, short = together[0].kind
        line: dict[str, Any] = {"digits": f"{long} × {short}", "asked": together[0].asked}
        for name, one in zip(scores, together, strict=True):
            line |= {f"{name}, right": one.right, f"{name}, product named": one.named}
        lines.append(line)
    return lines
