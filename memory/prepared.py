"""An embedder prepared for onnxruntime: whoever encodes then needs neither torch nor sentence-transformers.

Those take seconds and hundreds of megabytes to load, for the same vectors. The model is exported once, with its pooling
and its tokenizer's limits, and is used only if its vectors are those of the original.
"""

import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from infra.errors import ServiceTrouble
from infra.files import finish_folder, finished

MODEL, TOKENIZER = "model.onnx", "tokenizer.json"
BATCH = 32
# The least cosine between a vector and the original's; what is exported faithfully has 1 but for rounding.
FAITHFUL = 0.9999
# Short, long and other scripts, so that padding, truncation and unknown words all count.
PROBES = ("How warm must the oven be?", "面团要多热？", "flour water salt " * 200, "x")


class Prepared:
    """A prepared embedder, open."""

    def __init__(self, folder: Path, *, threads: int) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Threads that spin while they wait take the cores from the voice.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = str(folder / MODEL)
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._wanted = [each.name for each in self._session.get_inputs()]
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self.dimension = int(self._session.get_outputs()[0].shape[1])

    def dense(self, texts: list[str]) -> np.ndarray:
        """Unit vectors, float32, (texts, dimension). Texts of like length are encoded together, as padding costs."""
        found = np.empty((len(texts), self.dimension), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
        for start in range(0, len(order), BATCH):
            picked = order[start : start + BATCH]
            found[picked] = self._batch([texts[at] for at in picked])
        return found

    def _batch(self, texts: list[str]) -> np.ndarray:
        read = self._tokenizer.encode_batch(texts)
        known = {
            "input_ids": [each.ids for each in read],
            "attention_mask": [each.attention_mask for each in read],
            "token_type_ids": [each.type_ids for each in read],
        }
        fed = {name: np.asarray(known[name], dtype=np.int64) for name in self._wanted}
        return np.asarray(self._session.run(None, fed)[0])


def is_prepared(folder: Path, made_from: str) -> bool:
    """Whether `folder` holds what was prepared from this."""
    return (finished(folder) or {}).get("made from") == made_from


def prepare(model: Any, folder: Path, *, made_from: str, threads: int) -> Prepared:
    """Export a SentenceTransformer into `folder`. Raises ServiceTrouble where its vectors would not be the same."""
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    part.mkdir(parents=True)
    try:
        export(model, part)
        cosine = float((Prepared(part, threads=threads).dense([*PROBES]) * original(model)).sum(1).min())
        if cosine < FAITHFUL:
            raise ServiceTrouble(f"its vectors would not be the same (cosine {cosine:.4f})")
        finish_folder(part, {"made from": made_from, "cosine": cosine})
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Prepared(folder, threads=threads)


def original(model: Any) -> np.ndarray:
    """What the model itself makes of the probes."""
    found = model.encode([*PROBES], normalize_embeddings=True, show_progress_bar=False)
    return np.asarray(found, dtype=np.float32)


def export(model: Any, folder: Path) -> None:
    """Write graph and tokenizer: token ids in, unit vectors out."""
    import torch

    class Whole(torch.nn.Module):
        """The model as a function of its inputs, normalised."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            found = self.model(dict(zip(names, inputs, strict=True)))["sentence_embedding"]
            return torch.nn.functional.normalize(found, dim=1)

    read = model.tokenize(list(PROBES[:2]))
    names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in read]
    free = {name: {0: "texts", 1: "tokens"} for name in names}
    with warnings.catch_warnings(action="ignore"):  # about itself; whether it went wrong, the vectors say
        torch.onnx.export(
            Whole().eval(),
            tuple(read[name] for name in names),
            str(folder / MODEL),
            input_names=names,
            output_names=["vectors"],
            dynamic_axes={**free, "vectors": {0: "texts"}},
            dynamo=False,  # the other exporter needs onnxscript
        )
    tokenizer = model.tokenizer.backend_tokenizer
    tokenizer.enable_truncation(model.max_seq_length)
    tokenizer.enable_padding(pad_id=model.tokenizer.pad_token_id, pad_token=model.tokenizer.pad_token)
    tokenizer.save(str(folder / TOKENIZER))
