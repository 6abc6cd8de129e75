"""Oddness: what `quarantine.py` is told of each exchange, measured once and kept beside the data.

Loss is in nats per token of the answer after its bare question, under the served base without an adapter; distance is
from the exchange's embedding to its nearest others. Only numbers and hashes are kept, and all of them go when anything
is forgotten. What is the creator's own is not measured, since it is not suspected.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infra.files import read_json, write_json
from infra.voice.chat import Turn
from infra.voice.weights import Weights
from memory.clearance import words_sha256
from memory.encode import Encoder
from memory.journal import Journal
from memory.messages import Exchange
from memory.prompt import shorten
from trainer.quarantine import LEAST_KNOWN, NOTHING, Odd, is_own

FILE = "oddness.json"
# Of question and answer so much is read: enough to tell, and 2,000 exchanges take minutes.
TOKENS = 64
NEAREST = 5
TOLD = 20


def known(data_folder: Path) -> Odd:
    """What was measured by the last run; nothing before the first."""
    path = data_folder / FILE
    if not path.is_file():
        return NOTHING
    found = read_json(path)
    return Odd(found["loss"], found["distance"])


def measure(
    exchanges: Sequence[Exchange],
    data_folder: Path,
    *,
    journal: Journal,
    encoder: Callable[[], Encoder],
    weights: Callable[[], Weights],
    tell: Callable[[str, int, int, str], None],
) -> Odd:
    """Measure what is new among `exchanges` and keep it. Safe to be killed: what is kept is whole."""
    rows = [each for each in exchanges if not is_own(each)]
    if len(rows) < LEAST_KNOWN:
        return NOTHING
    path, forgotten = data_folder / FILE, journal.last_forgotten()
    before: dict[str, Any] = read_json(path) if path.is_file() else {}
    base = weights()
    same = before.get("base") == base.sha256 and before.get("forgotten") == forgotten
    loss = losses(rows, before["loss"] if same else {}, base, tell)
    distance = distances(rows, encoder())
    write_json(path, {"base": base.sha256, "forgotten": forgotten, "loss": loss, "distance": distance})
    return Odd(loss, distance)


def losses(
    rows: Sequence[Exchange], before: Mapping[str, float], weights: Weights, tell: Callable[[str, int, int, str], None]
) -> dict[str, float]:
    """Nats per token of each answer under the base, by the hash of the words."""
    found = {name: before[name] for each in rows if (name := words_sha256(each)) in before}
    new = [each for each in rows if words_sha256(each) not in found]
    if not new:
        return found
    # llama.cpp is loaded for this alone, and forgetting asks this module too.
    from infra.voice.score import Scorer

    with Scorer(weights.path) as scorer:
        for number, each in enumerate(new):
            if number % TOLD == 0:
                tell("harvest", number, len(new), "looking for planted rows")
            asked = [Turn("user", shorten(each.question, TOKENS))]
            scored = scorer.answer(asked, shorten(each.answer, TOKENS))
            found[words_sha256(each)] = round(scored.per_token, 4)
    return found


def distances(rows: Sequence[Exchange], encoder: Encoder) -> dict[str, float]:
    """How far each exchange is from its nearest others: 1 less the mean cosine."""
    vectors = encoder.dense([f"{each.question}\n{each.answer}" for each in rows])
    found: dict[str, float] = {}
    for start in range(0, len(rows), 512):
        alike = vectors[start : start + 512] @ vectors.T
        alike[np.arange(len(alike)), np.arange(start, start + len(alike))] = -1.0
        nearest = np.sort(alike, axis=1)[:, -NEAREST:].mean(axis=1)
        found |= {
            words_sha256(each): round(1 - float(near), 4)
            for each, near in zip(rows[start : start + 512], nearest, strict=True)
        }
    return found


def follow_forgotten(data_folder: Path, journal: Journal) -> int:
    """Let go of what was measured before something was forgotten; how many files that were."""
    path = data_folder / FILE
    if not path.is_file() or read_json(path)["forgotten"] == journal.last_forgotten():
        return 0
    path.unlink()
    return 1
