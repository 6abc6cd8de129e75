"""Merging: base and adapter become one GGUF in float16, from which llama.cpp's quantiser makes every other format.

It works on the files that are served, in their own names and row order: each matrix of the base is dequantised, scaled
B times A is added in float32, and the sum is written as float16, a few million values at a time. So a base of any size
takes the same memory. The adapter's B already has the rows as `gguf.reordered` put them. Whether the result speaks like
base and adapter together is proved by `proved`, every time. Needs no torch.
"""

import contextlib
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from infra.errors import ServiceTrouble
from infra.voice.gguf_check import check_adapter, check_base
from infra.voice.llama import Model, quantise
from trainer.parity import in_llama, rms, tokenised

# Values that are in memory at once as float32.
AT_ONCE = 1 << 24
# By how much the merged file's logits may differ from those of base and adapter together, root mean square: what
# rounding the sums to half precision costs, twice as much as measured, and a fiftieth of the adapter's effect (LOG.md).
ROUNDING, SHARE = 0.02, 0.02
# Where the base stands in float16 meanwhile; what a kill leaves of it goes when the export goes on.
PROVING = ".proof-"
# `general.file_type` of llama.cpp for float16.
F16 = 1

Values = Mapping[str, str | Sequence[str]]


@dataclass(frozen=True)
class Half:
    """One matrix's share of an adapter: what `scale * b @ a` adds."""

    a: np.ndarray
    b: np.ndarray
    scale: float


@dataclass(frozen=True)
class Proof:
    """Root mean squares over logits: between merged and base with adapter, and what the adapter changes."""

    error: float
    effect: float

    @property
    def tolerance(self) -> float:
        return ROUNDING + SHARE * self.effect


def merge(base: Path, adapter: Path, out: Path, *, base_sha256: str, described: Values) -> None:
    """Write base and adapter as one float16 model to `out`; `described` are further values of its metadata.

    Raises ServiceTrouble when the adapter is not for this base, a sum is no number, or the file cannot be written; then
    nothing is left of it.
    """
    from gguf import GGUFReader, GGUFWriter

    check_adapter(adapter, check_base(base), base_name=base.name, base_sha256=base_sha256)
    reader, added = GGUFReader(base), halves(adapter)
    writer = GGUFWriter(out, text_of(reader, "general.architecture"))
    try:
        copy_fields(reader, writer, {**described}, file_type=F16)
        for tensor in reader.tensors:
            plain = len(tensor.shape) > 1
            shape = [int(n) for n in reversed(tensor.shape)]
            kind = np.dtype(np.float16) if plain else tensor.data.dtype
            size = int(np.prod(shape)) * kind.itemsize
            writer.add_tensor_info(tensor.name, shape, kind, size, None if plain else tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        (file,) = writer.fout
        for tensor in reader.tensors:
            writer.write_padding(file, file.tell())
            for piece in pieces(tensor, added.get(tensor.name)):
                file.write(piece.tobytes())
        writer.write_padding(file, file.tell())
        file.flush()
    except OSError as error:
        out.unlink(missing_ok=True)
        raise ServiceTrouble(f"Could not write {str(out)!r}: {error.strerror}. Free some space.") from error
    except ServiceTrouble:
        out.unlink(missing_ok=True)
        raise
    finally:
        with contextlib.suppress(OSError):  # what could not be written is said already
            writer.close()


def pieces(tensor: Any, half: Half | None) -> Iterator[np.ndarray]:
    """A tensor's values as they are written, some rows at a time: vectors as they are, matrices as float16 sums."""
    from gguf import dequantize

    if len(tensor.shape) == 1:
        yield tensor.data
        return
    rows = max(1, AT_ONCE // int(tensor.shape[0]))
    for start in range(0, tensor.data.shape[0], rows):
        found = dequantize(tensor.data[start : start + rows], tensor.tensor_type).astype(np.float32, copy=False)
        if half is not None:
            found = found + half.scale * (half.b[start : start + rows] @ half.a)
        rounded = found.astype(np.float16)
        if not np.isfinite(rounded).all():
            raise ServiceTrouble(f"{tensor.name!r} holds values that half precision cannot; train with a lower rate.")
        yield rounded


def halves(adapter: Path) -> dict[str, Half]:
    """What an adapter adds, by the name of the base's matrix."""
    from gguf import GGUFReader, dequantize

    reader = GGUFReader(adapter)
    found = {each.name: dequantize(each.data, each.tensor_type).astype(np.float32) for each in reader.tensors}
    alpha = float(reader.get_field("adapter.lora.alpha").contents())
    names = [name.removesuffix(".lora_a") for name in found if name.endswith(".lora_a")]
    return {name: half_of(found[f"{name}.lora_a"], found[f"{name}.lora_b"], alpha) for name in names}


def half_of(a: np.ndarray, b: np.ndarray, alpha: float) -> Half:
    """As llama.cpp scales it: alpha over the rank, and alpha 0 is none."""
    return Half(a, b, alpha / a.shape[0] if alpha else 1.0)


def relabel(source: Path, out: Path, described: Values) -> None:
    """A small GGUF with further values of metadata, its tensors as they are. Raises ServiceTrouble as `merge`."""
    from gguf import GGUFReader, GGUFWriter

    reader = GGUFReader(source)
    writer = GGUFWriter(out, text_of(reader, "general.architecture"))
    try:
        copy_fields(reader, writer, {**described})
        for tensor in reader.tensors:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    except OSError as error:
        raise ServiceTrouble(f"Could not write {str(out)!r}: {error.strerror}. Free some space.") from error
    finally:
        writer.close()


def copy_fields(
    reader: Any, writer: Any, instead: dict[str, str | Sequence[str]], file_type: int | None = None
) -> None:
    """The metadata of `reader`, with some values instead of or beside what it says."""
    from gguf import GGUFValueType

    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture" or name in instead:
            continue
        sub_type = field.types[-1] if field.types[0] is GGUFValueType.ARRAY else None
        value = file_type if name == "general.file_type" and file_type is not None else field.contents()
        writer.add_key_value(name, value, field.types[0], sub_type)
    for name, said in instead.items():
        if isinstance(said, str):
            writer.add_string(name, said)
        else:
            writer.add_array(name, list(said))


def weights_in(path: Path) -> int:
    """How many weights a model has."""
    return sum(math.prod(tensor.shape) for tensor in check_base(path).tensors.values())


def template_of(path: Path) -> str:
    """The chat template that a model carries."""
    model = Model(path)
    try:
        return model.metadata("tokenizer.chat_template")
    finally:
        model.free()


def refuse_mute(path: Path) -> None:
    """Raise ServiceTrouble for a file that llama.cpp cannot load, or that computes what are no numbers."""
    if not np.isfinite(in_llama(path, None, tokenised(path)[:1])).all():
        raise ServiceTrouble(f"{path.name!r} computes what are no numbers; nothing was exported.", permanent=True)


def text_of(reader: Any, key: str) -> str:
    """A text of a file's metadata; empty when there is none."""
    field = reader.get_field(key)
    return str(field.contents()) if field else ""


def proved(base: Path, adapter: Path, merged: Path, *, threads: int) -> Proof:
    """Compare the merged file with base and adapter together, in llama.cpp, on the fixed prompts of `parity.py`.

    The base is written as float16 for it, since 8-bit activations hide a wrong merge. Needs room for that on disk.
    Raises ServiceTrouble when they differ by more than the tolerance.
    """
    with tempfile.TemporaryDirectory(dir=merged.parent, prefix=PROVING) as folder:
        exact = Path(folder) / "base.gguf"
        quantise(base, exact, "F16", threads=threads)
        prompts = tokenised(exact)
        alone, adapted = in_llama(exact, None, prompts), in_llama(exact, adapter, prompts)
    found = Proof(error=rms(in_llama(merged, None, prompts) - adapted), effect=rms(adapted - alone))
    # Written so that a NaN is outside too.
    if not found.error <= found.tolerance:
        raise ServiceTrouble(
            f"The merged model does not speak as base and adapter do: its logits differ by {found.error:.3f}, at most "
            f"{found.tolerance:.3f} is rounding. Nothing was exported.",
            permanent=True,
        )
    return found
