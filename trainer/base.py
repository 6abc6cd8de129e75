"""The base that an adapter is trained on: its weights as torch has them, and the precision they are computed in."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

from infra.errors import UserMistake


def load_base(base_gguf: Path, trainable: str = "") -> Any:
    """A trainable float32 model: the GGUF's own weights dequantised, or those of a hub name or folder.

    Raises UserMistake when it cannot be loaded.
    """
    import torch
    from transformers import AutoModelForCausalLM

    name = trainable.removeprefix("hub:")
    try:
        if name:
            return AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
        with reading_once():
            model = AutoModelForCausalLM.from_pretrained(
                str(base_gguf.parent), gguf_file=base_gguf.name, dtype=torch.float32
            )
    except (OSError, ValueError) as error:
        raise UserMistake(f"Cannot load {name or str(base_gguf)!r} for training: {error}.") from error
    # The weights are plain floats now; what still calls them quantised would refuse to train and to save them.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    for mark in ("hf_quantizer", "is_quantized", "quantization_method"):
        if hasattr(model, mark):
            delattr(model, mark)
    return model


@contextmanager
def reading_once() -> Iterator[None]:
    """While transformers loads a GGUF: it reads the vocabulary twice and maps all names anew for every module.

    Reading once and mapping once takes 8 s instead of 24 for the packaged base on two cores.
    """
    import gguf

    slow = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
    for name, function in slow.items():
        setattr(gguf, name, cache(function))
    try:
        yield
    finally:
        for name, function in slow.items():
            setattr(gguf, name, function)


def best_precision() -> Literal["bf16", "fp32"]:
    """bf16 where it is faster: on GPUs that have it, on CPUs with AMX, and on AMD's with AVX-512 BF16.

    Measured on the packaged 135M with two cores (LOG.md), bf16 against fp32 in tokens/s: 862 and 464 with AMX, 493 and
    243 on AMD's Zen 5, 299 and 476 on Intel with AVX-512 BF16 alone, 131 and 472 with AVX-512 VNNI, 8 and 469 on
    AVX2. fp16 is never used: it diverged.
    """
    import torch

    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    if torch.backends.mps.is_available():
        return "fp32"
    known = torch.cpu.get_capabilities()
    amd = "AMD" in str(known.get("cpu_name", ""))
    return "bf16" if known.get("amx_bf16") or (amd and known.get("avx512_bf16")) else "fp32"


def halve(model: Any) -> None:
    """Keep the frozen matrices in bf16, so that they are not converted anew for every batch.

    Embeddings, norms and the sum that runs through the layers stay in float32, and so does the adapter.
    """
    import torch

    head = model.get_output_embeddings()
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module is not head:
            module.weight.data = module.weight.data.to(torch.bfloat16)
