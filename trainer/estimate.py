"""What a training takes, before it starts: memory part by part, tokens, and time at a rate that was measured.

Shapes are read from the served GGUF's header, since a hub's weights of the same base have the same. The memory is that
of PyTorch with TRL and PEFT; unsloth needs less. What one layer keeps for going back is counted tensor by tensor as
transformers computes a Llama or Qwen2 layer, after Korthikanti et al. 2022, "Reducing activation recomputation"; what
was left out (temporary copies, the allocator's gaps) stands in `RUNTIME` and `SLACK`. docs/training.md says how far it
was off where it was compared. Knows no torch but in `available`; loads no weights.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psutil

from infra.errors import Refused
from infra.presets import CARDS, PRESETS, Preset
from infra.voice.budget import machine_bytes
from infra.voice.gguf_check import check_base

if TYPE_CHECKING:
    from trainer.lora import Job, TrainingBudget

Device = Literal["cpu", "mps", "cuda"]

MIB = 1 << 20
# Bytes of a 4-bit value with its block's scale, itself in 8 bits (QLoRA, Dettmers et al. 2023, section 3).
NF4 = (4 + 0.127) / 8
# An adapter's value, its gradient and Adam's two moments, all in float32.
ADAPTER = 4 + 4 + 8
# Answer tokens whose logits are there at once (TRL's chunks), as float32: themselves, their logarithms, two gradients.
CHUNK, LOGITS = 256, 4 * 4
# Python, torch and what they load, in MiB; on CUDA the context and cuBLAS' workspace instead.
RUNTIME: Mapping[Device, int] = {"cpu": 700, "mps": 700, "cuda": 800}
# The allocator's gaps and what one layer computes in passing, as a share of activations.
SLACK = 0.1
# Bits that an adapter's value can hold (Allen-Zhu and Li 2024, "Physics of language models 3.3"), and bits that a token
# of an answer brings at most ("LoRA without regret", Thinking Machines 2025).
CAPACITY, NEWS = 2.0, 1.0
LEAST_RANK, MOST_RANK = 16, 32


@dataclass(frozen=True)
class Shape:
    """A base in numbers. `linear` and `embedding` are parameters; `per_rank` what a rank of one adds on all layers.

    `family` is llama.cpp's name of the architecture, `served` the bytes of the file that is served.
    """

    family: str
    layers: int
    hidden: int
    inner: int
    kv: int
    vocabulary: int
    linear: int
    embedding: int
    per_rank: int
    served: int = 0

    @property
    def parameters(self) -> int:
        return self.linear + self.embedding


def shape_of(gguf: Path) -> Shape:
    """The shape of a GGUF base. Raises ServiceTrouble for a file that is none."""
    header = check_base(gguf)
    layers, hidden = header.number("block_count"), header.number("embedding_length")
    matrices = {n: t.shape for n, t in header.tensors.items() if len(t.shape) > 1 and n.endswith(".weight")}
    blocks = [shape for name, shape in matrices.items() if name.startswith("blk.")]
    outside = {name: math.prod(shape) for name, shape in matrices.items() if not name.startswith("blk.")}
    key = matrices.get("blk.0.attn_k.weight", (hidden, hidden))
    return Shape(
        family=header.text("general.architecture"),
        layers=layers,
        hidden=hidden,
        inner=header.number("feed_forward_length", 4 * hidden),
        kv=key[1],
        vocabulary=outside.get("token_embd.weight", 0) // max(hidden, 1),
        linear=sum(math.prod(shape) for shape in blocks),
        embedding=sum(outside.values()),
        per_rank=sum(sum(shape[:2]) for shape in blocks),
        served=gguf.stat().st_size,
    )


def shape_from(config: Mapping[str, Any], *, served: int = 0) -> Shape:
    """The shape of a base from the numbers of its config.json, as transformers names them."""
    hidden, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    kv = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    pairs = [(hidden, hidden)] * 2 + [(hidden, kv)] * 2 + [(hidden, inner)] * 3
    copies = 1 if config.get("tie_word_embeddings") else 2
    return Shape(
        family=config.get("model_type", "qwen2"),
        layers=layers,
        hidden=hidden,
        inner=inner,
        kv=kv,
        vocabulary=config["vocab_size"],
        linear=layers * sum(a * b for a, b in pairs),
        embedding=copies * config["vocab_size"] * hidden,
        per_rank=layers * sum(a + b for a, b in pairs),
        served=served,
    )


# Qwen2.5's published configurations; the 3B shares its embedding with its head, as the smaller ones do.
QWEN25: Mapping[str, Mapping[str, Any]] = {
    size: {
        "model_type": "qwen2",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
    }
    for size, hidden, inner, layers, heads, kv_heads, vocabulary, tied in (
        ("0.5b", 896, 4864, 24, 14, 2, 151_936, True),
        ("1.5b", 1536, 8960, 28, 12, 2, 151_936, True),
        ("3b", 2048, 11_008, 36, 16, 2, 151_936, True),
        ("7b", 3584, 18_944, 28, 28, 4, 152_064, False),
        ("14b", 5120, 13_824, 48, 40, 8, 152_064, False),
    )
}


@dataclass(frozen=True)
class Memory:
    """Where the memory goes, in MiB."""

    weights: int
    adapter: int
    activations: int
    head: int
    runtime: int

    @property
    def total(self) -> int:
        return self.weights + self.adapter + self.activations + self.head + self.runtime


@dataclass(frozen=True)
class Estimate:
    """What a training is expected to take. `seconds` is None while no rate was measured on this machine.

    `proof_mib` is what the host needs afterwards, when both runtimes are compared on the base in float32.
    """

    device: Device
    four_bit: bool
    memory: Memory
    available_mib: int
    proof_mib: int
    tokens: int
    rate: float | None
    rank: int
    adapter_mb: float
    bytes_per_token: float

    @property
    def seconds(self) -> float | None:
        return self.tokens / self.rate if self.rate else None

    def document(self) -> dict[str, Any]:
        """As JSON, with what is derived."""
        memory = {**asdict(self.memory), "total": self.memory.total}
        seconds = round(self.seconds, 1) if self.seconds else None
        return {**asdict(self), "memory": memory, "seconds": seconds}

    def __str__(self) -> str:
        time = f"about {in_words(self.seconds)}" if self.seconds else "time unknown until its first steps are measured"
        return (
            f"{self.tokens:,} tokens, {time}; {self.memory.total:,} MiB of {self.available_mib:,} free on the "
            f"{self.device.upper()} (weights {self.memory.weights:,}, adapter {self.memory.adapter:,}, activations "
            f"{self.memory.activations:,}, head {self.memory.head:,}, runtime {self.memory.runtime:,}). {self.price}"
        )

    @property
    def price(self) -> str:
        """What the rank costs whoever is answered."""
        return (
            f"Rank {self.rank} is {self.adapter_mb:.0f} MB and {self.bytes_per_token:.0%} more bytes to read for "
            "each token that is said."
        )


def in_words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"


def memory(shape: Shape, budget: "TrainingBudget", *, device: Device, half: bool, padded: int) -> Memory:
    """What a training holds at its largest batch, which has `padded` tokens; `half` is bf16 instead of float32."""
    checkpointing = budget.checkpointing and device == "cuda"
    return Memory(
        weights=mib(weight_bytes(shape, device=device, half=half, four_bit=budget.four_bit)),
        adapter=mib(budget.rank * shape.per_rank * ADAPTER),
        activations=mib(activation_bytes(shape, padded, rank=budget.rank, half=half, checkpointing=checkpointing)),
        head=mib(CHUNK * shape.vocabulary * LOGITS),
        runtime=RUNTIME[device],
    )


def weight_bytes(shape: Shape, *, device: Device, half: bool, four_bit: bool) -> float:
    """The base's own. On a CPU embeddings stay in float32; 4 bits hold the matrices of the layers only."""
    if four_bit and device == "cuda":
        return NF4 * shape.linear + 2 * shape.embedding
    outside = 2 if half and device == "cuda" else 4
    return (2 if half else 4) * shape.linear + outside * shape.embedding


def activation_bytes(shape: Shape, padded: int, *, rank: int, half: bool, checkpointing: bool) -> float:
    """What going forward keeps for going back. With checkpointing each layer's input, and all of one layer."""
    # Norms twice three times, queries before and after turning and attention's own copies: 14 widths; keys and
    # values five times; the gate, its activation, the other half and their product; A's results of seven adapters.
    kept = 14 * shape.hidden + 5 * shape.kv + 4 * shape.inner + 7 * rank
    one = padded * (2 * kept + 2 * 4 * shape.hidden if half else 4 * kept)
    stream = padded * shape.hidden * (2 if half else 4) * shape.layers
    return (1 + SLACK) * (stream + one if checkpointing else shape.layers * one)


def foresee(
    shape: Shape, job: "Job", *, device: Device, half: bool, free_mib: int, rate: float | None = None
) -> Estimate:
    """The estimate of a training whose rows and their order are fixed."""
    budget = job.budget
    lengths = [len(job.rows[row].ids) for row in job.order]
    return expect(
        shape,
        budget,
        tokens=sum(lengths),
        padded=largest(lengths, job.batch),
        device=device,
        half=half,
        free_mib=free_mib,
        rate=rate,
    )


def expect(
    shape: Shape,
    budget: "TrainingBudget",
    *,
    tokens: int,
    padded: int,
    device: Device,
    half: bool,
    free_mib: int,
    rate: float | None = None,
) -> Estimate:
    """The estimate of a training that reads so many tokens in batches of at most `padded`."""
    adapter = 2 * budget.rank * shape.per_rank
    return Estimate(
        device=device,
        four_bit=budget.four_bit and device == "cuda",
        memory=memory(shape, budget, device=device, half=half, padded=padded),
        available_mib=free_mib,
        proof_mib=mib(4 * shape.parameters) + RUNTIME["cpu"],
        tokens=tokens,
        rate=rate,
        rank=budget.rank,
        adapter_mb=round(adapter / 1e6, 1),
        bytes_per_token=round(adapter / shape.served, 3) if shape.served else 0.0,
    )


def largest(lengths: Sequence[int], batch: int) -> int:
    """Tokens of the largest batch, its padding counted."""
    batches = (lengths[start : start + batch] for start in range(0, len(lengths), batch))
    return max(max(each) * len(each) for each in batches)


def refuse_what_cannot_fit(estimate: Estimate) -> None:
    """Raise Refused, naming what to lower, when the estimate is above what is free."""
    memory = estimate.memory
    if memory.total > estimate.available_mib:
        raise Refused(
            f"Training needs about {memory.total:,} MiB and {estimate.available_mib:,} are free on the "
            f"{estimate.device.upper()}. {cure(estimate)}"
        )
    if estimate.device == "cuda" and estimate.proof_mib > (free := available("cpu")):
        raise Refused(
            f"After training, both runtimes are compared on the base in float32 on the host: that needs about "
            f"{estimate.proof_mib:,} MiB and {free:,} are free. Choose a smaller base or give the machine more memory."
        )


def cure(estimate: Estimate) -> str:
    """What to lower first: the largest part that can be."""
    memory = estimate.memory
    ways = {
        "training.batch (with training.accumulate raised as much) or training.max_length": memory.activations,
        "training.rank": memory.adapter,
    }
    best = max(ways, key=lambda way: ways[way])
    if memory.total - ways[best] <= estimate.available_mib:
        return f"Lower {best}: it takes {ways[best]:,} of them."
    if estimate.device == "cuda" and not estimate.four_bit:
        return f"The base alone takes {memory.weights:,}: set training.four_bit, or choose a smaller base."
    return f"The base alone takes {memory.weights:,}: choose a smaller base."


def available(device: Device) -> int:
    """MiB that a training may take: of the GPU what is free, else of the machine or container."""
    if device == "cuda":
        import torch

        return int(torch.cuda.mem_get_info()[0] >> 20)
    used = psutil.virtual_memory().total - psutil.virtual_memory().available
    return max(0, min(psutil.virtual_memory().available, machine_bytes() - min(used, machine_bytes()))) >> 20


def rank_for(answer_tokens: int, shape: Shape) -> int:
    """The least power of two from 16 to 32 whose adapter can hold what so many answer tokens bring."""
    needed = NEWS * answer_tokens / (CAPACITY * shape.per_rank)
    return min(MOST_RANK, max(LEAST_RANK, 1 << math.ceil(math.log2(max(needed, 1)))))


def rule_of_thumb(shape: Shape) -> float:
    """The learning rate for LoRA with alpha 32 that Thinking Machines fitted: ten times that of full fine-tuning.

    5e-5 x 10 x (2000 / width) ^ p with p 0.781 for Llamas and 0.0775 for Qwens (their `tinker_cookbook`); "LoRA without
    regret" found 9.8 over 14 models, and about 15 instead of 10 below 100 steps. Others are taken for Qwens.
    """
    power = 0.781 if shape.family == "llama" else 0.0775
    return 10 * 5e-5 * math.pow(2000 / shape.hidden, power)


def card_estimate(gigabytes: int) -> tuple[Preset, Estimate]:
    """The preset for a card of so many GB and the memory that it takes there at most. Calculated, not measured."""
    from trainer.lora import TrainingBudget

    preset = PRESETS[CARDS[gigabytes]]
    shape = shape_from(QWEN25[preset.base.removeprefix("qwen2.5-").removesuffix("-instruct")])
    budget = TrainingBudget(
        rank=MOST_RANK,
        batch=preset.batch,
        accumulate=preset.accumulate,
        max_length=preset.max_length,
        four_bit=preset.four_bit,
        checkpointing=preset.checkpointing,
    )
    padded = preset.batch * preset.max_length
    return preset, expect(
        shape, budget, tokens=0, padded=padded, device="cuda", half=True, free_mib=int(gigabytes * 1e9 / MIB)
    )


def mib(size: float) -> int:
    """Bytes as MiB, rounded up."""
    return math.ceil(size / MIB)
