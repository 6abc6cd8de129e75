"""How a voice computes: what llama.cpp is told, what a calibration chooses, and what it holds for."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from infra.machine import Machine, Spent
from infra.voice import calibrate as calibrate_module
from infra.voice import tuning as tuning_module
from infra.voice.calibrate import Candidate, Contest, calibrate, candidates, settle
from infra.voice.llama import Context, Model, gpu_layers, lib
from infra.voice.speed import Effort
from infra.voice.tuning import DEFAULT, Basis, Calibration, Speed, Tuning, in_use, load, save

HERE = Basis(Machine("some processor", 2, "0.3.36"), "a" * 64, 0)
FLASH = Candidate("flash", "attention", {"flash": True})
SMALL_MEMORY = Candidate("q8_0", "attention", {"flash": True, "kv": "q8_0"})
FEW_ROWS = Candidate("rows", "rows", {"ubatch": 128})
ALL = [FLASH, SMALL_MEMORY, FEW_ROWS]


@pytest.fixture(scope="module")
def model(small: Path) -> Iterator[Model]:
    loaded = Model(small)
    yield loaded
    loaded.free()


def after(model: Model, tuning: Tuning) -> tuple[np.ndarray, int, tuple[int, int, int]]:
    """What is expected after a prompt, the bytes that it keeps, and what llama.cpp says of the context."""
    tokens = model.tokens("The oven was older than the house. Every Thursday she lit it before dawn and waited. " * 3)
    context = Context(model, tokens=128, sequences=1, batch=128, threads=2, tuning=tuning)
    context.decode([(token, n, 0, n == len(tokens) - 1) for n, token in enumerate(tokens)])
    told = lib().llama_n_threads(context.pointer), lib().llama_n_threads_batch(context.pointer)
    found = context.logits(len(tokens) - 1), context.saved(0).size, (*told, lib().llama_n_ubatch(context.pointer))
    context.free()
    return found


def test_only_the_type_of_the_memory_changes_what_is_said(model: Model) -> None:
    """All else differs by rounding; q8_0 memory takes about half the bytes, and differs a little more."""
    plain, size, told = after(model, DEFAULT)
    other, same_size, otherwise_told = after(model, Tuning(flash=True, threads=1, batch_threads=1, ubatch=32))
    small, half_size, _ = after(model, Tuning(flash=True, kv="q8_0"))

    span = np.ptp(plain)
    assert (told, otherwise_told) == ((2, 2, 128), (1, 1, 32))
    assert other.argmax() == plain.argmax()
    assert np.abs(other - plain).max() < span * 0.02
    assert same_size < size * 1.1
    assert half_size < size * 0.6
    assert 0 < np.abs(small - plain).max() < span * 0.2


def test_memory_of_a_type_that_needs_the_fused_attention_is_refused_without_it() -> None:
    with pytest.raises(ValueError, match="q8_0"):
        Tuning(kv="q8_0")


def test_nothing_goes_to_a_gpu_that_llama_was_not_built_for() -> None:
    assert not lib().llama_supports_gpu_offload()
    assert gpu_layers(-1) == gpu_layers(7) == 0


def test_the_layers_for_a_gpu_are_passed_on(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as this can be seen where there is none: what llama.cpp is asked for."""
    load_model, asked = lib().llama_model_load_from_file, []

    def loading(path: bytes, params: Any) -> Any:
        asked.append(params.n_gpu_layers)
        return load_model(path, params)

    monkeypatch.setattr(lib(), "llama_model_load_from_file", loading)
    monkeypatch.setattr(lib(), "llama_supports_gpu_offload", lambda: True)
    Model(small, gpu_layers=gpu_layers(-1)).free()
    Model(small, gpu_layers=gpu_layers(7)).free()
    Model(small).free()

    assert asked == [-1, 7, 0]


def took(*seconds: Callable[[Tuning], float]) -> Callable[[Tuning], Speed]:
    """A machine that takes as long as said; once it has run every way as often as in a race, as said next."""
    runs: list[Tuning] = []

    def run(tuning: Tuning) -> Speed:
        runs.append(tuning)
        speed = 596 / seconds[0 if len(seconds) == 1 or len(runs) <= 12 else 1](tuning)
        return Speed(speed, speed, speed)

    return run


def test_the_default_stays_where_nothing_is_clearly_faster() -> None:
    tuning, measured = settle(
        Contest(DEFAULT, took(lambda tuning: 0.96 if tuning.flash else 1.0), lambda tuning: 30.0, laps=3), ALL
    )

    assert tuning == DEFAULT
    assert [(each.name, round(each.share, 2)) for each in measured] == [
        ("default", 1.0),
        ("flash", 0.96),
        ("q8_0", 0.96),
        ("rows", 1.0),
    ]
    assert {each.verdict for each in measured[1:]} == {"not clearly faster"}


def test_what_wins_is_taken_together_and_the_better_of_two_ways() -> None:
    def seconds(tuning: Tuning) -> float:
        return {"f16": 0.9, "q8_0": 0.8}[tuning.kv] * (0.9 if tuning.ubatch == 128 else 1.0) if tuning.flash else 0.9

    tuning, measured = settle(Contest(DEFAULT, took(lambda t: 1.0 if t == DEFAULT else seconds(t)), len_30, 3), ALL)

    assert tuning == Tuning(flash=True, kv="q8_0", ubatch=128)
    assert measured[-1].name == "again: q8_0 + rows"
    assert measured[-1].share == pytest.approx(0.72)
    assert measured[0].perplexity == measured[2].perplexity == 30


def len_30(tuning: Tuning) -> float:
    return 30.0


def test_memory_that_loses_too_much_is_not_taken_however_fast() -> None:
    fast = took(lambda tuning: 0.5 if tuning.kv == "q8_0" else 0.8 if tuning.flash else 1.0)
    contest = Contest(DEFAULT, fast, lambda tuning: 31.0 if tuning.kv == "q8_0" else 30.0, 3)

    tuning, measured = settle(contest, ALL)

    assert tuning == Tuning(flash=True)
    assert (measured[2].verdict, measured[2].perplexity) == ("loses too much", 31.0)


def test_who_wins_once_and_not_again_is_not_taken() -> None:
    run = took(lambda tuning: 0.8 if tuning.flash else 1.0, lambda tuning: 1.0)

    tuning, measured = settle(Contest(DEFAULT, run, len_30, 3), ALL)

    assert tuning == DEFAULT
    assert [measured[1].verdict, measured[-1].verdict] == ["faster", "not clearly faster"]


def test_what_others_had_of_the_machine_is_what_this_process_had_not() -> None:
    """Six of ten seconds of work were this process's; there are as many cores as there are."""
    cores = psutil.cpu_count() or 1

    assert Spent(15.0, 110.0, 56.0).others_since(Spent(10.0, 100.0, 50.0)) == pytest.approx(4.0 / 5.0 / cores)


def test_fewer_threads_are_tried_unless_they_are_set() -> None:
    assert [each.changes for each in candidates(2) if each.about == "threads"] == [
        {"threads": 1},
        {"threads": 1, "batch_threads": 1},
    ]
    assert [each.changes["threads"] for each in candidates(16) if each.about == "threads"] == [4, 8, 12, 15] * 2
    assert not [each for each in candidates(1) if each.about == "threads"]


@pytest.mark.usefixtures("hasty")
def test_a_calibration_measures_every_way_and_can_be_kept(small: Path, tmp_path: Path) -> None:
    found = calibrate(small, HERE, threads=2, choose_threads=True, effort=Effort(laps=1, read=32, said=2))

    assert [each.name for each in found.measured][:7] == ["default", *(each.name for each in candidates(2))]
    assert all(each.speed.turn_s > 0 for each in found.measured)
    save(tmp_path / "tuning.json", found)
    assert load(tmp_path / "tuning.json") == found


@pytest.mark.parametrize(("most", "taken"), [(-1.0, False), (1e9, True)], ids=["busy", "quiet"])
def test_nothing_is_learned_on_a_busy_machine(
    most: float, taken: bool, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There one thread wins over two, which would halve the speed once it is quiet."""
    one_thread = Tuning(threads=1, batch_threads=1)
    monkeypatch.setattr(calibrate_module, "settle", lambda contest, tried: (one_thread, []))
    monkeypatch.setattr(tuning_module, "MOST_OTHERS", most)

    found = calibrate(small, HERE, threads=2, choose_threads=True, effort=Effort(laps=1, read=32, said=2))
    save(tmp_path / "tuning.json", found)
    tuning, why = in_use(tmp_path / "tuning.json", HERE)

    assert tuning == found.tuning == (one_thread if taken else DEFAULT)
    assert ("of the machine when it was measured" in why) is not taken


@pytest.mark.parametrize(
    ("basis", "reason"),
    [
        (replace(HERE, machine=replace(HERE.machine, cores=8)), "another machine or llama.cpp"),
        (replace(HERE, machine=replace(HERE.machine, llama="0.3.40")), "another machine or llama.cpp"),
        (replace(HERE, weights="b" * 64), "other weights"),
        (replace(HERE, gpu_layers=-1), "another share of the layers on a GPU"),
    ],
    ids=["cores", "llama", "weights", "gpu"],
)
def test_a_calibration_holds_only_for_what_it_was_measured_on(basis: Basis, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "tuning.json"
    save(path, Calibration(HERE, Tuning(ubatch=128), ()))

    assert in_use(path, HERE) == (Tuning(ubatch=128), "as measured here")
    tuning, why = in_use(path, basis)
    assert tuning == Tuning(gpu_layers=basis.gpu_layers)
    assert reason in why
    assert "doctor --tune" in why


@pytest.mark.parametrize("text", ["", "{}", '{"basis": 3}', "no json"])
def test_a_calibration_that_cannot_be_read_stops_nobody(text: str, tmp_path: Path) -> None:
    (tmp_path / "tuning.json").write_text(text, encoding="utf-8")

    assert in_use(tmp_path / "tuning.json", HERE)[0] == DEFAULT
    assert in_use(tmp_path / "none.json", HERE)[0] == DEFAULT
