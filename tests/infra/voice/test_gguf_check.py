"""A file that llama.cpp might not survive is refused with a sentence; one that it does not survive ends only a child."""

import struct
import time
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import psutil
import pytest

from infra.adapters import GGUF, AdapterStore
from infra.errors import Refused, ServiceTrouble
from infra.voice import trial
from infra.voice.api import Voices
from infra.voice.engine import Engine
from infra.voice.gguf_check import Header, check_adapter, check_base
from infra.voice.trial import survive
from infra.voice.weights import Weights

TARGET = "blk.0.attn_output.weight"
SHAPES = {"a": (4, 576), "b": (576, 4)}


@pytest.fixture(scope="module")
def base(weights: Weights) -> Header:
    return check_base(weights.path)


def written(path: Path, *, shapes=SHAPES, target=TARGET, dtype=np.float16, value=0.0, alpha=4.0, **texts: str) -> Path:
    """A small adapter; `texts` replace its metadata."""
    writer = gguf.GGUFWriter(path, texts.get("architecture", "llama"))
    writer.add_type(texts.get("type", "adapter"))
    writer.add_string("adapter.type", texts.get("adapter", "lora"))
    writer.add_float32("adapter.lora.alpha", alpha)
    writer.add_string("twin.base_sha256", texts.get("base", "b" * 64))
    for half, shape in shapes.items():
        writer.add_tensor(f"{target}.lora_{half}", np.full(shape, value, dtype))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def check(path: Path, base: Header) -> None:
    check_adapter(path, base, base_name="tiny", base_sha256="b" * 64)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_whole_adapter_passes(base: Header, tmp_path: Path, dtype: type) -> None:
    check(written(tmp_path / "a.gguf", dtype=dtype, value=1.0), base)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"architecture": "qwen2"}, "general.architecture is 'qwen2', wanted is 'llama'"),
        ({"type": "model"}, "general.type"),
        ({"adapter": "dora"}, "adapter.type"),
        ({"alpha": float("nan")}, "alpha is no number"),
        ({"base": "c" * 64}, "was trained on base 'cccccccccccc'"),
        ({"target": "blk.99.attn_output.weight"}, "has no matrix"),
        ({"target": "blk.0.attn_norm.weight"}, "has no matrix"),
        ({"target": "token_embd.weight"}, "has no matrix"),
        ({"shapes": {"a": (4, 576)}}, "one is missing"),
        ({"shapes": {"a": (4, 576), "b": (576, 4), "c": (4, 4)}}, "no half of a LoRA"),
        ({"shapes": {}}, "no tensors"),
        ({"shapes": {"a": (4, 577), "b": (576, 4)}}, "have shapes"),
        ({"shapes": {"a": (4, 576), "b": (576, 5)}}, "have shapes"),
        ({"shapes": {"a": (2000, 576), "b": (576, 2000)}}, "have shapes"),
        ({"shapes": {"a": (1, 4, 576), "b": (1, 576, 4)}}, "have shapes"),
        ({"dtype": np.int32}, "are of types"),
        ({"value": float("inf")}, "no numbers"),
        ({"value": float("nan"), "dtype": np.float32}, "no numbers"),
    ],
    ids=str,
)
def test_what_is_no_adapter_for_this_base_is_refused(base: Header, tmp_path: Path, change: dict, said: str) -> None:
    with pytest.raises(ServiceTrouble, match=said):
        check(written(tmp_path / "a.gguf", **change), base)


@pytest.fixture
def whole(tmp_path: Path) -> tuple[Path, bytes]:
    path = written(tmp_path / "whole.gguf")
    return path, path.read_bytes()


def test_every_shorter_file_is_refused(base: Header, whole: tuple[Path, bytes]) -> None:
    path, raw = whole

    for size in [*range(0, 700, 3), len(raw) // 2, len(raw) - 64]:
        path.write_bytes(raw[:size])
        with pytest.raises(ServiceTrouble, match="is no adapter for 'tiny'"):
            check(path, base)


def put(raw: bytes, at: int, form: str, value: int) -> bytes:
    found = bytearray(raw)
    struct.pack_into(form, found, at, value)
    return bytes(found)


@pytest.mark.parametrize(
    ("at", "form", "value", "said"),
    [
        (0, "<I", 0, "does not begin"),
        (4, "<I", 1, "version 1"),
        (4, ">I", 3, "version 50331648"),
        (8, "<Q", 2**63, "tensors"),
        (16, "<Q", 2**64 - 1, "keys"),
        (24, "<Q", 2**40, "bytes of a key"),
        (52, "<I", 99, "unknown type 99"),
        (56, "<Q", 2**64 - 8, "bytes of a text"),
    ],
)
def test_numbers_that_lie_are_refused(
    base: Header, whole: tuple[Path, bytes], at: int, form: str, value: int, said: str
) -> None:
    path, raw = whole
    path.write_bytes(put(raw, at, form, value))

    with pytest.raises(ServiceTrouble, match=said):
        check(path, base)


@pytest.mark.parametrize(
    ("field", "form", "value", "said"),
    [
        (0, "<I", 5, "dimensions"),
        (0, "<I", 0, "unknown type 576"),
        (4, "<Q", 0, "has the shape"),
        (4, "<Q", 2**62, "values in a row"),
        (4, "<Q", 2**39, "only after"),
        (20, "<I", 4, "unknown type 4"),
        (24, "<Q", 32, "instead of 0"),
        (24, "<Q", 2**63, "instead of 0"),
    ],
)
def test_tensors_that_are_not_where_they_claim_are_refused(
    base: Header, whole: tuple[Path, bytes], field: int, form: str, value: int, said: str
) -> None:
    path, raw = whole
    name = f"{TARGET}.lora_a".encode()
    path.write_bytes(put(raw, raw.index(name) + len(name) + field, form, value))

    with pytest.raises(ServiceTrouble, match=said):
        check(path, base)


def test_a_file_that_goes_on_after_its_end_is_refused(base: Header, whole: tuple[Path, bytes]) -> None:
    path, raw = whole
    path.write_bytes(raw + bytes(1 << 20))

    with pytest.raises(ServiceTrouble, match="goes on"):
        check(path, base)


@pytest.mark.parametrize(("key", "said"), [("attention.head_count", "head_count is 0")])
def test_a_base_whose_settings_make_no_sense_is_refused(weights: Weights, tmp_path: Path, key: str, said: str) -> None:
    raw = weights.path.read_bytes()
    name = f"llama.{key}".encode()
    (tmp_path / "base.gguf").write_bytes(
        put(raw, raw.index(struct.pack("<Q", len(name)) + name) + 12 + len(name), "<I", 0)
    )

    with pytest.raises(ServiceTrouble, match=said):
        check_base(tmp_path / "base.gguf")


def test_a_base_that_was_not_copied_to_its_end_is_refused(weights: Weights, tmp_path: Path) -> None:
    (tmp_path / "base.gguf").write_bytes(weights.path.read_bytes()[:-4096])

    with pytest.raises(ServiceTrouble, match="whole GGUF model: it ends after"):
        check_base(tmp_path / "base.gguf")


@pytest.mark.parametrize(
    ("program", "said"), [("import os; os.abort()", "did not survive"), ("import time; time.sleep(60)", "longer than")]
)
def test_what_ends_or_hangs_a_trial_is_a_sentence_and_leaves_no_process(program: str, said: str) -> None:
    with pytest.raises(ServiceTrouble, match=said):
        survive(["-c", program], what="it", limit_s=1)

    assert not [child for child in psutil.Process().children() if program in child.cmdline()]


@pytest.fixture
def voices(weights: Weights, tmp_path: Path) -> Iterator[Voices]:
    store = AdapterStore(tmp_path / "adapters")
    for version, size in (("good", 0.01), ("wild", 1e35)):
        written(store.stage(version) / GGUF, dtype=np.float32, value=size, base=weights.sha256)
        store.publish(version, {"verdict": {"passed": True}})
    engine = Engine(weights.path, base="tiny", base_sha256=weights.sha256, streams=1, context_tokens=256)
    yield Voices(engine, store)
    engine.close()


def test_a_new_adapter_is_tried_in_a_process_of_its_own_once(
    voices: Voices, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ServiceTrouble, match="its probe"):
        voices.promote("wild")
    assert (voices.engine.voice, voices.store.tried("wild", weights.sha256)) == ("tiny", False)

    voices.promote("good")
    monkeypatch.setattr(trial, "LIMIT_S", 0.0)  # another trial would not come to its end
    began = time.monotonic()
    voices.promote(None)
    voices.promote("good")

    assert (voices.engine.voice, time.monotonic() - began < 5) == ("tiny+good", True)
    assert not voices.store.tried("good", "another base")


def test_an_adapter_of_another_base_says_what_made_it(voices: Voices) -> None:
    written(voices.store.stage("old") / GGUF, dtype=np.float32, value=0.01, base="b" * 64)
    made = {"base": "large", "base_sha256": "b" * 64, "code_version": "0.9.0"}
    voices.store.publish("old", {"verdict": {"passed": True}, **made})

    with pytest.raises(Refused, match=r"made by Understudy 0\.9\.0 on large \(bbbbbbbbbbbb\), and here tiny"):
        voices.promote("old")

    voices.store.point("old")
    assert "made by Understudy 0.9.0" in voices.resume()[0]
    assert voices.engine.voice == "tiny"
