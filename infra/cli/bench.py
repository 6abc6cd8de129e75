"""`understudy bench`: figures of this machine, each command's sides measured in one run."""

import platform
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from infra.cli.console import err, out, print_json, table
from infra.settings import offline


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


def serve(*, as_json: bool) -> None:
    """Our server beside llama_cpp.server."""
    from infra.voice.bench import serving

    offline()
    with tempfile.TemporaryDirectory() as folder:
        show("Traffic of a twin, streaming", serving(Path(folder), say=err().print), as_json=as_json)


def swap(*, as_json: bool) -> None:
    """Swaps under load."""
    from infra.voice.bench import swapping

    offline()
    with tempfile.TemporaryDirectory() as folder:
        show("Swaps under streaming load", swapping(Path(folder), say=err().print), as_json=as_json)


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
