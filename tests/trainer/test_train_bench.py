"""`bench train`: one real side on a small random Qwen2.5, what may be asked for, and claims that say what they are."""

from pathlib import Path

import pytest

from infra.errors import ServiceTrouble, UserMistake
from trainer import train_bench
from trainer.train_bench import CLAIMS, Side, claims, matches, measured, run_side, shown, sides

SIDE = Side("small", "trl", 4, 16, batch=1, steps=2)


def test_a_side_trains_for_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = {**train_bench.SHAPES["small"], "num_hidden_layers": 1, "vocab_size": 2000, "intermediate_size": 256}
    monkeypatch.setitem(train_bench.SHAPES, "small", narrow)

    line = shown(SIDE, run_side(SIDE, tmp_path))

    assert line["tokens/s"] > 0
    assert line["minutes per 1,000 exchanges"] == pytest.approx(1000 * 191 * 2 / line["tokens/s"] / 60, rel=0.2)
    assert line["peak MiB"] > 100
    assert line["trainer"].startswith("TRL and PEFT on ")
    assert (line["rank"], line["batch x length"]) == (4, "1 x 16")


def test_a_side_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(ServiceTrouble, match="at rank 4 failed: .*KeyError"):
        measured(Side("nothing", "trl", 4, 16), tmp_path / "side")


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"bases": ["9b"]}, "--base is one of"),
        ({"trainers": ["axolotl"]}, "--trainer is unsloth or trl"),
        ({"ranks": [512]}, "--rank is 1 to 256"),
    ],
)
def test_names_that_mean_nothing_are_mistakes(given: dict[str, list[object]], word: str) -> None:
    asked = {"bases": [], "ranks": [16], "trainers": ["trl"], **given}

    with pytest.raises(UserMistake, match=word):
        sides(**asked, length=64, batch=1, four_bit=False)  # type: ignore[arg-type]


def test_without_a_gpu_the_packaged_base_is_measured_by_trl() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    found = sides([], [16, 128], ["unsloth", "trl"], length=64, batch=1, four_bit=False)

    ways = [(side.base, side.trainer, side.rank) for side in found]
    assert ways == [("packaged", "trl", 16), ("packaged", "trl", 128)]
    with pytest.raises(UserMistake, match="only --trainer trl"):
        sides([], [16], ["unsloth"], length=64, batch=1, four_bit=False)


def test_claims_are_not_checked_by_what_was_not_measured() -> None:
    found = claims([])

    assert [each["claim"] for each in found] == [claim for claim, _, _ in CLAIMS]
    assert {each["verdict"] for each in found} == {"not yet measured"}
    assert all(each["calculated MiB"] > 1000 for each in found)


@pytest.mark.parametrize(("shape", "of_it"), [("1 x 2048", True), ("4 x 2048", False), ("1 x 16", False)])
def test_a_claim_is_checked_by_what_it_is_about(shape: str, of_it: bool) -> None:
    _, side, _ = CLAIMS[0]
    figure = {"base": "1.5b", "rank": 16, "batch x length": shape, "trainer": "unsloth on CUDA"}

    assert matches(side, figure) is of_it
