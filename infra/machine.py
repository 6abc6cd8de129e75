"""What computes here: the processor, the cores that this process may use, and which llama.cpp."""

import importlib.metadata
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

# What llama.cpp has kernels of its own for; processors of one name differ in these, above all virtual ones.
INSTRUCTIONS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm", "sve")


@dataclass(frozen=True)
class Machine:
    """What a measured speed holds for."""

    cpu: str
    cores: int
    llama: str

    @classmethod
    def here(cls) -> "Machine":
        return cls(cpu_name(), cores(), importlib.metadata.version("llama-cpp-python"))


@dataclass(frozen=True)
class Spent:
    """A moment, the seconds that all cores have worked until then or were stolen, and those of this process."""

    at: float
    all: float
    own: float

    @classmethod
    def now(cls) -> "Spent":
        cpu, own = psutil.cpu_times(), psutil.Process().cpu_times()
        worked = ("user", "nice", "system", "irq", "softirq", "steal")
        return cls(
            time.perf_counter(), sum(float(getattr(cpu, name, 0.0)) for name in worked), float(own.user + own.system)
        )

    def others_since(self, before: "Spent") -> float:
        """The share of the whole machine that others had since then."""
        others = (self.all - before.all) - (self.own - before.own)
        return max(0.0, others / ((self.at - before.at) * (psutil.cpu_count() or 1)))


def cores() -> int:
    """How many cores this process may use."""
    if sys.platform == "linux":
        return max(1, len(psutil.Process().cpu_affinity() or ()))
    return psutil.cpu_count() or 1


def cpu_name() -> str:
    """The processor as the system calls it, with the instructions that matter."""
    listed = Path("/proc/cpuinfo")
    if not listed.is_file():
        return platform.processor() or platform.machine()
    facts = dict(line.split(":", 1) for line in listed.read_text(encoding="utf-8").splitlines() if ":" in line)
    told = {key.strip().lower(): value.strip() for key, value in facts.items()}
    has = told.get("flags", told.get("features", "")).split()
    return " ".join([told.get("model name", platform.machine()), *(each for each in INSTRUCTIONS if each in has)])
