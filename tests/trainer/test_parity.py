"""The probe passes the adapter that was trained and catches the mistakes that a GGUF adapter can silently have."""

from pathlib import Path

import numpy as np
import pytest

from infra.errors import ServiceTrouble
from trainer import gguf, parity
from trainer.lora import TrainReport


@pytest.fixture(scope="module")
def prepared(
    tmp_path_factory: pytest.TempPathFactory, served: Path, adapter: TrainReport
) -> tuple[Path, np.ndarray, np.ndarray, np.ndarray]:
    """The float16 base, its logits, and those of transformers without and with the adapter: all that never changes."""
    assert adapter.peft is not None
    exact = tmp_path_factory.mktemp("exact") / "base.gguf"
    parity.quantise(served, exact, "F16", threads=2)
    prompts = parity.tokenised(exact)
    return exact, parity.in_llama(exact, None, prompts), *parity.in_transformers(served, adapter.peft, prompts)


def measured(
    prepared: tuple[Path, np.ndarray, np.ndarray, np.ndarray], adapter: TrainReport, served: Path, out: Path
) -> parity.Parity:
    """The figures of an adapter written now."""
    exact, served_base, trained_base, trained = prepared
    assert adapter.peft is not None
    gguf.write_adapter(adapter.peft, served, out, metadata={})
    spoken = parity.in_llama(exact, out, parity.tokenised(exact))
    return parity.compared(trained_base, trained, served_base, spoken)


def test_the_adapter_that_was_trained_passes(served: Path, adapter: TrainReport, adapter_gguf: Path) -> None:
    assert adapter.peft is not None
    found = parity.probe(served, adapter.peft, adapter_gguf)

    assert found.error <= found.tolerance / 2
    assert found.effect > 10 * found.noise
    assert not [path for path in adapter_gguf.parent.iterdir() if path.name.startswith(".parity")]


def test_a_missing_alpha_is_caught(
    prepared: tuple[Path, np.ndarray, np.ndarray, np.ndarray],
    adapter: TrainReport,
    served: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Alpha equal to the rank is what a file says that forgot it."""
    monkeypatch.setattr(gguf, "alpha_of", lambda config: float(config["r"]))
    found = measured(prepared, adapter, served, tmp_path / "adapter.gguf")

    assert found.error > 2 * found.tolerance


def test_rows_in_the_wrong_order_are_caught(
    prepared: tuple[Path, np.ndarray, np.ndarray, np.ndarray],
    adapter: TrainReport,
    served: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gguf, "reordered", lambda tensor, heads: tensor)
    found = measured(prepared, adapter, served, tmp_path / "adapter.gguf")

    assert found.error > found.tolerance


def test_another_adapter_is_a_trouble(
    prepared: tuple[Path, np.ndarray, np.ndarray, np.ndarray],
    served: Path,
    adapter: TrainReport,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The trained adapter's logits are those measured before; only the file is wrong."""
    assert adapter.peft is not None
    monkeypatch.setattr(parity, "in_transformers", lambda base, peft, prompts: prepared[2:])
    monkeypatch.setattr(gguf, "reordered", lambda tensor, heads: tensor[::-1])
    gguf.write_adapter(adapter.peft, served, tmp_path / "adapter.gguf", metadata={})

    with pytest.raises(ServiceTrouble, match="not the one that was trained") as trouble:
        parity.probe(served, adapter.peft, tmp_path / "adapter.gguf")

    assert trouble.value.permanent


def test_no_number_is_within_tolerance() -> None:
    """Logits that are NaN must not pass because nothing compares to them."""
    good, bad = np.ones((1, 3)), np.full((1, 3), np.nan)

    assert not parity.compared(good, good, good, bad).error <= 1.0
