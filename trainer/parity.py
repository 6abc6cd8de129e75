"""Parity: proof, on every run, that the GGUF adapter in llama.cpp is the adapter that was trained. Fixed prompts.

Compared are the logits after the last token of each prompt, of PEFT in transformers (float32) and of llama.cpp, with
and without the adapter, on the same weights. llama.cpp rounds activations to 8 bits when the base is quantised, which
moves logits by up to 0.8 and would hide a wrong adapter; so the base is written once more as float16, the same values,
where only 0.04 remains. An adapter whose q and k rows are in the wrong order, or whose alpha is missing, is far outside
the tolerance (LOG.md). It proves nothing about how good the adapter is.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from infra.errors import ServiceTrouble
from infra.voice.chat import Turn
from infra.voice.llama import Model, quantise
from infra.voice.score import Scorer
from trainer.base import load_base
from trainer.lora import quiet

PROMPTS = (
    (
        Turn("system", "You are a baker."),
        Turn("user", "How long should the dough rest in the fridge, and how cold?"),
    ),
    (Turn("user", "Notes:\n[1] Bare cast iron, always.\n\nQuestion: which pot?"),),
    (Turn("user", "面团要在冰箱里放多久？"),),
    (Turn("user", "def add(a, b):"), Turn("assistant", "    return a + b"), Turn("user", "And for three?")),
)

# The tolerance, as root mean squares over all logits: twice what the bases alone differ by, and a fiftieth of what the
# adapter changes. Measured as shares of that change: right 0.002 to 0.005, rows in the wrong order 0.08 to 0.29,
# missing alpha 0.28 to 0.45.
NOISE, EFFECT = 2.0, 0.02


@dataclass(frozen=True)
class Parity:
    """How far the two are apart, in logits. `error`, `noise`, `effect` and `tolerance` are root mean squares.

    `error`: between both with the adapter; `noise`: without it; `effect`: what the adapter changes in transformers.
    """

    max_abs_diff: float
    error: float
    noise: float
    effect: float
    tolerance: float
    argmax_equal: bool


def probe(base_gguf: Path, peft_folder: Path, adapter_gguf: Path) -> Parity:
    """Compare both on the fixed prompts. Needs room for the base in float16 on disk and in float32 in memory.

    Raises ServiceTrouble when they differ by more than the tolerance, or either cannot be loaded.
    """
    with tempfile.TemporaryDirectory(dir=adapter_gguf.parent, prefix=".parity-") as folder:
        exact = Path(folder) / "base.gguf"
        quantise(base_gguf, exact, "F16", threads=2)
        prompts = tokenised(exact)
        served_base, served = in_llama(exact, None, prompts), in_llama(exact, adapter_gguf, prompts)
    trained_base, trained = in_transformers(base_gguf, peft_folder, prompts)
    found = compared(trained_base, trained, served_base, served)
    # Written so that a NaN is outside too.
    if not found.error <= found.tolerance:
        raise ServiceTrouble(
            f"The GGUF adapter {adapter_gguf.name!r} is not the one that was trained: logits differ by "
            f"{found.error:.3f}, at most {found.tolerance:.3f} is rounding. It is not used.",
            permanent=True,
        )
    return found


def compared(trained_base: np.ndarray, trained: np.ndarray, served_base: np.ndarray, served: np.ndarray) -> Parity:
    """The figures from four arrays of logits (prompts, vocabulary). Pure."""
    error, noise, effect = rms(served - trained), rms(served_base - trained_base), rms(trained - trained_base)
    return Parity(
        max_abs_diff=float(np.abs(served - trained).max()),
        error=error,
        noise=noise,
        effect=effect,
        tolerance=NOISE * noise + EFFECT * effect,
        argmax_equal=bool((served.argmax(axis=1) == trained.argmax(axis=1)).all()),
    )


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def tokenised(gguf: Path) -> list[list[int]]:
    model = Model(gguf)
    try:
        return [model.turn_tokens(turns) for turns in PROMPTS]
    finally:
        model.free()


def in_llama(gguf: Path, adapter: Path | None, prompts: Sequence[Sequence[int]]) -> np.ndarray:
    with Scorer(gguf, adapter, context_tokens=512) as scorer:
        return np.stack([scorer.logits(prompt, wanted=[len(prompt) - 1])[0] for prompt in prompts])


def in_transformers(
    base_gguf: Path, peft_folder: Path, prompts: Sequence[Sequence[int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Logits without and with the adapter."""
    import torch
    from peft import PeftModel

    quiet()
    model = PeftModel.from_pretrained(load_base(base_gguf), str(peft_folder)).eval()

    def last(tokens: Sequence[int]) -> np.ndarray:
        with torch.no_grad():
            found: np.ndarray = model(input_ids=torch.tensor([list(tokens)])).logits[0, -1].numpy()
            return found

    with model.disable_adapter():
        base = np.stack([last(prompt) for prompt in prompts])
    return base, np.stack([last(prompt) for prompt in prompts])
