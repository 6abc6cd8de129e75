"""Whatever strangers write becomes a result or one of our sentences: a little of it each time, see `make fuzz` for more."""

import os
import random
import resource
import socket
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.harness import Target, changed, try_case
from tests.fuzz.targets import TARGETS

# Cases of each target, and how long they are; more where somebody looks for longer.
EACH = int(os.environ.get("UNDERSTUDY_TEST_FUZZ", "25"))
MOST = 6_000
# What one target may add to the process, in KiB as Linux counts.
MOST_MEMORY = 600_000


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_whatever_comes_is_a_result_or_a_sentence(target: Target, tmp_path: Path) -> None:
    seeds = target.seeds()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @given(st.sampled_from(seeds), st.randoms(use_true_random=False))
    @settings(
        max_examples=EACH, deadline=None, database=None, derandomize=True, phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    def fuzz(seed: bytes, rng: random.Random) -> None:
        try_case(target, changed(target, seed, rng, most=MOST), tmp_path / "room")

    for seed in seeds:
        try_case(target, seed, tmp_path / "room")
    fuzz()

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MEMORY


def test_a_case_that_leaves_its_folder_or_reaches_out_is_noticed(tmp_path: Path) -> None:
    def reach(data: bytes, room: Path) -> None:
        with socket.socket() as line:
            line.connect_ex(("127.0.0.1", 9))

    beside = tmp_path / "beside"
    for name, feed in (
        ("open", lambda data, room: beside.write_bytes(b"x")),
        ("mkdir", lambda data, room: (tmp_path / "made").mkdir()),
        ("socket.connect", reach),
        ("not done", lambda data, room: endless()),
    ):
        with pytest.raises(AssertionError, match=name):
            try_case(Target(name, feed, list), b"", tmp_path / "room", seconds=0.2)


def endless() -> None:
    while True:
        pass
