"""GGUF: a PEFT adapter becomes the file that llama.cpp puts on the served base. The only module that knows the format.

Reads names and shapes from the base's own GGUF and refuses whatever cannot be expressed, since llama.cpp would load it
and speak wrongly. Needs no torch. Whether the result is right is proved by `parity.py`, not here.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from infra.errors import ServiceTrouble, UserMistake

# For these llama.cpp stores the rows of the q and k matrices in another order than transformers does.
REORDERED = {"llama"}
AS_THEY_ARE = {"qwen2", "qwen3", "smollm3", "gemma", "gemma2", "gemma3"}

# What PEFT can train and a LoRA GGUF cannot say.
REFUSED = ("use_dora", "alpha_pattern", "modules_to_save", "layer_replication", "trainable_token_indices", "lora_bias")

KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<half>[AB])\.weight")


@dataclass(frozen=True)
class Base:
    """What the adapter's tensors must fit: the base's architecture, layers, heads and matrix shapes (rows, columns)."""

    architecture: str
    layers: int
    heads: int
    kv_heads: int
    shapes: dict[str, tuple[int, ...]]


def write_adapter(peft_folder: Path, base_gguf: Path, out: Path, *, metadata: Mapping[str, str]) -> None:
    """Write the adapter in `peft_folder` for the base `base_gguf` to `out`; whole or not at all.

    `metadata` are further text values, such as `twin.base_sha256`. Matrices are float16: half the bytes to read for
    each token, and far finer than the quantised base. rsLoRA is folded into alpha, which llama.cpp divides by the rank.

    Raises UserMistake when the adapter or the base is of a kind that cannot be expressed, ServiceTrouble when a file
    cannot be read or written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        config = json.loads((peft_folder / "adapter_config.json").read_text(encoding="utf-8"))
        tensors = load_file(peft_folder / "adapter_model.safetensors")
        base = base_of(base_gguf)
    except (OSError, ValueError, SafetensorError) as error:
        raise ServiceTrouble(f"Cannot read the adapter in {str(peft_folder)!r} or its base: {error}.") from error
    alpha = alpha_of(config)
    named = {name: fitted(name, tensor, base) for name, tensor in renamed(tensors, base).items()}
    part = out.with_name(f".{out.name}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write(part, base.architecture, alpha, named, metadata)
        part.replace(out)
    except OSError as error:
        raise ServiceTrouble(f"Could not write {str(out)!r}: {error.strerror}. Free some space.") from error
    finally:
        part.unlink(missing_ok=True)


def alpha_of(config: Mapping[str, Any]) -> float:
    """The alpha that gives PEFT's scale when divided by the rank. Raises UserMistake for what has no such number."""
    wrong = [key for key in REFUSED if config.get(key)]
    if config.get("peft_type") != "LORA" or wrong or config.get("bias", "none") != "none":
        raise UserMistake(
            f"An adapter with {', '.join(wrong) or config.get('peft_type')} cannot be served; train plain LoRA."
        )
    if config.get("use_rslora"):
        if config.get("rank_pattern"):
            raise UserMistake("rsLoRA with rank_pattern has no single alpha and cannot be served; train plain LoRA.")
        return float(config["lora_alpha"]) * math.sqrt(config["r"])
    return float(config["lora_alpha"])


def base_of(path: Path) -> Base:
    """What a base's GGUF says of itself. Raises UserMistake for an architecture whose adapters are not known to fit."""
    from gguf import GGUFReader

    reader = GGUFReader(path)

    def value(key: str) -> Any:
        field = reader.get_field(key)
        return field.contents() if field else None

    architecture = str(value("general.architecture"))
    if architecture not in REORDERED | AS_THEY_ARE:
        known = ", ".join(sorted(REORDERED | AS_THEY_ARE))
        raise UserMistake(f"Adapters for {architecture!r} models are not supported; choose a base among: {known}.")
    heads = int(value(f"{architecture}.attention.head_count"))
    return Base(
        architecture=architecture,
        layers=int(value(f"{architecture}.block_count")),
        heads=heads,
        kv_heads=int(value(f"{architecture}.attention.head_count_kv") or heads),
        # GGUF counts dimensions from the innermost.
        shapes={tensor.name: tuple(int(n) for n in reversed(tensor.shape)) for tensor in reader.tensors},
    )


def renamed(tensors: Mapping[str, np.ndarray], base: Base) -> dict[str, np.ndarray]:
    """The adapter's matrices under the base's tensor names. Raises UserMistake for one that the base has not."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    architecture = next(arch for arch, name in MODEL_ARCH_NAMES.items() if name == base.architecture)
    names = get_tensor_name_map(architecture, base.layers)
    found: dict[str, np.ndarray] = {}
    for key, tensor in tensors.items():
        match = KEY.fullmatch(key)
        name = names.get_name(match["module"]) if match else None
        if not match or not name or f"{name}.weight" not in base.shapes:
            raise UserMistake(f"The base has no matrix for the adapter's {key!r}; train it on this base.")
        found[f"{name}.weight.lora_{match['half'].lower()}"] = tensor
    return found


def fitted(name: str, tensor: np.ndarray, base: Base) -> np.ndarray:
    """One matrix as llama.cpp expects it. Raises UserMistake when its shape is another base's."""
    target, _, half = name.rpartition(".lora_")
    rows, columns = base.shapes[target]
    if (tensor.shape[1] if half == "a" else tensor.shape[0]) != (columns if half == "a" else rows):
        raise UserMistake(f"{name!r} has shape {tensor.shape}, the base's matrix is {rows} x {columns}: another base.")
    if not np.isfinite(tensor).all():
        raise UserMistake(f"{name!r} holds values that are no numbers; train again with a lower learning rate.")
    if half == "b" and base.architecture in REORDERED:
        if target.endswith("attn_q.weight"):
            tensor = reordered(tensor, base.heads)
        elif target.endswith("attn_k.weight"):
            tensor = reordered(tensor, base.kv_heads)
    return np.ascontiguousarray(tensor, dtype=np.float16)


def reordered(tensor: np.ndarray, heads: int) -> np.ndarray:
    """Rows as llama.cpp's rotary embedding wants them: of each head, the two halves interleaved."""
    rows, columns = tensor.shape
    return tensor.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write(
    path: Path, architecture: str, alpha: float, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    from gguf import GGUFType, GGUFWriter, Keys

    writer = GGUFWriter(path, architecture)
    try:
        writer.add_type(GGUFType.ADAPTER)
        writer.add_string(Keys.Adapter.TYPE, "lora")
        writer.add_float32(Keys.Adapter.LORA_ALPHA, alpha)
        for key, value in metadata.items():
            writer.add_string(key, value)
        for name in sorted(tensors):
            writer.add_tensor(name, tensors[name])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
