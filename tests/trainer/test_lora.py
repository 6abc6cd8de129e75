"""What is learned, in which order, and that a training survives what happens to it. A tiny random base where it can."""

import random
import resource
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.errors import Refused, ServiceTrouble, UserMistake
from infra.files import finished, verify_folder
from infra.voice.chat import Turn
from infra.voice.llama import Model
from trainer import lora
from trainer.base import best_precision, load_base
from trainer.dataset import Row, load
from trainer.lora import (
    Progress,
    TrainingBudget,
    TrainReport,
    order,
    prepare,
    tokens_of,
    train,
)

BUDGET = TrainingBudget(epochs=2, batch=8, lr=1e-2, rank=4, alpha=8, max_length=64)

Trained = Callable[..., TrainReport]


@pytest.fixture
def trained(served: Path, tiny: str, small_dataset: Path) -> Trained:
    """Train the tiny base into a folder."""

    def run(out: Path, budget: TrainingBudget = BUDGET, seed: int = 1, **given: object) -> TrainReport:
        return train(small_dataset, out, base_gguf=served, trainable=tiny, budget=budget, seed=seed, **given)  # type: ignore[arg-type]

    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, served: Path, tiny: str, small_dataset: Path) -> TrainReport:
    """One training from start to end."""
    out = tmp_path_factory.mktemp("whole")
    return train(small_dataset, out, base_gguf=served, trainable=tiny, budget=BUDGET, seed=1)


def weights(report: TrainReport) -> bytes:
    assert report.peft is not None
    return (report.peft / "adapter_model.safetensors").read_bytes()


def asked_after(steps: int) -> tuple[Callable[[Progress], None], Callable[[], bool]]:
    """(on_progress, should_stop) that ask for the end once `steps` steps are done."""
    seen = [0]

    def on_progress(progress: Progress) -> None:
        seen[0] = progress.step

    return on_progress, lambda: seen[0] >= steps - 1


def test_the_trainer_reads_the_tokens_that_serving_reads(served: Path, small_dataset: Path) -> None:
    model = Model(served)
    row = load(small_dataset).rows("train")[0]
    tokens = tokens_of(model, row)
    prompt, answer = tokens.ids[: -tokens.learned], tokens.ids[-tokens.learned :]
    expected = model.turn_tokens(row.prompt)
    said = b"".join(model.piece(token) for token in answer[:-1]).decode()
    end = model.end_of_turn
    model.free()

    assert prompt == expected
    assert (said, answer[-1]) == (row.answer, end)


def test_control_tokens_in_a_members_words_are_learned_as_words(served: Path) -> None:
    """Neither a question nor an answer can open a turn of its own."""
    model = Model(served)
    row = Row((Turn("user", "a<|im_end|>b"),), "c<|im_start|>d", "none", "train", {})
    controls = {model.end_of_turn, *model.tokens("<|im_start|>")}
    tokens = tokens_of(model, row)
    plain = tokens_of(model, replace(row, prompt=(Turn("user", "ab"),), answer="cd"))
    model.free()

    assert sum(t in controls for t in tokens.ids) == sum(t in controls for t in plain.ids)


def test_only_the_answer_and_its_end_carry_loss() -> None:
    table = lora.as_table([lora.Tokens([5, 6, 7, 8, 2], 3)])

    assert table[0] == {"input_ids": [5, 6, 7, 8, 2], "labels": [-100, -100, 7, 8, 2]}


def test_every_epoch_holds_every_row_once() -> None:
    lengths = [random.Random(n).randint(10, 200) for n in range(101)]

    chosen = order(lengths, budget=replace(BUDGET, epochs=3), seed=5)

    assert [sorted(chosen[start : start + 101]) for start in (0, 101, 202)] == [list(range(101))] * 3
    assert chosen[:101] != chosen[101:202]
    assert chosen == order(lengths, budget=replace(BUDGET, epochs=3), seed=5)


def test_rows_of_similar_length_share_a_batch() -> None:
    """Batches in order waste less than a third of the padding that shuffled ones do."""
    lengths = [random.Random(n).randint(10, 200) for n in range(320)]

    def padded(rows: Sequence[int]) -> int:
        batches = [[lengths[row] for row in rows[start : start + 8]] for start in range(0, len(rows), 8)]
        return sum(max(batch) * len(batch) - sum(batch) for batch in batches)

    shuffled = random.Random(0).sample(range(320), 320)

    assert padded(order(lengths, budget=replace(BUDGET, epochs=1), seed=0)) < padded(shuffled) / 3


def test_training_reads_no_more_tokens_than_it_may() -> None:
    lengths = [50] * 40

    chosen = order(lengths, budget=replace(BUDGET, epochs=9, max_tokens_trained=3030), seed=0)

    assert len(chosen) == 60


def test_a_training_lowers_the_loss_on_what_it_has_not_seen(whole: TrainReport) -> None:
    first, best = whole.validation[0], min(nll for _, nll in whole.validation)

    assert first[0] == 0
    assert best < first[1] - 0.2
    assert dict(whole.validation)[whole.best_step] == best
    assert (whole.stopped, whole.left_out, whole.resumed_from) == ("finished", 0, 0)


def test_a_report_counts_what_was_spent(whole: TrainReport, served: Path, tiny: str, small_dataset: Path) -> None:
    job = prepare(small_dataset, served, tiny, budget=BUDGET, seed=1)

    assert whole.tokens == sum(len(job.rows[row].ids) for row in job.order)
    assert whole.steps == job.steps == -(-2 * whole.rows // 8)
    assert whole.peak_memory_mib > 100
    assert whole.wall_s > 0
    assert whole.hyperparameters["lr"] == BUDGET.lr


def test_a_finished_training_is_whole_and_not_done_again(whole: TrainReport, trained: Trained) -> None:
    assert whole.peft is not None
    out = whole.peft.parent
    steps: list[int] = []

    again = trained(out, on_progress=lambda progress: steps.append(progress.step))

    assert (again, steps) == (whole, [])
    assert verify_folder(out)["report"]["best_step"] == whole.best_step
    assert not (out / "checkpoints").exists()


def test_the_adapter_names_no_path_of_this_machine(whole: TrainReport, served: Path) -> None:
    assert whole.peft is not None
    texts = [path.read_text(encoding="utf-8") for path in whole.peft.glob("*.json")]

    assert texts
    assert not any(str(served.parent) in text or str(whole.peft.parent) in text for text in texts)


def test_the_same_seed_gives_the_same_adapter(tmp_path: Path, trained: Trained, whole: TrainReport) -> None:
    assert weights(trained(tmp_path / "same")) == weights(whole)
    assert weights(trained(tmp_path / "other", seed=2)) != weights(whole)


def test_a_stopped_training_goes_on_as_if_it_had_not_been_stopped(
    tmp_path: Path, trained: Trained, whole: TrainReport
) -> None:
    """Same rows in the same order: the adapter is the one of the run that was never interrupted, bit for bit."""
    on_progress, should_stop = asked_after(10)
    first = trained(tmp_path, on_progress=on_progress, should_stop=should_stop)
    seen: list[int] = []

    second = trained(tmp_path, on_progress=lambda progress: seen.append(progress.step))

    assert (first.peft, first.stopped, finished(tmp_path) is not None) == (None, "asked", True)
    assert 0 < second.resumed_from <= 10
    assert min(seen) > second.resumed_from
    assert second.validation == whole.validation
    assert weights(second) == weights(whole)


def test_a_checkpoint_that_was_not_written_to_its_end_is_not_used(tmp_path: Path, trained: Trained) -> None:
    on_progress, should_stop = asked_after(10)
    trained(tmp_path, on_progress=on_progress, should_stop=should_stop)
    newest, older = sorted((tmp_path / "checkpoints").glob("checkpoint-*"), key=lambda p: -int(p.name.split("-")[1]))[
        :2
    ]
    with (newest / "optimizer.pt").open("r+b") as file:
        file.truncate(1000)

    again = trained(tmp_path)

    assert again.resumed_from == int(older.name.split("-")[1])


def test_a_checkpoint_of_another_training_is_not_used(tmp_path: Path, trained: Trained) -> None:
    on_progress, should_stop = asked_after(10)
    trained(tmp_path, on_progress=on_progress, should_stop=should_stop)

    assert trained(tmp_path, budget=replace(BUDGET, lr=2e-3)).resumed_from == 0


def test_out_of_time_keeps_what_was_learned(tmp_path: Path, trained: Trained) -> None:
    report = trained(tmp_path, budget=replace(BUDGET, max_seconds=0.001))

    assert (report.stopped, report.steps) == ("time", 1)
    assert weights(report)


def test_training_ends_when_it_no_longer_improves(tmp_path: Path, trained: Trained) -> None:
    """A learning rate that changes nothing: no look is better than the one before it."""
    report = trained(tmp_path, budget=replace(BUDGET, lr=1e-12, epochs=6))

    assert report.stopped == "no longer improving"
    assert report.best_step < report.steps < 6 * report.rows // 8


def test_a_diverged_training_is_a_trouble_and_no_adapter(tmp_path: Path, trained: Trained) -> None:
    with pytest.raises(ServiceTrouble, match=r"Lower training\.learning_rate") as trouble:
        trained(tmp_path, budget=replace(BUDGET, lr=1e30))

    assert trouble.value.permanent
    assert finished(tmp_path) is None


def test_a_full_disk_is_a_trouble(tmp_path: Path, trained: Trained) -> None:
    """The kernel refuses to write more than 8 kB into one file, as it refuses on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, limits[1]))
    try:
        with pytest.raises(ServiceTrouble, match="is the disk full"):
            trained(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert finished(tmp_path) is None


def test_rows_that_do_not_fit_are_counted_and_none_at_all_is_refused(
    served: Path, tiny: str, small_dataset: Path
) -> None:
    lengths = sorted(len(row.ids) for row in prepare(small_dataset, served, tiny, budget=BUDGET, seed=1).rows)
    middle = lengths[len(lengths) // 2]

    job = prepare(small_dataset, served, tiny, budget=replace(BUDGET, max_length=middle), seed=1)

    assert job.left_out == sum(length > middle for length in lengths)
    with pytest.raises(Refused, match="at most 16 tokens long"):
        prepare(small_dataset, served, tiny, budget=replace(BUDGET, max_length=16), seed=1)


def test_what_judges_is_not_looked_at(served: Path, tiny: str, small_dataset: Path) -> None:
    uses = [row.use for row in load(small_dataset).rows("validation")]

    assert len(prepare(small_dataset, served, tiny, budget=BUDGET, seed=1).stop) == uses.count("stop") < len(uses)


@pytest.mark.parametrize("prefix", ["", "hub:"])
def test_a_folder_as_a_hub_has_it_is_loaded(served: Path, tiny: str, prefix: str) -> None:
    assert load_base(served, f"{prefix}{tiny}").config.model_type == "qwen2"


def test_a_base_that_is_not_there_is_a_mistake_with_its_name(served: Path, tmp_path: Path) -> None:
    with pytest.raises(UserMistake, match="nothing-here"):
        load_base(served, str(tmp_path / "nothing-here"))


@pytest.mark.parametrize(
    ("known", "precision"),
    [
        ({"amx_bf16": True, "cpu_name": "Intel(R) Xeon(R)"}, "bf16"),
        ({"avx512_bf16": True, "cpu_name": "AMD EPYC"}, "bf16"),
        ({"avx512_bf16": True, "cpu_name": "Intel(R) Xeon(R)"}, "fp32"),
        ({"avx2": True, "cpu_name": "AMD EPYC"}, "fp32"),
        ({}, "fp32"),
    ],
)
def test_bf16_needs_a_cpu_that_is_faster_with_it(
    monkeypatch: pytest.MonkeyPatch, known: dict[str, Any], precision: str
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)

    assert best_precision() == precision


def test_the_served_weights_themselves_are_trained(adapter: TrainReport) -> None:
    """Eight steps on the packaged GGUF, dequantised: the loss falls, and every linear layer has its adapter."""
    from safetensors import safe_open

    assert adapter.peft is not None
    with safe_open(adapter.peft / "adapter_model.safetensors", "np") as file:
        names = set(file.keys())

    assert adapter.validation[-1][1] < adapter.validation[0][1] - 0.5
    assert len(names) == 30 * 7 * 2
    assert not any("lm_head" in name or "embed" in name for name in names)


def test_checkpoints_can_be_thrown_away(tmp_path: Path, trained: Trained) -> None:
    on_progress, should_stop = asked_after(10)
    trained(tmp_path, on_progress=on_progress, should_stop=should_stop)
    shutil.rmtree(tmp_path / "checkpoints")

    assert trained(tmp_path).resumed_from == 0
