"""Three weeks in a row: the parts follow each other in time, share no question, and replay is three rows of ten."""

import json
import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from infra.errors import UserMistake
from infra.voice.weights import source_of
from tests.trainer.test_dataset import word
from trainer import lora, weeks
from trainer.weeks import FROM_BASE, NAIVE, REPLAY, Course, Part, Scored, Sizes, exchanges_of, parts_of, table

SIZES = Sizes(base=30, week=14, heldout=6)


def community(path: Path, count: int = 120) -> Path:
    rng = random.Random(2)
    rows = [
        {
            "time": 1_700_000_000 + 40_000 * n,
            "asker": f"m{n % 9}",
            "channel": "bread",
            "question": f"Why does {word(rng)} {word(rng)} my {word(rng)}?",
            "answer": f"Give the {word(rng)} and the {word(rng)} {n} degrees, and wait a while.",
        }
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def parts(tmp_path: Path) -> list[Part]:
    return parts_of(exchanges_of(community(tmp_path / "bread.jsonl")), SIZES)


def test_the_parts_follow_each_other_and_share_no_question(tmp_path: Path) -> None:
    found = parts(tmp_path)

    assert [len(part.held) for part in found] == [6, 6, 6, 6]
    assert [len(part.train) for part in found] == [30, 14, 14, 14]
    times = [(min(e.at for e in p.train), max(e.at for e in p.held)) for p in found]
    assert all(end < start for (_, end), (start, _) in pairwise(times))


def test_other_sizes_are_another_course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a folder holds is not taken for what was trained on fewer rows."""
    folders: list[Path] = []
    monkeypatch.setattr(weeks, "prepare", lambda *given, **more: None)
    monkeypatch.setattr(weeks.Course, "run", lambda course: folders.append(course.folder) or {})

    for sizes in (SIZES, SIZES, replace(SIZES, epochs=2)):
        weeks.forgetting([community(tmp_path / "bread.jsonl")], tmp_path, sizes=sizes, seed=20, say=print)

    assert folders[0] == folders[1] != folders[2]


def test_each_way_learns_what_its_name_says(tmp_path: Path) -> None:
    found = parts(tmp_path)
    course = Course("bread", found, tmp_path, None, SIZES, 20, print)  # type: ignore[arg-type]

    assert len(course.rows(2, FROM_BASE)) == 30 + 14 + 14
    assert course.rows(2, NAIVE) == found[2].train
    replayed = course.rows(2, REPLAY)
    assert len(replayed) - 14 == 6  # of 20 rows three in ten are old
    assert set(map(id, replayed[:6])) <= {id(each) for part in found[:2] for each in part.train}
    assert replayed == course.rows(2, REPLAY)


def test_a_file_of_another_shape_or_size_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.jsonl").write_text('{"text": "hi"}\n', encoding="utf-8")

    with pytest.raises(UserMistake, match="no jsonl of question, answer and time"):
        exchanges_of(tmp_path / "other.jsonl")
    with pytest.raises(UserMistake, match="96 are needed"):
        parts_of(exchanges_of(community(tmp_path / "few.jsonl", 40)), SIZES)


def test_forgetting_is_what_earlier_answers_cost_beside_training_from_the_base() -> None:
    def one(early: float, late: float) -> dict[str, object]:
        return {"tokens": 9, "seconds": 1.0, "scored": Scored([[early] * 8, [late] * 8], 3.0, 0.5)}

    rows = table("bread", {(1, FROM_BASE): one(2.0, 2.5), (1, NAIVE): one(2.4, 2.3)}, 20)

    assert [(row["this week"], row["earlier"]) for row in rows] == [(2.5, 2.0), (2.3, 2.4)]
    assert rows[1]["earlier, beside from base"] == "+0.400 [+0.400, +0.400]"


def test_a_warm_start_goes_on_from_the_adapter(tmp_path: Path, small_dataset: Path, tiny: str) -> None:
    """With no rate the weights stay those that it started from; from the base they are others."""
    from safetensors.numpy import load_file

    budget = lora.TrainingBudget(epochs=1, batch=4, rank=4, alpha=8, max_length=64, max_tokens_trained=500)
    served = source_of(weeks.BASE)

    def trained(name: str, start: Path | None, lr: float) -> dict[str, object]:
        out = tmp_path / name
        lora.train(
            small_dataset, out, base_gguf=served, trainable=tiny, budget=replace(budget, lr=lr), seed=1, start=start
        )
        return load_file(out / "peft" / "adapter_model.safetensors")

    first = trained("first", None, 1e-2)
    again = trained("again", tmp_path / "first" / "peft", 1e-12)
    fresh = trained("fresh", None, 1e-12)

    def apart(one: dict[str, object], other: dict[str, object]) -> float:
        return max(abs(one[name] - other[name]).max() for name in one)  # type: ignore[operator,union-attr]

    assert apart(first, again) < 1e-6 < 1e-3 < apart(first, fresh)
