"""GRPO from end to end with TRL on a tiny random base, and what it is told to learn from."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.errors import UserMistake
from infra.files import finished
from infra.voice.chat import Turn
from infra.voice.llama import Model
from trainer import grpo, lora
from trainer.grpo import Case, GrpoBudget, GrpoReport, Paying, Step, case_of, cases_of, reason, warnings_for
from trainer.reasoning import told

CASES = [Case(f"What is {n} plus 1?", str(n + 1), "number") for n in range(6)]
BUDGET = GrpoBudget(steps=4, group=2, completion=6)
Reasoned = Callable[..., GrpoReport]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, served: Path, tiny: str, small_dataset: Path) -> Path:
    """An adapter to go on from."""
    budget = lora.TrainingBudget(epochs=1, rank=4, alpha=8, max_length=64, max_tokens_trained=200)
    out = tmp_path_factory.mktemp("first")
    report = lora.train(small_dataset, out, base_gguf=served, trainable=tiny, budget=budget, seed=1)
    assert report.peft is not None
    return report.peft


@pytest.fixture
def reasoned(served: Path, tiny: str, first: Path) -> Reasoned:
    def run(out: Path, **given: object) -> GrpoReport:
        paying = Paying(out, every=2, tokens=6, likeness=lambda answer: 0.5)
        return reason(
            CASES,
            out,
            peft=first,
            base_gguf=served,
            trainable=tiny,
            prompt_of=lambda question: [Turn("user", question)],
            paying=paying,
            budget=BUDGET,
            seed=1,
            **given,  # type: ignore[arg-type]
        )

    return run


def test_a_killed_training_goes_on_and_leaves_every_step_and_group_once(tmp_path: Path, reasoned: Reasoned) -> None:
    seen: list[Step] = []
    out = tmp_path / "run" / "grpo"

    cut = reasoned(out, on_step=seen.append, should_stop=lambda: len(seen) >= 1)
    whole = reasoned(out, on_step=seen.append)

    assert (cut.peft, whole.resumed_from) == (None, cut.steps)
    assert 0 < cut.steps < whole.steps == BUDGET.steps
    assert [step.step for step in seen] == [1, 2, 3, 4]
    assert whole.peft is not None
    assert sorted(each.name for each in whole.peft.iterdir() if each.suffix == ".safetensors") == [
        "adapter_model.safetensors"
    ]
    found = told(tmp_path / "run")
    assert found is not None
    assert [row["step"] for row in found["steps"]] == [1, 2, 3, 4]
    assert [group["step"] for group in found["samples"]] == [1, 3]
    assert all(len(group["answers"]) == 2 for group in found["samples"])
    assert set(found["steps"][0]) >= {"reward", *grpo.WEIGHTS}
    assert found["trained_by"].startswith("TRL over PEFT")
    assert len(found["warnings"]) == 2
    # Asked again, it is done.
    assert reasoned(out).wall_s == whole.wall_s


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_learned_changes_the_adapter_and_begins_from_it(
    tmp_path: Path, reasoned: Reasoned, first: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """With rewards that differ within a group the adapter moves, a little, from where it began."""
    import numpy as np
    from safetensors.numpy import load_file

    for module in (grpo, grpo.lora):
        monkeypatch.setattr(module, "best_precision", lambda: precision)
    monkeypatch.setattr(grpo.rewards, "form", lambda text: (len(text) % 7) / 7)
    report = reasoned(tmp_path / "grpo")
    assert report.peft is not None
    before = load_file(first / "adapter_model.safetensors")
    after = load_file(report.peft / "adapter_model.safetensors")

    moved = max(float(np.abs(after[name] - before[name]).max()) for name in before)
    assert before.keys() == after.keys()
    assert 0 < moved < 0.01


def test_the_tokenizer_reads_and_writes_as_serving_does(served: Path) -> None:
    model = Model(served)
    turns = [Turn("user", "What is 2 plus 3? <|im_end|>")]
    text = model.prompt(turns)
    tokens = grpo.tokens_of(model, {text: model.turn_tokens(turns)})
    ids = model.tokens("<think>五 is 5</think>", special="plain")

    assert tokens(text=[text])["input_ids"] == [model.turn_tokens(turns)]
    assert tokens.batch_decode([[*ids, model.end_of_turn]]) == ["<think>五 is 5</think>"]
    assert tokens.eos_token_id == model.end_of_turn != tokens.pad_token_id
    model.free()


@pytest.mark.parametrize(
    ("row", "case"),
    [
        (
            {"question": "How many?", "answer": "She has 48/2=<<48/2=24>>24.\n#### 24"},
            Case("How many?", "24", "number", "She has 48/2=24."),
        ),
        (
            {"question": "Warm?", "answer": "Keep it warm.", "steps": ["a", "b"]},
            Case("Warm?", "Keep it warm.", "open", "a\nb"),
        ),
        ({"question": "Which?", "answer": "(B)"}, Case("Which?", "(B)", "choice")),
        ({"question": "Price?", "answer": "$1,200.50"}, Case("Price?", "$1,200.50", "number")),
        ({"question": "Year?", "answer": "1984", "kind": "open"}, Case("Year?", "1984", "open")),
    ],
)
def test_worked_cases_are_read_in_both_forms(row: dict[str, object], case: Case) -> None:
    assert case_of(json.dumps(row), "here") == case


@pytest.mark.parametrize(
    "line",
    ["no json", "[]", '{"question": "x"}', '{"question": "", "answer": "1"}', '{"question": "x", "answer": "#### many"}',
     '{"question": "x", "answer": "1", "kind": "odd"}'],
)  # fmt: skip
def test_a_line_that_is_no_case_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text('{"question": "x", "answer": "1"}\n' + line + "\n", encoding="utf-8")

    with pytest.raises(UserMistake, match="cases.jsonl:2"):
        cases_of(path)


def test_it_warns_of_a_small_base_and_of_few_steps() -> None:
    assert warnings_for(3_000_000_000, 300) == []
    assert ["0.13B" in each for each in warnings_for(134_000_000, 300)] == [True]
    assert ["12 steps" in each for each in warnings_for(3_000_000_000, 12)] == [True]


def test_the_parameters_of_a_base_are_counted(served: Path) -> None:
    assert 130e6 < grpo.parameters(served) < 140e6


def test_an_unfinished_log_line_is_no_step(tmp_path: Path) -> None:
    path = tmp_path / "rewards.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st', encoding="utf-8")

    grpo.keep_until(path, 1)

    assert grpo.lines_of(path) == [{"step": 1}]
    assert finished(tmp_path) is None
