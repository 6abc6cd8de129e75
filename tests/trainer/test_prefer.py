"""DPO and KTO on a tiny random base: what the creator wrote becomes likelier against what the twin said, for real."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from infra.files import finish_folder, finished, write_atomic
from infra.voice.chat import Turn
from infra.voice.llama import Model
from trainer import dataset, lora, prefer
from trainer.preference import FILE, Row

BUDGET = lora.TrainingBudget(epochs=2, lr=1e-2, batch=4, max_length=96, rank=4, alpha=8)
DOUGHS = ("rye", "brioche", "baguette", "focaccia", "bagels", "panettone", "stollen", "pretzels", "naan", "pita")


def row(number: int, *, use: Literal["train", "judge"] = "train", **texts: str) -> Row:
    dough = f"{DOUGHS[number % len(DOUGHS)]} number {number}"
    said = {"chosen": f"Aye, {dough}, says Ada.", "rejected": f"As an AI, I think that {dough} is great!", **texts}
    return Row((Turn("user", f"What of {dough}?"),), said["chosen"], said["rejected"], use, "v1", (str(number),))


@pytest.fixture(scope="module")
def opinions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 pairs to learn from and 6 to judge by, in a finished dataset."""
    folder = tmp_path_factory.mktemp("opinions")
    rows = [row(number, use="judge" if number >= 24 else "train") for number in range(30)]
    write_atomic(folder / FILE, dataset.as_lines(prefer.asdict(each) for each in rows))
    finish_folder(folder, {"kind": "dataset", "id": "d"})
    return folder


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory, served: Path, tiny: str, small_dataset: Path) -> Path:
    """The adapter of a voice on the tiny base."""
    out, budget = tmp_path_factory.mktemp("voice"), replace(BUDGET, epochs=1, max_tokens_trained=1000)
    report = lora.train(small_dataset, out, base_gguf=served, trainable=tiny, budget=budget, seed=1)
    assert report.peft is not None
    return report.peft


Trained = Callable[..., lora.TrainReport]


@pytest.fixture
def trained(served: Path, tiny: str, opinions: Path, voice: Path) -> Trained:
    """Train the voice further, into a folder."""

    def run(out: Path, method: Literal["dpo", "kto"] = "dpo", **given: object) -> lora.TrainReport:
        return prefer.train(
            opinions,
            out,
            base_gguf=served,
            trainable=tiny,
            warm=voice,
            method=method,
            budget=BUDGET,
            seed=1,
            **given,  # type: ignore[arg-type]
        )

    return run


def weights(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_what_was_chosen_wins_where_nobody_has_looked(
    tmp_path: Path, trained: Trained, voice: Path, method: Literal["dpo", "kto"]
) -> None:
    """The reward of the chosen text over the rejected one, on held-out rows, is zero before and positive after."""
    report = trained(tmp_path, method)

    assert report.peft is not None
    held_out = report.hyperparameters["held_out"]
    assert held_out["margin"] > 0.05
    assert held_out["rows"] == (6 if method == "dpo" else 12)
    assert held_out.get("accuracy", 1.0) == 1.0
    assert report.best_step > 0
    assert weights(report.peft) != weights(voice)
    assert sorted(path.name for path in report.peft.iterdir()) == sorted(path.name for path in voice.iterdir())
    assert finished(tmp_path) is not None
    assert trained(tmp_path, method) == report


def test_a_stopped_preference_goes_on_as_if_it_had_not_been_stopped(tmp_path: Path, trained: Trained) -> None:
    """Its reference is the voice that it began with, not what it had become."""
    whole, steps = trained(tmp_path / "whole"), [0]
    first = trained(
        tmp_path / "cut",
        on_progress=lambda progress: steps.__setitem__(0, progress.step),
        should_stop=lambda: steps[0] >= 5,
    )

    second = trained(tmp_path / "cut")

    assert (first.peft, first.stopped) == (None, "asked")
    assert second.resumed_from > 0
    assert second.peft is not None
    assert whole.peft is not None
    assert weights(second.peft) == weights(whole.peft)


def test_a_pair_is_read_as_it_will_be_answered(served: Path, opinions: Path, voice: Path) -> None:
    """The prompt as serving reads it, then each text and its end of turn; for KTO one of either."""
    model = Model(served)
    try:
        found = prefer.choices_of(model, [row(1)], "dpo")
        singles = prefer.choices_of(model, [row(1), row(2, rejected="")], "kto")
        said = [b"".join(map(model.piece, ids[:-1])).decode() for ids in (found[0].chosen, found[0].rejected)]
        ends = {found[0].chosen[-1], found[0].rejected[-1]}
        prompt = model.turn_tokens(row(1).prompt)
        end = model.end_of_turn
    finally:
        model.free()

    assert said == [row(1).chosen, row(1).rejected]
    assert (found[0].prompt, ends) == (prompt, {end})
    assert [(bool(each.chosen), bool(each.rejected)) for each in singles] == [(1, 0), (0, 1), (1, 0)]


def test_every_kto_prompt_is_compared_with_another_text_of_its_batch() -> None:
    choices = [prefer.Choice([n], [n], []) for n in range(8)]
    job = lora.Job([], [], [], 0, 0, 1, BUDGET, "")
    plan = prefer.Plan("kto", choices, [], job, 0.1, 0.0, (1.0, 1.0))

    table = prefer.as_table(choices, plan)

    assert [ids[0] for ids in table["KL_completion_ids"]] == [3, 0, 1, 2, 7, 4, 5, 6]


def test_either_kind_weighs_the_same() -> None:
    assert prefer.weights_for(10, 30) == (3.0, 1.0)
    assert prefer.weights_for(30, 10) == (1.0, 3.0)
