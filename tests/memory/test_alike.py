"""Which questions the inbox takes for the same, on labelled pairs of our own; `unseen` was written after the rules.

A wrong merge loses a question, so none is allowed; the pairs that stay apart although they ask the same are counted.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from memory.alike import normal_form
from memory.ranking import coverage
from memory.terms import content_terms

Rule = Callable[[str, str], bool]


def labelled(split: str) -> list[tuple[bool, str, str]]:
    rows = [line.split("\t") for line in Path(__file__).with_name("questions_alike.tsv").read_text().splitlines()]
    return [(label == "same", one, other) for of, label, one, other in rows if of == split]


def merged(split: str, rule: Rule) -> tuple[int, int]:
    """How many pairs a rule merges rightly and wrongly."""
    found = [same for same, one, other in labelled(split) if rule(one, other)]
    return sum(found), len(found) - sum(found)


def alike(one: str, other: str) -> bool:
    return normal_form(one) == normal_form(other)


@pytest.mark.parametrize(("split", "right", "same", "pairs"), [("tuned", 25, 32, 72), ("unseen", 14, 24, 61)])
def test_most_rewordings_are_merged_and_no_other_question_is(split: str, right: int, same: int, pairs: int) -> None:
    assert (len(labelled(split)), sum(label for label, _, _ in labelled(split))) == (pairs, same)
    assert merged(split, alike) == (right, 0)


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.9, 1.0])
@pytest.mark.parametrize("split", ["tuned", "unseen"])
def test_no_threshold_on_shared_words_is_safe(split: str, threshold: float) -> None:
    """Why the rule is no measure of likeness: of what each threshold merges, a third or more is wrong."""

    def shared(one: str, other: str) -> bool:
        asked, known = content_terms(one), content_terms(other)
        return min(coverage(asked, known), coverage(known, asked)) >= threshold

    right, wrong = merged(split, shared)

    assert wrong > 0.35 * (right + wrong)


@pytest.mark.parametrize("question", ["?", "🥖🥖", "What is it?", "为什么？", "", "ß" * 5000])
def test_whatever_is_asked_has_a_form(question: str) -> None:
    assert alike(question, f" {question} ")
    assert not alike(question, f"{question} Paris")
