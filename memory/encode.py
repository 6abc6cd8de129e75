"""Text to dense vectors, by a sentence-transformers model: they find the same question in other words.

Names, numbers and Chinese, which a small English model blurs, are found by their terms, see `memory/terms.py`.
"""

import importlib.util
import logging
from pathlib import Path

import numpy as np

from infra.errors import UserMistake
from infra.files import alone_in
from memory.messages import name_uuid
from memory.prepared import Prepared, is_prepared, prepare_embedder

log = logging.getLogger(__name__)

# What sentence-transformers raises for a model that is none.
UNLOADABLE = (OSError, ValueError, KeyError, RuntimeError)


class Encoder:
    """A dense embedder. One process needs one."""

    def __init__(self, name: str, *, threads: int = 2, folder: Path | None = None) -> None:
        """`name` is `package:NAME`, `hub:REPO` or a folder; in `folder` it is kept prepared, so that it loads quickly.

        Raises UserMistake when there is no such model.
        """
        self.name = name
        self._model = original(name, threads) if folder is None else quick(name, threads, folder)
        self.dimension = self._model.dimension

    def dense(self, texts: list[str]) -> np.ndarray:
        """Unit vectors, float32, (texts, dimension)."""
        return self._model.dense(texts)


def kept_encoder(name: str, models: Path, *, threads: int = 2) -> Encoder:
    """The embedder that all processes of an installation share as it was prepared; `models` holds its models.

    Raises UserMistake when there is no such model.
    """
    return Encoder(name, threads=threads, folder=kept_folder(name, models))


def kept_folder(name: str, models: Path, kind: str = "embedder") -> Path:
    """Where among an installation's models one is kept as it was prepared."""
    return models / f"{kind}-{name_uuid(name)}"


class Original:
    """An embedder as sentence-transformers runs it on torch, which take seconds to load."""

    def __init__(self, source: str, *, threads: int) -> None:
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

        torch.set_num_threads(threads)
        disable_progress_bar()
        self.model = SentenceTransformer(source, device="cpu")
        self.dimension = int(self.model.get_embedding_dimension() or 0)

    def dense(self, texts: list[str]) -> np.ndarray:
        """Unit vectors, float32, (texts, dimension)."""
        found = self.model.encode(texts, batch_size=32, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(found, dtype=np.float32).reshape(len(texts), self.dimension)


def original(name: str, threads: int) -> Original:
    """The embedder itself. Raises UserMistake when it cannot be loaded."""
    source = location(name)
    try:
        return Original(source, threads=threads)
    except UNLOADABLE as error:
        raise UserMistake(f"The embedder {name!r} cannot be loaded: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """What a library says of its trouble, without the essay after it."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def quick(name: str, threads: int, folder: Path) -> Original | Prepared:
    """The embedder as it was prepared; prepared now, at the first time, and the embedder itself where that fails."""
    made_from = fingerprint(name)
    if is_prepared(folder, made_from):
        return Prepared(folder, threads=threads)
    with alone_in(folder.parent):
        if is_prepared(folder, made_from):
            return Prepared(folder, threads=threads)  # by another process meanwhile
        model = original(name, threads)
        try:
            return prepare_embedder(model.model, folder, made_from=made_from, threads=threads)
        except Exception as error:  # noqa: BLE001  exporters fail in many ways, and all of them cost only time
            log.warning("the embedder runs on torch, as it could not be prepared for onnxruntime: %s", error)
            return model


def fingerprint(name: str) -> str:
    """What tells one state of a model's files from another; a hub's model is known by its name alone."""
    source = Path(location(name))
    files = sorted(path for path in source.rglob("*") if path.is_file()) if not name.startswith("hub:") else []
    return "\n".join([name, *(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files)])


def location(name: str) -> str:
    """What sentence-transformers loads for a model's name."""
    kind, _, rest = name.partition(":")
    if kind == "hub":
        return rest
    if kind == "package":
        spec = importlib.util.find_spec(rest)
        if spec is None or not spec.submodule_search_locations:
            raise UserMistake(f"The package {rest!r} is not installed. Run: pip install understudy.")
        return str(Path(spec.submodule_search_locations[0]) / "model")
    if not name or not Path(name).is_dir():
        raise UserMistake(f"There is no model at {name!r}.")
    return name
