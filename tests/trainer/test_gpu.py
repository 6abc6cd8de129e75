"""Which trainer runs and why, on every kind of machine; and what is asked of unsloth, on a stand-in of it.

unsloth needs a GPU, which no machine of ours has: its stand-in takes the calls and gives back a real model with a real
adapter, so that all of ours around it runs.
"""

import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from infra.errors import UserMistake
from trainer import estimate, gpu, lora
from trainer.base import load_base
from trainer.gpu import Found, means, shared_out

CARD = Found(cuda=1, bf16=True, unsloth=True, bitsandbytes=True)
TWO = replace(CARD, cuda=2)
HUB = "hub:Qwen/Qwen2.5-3B-Instruct"


@pytest.mark.parametrize(
    ("found", "trainable", "four_bit", "said"),
    [
        (Found(), HUB, False, "TRL and PEFT on CPU: no CUDA device is here, and unsloth needs one"),
        (Found(), HUB, True, "4 bits need CUDA, so the base is trained whole"),
        (Found(mps=True), "", False, "TRL and PEFT on MPS"),
        (CARD, HUB, True, "unsloth on CUDA, 4-bit base: one CUDA device and unsloth are here"),
        (CARD, "", False, "TRL and PEFT on CUDA: the base is the served GGUF itself, which unsloth cannot load"),
        (CARD, "", True, "no 4-bit weights that could be trained on"),
        (replace(CARD, unsloth=False), HUB, True, "TRL and PEFT on CUDA, 4-bit base: unsloth is not installed"),
        (replace(CARD, unsloth=False, bitsandbytes=False), HUB, True, "so the base is trained in 16 bit"),
        (TWO, HUB, False, "TRL and PEFT on 2 GPUs: unsloth trains on one GPU and 2 are here"),
    ],
)
def test_what_trains_and_why_is_said(found: Found, trainable: str, four_bit: bool, said: str) -> None:
    assert said in str(means(found, trainable=trainable, four_bit=four_bit))


def test_unsloth_can_be_left_out() -> None:
    assert "training.trainer is trl" in str(means(CARD, trainable=HUB, four_bit=False, plain=True))


def test_rows_lie_end_to_end_only_where_attention_keeps_them_apart() -> None:
    """Flash attention does; PyTorch's own, which a CPU has, looks across."""
    flash = replace(TWO, flash=True)

    assert means(flash, trainable=HUB, four_bit=False).apart
    assert not means(TWO, trainable=HUB, four_bit=False).apart
    assert not means(Found(flash=True), trainable=HUB, four_bit=False).apart


@pytest.mark.parametrize(
    ("batch", "accumulate", "ranks", "each"),
    [(2, 4, 4, (2, 1)), (4, 2, 4, (2, 1)), (4, 1, 2, (2, 1)), (2, 3, 2, (1, 3)), (3, 1, 2, (3, 1)), (4, 1, 1, (4, 1))],
)
def test_a_step_learns_from_as_many_rows_on_several_gpus(
    batch: int, accumulate: int, ranks: int, each: tuple[int, int]
) -> None:
    assert shared_out(batch, accumulate, ranks) == each


def test_a_hubs_weights_are_loaded_in_16_bit(tiny: str) -> None:
    import torch

    model = gpu.hub_model(tiny, here=means(TWO, trainable=tiny, four_bit=False), bf16=True)

    assert model.dtype == torch.bfloat16


def test_weights_that_are_not_there_are_a_mistake_with_their_name(tmp_path: Path) -> None:
    with pytest.raises(UserMistake, match="nothing-here"):
        gpu.hub_model(str(tmp_path / "nothing-here"), here=means(TWO, trainable=HUB, four_bit=False), bf16=True)


class Unsloth(ModuleType):
    """Takes unsloth's two calls; its model is transformers' with PEFT's adapter."""

    def __init__(self) -> None:
        super().__init__("unsloth")
        self.calls: list[dict[str, Any]] = []
        self.FastLanguageModel = self

    def from_pretrained(self, name: str, **given: Any) -> tuple[Any, None]:
        self.calls.append({"name": name, **given})
        return load_base(Path("unused.gguf"), name), None

    def get_peft_model(self, model: Any, **given: Any) -> Any:
        from peft import LoraConfig, get_peft_model

        self.calls.append(given)
        ours = {key: given[key] for key in ("r", "lora_alpha", "lora_dropout", "bias", "use_rslora", "target_modules")}
        return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **ours))


@pytest.fixture
def unsloth(monkeypatch: pytest.MonkeyPatch) -> Unsloth:
    """A machine with a CUDA device and unsloth, as far as our code can see."""
    module = Unsloth()
    monkeypatch.setitem(sys.modules, "unsloth", module)
    monkeypatch.setattr(Found, "here", classmethod(lambda cls: CARD))
    monkeypatch.setattr(estimate, "available", lambda device: 40_000)
    return module


def test_unsloth_trains_what_peft_would(
    unsloth: Unsloth, tmp_path: Path, served: Path, tiny: str, small_dataset: Path
) -> None:
    """The same matrices, plain scaling, 4 bits when asked; its adapter is trained, saved and reported like any other."""
    budget = lora.TrainingBudget(epochs=1, batch=8, lr=1e-2, rank=4, alpha=8, max_length=64, four_bit=True)
    said: list[str] = []

    report = lora.train(
        small_dataset, tmp_path, base_gguf=served, trainable=f"hub:{tiny}", budget=budget, seed=3, on_start=said.append
    )

    loaded, adapted = unsloth.calls
    assert loaded == {"name": tiny, "max_seq_length": 64, "load_in_4bit": True, "random_state": 3}
    assert (adapted["r"], adapted["lora_alpha"], adapted["use_rslora"], adapted["bias"]) == (4, 8, False, "none")
    assert adapted["use_gradient_checkpointing"] == "unsloth"
    assert report.means == "unsloth on CUDA, 4-bit base: one CUDA device and unsloth are here"
    assert report.expected["four_bit"]
    assert said[0].startswith(report.means)
    assert report.validation[-1][1] < report.validation[0][1]
    assert report.peft is not None
    assert (report.peft / "adapter_model.safetensors").is_file()


def test_unsloth_comes_first_or_not_at_all(unsloth: Unsloth) -> None:
    assert gpu.load_unsloth_first(CARD, trainable=HUB, plain=False)
    assert not gpu.load_unsloth_first(CARD, trainable="", plain=False)
    assert not gpu.load_unsloth_first(CARD, trainable=HUB, plain=True)
    assert not gpu.load_unsloth_first(Found(unsloth=True), trainable=HUB, plain=False)


def test_what_is_here_is_found() -> None:
    import torch

    assert asdict(Found.here())["cuda"] == (torch.cuda.device_count() if torch.cuda.is_available() else 0)
