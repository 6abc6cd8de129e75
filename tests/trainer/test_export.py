"""A voice taken elsewhere: what leaves is what spoke here, says that it is an AI, and is whole or not there."""

import json
import re
import resource
import shutil
import subprocess
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from infra.adapters import GGUF, AdapterStore
from infra.errors import Refused, ServiceTrouble, UserMistake
from infra.files import sha256_of
from infra.voice.chat import Sampling, Turn
from infra.voice.llama import Model
from infra.voice.weights import Weights
from memory.persona import PersonaCard
from tests.infra.running import understudy
from tests.weights import small_base
from trainer import export as exporting
from trainer import gguf, merge
from trainer.dataset import Dataset, load
from trainer.export import Order, export, formats
from trainer.exportcard import OLLAMA, RESERVED, Facts, ai_label, licence_of, modelfile
from trainer.exportmeasure import Measures

ADA = PersonaCard("Ada", about='A baker who says """no""" to yeast.')
HEADS = {"attn_q": 9, "attn_k": 3}
BRIEF = Sampling(temperature=0, max_tokens=4)


def peft_adapter(folder: Path, base: Path) -> Path:
    """A PEFT adapter of rank 4 for every matrix of a one-layer base, random and strong."""
    from safetensors.numpy import save_file

    rng, shapes = np.random.default_rng(3), gguf.base_of(base).shapes
    modules = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    tensors = {}
    for module, name in modules.items():
        rows, columns = shapes[f"blk.0.{name}.weight"]
        key = f"base_model.model.model.layers.0.{module}.lora"
        tensors[f"{key}_A.weight"] = rng.normal(0, columns**-0.5, (4, columns)).astype(np.float32)
        tensors[f"{key}_B.weight"] = rng.normal(0, 0.05, (rows, 4)).astype(np.float32)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 16, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def base() -> Weights:
    path = small_base()
    return Weights(path, sha256_of(path), "Q4_1")


@pytest.fixture(scope="module")
def learned(base: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one version consists of: the adapter as PEFT has it and as llama.cpp does."""
    folder = tmp_path_factory.mktemp("learned")
    peft = peft_adapter(folder / "peft", base.path)
    gguf.write_adapter(peft, base.path, folder / GGUF, metadata={"twin.base_sha256": base.sha256})
    return folder


def stored(root: Path, base: Weights, learned: Path, *, passed: bool = True) -> AdapterStore:
    """A store with one version."""
    store = AdapterStore(root)
    shutil.copytree(learned, store.stage("v1"), dirs_exist_ok=True)
    verdict = {"passed": passed, "reasons": [] if passed else ["NLL is worse"]}
    store.publish("v1", {"base": "tiny", "base_sha256": base.sha256, "verdict": verdict, "examples": ["e1"]})
    return store


@pytest.fixture(scope="module")
def store(base: Weights, learned: Path, tmp_path_factory: pytest.TempPathFactory) -> AdapterStore:
    return stored(tmp_path_factory.mktemp("store"), base, learned)


def order(store: AdapterStore, base: Weights, out: Path, built: Dataset | None = None, **changed: object) -> Order:
    (out.parent / "text.txt").write_text("Bread wants time, warmth and salt. " * 9, encoding="utf-8")
    licence, url = licence_of("tiny", "apache-2.0")
    facts = Facts(
        "tiny", "package:x", "Q4_1", licence, url, RESERVED.format(name="Ada"), {"train": 90, "validation": 6}, {}
    )
    made = Order(
        store=store,
        version="v1",
        weights=base,
        facts=facts,
        persona=ADA,
        quants=("Q8_0",),
        out=out,
        measures=Measures(built, ADA, base, seed=1, text=out.parent / "text.txt", answering=BRIEF),
        learned_forgotten=lambda: False,
    )
    return replace(made, **changed)


@pytest.fixture(scope="module")
def exported(
    store: AdapterStore, base: Weights, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, object]]:
    """The whole thing once, in two formats."""
    out = tmp_path_factory.mktemp("exports") / "v1"
    return out, export(order(store, base, out, quants=("Q4_K_M", "Q8_0")))


def test_what_leaves_speaks_as_base_and_adapter_do(exported: tuple[Path, dict]) -> None:
    proof = exported[1]["proof"]

    assert proof["error"] < proof["tolerance"] / 2
    assert proof["effect"] > 0.5


@pytest.mark.parametrize("mistake", ["rows", "scale"])
def test_a_wrong_merge_is_caught(
    store: AdapterStore, base: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mistake: str
) -> None:
    """B's rows as transformers has them, or alpha forgotten: each loads, and speaks a little wrongly."""
    right = merge.halves(store.gguf("v1"))

    def wrong(adapter: Path) -> dict[str, merge.Half]:
        if mistake == "scale":
            return {name: replace(half, scale=1.0) for name, half in right.items()}
        return {
            name: replace(half, b=unordered(half.b, heads)) if (heads := HEADS.get(name.split(".")[2])) else half
            for name, half in right.items()
        }

    monkeypatch.setattr(merge, "halves", wrong)
    with pytest.raises(ServiceTrouble, match="does not speak as base and adapter do"):
        export(order(store, base, tmp_path / "out"))

    assert not (tmp_path / "out").exists()


def unordered(b: np.ndarray, heads: int) -> np.ndarray:
    """What `gguf.reordered` does, taken back."""
    rows, columns = b.shape
    return b.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def test_every_file_loads_says_that_it_is_an_ai_and_answers(exported: tuple[Path, dict]) -> None:
    out, manifest = exported
    for form in manifest["formats"]:
        path = out / f"tiny-v1.{form}.gguf"
        model = Model(path)
        assert model.metadata("general.description") == ai_label("Ada")
        assert model.metadata("general.name") == "AI in the manner of Ada"
        model.free()
        assert np.isfinite(merge.in_llama(path, None, merge.tokenised(path))).all()
    merge.check_adapter(out / "tiny-v1.adapter.gguf", merge.check_base(small_base()), base_name="base")
    assert (out / "AI-LABEL.txt").read_text(encoding="utf-8").strip() == ai_label("Ada")


def test_the_sums_are_checkable_by_sha256sum(exported: tuple[Path, dict]) -> None:
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=exported[0], capture_output=True, text=True)

    assert done.returncode == 0, done.stdout
    assert {line.split(":")[0] for line in done.stdout.splitlines()} >= {
        "README.md", "Modelfile", "tiny-v1.Q4_K_M.gguf", "tiny-v1.Q8_0.gguf", "tiny-v1.adapter.gguf",
        "peft/adapter_config.json", "LICENCE.txt", "system.txt", "AI-LABEL.txt",
    }  # fmt: skip


def test_the_card_has_figures_for_each_format_and_nobodys_words(
    exported: tuple[Path, dict], small_dataset: Path
) -> None:
    out, manifest = exported
    card = (out / "README.md").read_text(encoding="utf-8")

    for name, each in manifest["measured"].items():
        assert re.search(rf"\| {re.escape(name)} \|.*\| {each['perplexity']:.2f} \|.*not measured \|", card)
    assert ai_label("Ada") in card
    assert "apache-2.0" in card
    assert "Learned from 90 exchanges" in card
    words = [row.answer for row in load(small_dataset).rows("train")]
    assert not [each for each in words if each in card]
    assert set(manifest["measured"]) == {"base (Q4_1)", "base (Q4_1) + adapter", "merged F16", "Q4_K_M", "Q8_0"}


def test_the_persona_score_is_of_the_held_out_rows_and_measured_once(
    base: Weights, small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.txt").write_text("Bread wants time.", encoding="utf-8")
    measures = Measures(load(small_dataset), ADA, base, seed=1, text=tmp_path / "text.txt", answering=BRIEF)
    systems = {"base": (base.path, None)}
    found = measures.of(systems, tmp_path / "kept.json", say=lambda line: None)
    monkeypatch.setattr(Measures, "spoken", None)

    assert measures.of(systems, tmp_path / "kept.json", say=lambda line: None) == found
    assert found["base"].nll > 1
    assert 0 < found["base"].style < 0.5


def test_ollamas_template_writes_what_the_models_own_does(base: Weights) -> None:
    turns = [Turn("system", "Be Ada."), Turn("user", "Why?"), Turn("assistant", "So."), Turn("user", "And?")]
    model = Model(base.path)
    own, template = model.prompt(turns), model.metadata("tokenizer.chat_template")
    model.free()

    written, _ = OLLAMA["<|im_start|>"]
    assert rendered(written, turns) == own
    made = modelfile("x.gguf", template, ADA)
    assert f'TEMPLATE """{written}"""' in made
    assert 'PARAMETER stop "<|im_end|>"' in made
    assert made.count('"""') % 2 == 0
    assert 'TEMPLATE """' not in modelfile("x.gguf", "{{ unknown }}", ADA)


def rendered(template: str, turns: list[Turn]) -> str:
    """Go's template language, as much of it as is used: a loop over messages, and `-` that trims what stands before."""
    head, loop, tail = re.fullmatch(
        r"(.*?)\s*\{\{- range \.Messages \}\}(.*)\{\{ end \}\}(.*)", template, re.DOTALL
    ).groups()
    each = [loop.replace("{{ .Role }}", t.role).replace("{{ .Content }}", t.content) for t in turns]
    return head + "".join(each) + tail


def test_a_second_time_changes_nothing_and_another_order_is_refused(
    store: AdapterStore, base: Weights, exported: tuple[Path, dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, manifest = exported
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    monkeypatch.setattr(merge, "merge", None)

    assert export(order(store, base, out)) == manifest
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    with pytest.raises(UserMistake, match="holds another export"):
        export(order(store, base, out, quants=("Q5_K_M",)))


def test_a_folder_of_somebody_elses_is_left_alone(store: AdapterStore, base: Weights, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()

    with pytest.raises(UserMistake, match="no export of ours"):
        export(order(store, base, tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis.tex"]


def test_a_killed_export_goes_on_where_it_was(
    store: AdapterStore, base: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "v1"
    asked = order(store, base, out, quants=("Q8_0", "Q4_K_M"))
    quantise = exporting.quantise

    def killed(source: Path, target: Path, form: str, *, threads: int) -> None:
        if form == "Q4_K_M":
            target.write_bytes(b"half")
            raise KeyboardInterrupt
        quantise(source, target, form, threads=threads)

    monkeypatch.setattr(exporting, "quantise", killed)
    with pytest.raises(KeyboardInterrupt):
        export(asked)
    assert not out.exists()
    monkeypatch.setattr(exporting, "quantise", quantise)
    monkeypatch.setattr(merge, "merge", None)

    assert export(asked)["formats"] == ["Q8_0", "Q4_K_M"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text.txt", "v1"]
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file may grow beyond forty megabytes: less than the merged model, for us and for llama.cpp."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_leaves_nothing_that_looks_finished(store: AdapterStore, base: Weights, tmp_path: Path) -> None:
    with pytest.raises(ServiceTrouble, match="Free some space"):
        export(order(store, base, tmp_path / "v1"))

    assert not (tmp_path / "v1").exists()
    assert not list(tmp_path.rglob("manifest.json"))
    assert not list(tmp_path.rglob("*.gguf"))


def test_too_little_room_is_said_before_any_work(
    store: AdapterStore, base: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge, "weights_in", lambda path: 10**15)

    with pytest.raises(ServiceTrouble, match=r"takes about [\d.]+ GB .* free"):
        export(order(store, base, tmp_path / "v1"))


def test_what_may_not_speak_does_not_leave(base: Weights, learned: Path, tmp_path: Path) -> None:
    refused = stored(tmp_path / "refused", base, learned, passed=False)
    tainted, clean = (stored(tmp_path / name, base, learned) for name in ("tainted", "clean"))
    tainted.taint("v1", "it learned what was forgotten since")

    with pytest.raises(Refused, match="did not pass its gate"):
        export(order(refused, base, tmp_path / "a"))
    with pytest.raises(Refused, match="tainted"):
        export(order(tainted, base, tmp_path / "b"))
    with pytest.raises(Refused, match="forgotten"):
        export(order(clean, base, tmp_path / "c", learned_forgotten=lambda: True))
    assert not [path for path in tmp_path.glob("[abc]") if path.is_dir()]


def test_what_is_forgotten_meanwhile_does_not_leave(store: AdapterStore, base: Weights, tmp_path: Path) -> None:
    said = iter([False, True])

    with pytest.raises(Refused, match="forgotten"):
        export(order(store, base, tmp_path / "v1", learned_forgotten=lambda: next(said)))
    assert not (tmp_path / "v1").exists()


def test_another_base_is_refused_in_words(store: AdapterStore, base: Weights, tmp_path: Path) -> None:
    asked = order(store, base, tmp_path / "v1")

    with pytest.raises(UserMistake, match="another file of 'tiny'"):
        export(replace(asked, weights=replace(base, sha256="0" * 64)))
    with pytest.raises(UserMistake, match="is for 'tiny', the preset is 'other'"):
        export(replace(asked, weights=replace(base, sha256="0" * 64), facts=replace(asked.facts, base="other")))
    with pytest.raises(UserMistake, match="is gone"):
        export(replace(asked, weights=replace(base, path=tmp_path / "none.gguf")))


def test_formats_are_read_in_any_case_and_unknown_ones_named() -> None:
    assert formats("q4_k_m, Q8_0,Q4_K_M") == ("Q4_K_M", "Q8_0")
    for wrong in ("", "Q9", "Q8_0,IQ2"):
        with pytest.raises(UserMistake, match="The formats are Q4_0, Q4_K_M"):
            formats(wrong)


def test_a_merge_holds_some_rows_at_a_time(base: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedding of this base is 108 MiB in float32; what is held of it is eight."""
    monkeypatch.setattr(merge, "AT_ONCE", 1 << 20)
    from gguf import GGUFReader

    embedding = next(tensor for tensor in GGUFReader(base.path).tensors if tensor.name == "token_embd.weight")
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for piece in merge.pieces(embedding, None):
        assert piece.nbytes <= 2 << 20
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()

    assert peak < 40 << 20


def test_the_command_names_what_it_does_not_know(home: Path) -> None:
    assert "There is no adapter 'v9'" in understudy(home, "voices", "export", "v9", code=1).stderr
    done = understudy(home, "voices", "export", "v9", "--quant", "Q3", code=1)
    assert "The formats are" in done.stderr


def test_another_introduction_is_another_export(store: AdapterStore, base: Weights, tmp_path: Path) -> None:
    """The prompt that goes with the files holds it."""
    made = order(store, base, tmp_path / "out")

    assert made.key() != replace(made, persona=replace(ADA, about="A baker in Lyon.")).key()
