"""How much memory voices take, estimated before llama.cpp is asked for it, and how much of it they may.

Each voice has a context of its own over the one copy of the weights, and its KV memory is most of what it takes. The
model's header says how large that is, to the byte. What llama.cpp reserves to compute in is estimated from its largest
tensors, the logits or the attention's scores of a batch: on the packaged base, with contexts of 256 to 16,384 tokens,
up to 5 % more than llama.cpp says itself. Of that reserve the system gives no more than what is ever used: a voice of
the defaults (2,048 tokens, 8 streams) is estimated at 465 MiB, of which 370 to 400 are resident once it has spoken.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from infra.errors import ServiceTrouble
from infra.voice.gguf_check import Header, check_base
from infra.voice.tuning import DEFAULT, Tuning

MIB = 1 << 20
# Of the machine's memory, where no setting says otherwise: the rest is for the twin's memory, the bots and the system.
SHARE = 0.75
# llama.cpp rounds a sequence's memory up to so many tokens.
CELLS, FLOAT = 256, 4
# Bytes for a value of that memory: q8_0 keeps 32 of them as bytes beside one 16-bit scale.
KV = {"f16": 2.0, "q8_0": 34 / 32}
# Beside the largest tensor, the rows of a batch are there as hidden states in so many places.
HIDDEN = 6

CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Budget:
    """Bytes: what all voices may take together, what the weights take once, and each context beside its adapter."""

    allowed: int
    weights: int
    context: int

    def voice(self, adapter: int) -> int:
        """What a voice takes whose adapter has so many bytes."""
        return self.context + adapter

    def check(self, name: str, *, adapter: int = 0, loaded: Sequence[tuple[str, int]] = ()) -> None:
        """Raise ServiceTrouble where a voice does not fit beside those that are loaded, each with its bytes."""
        needed, taken = self.voice(adapter), self.weights + sum(size for _, size in loaded)
        if taken + needed <= self.allowed:
            return
        beside = f" and the voices {', '.join(name for name, _ in loaded)}" if loaded else ""
        ways = "end a canary or a pinned voice, " if len(loaded) > 1 else ""
        raise ServiceTrouble(
            f"The voice {name!r} needs about {mib(needed)} MiB, and {mib(self.allowed)} are allowed, of which the "
            f"weights{beside} take {mib(taken)}: {ways}raise voice.memory_mib, or lower voice.streams or "
            "voice.context_tokens.",
            permanent=True,
        )


def budget_of(
    weights: Path, *, tokens: int, sequences: int, batch: int, memory_mib: int = 0, tuning: Tuning = DEFAULT
) -> Budget:
    """The budget of voices over a model's file, computed as `tuning` says; of `memory_mib` 0 is a share of the machine.

    Raises ServiceTrouble for a file that is no model.
    """
    header, tokens = check_base(weights), padded(tokens)
    kept = kv_bytes(header, tokens, KV[tuning.kv]) * sequences
    computed = compute_bytes(header, tokens=tokens, batch=min(batch, tuning.ubatch))
    said = vocabulary(header) * FLOAT * sequences
    # Where llama.cpp writes weights again in the order that this CPU reads fastest, the file's own pages can go.
    return Budget(allowed_bytes(memory_mib), weights.stat().st_size, kept + computed + said)


def kv_bytes(header: Header, tokens: int, each: float) -> int:
    """The keys and values of one sequence, of `each` bytes."""
    heads = header.number("attention.head_count", 1)
    width = header.number("embedding_length") // heads
    key, value = header.number("attention.key_length", width), header.number("attention.value_length", width)
    kept = header.number("block_count") * header.number("attention.head_count_kv", heads) * (key + value)
    return int(tokens * kept * each)


def compute_bytes(header: Header, *, tokens: int, batch: int) -> int:
    """What a context reserves to compute a batch in."""
    scores = (header.number("attention.head_count", 1) + 1) * tokens
    hidden = HIDDEN * header.number("embedding_length")
    return batch * FLOAT * (max(vocabulary(header), scores) + hidden)


def vocabulary(header: Header) -> int:
    """How many tokens the model knows."""
    found = header.entries.get("tokenizer.ggml.tokens")
    return int(found.value) if found is not None else 0


def padded(tokens: int) -> int:
    return -(-tokens // CELLS) * CELLS


def allowed_bytes(memory_mib: int) -> int:
    return memory_mib * MIB if memory_mib else int(SHARE * machine_bytes())


def machine_bytes(groups: Path = CGROUPS, own: Path = Path("/proc/self/cgroup")) -> int:
    """What this process can have: the machine's memory, or what its container or service is allowed of it."""
    limits = (limit for file in limit_files(groups, own) if file.is_file() and (limit := file.read_text().strip()))
    return min([psutil.virtual_memory().total, *(int(limit) for limit in limits if limit.isdigit())])


def limit_files(groups: Path, own: Path) -> Iterable[Path]:
    """Where Linux says what a process may take: in version 2 in its own group and all above it, else in one file."""
    yield groups / "memory" / "memory.limit_in_bytes"
    lines = own.read_text().splitlines() if own.is_file() else []
    for path in (line.removeprefix("0::/") for line in lines if line.startswith("0::/")):
        folder = groups / path
        yield from (each / "memory.max" for each in (folder, *folder.parents) if each.is_relative_to(groups))


def mib(size: int) -> int:
    """Bytes as MiB, rounded up."""
    return -(-size // MIB)
