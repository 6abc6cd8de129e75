"""Models prepared for onnxruntime: who encodes or reranks then needs neither torch nor sentence-transformers.

Those take seconds and hundreds of megabytes to load, for the same figures. A model is exported once, with its pooling
and its tokenizer's limits, and is used only if its figures are those of the original.
"""

import os
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np

from infra.errors import ServiceTrouble
from infra.files import finish_folder, finished

MODEL, TOKENIZER = "model.onnx", "tokenizer.json"
BATCH, PAIRS = 32, 5
# The most that figures may differ from the original's: vectors by one less their cosine, scores as probabilities. A
# faithful export differs by rounding.
FAITHFUL = 1e-4
# Short, long and other scripts, so that padding, truncation and unknown words all count.
PROBES = ("How warm must the oven be?", "面团要多热？", "flour water salt " * 200, "x")


class Prepared:
    """A prepared model, open: an embedder has vectors, a cross-encoder scores."""

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
        """Unit vectors, float32, (texts, dimension)."""
        return self._figures(texts, BATCH)

    def scores(self, question: str, texts: Sequence[str], *, budget_s: float) -> np.ndarray | None:
        """How well each text answers, higher for better; None when that takes longer than it may."""
        from onnxruntime import RunOptions

        options = RunOptions()
        alarm = Timer(budget_s, setattr, (options, "terminate", True))  # looked at between the steps of the graph
        alarm.start()
        try:
            return self._figures([(question, text) for text in texts], PAIRS, options)[:, 0]
        except Exception:
            if options.terminate:
                return None
            raise
        finally:
            alarm.cancel()

    def _figures(self, texts: Sequence[str | tuple[str, str]], batch: int, options: Any = None) -> np.ndarray:
        """What the model makes of each text or pair. Those of like length are read together, as padding costs."""
        found = np.empty((len(texts), self.dimension), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda at: len("".join(texts[at])))
        for start in range(0, len(order), batch):
            picked = order[start : start + batch]
            found[picked] = self._run([texts[at] for at in picked], options)
        return found

    def _run(self, texts: Sequence[str | tuple[str, str]], options: Any) -> np.ndarray:
        read = self._tokenizer.encode_batch(list(texts))
        known = {
            "input_ids": [each.ids for each in read],
            "attention_mask": [each.attention_mask for each in read],
            "token_type_ids": [each.type_ids for each in read],
        }
        fed = {name: np.asarray(known[name], dtype=np.int64) for name in self._wanted}
        return np.asarray(self._session.run(None, fed, options)[0])


def is_prepared(folder: Path, made_from: str) -> bool:
    """Whether `folder` holds what was prepared from this."""
    return (finished(folder) or {}).get("made from") == made_from


def prepare_embedder(model: Any, folder: Path, *, made_from: str, threads: int) -> Prepared:
    """Export a SentenceTransformer into `folder`. Raises ServiceTrouble where its vectors would not be the same."""
    from torch.nn.functional import normalize

    def export(part: Path) -> None:
        read = model.tokenize(list(PROBES[:2]))
        write_graph(part, model, read, lambda fed: normalize(model(fed)["sentence_embedding"], dim=1))
        write_tokenizer(part, model.tokenizer, model.max_seq_length)

    def difference(prepared: Prepared) -> float:
        known = model.encode([*PROBES], normalize_embeddings=True, show_progress_bar=False)
        return 1 - float((prepared.dense([*PROBES]) * known).sum(1).min())

    return prepare(folder, export, difference, made_from=made_from, threads=threads)


def prepare_reranker(model: Any, folder: Path, *, made_from: str, threads: int) -> Prepared:
    """Export a CrossEncoder into `folder`. Raises ServiceTrouble where its scores would not be the same."""
    from torch import sigmoid

    pairs = [(PROBES[0], probe) for probe in PROBES]

    def export(part: Path) -> None:
        write_graph(part, model, model.preprocess(pairs[:2]), lambda fed: model(fed)["scores"])
        write_tokenizer(part, model.tokenizer, model.max_seq_length)

    def difference(prepared: Prepared) -> float:
        found = prepared.scores(PROBES[0], PROBES, budget_s=600)
        known = model.predict(pairs, activation_fn=sigmoid, show_progress_bar=False)
        return float(np.abs(1 / (1 + np.exp(-np.asarray(found))) - known).max())

    return prepare(folder, export, difference, made_from=made_from, threads=threads)


def prepare(
    folder: Path,
    export: Callable[[Path], None],
    difference: Callable[[Prepared], float],
    *,
    made_from: str,
    threads: int,
) -> Prepared:
    """Let `export` fill `folder`, whole or not at all. Raises ServiceTrouble where there is too much `difference`."""
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    part.mkdir(parents=True)
    try:
        export(part)
        found = difference(Prepared(part, threads=threads))
        if not found <= FAITHFUL:
            raise ServiceTrouble(f"its figures would not be the same (they differ by {found:.4f})")
        finish_folder(part, {"made from": made_from, "difference": found})
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Prepared(folder, threads=threads)


def write_graph(folder: Path, model: Any, read: Mapping[str, Any], compute: Callable[[dict[str, Any]], Any]) -> None:
    """Write what `compute` makes of token ids with `model`; `read` are the tokens of two texts."""
    import torch

    names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in read]
    free = {name: {0: "texts", 1: "tokens"} for name in names}

    class Whole(torch.nn.Module):
        """The model as a function of its inputs."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: torch.Tensor) -> Any:
            return compute(dict(zip(names, inputs, strict=True)))

    with warnings.catch_warnings(action="ignore"):  # about itself; whether it went wrong, the figures say
        torch.onnx.export(
            Whole().eval(),
            tuple(read[name] for name in names),
            str(folder / MODEL),
            input_names=names,
            output_names=["found"],
            dynamic_axes={**free, "found": {0: "texts"}},
            dynamo=False,  # the other exporter needs onnxscript
        )


def write_tokenizer(folder: Path, tokenizer: Any, most_tokens: int) -> None:
    """Write what makes token ids of texts, cut and filled up as the model wants them."""
    fast = tokenizer.backend_tokenizer
    fast.enable_truncation(most_tokens)
    fast.enable_padding(pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token)
    fast.save(str(folder / TOKENIZER))
