"""A voice as files for elsewhere: merged GGUFs, the bare adapter, a card, an AI label, and what Ollama needs.

Read `export` and you know it. It is made beside the folder that was asked for, file by file, each put in place whole,
so that a killed export goes on where it was; the manifest comes last, and one rename makes it visible. What it does not
know: how any of the programs that the card names behave; only llama.cpp is asked here.
"""

import importlib.metadata
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

from infra.adapters import AdapterStore
from infra.errors import Refused, ServiceTrouble, UserMistake
from infra.files import (
    finish_folder,
    finished,
    fresh_folder,
    read_json,
    sha256_of,
    sync_folder,
    verify_folder,
    write_atomic,
    write_json,
)
from infra.voice.llama import Format, quantise
from infra.voice.weights import Weights
from memory.persona import PersonaCard
from memory.prompt import system_text
from trainer import merge
from trainer.exportcard import Facts, ai_label, card, described, licence_note, modelfile
from trainer.exportmeasure import Measured, Measures

KIND = "export"
MERGED = ".merged.F16.gguf"
STATE, MEASURED = ".made.json", ".measured.json"
SUMS = "SHA256SUMS"
# Bytes a weight, somewhat more than the formats take: a guess made before anything is written.
BYTES = {"Q4_0": 0.75, "Q4_K_M": 0.85, "Q5_K_M": 0.95, "Q8_0": 1.2, "F16": 2.1, "BF16": 2.1}


@dataclass(frozen=True)
class Order:
    """What to export, from what, and whereto. `learned_forgotten` is asked again before anything becomes visible."""

    store: AdapterStore
    version: str
    weights: Weights
    facts: Facts
    persona: PersonaCard
    quants: tuple[Format, ...]
    out: Path
    measures: Measures
    learned_forgotten: Callable[[], bool]
    threads: int = 2
    say: Callable[[str], None] = field(default=lambda line: None)

    @property
    def stem(self) -> str:
        return f"{self.facts.base}-{self.version}"

    def file(self, form: Format) -> str:
        return f"{self.stem}.{form}.gguf"

    @property
    def adapter(self) -> str:
        return f"{self.stem}.adapter.gguf"

    def key(self) -> dict[str, Any]:
        """What decides every byte; what was begun with another key is begun anew."""
        return {
            "version": self.version,
            "adapter": sha256_of(self.store.gguf(self.version)),
            "base": self.weights.sha256,
            "label": ai_label(self.persona.name),
            "persona": self.persona.version,
            "licence": self.facts.licence,
            "llama": importlib.metadata.version("llama-cpp-python"),
        }


def export(order: Order) -> dict[str, Any]:
    """Merge, prove, quantise, measure, describe, publish; returns the manifest. Safe to kill and to repeat.

    Raises Refused for a voice that may not speak, UserMistake for a folder that is not ours or another base, and
    ServiceTrouble when a file cannot be written; nothing that looks finished is left then.
    """
    # 1 refuse what may not leave, or has nowhere to go
    refuse_silent(order)
    refuse_other_base(order)
    if (before := already(order)) is not None:
        return before
    staged, state = begun(order)
    refuse_full_disk(order, staged)

    # 2 merge in float16, and prove that it speaks as base and adapter do together
    began, merged = time.perf_counter(), staged / MERGED
    if "proof" not in state:
        state = {**state, **merged_and_proved(order, merged)}
        write_json(staged / STATE, state)

    # 3 one file for each format, whole or not there
    for form in order.quants:
        if form not in state["files"]:
            state["files"][form] = quantised(order, merged, staged / order.file(form), form)
            write_json(staged / STATE, state)

    # 4 how much each has lost, beside base and adapter as they are served
    measured = order.measures.of(systems(order, staged), staged / MEASURED, say=order.say)

    # 5 the adapter alone, the card, the label, and what Ollama reads
    describe(order, staged, state, measured)

    # 6 publish: once more that nothing of it was forgotten, then the manifest, then one rename
    refuse_silent(order)
    return published(order, staged, state, measured, seconds=time.perf_counter() - began)


def refuse_silent(order: Order) -> None:
    """Raise Refused for a voice that may not speak here: it may not elsewhere either."""
    order.store.may_speak(order.version)
    if order.learned_forgotten():
        raise Refused(f"Adapter {order.version!r} learned what was forgotten since. Retrain without it.")


def refuse_other_base(order: Order) -> None:
    """Raise UserMistake where the adapter was trained on another base than the one that is here."""
    manifest, weights = order.store.verify(order.version), order.weights
    if not weights.path.is_file():
        raise UserMistake(f"The base {str(weights.path)!r} is gone; restore data/models from a backup.")
    if manifest["base_sha256"] == weights.sha256:
        if sha256_of(weights.path) != weights.sha256:
            raise ServiceTrouble(f"The base {str(weights.path)!r} was changed; restore data/models.", permanent=True)
        return
    if (base := manifest.get("base")) and base != order.facts.base:
        raise UserMistake(
            f"Adapter {order.version!r} is for {base!r}, the preset is {order.facts.base!r}: set that one."
        )
    raise UserMistake(
        f"Adapter {order.version!r} was trained on another file of {order.facts.base!r} than the one that is served, "
        "which was made anew since: restore data/models from a backup of that time, or retrain."
    )


def already(order: Order) -> dict[str, Any] | None:
    """The manifest of the same export, made before; None where there is none yet.

    Raises UserMistake for a folder that holds anything else.
    """
    if not order.out.exists():
        return None
    manifest = finished(order.out) if order.out.is_dir() else None
    if manifest is None or manifest.get("kind") != KIND:
        if order.out.is_dir() and not any(order.out.iterdir()):
            return None
        raise UserMistake(f"{str(order.out)!r} is there and no export of ours; name another folder with --out.")
    if manifest["key"] == order.key() and set(order.quants) <= set(manifest["formats"]):
        order.say(f"{str(order.out)!r} holds it already.")
        return verify_folder(order.out)
    raise UserMistake(
        f"{str(order.out)!r} holds another export, of {manifest['key']['version']} as "
        f"{', '.join(manifest['formats'])}; name another folder with --out, or remove it."
    )


def begun(order: Order) -> tuple[Path, dict[str, Any]]:
    """Where it is made, and what an attempt before has finished there."""
    staged, key = order.out.with_name(f".{order.out.name}.part"), order.key()
    try:
        state = read_json(staged / STATE) if (staged / STATE).is_file() else {}
        if state.get("key") == key:
            for left in staged.glob(f"{merge.PROVING}*"):
                shutil.rmtree(left)
            return staged, state
        fresh_folder(staged)
    except OSError as error:
        raise ServiceTrouble(f"Could not make {str(staged)!r}: {error.strerror}. Check its owner.") from error
    return staged, {"key": key, "files": {}}


def refuse_full_disk(order: Order, staged: Path) -> None:
    """Raise ServiceTrouble before any work where the disk cannot hold it: float16 twice while it is proved."""
    weights = merge.weights_in(order.weights.path)
    needed = weights * max(2 * BYTES["F16"], BYTES["F16"] + sum(BYTES[form] for form in order.quants))
    needed -= sum(path.stat().st_size for path in staged.iterdir())
    if (free := shutil.disk_usage(staged).free) < needed:
        raise ServiceTrouble(
            f"The export takes about {needed / 1e9:.1f} GB while it is made, and {free / 1e9:.1f} GB are free in "
            f"{str(staged.parent)!r}. Free some space, or name another disk with --out."
        )


def merged_and_proved(order: Order, merged: Path) -> dict[str, Any]:
    """The merged model in float16, in place once it is proved."""
    adapter, part = order.store.gguf(order.version), merged.with_name(f"{merged.name}.part")
    began = time.perf_counter()
    order.say("merging the adapter into the base")
    facts = described(order.facts, order.persona, version=order.version)
    merge.merge(order.weights.path, adapter, part, base_sha256=order.weights.sha256, described=facts)
    took = time.perf_counter() - began
    order.say("comparing it with base and adapter in llama.cpp")
    proof = merge.proved(order.weights.path, adapter, part, threads=order.threads)
    part.replace(merged)
    return {"proof": {**asdict(proof), "tolerance": proof.tolerance}, "merge_s": round(took, 2)}


def quantised(order: Order, merged: Path, path: Path, form: Format) -> dict[str, Any]:
    """One file in one format, loaded once by llama.cpp before it is put in place."""
    order.say(f"writing {form}")
    began, part = time.perf_counter(), path.with_name(f".{path.name}.part")
    try:
        quantise(merged, part, form, threads=order.threads)
        merge.refuse_mute(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    size = path.stat().st_size
    took = round(time.perf_counter() - began, 2)
    return {"bytes": size, "bits": round(8 * size / merge.weights_in(path), 2), "seconds": took}


def systems(order: Order, staged: Path) -> dict[str, tuple[Path, Path | None]]:
    """What is measured side by side: weights and the adapter on them, by name."""
    adapter = order.store.gguf(order.version)
    made: dict[str, tuple[Path, Path | None]] = {form: (staged / order.file(form), None) for form in order.quants}
    return {
        f"base ({order.weights.format})": (order.weights.path, None),
        f"base ({order.weights.format}) + adapter": (order.weights.path, adapter),
        "merged F16": (staged / MERGED, None),
        **made,
    }


def describe(order: Order, staged: Path, state: Mapping[str, Any], measured: Mapping[str, Measured]) -> None:
    """Everything that is not a merged model."""
    store, version = order.store, order.version
    label = described(order.facts, order.persona, version=version)
    merge.relabel(store.gguf(version), staged / order.adapter, label)
    if (peft := store.folder(version) / "peft").is_dir():
        try:
            shutil.copytree(peft, staged / "peft", dirs_exist_ok=True)
        except OSError as error:
            raise ServiceTrouble(f"Could not copy {str(peft)!r} to {str(staged)!r}. Free some space.") from error
    files: dict[str, str] = {form: order.file(form) for form in order.quants}
    headline = headline_of(store, version)
    write_atomic(staged / "README.md", card(order.facts, order.persona, version, files, state, measured, headline))
    write_atomic(staged / "AI-LABEL.txt", f"{ai_label(order.persona.name)}\n")
    write_atomic(staged / "LICENCE.txt", licence_note(order.facts, order.persona))
    write_atomic(staged / "system.txt", f"{system_text(order.persona)}\n")
    template = merge.template_of(order.weights.path)
    write_atomic(staged / "Modelfile", modelfile(next(iter(files.values())), template, order.persona))


def headline_of(store: AdapterStore, version: str) -> dict[str, Any]:
    """The eval card's figures; empty for a version that has none. No words leave with it."""
    from trainer.card import from_json

    try:
        return from_json(store.card(version)).headline()
    except UserMistake:
        return {}


def published(
    order: Order, staged: Path, state: Mapping[str, Any], measured: Mapping[str, Measured], *, seconds: float
) -> dict[str, Any]:
    """Drop what was only needed on the way, add the sums and last the manifest, and rename. Returns the manifest."""
    kept = {order.adapter, *(order.file(form) for form in order.quants)}
    for path in staged.iterdir():
        if path.name.startswith(".") or (path.suffix == ".gguf" and path.name not in kept):
            path.unlink()
    paths = sorted(path for path in staged.rglob("*") if path.is_file() and path.name != SUMS)
    write_atomic(staged / SUMS, "".join(f"{sha256_of(path)}  {path.relative_to(staged)}\n" for path in paths))
    manifest = {
        "kind": KIND,
        "key": state["key"],
        "formats": list(order.quants),
        "proof": state["proof"],
        "made": {form: state["files"][form] for form in order.quants},
        "measured": {name: asdict(each) for name, each in measured.items()},
        "seconds": round(seconds, 1),
    }
    try:
        finish_folder(staged, manifest)
        for path in paths:
            synced(path)
        staged.rename(order.out)
    except OSError as error:
        raise ServiceTrouble(f"Could not finish {str(order.out)!r}: {error.strerror}.") from error
    sync_folder(order.out.parent)
    found = finished(order.out)
    assert found is not None
    return found


def synced(path: Path) -> None:
    """Let a file survive a power cut."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def formats(text: str) -> tuple[Format, ...]:
    """The formats that a list names, each once. Raises UserMistake for one that there is not."""
    known: Mapping[str, Format] = {each.upper(): each for each in get_args(Format)}
    wanted: Sequence[str] = [each.strip().upper() for each in text.split(",") if each.strip()]
    wrong = [each for each in wanted if each not in known]
    if wrong or not wanted:
        raise UserMistake(f"The formats are {', '.join(get_args(Format))}, not {', '.join(wrong) or 'none'}.")
    return tuple(dict.fromkeys(known[each] for each in wanted))
