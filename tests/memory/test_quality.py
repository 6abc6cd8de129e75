"""The figures of finding, and whether one side is ahead of another, by rules that can be checked by hand."""

import json
from pathlib import Path

import pytest

from infra.errors import UserMistake
from memory.quality import corpora_of, figures, gain, interval, lead

GOLD = frozenset({"a", "b"})


def test_figures_of_one_question() -> None:
    assert figures([(["x", "a"], GOLD)]) == {
        "questions": 1,
        "hit@1": 0.0,
        "recall@5": 0.5,
        "recall@10": 0.5,
        "MRR@10": 0.5,
        "nDCG@10": pytest.approx(0.631 / 1.631, abs=1e-3),
    }
    assert gain(["a", "b"], GOLD) == 1


def test_ahead_is_said_with_the_range_in_which_it_lies() -> None:
    right, wrong = (["a", "b"], GOLD), (["x"], GOLD)

    assert interval("recall@10", [right] * 30, [wrong] * 30) == "+1.000 (+1.000 to +1.000)"
    mixed = [right, wrong] * 50
    assert interval("recall@10", mixed, mixed[::-1]) == "+0.000 (-0.200 to +0.200)"
    assert set(lead(mixed, mixed).values()) == {""}


def test_a_file_of_questions_is_read_in_its_shape_or_refused(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"question": "How warm?", "answer": "24.", "time": 0}), encoding="utf-8")
    (corpus,) = corpora_of(rows)
    assert corpus.questions[0].gold == {corpus.passages[0].id}

    rows.write_text("{}", encoding="utf-8")
    with pytest.raises(UserMistake, match="no file of labelled questions"):
        corpora_of(rows)
