"""Which trainer runs, on what, and why in words; and how a hub's weights get onto a GPU. The only owner of unsloth.

`means` is pure: what was found on the machine and what is asked for go in, a decision and its reason come out, so all
of it is tested where there is no GPU. What it decides for CUDA has not run on one: docs/training.md, "On a GPU".
Knows nothing of rows, budgets or runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from infra.errors import UserMistake
from trainer.estimate import Device

# unsloth names its targets; these are all linear layers of a Llama or Qwen, what PEFT calls "all-linear".
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Found:
    """What this machine has: CUDA devices with bf16 or not, Apple's GPU, and the optional packages."""

    cuda: int = 0
    bf16: bool = False
    mps: bool = False
    unsloth: bool = False
    bitsandbytes: bool = False
    flash: bool = False

    @classmethod
    def here(cls) -> "Found":
        import torch

        cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return cls(
            cuda=cuda,
            bf16=bool(cuda) and torch.cuda.is_bf16_supported(),
            mps=torch.backends.mps.is_available(),
            unsloth=find_spec("unsloth") is not None,
            bitsandbytes=find_spec("bitsandbytes") is not None,
            flash=find_spec("flash_attn") is not None,
        )


@dataclass(frozen=True)
class Means:
    """How a training is done. `why` says what was chosen and what stood in the way of more, for people.

    `ranks` processes share the work, one on each GPU. `apart`: rows are laid end to end without padding, which only
    attention that keeps rows apart may do.
    """

    trainer: Literal["unsloth", "trl"]
    device: Device
    ranks: int
    four_bit: bool
    apart: bool
    why: str

    def __str__(self) -> str:
        name = "unsloth" if self.trainer == "unsloth" else "TRL and PEFT"
        where = self.device.upper() if self.ranks == 1 else f"{self.ranks} GPUs"
        return f"{name} on {where}{', 4-bit base' if self.four_bit else ''}: {self.why}"


def means(found: Found, *, trainable: str, four_bit: bool, plain: bool = False) -> Means:
    """What trains `trainable` (empty: the served GGUF) on what was found, and why not with more; `plain`: TRL alone."""
    if not found.cuda:
        device: Device = "mps" if found.mps else "cpu"
        reasons = ["no CUDA device is here, and unsloth needs one"]
        reasons += ["4 bits need CUDA, so the base is trained whole"] if four_bit else []
        # PyTorch's own attention looks across rows that lie end to end, so they are padded.
        return Means("trl", device, 1, False, False, "; ".join(reasons))
    if not trainable:
        reasons = ["the base is the served GGUF itself, which unsloth cannot load (models.trainable is empty)"]
        reasons += ["and it has no 4-bit weights that could be trained on"] if four_bit else []
        return Means("trl", "cuda", found.cuda, False, False, "; ".join(reasons))
    if found.cuda == 1 and found.unsloth and not plain:
        return Means("unsloth", "cuda", 1, four_bit, False, "one CUDA device and unsloth are here")
    reasons = [f"unsloth trains on one GPU and {found.cuda} are here"] if found.cuda > 1 else []
    reasons += ["training.trainer is trl"] if plain else []
    reasons += [] if found.unsloth else ["unsloth is not installed: pip install 'understudy[gpu]'"]
    if four_bit and not found.bitsandbytes:
        reasons.append("bitsandbytes is not installed, so the base is trained in 16 bit")
    return Means("trl", "cuda", found.cuda, four_bit and found.bitsandbytes, found.flash, "; ".join(reasons))


def load_unsloth_first(found: Found, *, trainable: str, plain: bool) -> bool:
    """Import unsloth when it will train: it changes transformers and trl, so nothing may have imported them before."""
    if means(found, trainable=trainable, four_bit=False, plain=plain).trainer != "unsloth":
        return False
    import unsloth

    return bool(unsloth)


def unsloth_model(
    trainable: str, *, max_length: int, four_bit: bool, rank: int, alpha: int, seed: int, checkpointing: bool = True
) -> Any:
    """unsloth's model with the same adapter that PEFT makes: plain scaling, no dropout, all linear layers."""
    from unsloth import FastLanguageModel

    model, _ = FastLanguageModel.from_pretrained(
        trainable.removeprefix("hub:"), max_seq_length=max_length, load_in_4bit=four_bit, random_state=seed
    )
    return FastLanguageModel.get_peft_model(
        model,
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0,
        bias="none",
        use_rslora=False,
        target_modules=list(PROJECTIONS),
        use_gradient_checkpointing="unsloth" if checkpointing else False,
        random_state=seed,
    )


def hub_model(trainable: str, *, here: Means, bf16: bool, device: int = 0) -> Any:
    """A hub's or folder's weights for TRL on CUDA: 4-bit NF4 with bf16 arithmetic (QLoRA), or 16 bit.

    Raises UserMistake when they cannot be loaded.
    """
    import torch
    from transformers import AutoModelForCausalLM

    name = trainable.removeprefix("hub:")
    given: dict[str, Any] = {"dtype": torch.bfloat16 if bf16 else torch.float32}
    if here.apart:
        given["attn_implementation"] = "flash_attention_2"
    if here.four_bit:
        given |= {"quantization_config": four_bits(bf16=bf16), "device_map": {"": device}}
    try:
        return AutoModelForCausalLM.from_pretrained(name, **given)
    except (OSError, ValueError) as error:
        raise UserMistake(f"Cannot load {name!r} for training: {error}.") from error


def four_bits(*, bf16: bool) -> Any:
    """QLoRA's format: normal floats whose scales are quantised too."""
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if bf16 else torch.float32,
    )


def shared_out(batch: int, accumulate: int, ranks: int) -> tuple[int, int]:
    """(batch, accumulate) of each of several processes, so that a step still learns from the same rows together.

    Accumulation is given up first, since full batches are what a GPU is fast at. Where neither divides, steps grow.
    """
    for fewer in divisors(ranks):
        if accumulate % fewer == 0:
            rest = ranks // fewer
            return (batch // rest if batch % rest == 0 else batch), accumulate // fewer
    return batch, accumulate


def divisors(number: int) -> Sequence[int]:
    """Largest first."""
    return [each for each in range(number, 0, -1) if number % each == 0]
