"""An embedder prepared for onnxruntime: the same vectors, without torch, or the embedder itself."""

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from infra.errors import UserMistake
from infra.files import alone_in
from memory import prepared
from memory.encode import Encoder, Original
from memory.prepared import Prepared
from tests.memory.making import tiny_embedder
from tests.weights import EMBEDDER

TEXTS = ["How warm?", "面团要多热 24 °C?", "", "salt " * 400, "Who mills the spelt, and when does the mill open?"]
# Run by a process of its own: its second argument is where the embedder was prepared.
LIGHT = """
import sys
from pathlib import Path
from memory.encode import Encoder
encoder = Encoder(sys.argv[1], folder=Path(sys.argv[2]))
print(encoder.dense(["How warm?"]).shape, [name for name in ("torch", "transformers") if name in sys.modules])
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_embedder(tmp_path_factory.mktemp("embedder"))


def test_the_packaged_embedder_has_the_same_vectors_when_it_is_prepared(encoder: Encoder) -> None:
    plain = Encoder(EMBEDDER)

    assert isinstance(encoder._model, Prepared)
    assert encoder.dimension == plain.dimension == 384
    assert np.abs(encoder.dense(TEXTS) - plain.dense(TEXTS)).max() < 1e-4
    assert encoder.dense([]).shape == (0, 384)


def test_a_process_that_only_encodes_loads_no_torch(tiny: Path, tmp_path: Path) -> None:
    Encoder(str(tiny), folder=tmp_path / "kept")

    command = [sys.executable, "-c", LIGHT, str(tiny), str(tmp_path / "kept")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "(1, 32) []"


def test_who_comes_second_waits_and_takes_what_the_first_has_prepared(tiny: Path, tmp_path: Path) -> None:
    Encoder(str(tiny), folder=tmp_path / "first")
    kept = tmp_path / "models" / "kept"
    with ThreadPoolExecutor(1) as second:
        with alone_in(kept.parent):
            waiting = second.submit(Encoder, str(tiny), folder=kept)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=1)
            shutil.copytree(tmp_path / "first", kept)
            before = (kept / "manifest.json").stat().st_ino
        assert isinstance(waiting.result()._model, Prepared)

    assert (kept / "manifest.json").stat().st_ino == before


def test_another_state_of_the_model_is_prepared_anew(tiny: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny, tmp_path / "model")
    Encoder(str(model), folder=tmp_path / "kept")
    before = (tmp_path / "kept" / "manifest.json").read_text(encoding="utf-8")
    weights = next(model.rglob("model.safetensors"))
    weights.touch()

    Encoder(str(model), folder=tmp_path / "kept")

    assert (tmp_path / "kept" / "manifest.json").read_text(encoding="utf-8") != before


def test_vectors_that_differ_leave_the_embedder_on_torch(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(prepared, "FAITHFUL", -1.0)  # what no export reaches

    encoder = Encoder(str(tiny), folder=tmp_path / "kept")

    assert isinstance(encoder._model, Original)
    assert encoder.dense(["How warm?"]).shape == (1, 32)
    assert "would not be the same" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_none_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")

    for name in (str(tmp_path), str(tmp_path / "none"), "package:no_such_package", ""):
        with pytest.raises(UserMistake):
            Encoder(name)
