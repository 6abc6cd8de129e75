"""The bundled community is what its README says it is."""

import json
from importlib.resources import files

SAMPLE = files("memory") / "sample"


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (SAMPLE / name).read_text(encoding="utf-8").splitlines()]


def test_the_export_has_its_rows_in_order_with_one_duplicate() -> None:
    found = rows("qa.jsonl")

    assert len(found) == 229
    assert len({row["id"] for row in found}) == 228
    assert [row["at"] for row in found] == sorted(row["at"] for row in found)
    assert sum(not row["answer"].strip() for row in found) == 2


def test_wren_never_raises_her_voice() -> None:
    assert not [row["id"] for row in rows("qa.jsonl") if "!" in row["answer"] or "！" in row["answer"]]


def test_questions_are_labelled_and_none_is_copied_from_the_export() -> None:
    asked = {row["question"].casefold() for row in rows("qa.jsonl")}
    labelled = rows("questions.jsonl")

    assert {row["answerable"] for row in labelled} == {True, False}
    assert not [row for row in labelled if row["question"].casefold() in asked]


def test_the_demo_names_files_that_are_there() -> None:
    demo = json.loads((SAMPLE / "demo.json").read_text(encoding="utf-8"))

    assert all((SAMPLE / name).is_file() for name in demo["files"])
    assert len(demo["before_after"]) == 8
