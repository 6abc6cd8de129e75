"""The eval card as one self-contained page: verdict, measures with their intervals, answers before and after."""

from importlib.resources import files

from jinja2 import Environment

from trainer.ability import counts
from trainer.card import MEASURES, EvalCard, Interval
from trainer.gate import Verdict

LABELS = {
    "nll": ("NLL of the creator's answers", "nats per token; less is better"),
    "rouge_1": ("ROUGE-1", "words or characters shared"),
    "rouge_2": ("ROUGE-2", "pairs shared"),
    "rouge_l": ("ROUGE-L", "order shared"),
    "similarity": ("Similarity", "of meaning, by sentence embedding"),
    "style": ("Style", "read as the creator's"),
    "groundedness": ("Groundedness", "of the answer in its notes"),
    "verbatim": ("Verbatim", "copied from training answers; less is better"),
    "unhealthy": ("Unhealthy", "empty, looping or endless; less is better"),
}
SHOWN = 8

# Geometry of the interval plot, in SVG units.
WIDTH, MIDDLE, REACH = 220.0, 110.0, 100.0


def page(card: EvalCard, verdict: Verdict) -> str:
    """The page. All text is escaped: answers are models' and members' words."""
    environment = Environment(autoescape=True, trim_blocks=True)
    template = (files("trainer") / "evalcard.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        card=card,
        verdict=verdict,
        rows=rows(card),
        shown=shown(card),
        counts=counts(card.sheet),
        width=WIDTH,
        middle=MIDDLE,
    )


def rows(card: EvalCard) -> list[dict[str, object]]:
    """One line of the table for each measure, with its interval's place in the plot."""
    found = []
    for name, more_is_better in MEASURES.items():
        difference = card.against["base"][name]
        widest = max(abs(difference.low), abs(difference.high), 1e-9)
        found.append(
            {
                "label": LABELS[name][0],
                "unit": LABELS[name][1],
                "base": card.base.mean(name),
                "current": card.current.mean(name) if card.current else 0.0,
                "candidate": card.candidate.mean(name),
                "difference": difference,
                "tone": tone(difference, more_is_better=more_is_better),
                **{each: MIDDLE + getattr(difference, each) / widest * REACH for each in ("low", "mean", "high")},
            }
        )
    return found


def tone(difference: Interval, *, more_is_better: bool) -> str:
    """Whether a difference is clearly for the better, clearly for the worse, or neither."""
    if difference.low <= 0 <= difference.high:
        return ""
    return "better" if (difference.mean > 0) == more_is_better else "worse"


def shown(card: EvalCard) -> list[dict[str, str]]:
    """The same few questions under both systems; those of which something was forgotten have no words any more."""
    return [
        {
            "question": card.questions[n],
            "reference": card.references[n],
            "before": card.base.items[n].answer,
            "after": card.candidate.items[n].answer,
        }
        for n in [number for number, question in enumerate(card.questions) if question][:SHOWN]
    ]
