"""The memory that voices take and may take: estimated as llama.cpp takes it, and no more than the machine gives."""

import re
from pathlib import Path

import psutil
import pytest

from infra.voice.budget import MIB, budget_of, machine_bytes
from infra.voice.engine import BATCH
from infra.voice.llama import Context, Model, lib
from infra.voice.tuning import DEFAULT, Tuning
from infra.voice.weights import Weights


@pytest.fixture(scope="module")
def model(weights: Weights) -> Model:
    return Model(weights.path)


def reserved(model: Model, *, tokens: int, sequences: int, tuning: Tuning) -> tuple[float, int]:
    """The MiB that llama.cpp says it reserves for a context, and the bytes that are resident after a long prompt."""
    bindings, said = lib(), []
    listener = bindings.llama_log_callback(lambda level, text, data: said.append(text.decode("utf-8", "replace")))
    before = psutil.Process().memory_info().rss
    bindings.llama_log_set(listener, None)
    context = Context(model, tokens=tokens, sequences=sequences, batch=BATCH, threads=2, tuning=tuning)
    bindings.llama_log_set(lib.log, None)
    context.decode([(n % 1000, n, 0, n == 255) for n in range(256)])
    resident = psutil.Process().memory_info().rss - before
    context.free()
    return sum(map(float, re.findall(r"buffer size = +([\d.]+) MiB", "".join(said)))), resident


@pytest.mark.parametrize(
    ("tokens", "sequences", "tuning"),
    [
        (2048, 4, DEFAULT),
        (600, 2, DEFAULT),
        (8192, 1, DEFAULT),
        (2048, 4, Tuning(flash=True, kv="q8_0")),
        (2048, 4, Tuning(ubatch=128)),
    ],
)
def test_a_context_takes_what_was_estimated(model: Model, tokens: int, sequences: int, tuning: Tuning) -> None:
    estimate = budget_of(model.path, tokens=tokens, sequences=sequences, batch=BATCH, tuning=tuning).context

    says, resident = reserved(model, tokens=tokens, sequences=sequences, tuning=tuning)

    assert says * MIB <= estimate <= says * MIB * 1.05
    assert 0.3 * estimate < resident < 1.05 * estimate


def test_the_smallest_limit_of_the_machine_the_container_and_the_service_counts(tmp_path: Path) -> None:
    own, total = tmp_path / "cgroup", psutil.virtual_memory().total
    assert machine_bytes(tmp_path, own) == total
    own.write_text("0::/system.slice/twin.service\n")
    service = tmp_path / "system.slice" / "twin.service"
    service.mkdir(parents=True)
    (service / "memory.max").write_text("max\n")
    assert machine_bytes(tmp_path, own) == total

    (service.parent / "memory.max").write_text("2000\n")
    assert machine_bytes(tmp_path, own) == 2000
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("1000\n")
    assert machine_bytes(tmp_path, own) == 1000


def test_of_nothing_said_three_quarters_of_the_machine_are_allowed(weights: Weights) -> None:
    found = budget_of(weights.path, tokens=512, sequences=1, batch=BATCH)

    assert found.allowed == int(0.75 * machine_bytes())
    assert found.weights == weights.path.stat().st_size
