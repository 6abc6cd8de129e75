"""How a voice computes on this machine: what llama.cpp is told besides sizes, and the calibration that chose it.

A calibration holds for one machine, one llama.cpp and one file of weights. On anything else it is not used, and what
llama.cpp is told is what has measured best so far.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from infra.files import write_json
from infra.machine import Machine

# A twin's turn on these machines: about 500 tokens to read and 64 to say (docs/benchmarks.md).
TURN_READ, TURN_SAID = 500, 64
# With more of the machine than this in others' hands, no measurement is believed.
MOST_OTHERS = 0.15
AGAIN = "understudy doctor --tune"
CHANGED = {
    "machine": "another machine or llama.cpp",
    "weights": "other weights",
    "gpu_layers": "another share of the layers on a GPU",
}


@dataclass(frozen=True)
class Tuning:
    """`threads` speak and `batch_threads` read, 0 as many as there are; up to `ubatch` rows are computed at once.

    `flash` is the fused attention, `kv` the type of the memory of what was computed; `gpu_layers` of the base are on a
    GPU, -1 all.
    """

    flash: bool = False
    kv: Literal["f16", "q8_0"] = "f16"
    threads: int = 0
    batch_threads: int = 0
    ubatch: int = 512
    gpu_layers: int = 0

    def __post_init__(self) -> None:
        if self.kv != "f16" and not self.flash:
            raise ValueError(f"llama.cpp keeps {self.kv} only for the fused attention")

    def __str__(self) -> str:
        attention = "flash attention" if self.flash else "no flash attention"
        threads = f"{self.threads or 'all'} threads to speak, {self.batch_threads or 'all'} to read"
        return f"{attention}, {self.kv} memory, {threads}, {self.ubatch} rows at once"


# Neither attention wins everywhere: the fused one took 0.90 and 1.10 of a turn's time under two loads, says eight
# answers faster at 850 tokens and reads small pieces slower (docs/benchmarks.md). So it is left to the calibration.
DEFAULT = Tuning()


@dataclass(frozen=True)
class Speed:
    """Tokens a second: of prompts, of one answer alone, and of eight answers together."""

    prompt_tps: float
    alone_tps: float
    eight_tps: float

    @property
    def turn_s(self) -> float:
        """Seconds that a typical turn keeps the machine busy: half of all turns come alone, half among eight."""
        return TURN_READ / self.prompt_tps + TURN_SAID / 2 * (1 / self.alone_tps + 1 / self.eight_tps)


@dataclass(frozen=True)
class Basis:
    """What a calibration holds for: the machine, the sha256 of the weights, and how much of them a GPU has."""

    machine: Machine
    weights: str
    gpu_layers: int


@dataclass(frozen=True)
class Measured:
    """One way to compute: its speed, the time that a turn takes it as a share of the default's, what became of it.

    Its perplexity is measured where results differ by more than rounding, and only once it has proved fast.
    """

    name: str
    speed: Speed
    share: float
    verdict: str
    perplexity: float | None = None


@dataclass(frozen=True)
class Calibration:
    """What was measured, the default first, and what was chosen.

    `others` is the share of the machine that other work had meanwhile. What wins then would lose later: one thread, for
    example, is faster than two that wait for somebody else's turn.
    """

    basis: Basis
    tuning: Tuning
    measured: tuple[Measured, ...]
    others: float = 0.0

    @property
    def disturbed(self) -> bool:
        """Whether nothing could be learned from it."""
        return self.others > MOST_OTHERS


def save(path: Path, calibration: Calibration) -> None:
    """Keep a calibration. Raises ServiceTrouble when the file cannot be written."""
    write_json(path, asdict(calibration))


def load(path: Path) -> Calibration | None:
    """The calibration that is kept; None where none can be read: it can be measured again."""
    try:
        return TypeAdapter(Calibration).validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def in_use(path: Path, basis: Basis) -> tuple[Tuning, str]:
    """How a voice computes on `basis`, and why."""
    default, found = Tuning(gpu_layers=basis.gpu_layers), load(path)
    if found is None:
        return default, f"the defaults; nothing is measured here yet: {AGAIN}"
    if found.disturbed:
        return default, f"the defaults; others had {found.others:.0%} of the machine when it was measured: {AGAIN}"
    if found.basis == basis:
        return found.tuning, "as measured here"
    changed = [words for name, words in CHANGED.items() if getattr(found.basis, name) != getattr(basis, name)]
    return default, f"the defaults; what was measured is for {' and '.join(changed)}: {AGAIN}"
