"""The adapter file holds the adapter that was trained, under the base's names, or is refused with the reason."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from infra.errors import ServiceTrouble, UserMistake
from infra.voice.llama import Adapter, Model
from trainer.gguf import Base, alpha_of, fitted, renamed, reordered, write_adapter
from trainer.lora import TrainReport

PLAIN = {"peft_type": "LORA", "r": 16, "lora_alpha": 32, "bias": "none"}
LLAMA = Base("llama", 1, heads=2, kv_heads=1, shapes={"blk.0.attn_q.weight": (8, 4), "blk.0.attn_k.weight": (4, 4)})
Q = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"


def test_llama_cpp_loads_it_and_reads_what_it_was_trained_on(served: Path, adapter_gguf: Path) -> None:
    model = Model(served)
    loaded = Adapter(model, adapter_gguf)
    found = loaded.metadata("twin.base_sha256"), loaded.metadata("twin.adapter_version"), loaded.metadata("twin.none")
    loaded.free()
    model.free()

    assert found == ("b" * 64, "7", "")


def test_every_matrix_is_there_under_the_bases_name(adapter_gguf: Path) -> None:
    from gguf import GGUFReader

    tensors = {tensor.name: tensor for tensor in GGUFReader(adapter_gguf).tensors}

    assert len(tensors) == 30 * 7 * 2
    assert tuple(tensors["blk.29.ffn_down.weight.lora_a"].shape) == (1536, 16)
    assert tuple(tensors["blk.0.attn_k.weight.lora_b"].shape) == (16, 192)


def test_the_halves_of_each_head_are_interleaved() -> None:
    """Two heads of four rows: 0 1 | 2 3 becomes 0 2 1 3, within each head."""
    rows = np.arange(8, dtype=np.float32).reshape(8, 1)

    assert reordered(rows, 2).ravel().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


@pytest.mark.parametrize("name", ["blk.0.attn_q.weight.lora_b", "blk.0.attn_k.weight.lora_b"])
def test_only_llama_wants_its_rows_reordered(name: str) -> None:
    tensor = np.random.default_rng(1).random(((8 if "_q" in name else 4), 2)).astype(np.float32)
    qwen = Base("qwen2", 1, heads=2, kv_heads=1, shapes=LLAMA.shapes)

    assert (fitted(name, tensor, qwen) == tensor.astype(np.float16)).all()
    assert (fitted(name, tensor, LLAMA) != tensor.astype(np.float16)).any()


def test_the_other_half_keeps_its_rows() -> None:
    tensor = np.random.default_rng(1).random((2, 4)).astype(np.float32)

    assert (fitted("blk.0.attn_q.weight.lora_a", tensor, LLAMA) == tensor.astype(np.float16)).all()


def test_alpha_is_what_llama_cpp_divides_by_the_rank() -> None:
    assert alpha_of(PLAIN) == 32
    assert alpha_of({**PLAIN, "use_rslora": True}) / 16 == pytest.approx(32 / 4)


@pytest.mark.parametrize(
    "change",
    [
        {"use_dora": True},
        {"alpha_pattern": {"q_proj": 8}},
        {"modules_to_save": ["lm_head"]},
        {"bias": "all"},
        {"peft_type": "LOHA"},
        {"use_rslora": True, "rank_pattern": {"q_proj": 8}},
    ],
)
def test_what_a_lora_gguf_cannot_say_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(UserMistake, match="cannot be served"):
        alpha_of({**PLAIN, **change})


@pytest.mark.parametrize("key", ["base_model.model.lm_head.lora_A.weight", "base_model.model.x.lora_magnitude_vector"])
def test_a_matrix_the_base_has_not_is_refused(key: str) -> None:
    with pytest.raises(UserMistake, match="train it on this base"):
        renamed({key: np.zeros((2, 4))}, LLAMA)


def test_names_are_the_bases() -> None:
    found = renamed({Q.format("A"): np.zeros((2, 4)), Q.format("B"): np.zeros((8, 2))}, LLAMA)

    assert set(found) == {"blk.0.attn_q.weight.lora_a", "blk.0.attn_q.weight.lora_b"}


def test_an_adapter_of_another_shape_is_refused() -> None:
    with pytest.raises(UserMistake, match="another base"):
        fitted("blk.0.attn_q.weight.lora_a", np.zeros((2, 5)), LLAMA)


def test_an_adapter_without_numbers_is_refused() -> None:
    with pytest.raises(UserMistake, match="no numbers"):
        fitted("blk.0.attn_q.weight.lora_a", np.full((2, 4), np.nan), LLAMA)


def test_a_broken_adapter_leaves_no_file(tmp_path: Path, served: Path, adapter: TrainReport) -> None:
    assert adapter.peft is not None
    shutil.copytree(adapter.peft, tmp_path / "peft")
    with (tmp_path / "peft" / "adapter_model.safetensors").open("r+b") as file:
        file.truncate(4000)

    with pytest.raises(ServiceTrouble, match="Cannot read the adapter"):
        write_adapter(tmp_path / "peft", served, tmp_path / "out.gguf", metadata={})

    assert [path.name for path in tmp_path.iterdir()] == ["peft"]


def test_an_architecture_nobody_tried_is_refused(tmp_path: Path, adapter: TrainReport) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(tmp_path / "base.gguf", "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert adapter.peft is not None

    with pytest.raises(UserMistake, match="'mamba'"):
        write_adapter(adapter.peft, tmp_path / "base.gguf", tmp_path / "out.gguf", metadata={})


def test_the_config_that_peft_writes_is_understood(adapter: TrainReport) -> None:
    assert adapter.peft is not None
    config = json.loads((adapter.peft / "adapter_config.json").read_text(encoding="utf-8"))

    assert alpha_of(config) == 32
