"""Reasoning on the command line: what is refused and warned of, and what a run of GRPO shows."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from infra.cli.learn import runs as show_runs
from infra.cli.reasoning import multiply, options_for
from infra.database import connect
from infra.errors import UserMistake
from infra.runs import Runs
from infra.settings import load_settings
from infra.voice.weights import Weights
from memory.journal import Journal
from memory.persona import PersonaCard
from tests.weights import write_adapter
from trainer import ability, evals

CASE = '{"question": "How many?", "answer": "2+2=4\\n#### 4"}\n'


def test_reasoning_needs_its_stage_and_its_cases(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = home / "cases.jsonl"
    data.write_text(CASE, encoding="utf-8")

    assert options_for(home, "", data=None, steps=300) == {}
    assert options_for(home, "grpo", data=data, steps=12) == {"stage": "grpo", "data": str(data), "steps": 12}
    assert "1 worked cases, 1 with steps." in (said := capsys.readouterr().err)
    assert "under 1.5B" in said
    assert "12 steps are fewer" in said
    for stage, given in (("grpo", None), ("", data), ("dpo", data)):
        with pytest.raises(UserMistake, match="--stage grpo --data FILE"):
            options_for(home, stage, data=given, steps=300)
    with pytest.raises(UserMistake, match="cannot be read"):
        options_for(home, "grpo", data=home / "none.jsonl", steps=300)


def test_a_run_shows_its_rewards_and_sample_groups(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = load_settings(home)
    settings.data_folder.mkdir()
    Journal.open(settings.journal_url).close()
    runs = Runs(connect(settings.journal_url))
    run, _ = runs.create("retrain", "key", options={"stage": "grpo"}, now=datetime.now(UTC))
    folder = settings.data_folder / "runs" / run.id / "grpo"
    folder.mkdir(parents=True)
    rows = [{"step": n, "reward": n / 100, "form": 0.25, "seconds": 30.0 * n} for n in range(1, 41)]
    (folder / "rewards.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    answers = [{"text": "<think>two and two</think>4", "rewards": {"form": 1.0, "correct": 1.0}}]
    group = {"step": 1, "question": "How many?", "expected": "4", "answers": answers}
    (folder / "samples.jsonl").write_text(json.dumps(group) + "\n", encoding="utf-8")

    show_runs(home, run.id, cancel=False, as_json=False)
    shown = capsys.readouterr().out
    show_runs(home, run.id, cancel=False, as_json=True)
    document = json.loads(capsys.readouterr().out)

    assert "0.4" in shown
    assert "Step 1: How many? (4)" in shown
    assert "<think>two and two</think>4" in shown
    assert "form 1.00, correct 1.00" in shown
    assert len(document["reasoning"]["steps"]) == 40
    assert document["reasoning"]["samples"] == [group]


def test_multiplying_refuses_what_it_does_not_know() -> None:
    with pytest.raises(UserMistake, match="not 'huge'"):
        multiply(None, digits=2, rows=50, epochs=1, preset="huge", asked=4, as_json=True)


def test_the_sheet_is_asked_before_and_after(weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = tuple(each for each in ability.sheet() if each.id in {"en-01", "en-05", "en-37"})
    for module in (ability, evals):
        monkeypatch.setattr(module, "sheet", lambda: few)
    adapter = write_adapter(weights, tmp_path / "adapter.gguf", seed=1, size=0.3)

    found = evals.sheet_of(weights, adapter, persona=PersonaCard("Ada"))

    assert found["counts"][-1]["asked"] == len(few) == 3
    by_id = {each["id"]: each for each in found["answers"]}
    assert by_id["en-05"]["before_right"]
    assert any(each["before"] != each["after"] for each in found["answers"])
