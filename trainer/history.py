"""All eval cards in a row: is the twin getting better?

Every week has held-out questions of its own, so its figures cannot be set beside another week's. What can be: each
voice against the one before it, which its card measured on the same questions, and, where it is asked for, all voices
on the newest held-out questions, which none of them has learned from. Reads the adapter store; trains nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment

from infra.adapters import BASE, CARD, AdapterStore
from infra.errors import UserMistake
from infra.voice.score import Scorer
from infra.voice.weights import Weights
from memory.persona import PersonaCard
from trainer.card import MEASURES, EvalCard, Interval
from trainer.dataset import Dataset
from trainer.evalcard import LABELS
from trainer.evals import load_card, prompt
from trainer.gate import told
from trainer.metrics import paired_bootstrap

# What is plotted: the measures that the gate asks first, and the probe.
SHOWN = ("nll", "style", "similarity", "rouge_l", "groundedness", "unhealthy")
# A plot's size and margins, in SVG units.
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 300.0, 150.0, 44.0, 24.0, 12.0


@dataclass(frozen=True)
class Week:
    """One published adapter and its card."""

    version: str
    passed: bool
    tainted: bool
    card: EvalCard

    @property
    def day(self) -> str:
        """When it was made: versions begin with their time."""
        return f"{self.version[:4]}-{self.version[4:6]}-{self.version[6:8]}"

    @property
    def step(self) -> Interval | None:
        """How the creator's answers' NLL differs from the voice's before it; None where none spoke."""
        return self.card.against["current"]["nll"] if self.card.current else None


@dataclass(frozen=True)
class Again:
    """Every voice on the newest held-out questions: NLL by version, and the last one's less the first one's."""

    questions: int
    nll: Mapping[str, float]
    change: Interval


def weeks(store: AdapterStore) -> list[Week]:
    """Every version with a card, oldest first. Raises UserMistake when there is none."""
    found = [
        Week(
            version,
            passed=bool((store.manifest(version).get("verdict") or {}).get("passed")),
            tainted=store.tainted(version) is not None,
            card=load_card(store.folder(version)),
        )
        for version in store.versions()
        if (store.folder(version) / CARD).is_file()
    ]
    if not found:
        raise UserMistake("No adapter has an eval card yet: understudy retrain makes the first.")
    return found


def again(
    store: AdapterStore,
    built: Dataset,
    versions: Sequence[str],
    *,
    weights: Weights,
    persona: PersonaCard,
    threads: int,
    seed: int,
    on_progress: Callable[[str], None] = lambda version: None,
) -> Again:
    """Measure the base and all `versions` that were made for these weights on the held-out questions of `built`.

    Raises UserMistake when no version fits the weights, ServiceTrouble when one cannot be loaded.
    """
    fitting = [each for each in versions if store.manifest(each)["base_sha256"] == weights.sha256]
    if not fitting:
        raise UserMistake("No adapter was made for the weights that are served now; train again.")
    heldout = built.heldout()
    prompts = [prompt(persona, each) for each in heldout]
    found: dict[str, list[float]] = {}
    for version in (BASE, *fitting):
        on_progress(version)
        with Scorer(weights.path, None if version == BASE else store.gguf(version), threads=threads) as scorer:
            scored = [scorer.answer(turns, each.exchange.answer) for turns, each in zip(prompts, heldout, strict=True)]
        found[version] = [each.per_token for each in scored]
    change = paired_bootstrap(found[fitting[-1]], found[fitting[0]], seed=seed)
    return Again(len(heldout), {name: sum(each) / len(each) for name, each in found.items()}, change)


def verdict(found: Sequence[Week], measured: Again | None) -> str:
    """Whether the twin is getting better, in a sentence or two with its figures."""
    if measured is not None and len(measured.nll) > 2:
        change, first, *_, last = (measured.change, *[each for each in measured.nll if each != BASE])
        span = f"On the {measured.questions} newest held-out questions, {last} against {first}: NLL {told(change)}."
        return f"{clearly(change)} {span}"
    steps = [week.step for week in found if week.step is not None]
    if not steps:
        return "Too early to say: no voice has followed another yet."
    better, worse = sum(each.high < 0 for each in steps), sum(each.low > 0 for each in steps)
    return (
        f"Of {len(steps)} voices that followed another, {better} were clearly better than the one before on the same "
        f"questions and {worse} clearly worse; the last: NLL {told(steps[-1])}."
    )


def clearly(change: Interval) -> str:
    if change.high < 0:
        return "It is getting better."
    return "It is getting worse." if change.low > 0 else "Nothing clear either way."


def summary(found: Sequence[Week], measured: Again | None) -> dict[str, Any]:
    """All of it as JSON."""
    return {
        "verdict": verdict(found, measured),
        "weeks": [
            {
                "version": week.version,
                "passed": week.passed,
                "tainted": week.tainted,
                "against_the_one_before": asdict(week.step) if week.step else None,
                "style_check": asdict(week.card.style_check) if week.card.style_check else None,
                **week.card.headline(),
            }
            for week in found
        ],
        "again": asdict(measured) if measured else None,
    }


def page(found: Sequence[Week], measured: Again | None) -> str:
    """One self-contained page: the verdict, a plot for each measure, and a row for each voice."""
    environment = Environment(autoescape=True, trim_blocks=True)
    template = (files("trainer") / "history.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        verdict=verdict(found, measured),
        weeks=found,
        measured=measured,
        told=told,
        plots=[plot(name, found) for name in SHOWN],
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        floor=HEIGHT - BOTTOM,
    )


def plot(name: str, found: Sequence[Week]) -> dict[str, Any]:
    """The base's and the candidates' line of one measure, with the 95 % interval of each candidate's difference."""
    base = [week.card.base.mean(name) for week in found]
    ours = [week.card.candidate.mean(name) for week in found]
    spans = [week.card.against["base"][name] for week in found]
    low = [at + span.low for at, span in zip(base, spans, strict=True)]
    high = [at + span.high for at, span in zip(base, spans, strict=True)]
    least, most = min(*base, *ours, *low), max(*base, *ours, *high)
    room = (most - least or 1.0) * 0.08
    least, most = least - room, most + room

    def across(number: int) -> float:
        return LEFT + (number + 0.5) * (WIDTH - LEFT) / len(found)

    def up(value: float) -> float:
        return round(HEIGHT - BOTTOM - (value - least) / (most - least) * (HEIGHT - BOTTOM - TOP), 1)

    def line(values: Sequence[float]) -> str:
        return " ".join(f"{across(number):.1f},{up(value)}" for number, value in enumerate(values))

    return {
        "label": LABELS[name][0],
        "unit": LABELS[name][1] if "better" in LABELS[name][1] else f"{LABELS[name][1]}; {goal(name)}",
        "base": line(base),
        "ours": line(ours),
        "points": [
            {"x": round(across(number), 1), "y": up(value), "low": up(low[number]), "high": up(high[number])}
            for number, value in enumerate(ours)
        ],
        "ticks": [{"y": up(value), "text": f"{value:.2f}"} for value in (least + room, most - room)],
        "days": [
            {"x": round(across(number), 1), "text": week.day[5:]}
            for number, week in enumerate(found)
            if number in {0, len(found) - 1}
        ],
    }


def goal(name: str) -> str:
    return "more is better" if MEASURES[name] else "less is better"


def save(folder: Path, found: Sequence[Week], measured: Again | None) -> Path:
    """Write the page into `folder`."""
    from infra.files import write_atomic

    path = folder / "history.html"
    write_atomic(path, page(found, measured))
    return path
