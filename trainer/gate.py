"""The gate: the rule that lets an adapter become the voice, or says in words why not. Pure, and closed to doubt.

Every rule is named, compares one thing, and refuses with the numbers in its sentence. What was not measured, or is not
a number, refuses too.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from trainer.card import MEASURES, EvalCard, Interval


@dataclass(frozen=True)
class Rules:
    """The thresholds, each with the reason for it."""

    # Under a dozen exchanges an interval says more about luck than about the adapter.
    heldout: int = 12
    # The point of training: the creator's own words must have become likelier, beyond chance.
    nll_gain: float = 0.0
    # A retrained voice may not be clearly worse than the one that speaks now.
    nll_loss_to_current: float = 0.05
    # Style may not fall; where the classifier cannot tell the creator from the base it cannot judge.
    style_loss: float = 0.02
    style_auc: float = 0.75
    # Meaning and wording may wander a little on a few dozen items, not clearly get worse.
    similarity_loss: float = 0.05
    rouge_loss: float = 0.05
    # More than a tenth of answers that loop, say nothing or never end is a broken voice; but a tiny base does so in
    # four of ten, and clearly fewer than before is no reason to stay with it.
    unhealthy: float = 0.1
    # Copying out training answers that memory did not hand over is leaking, not speaking.
    verbatim: float = 0.05
    # An adapter that talks past its notes makes things up in the creator's name.
    groundedness_loss: float = 0.1
    # Private is what one exchange alone says, and what nobody could guess: one such string given back is one too many.
    private: int = 0
    # Some forgetting is the price of any fine-tuning; a quarter of the probe is too much.
    ability_loss: float = 0.25


@dataclass(frozen=True)
class Verdict:
    """`reasons` names every rule that refused, in words; empty when it passed."""

    passed: bool
    reasons: tuple[str, ...]


def decide(card: EvalCard, rules: Rules = Rules()) -> Verdict:
    """Judge a card by every rule."""
    reasons = tuple(unmeasured(card)) or tuple(refusals(card, rules))
    return Verdict(passed=not reasons, reasons=reasons)


def unmeasured(card: EvalCard) -> Iterator[str]:
    """What is missing or not a number: then no other rule can be trusted."""
    systems = [card.candidate, card.base, *([card.current] if card.current else [])]
    if card.heldout == 0:
        yield "Nothing was held out, so nothing was measured."
        return
    for system in systems:
        for measure in MEASURES:
            values = [item.measures.get(measure, math.nan) for item in system.items]
            if len(values) != card.heldout or not all(math.isfinite(value) for value in values):
                yield f"Measure {measure!r} of {system.name!r} is missing or not a number."
    for name in ("base", *(["current"] if card.current else [])):
        for measure in MEASURES:
            interval = card.against.get(name, {}).get(measure)
            if interval is None or not all(map(math.isfinite, (interval.mean, interval.low, interval.high))):
                yield f"The difference of {measure!r} to {name!r} is missing or not a number."
    if not all(math.isfinite(value) for value in (card.style_auc, card.candidate.ability, card.base.ability)):
        yield "The style measure or the ability probe is not a number."


def refusals(card: EvalCard, rules: Rules) -> Iterator[str]:
    """The reasons of every rule that refuses."""
    base = card.against["base"]
    if card.heldout < rules.heldout:
        yield f"Held-out exchanges: {card.heldout}, at least {rules.heldout} are needed."
    if base["nll"].high >= -rules.nll_gain:
        yield f"Likelihood of the creator's answers is not better than base + memory: NLL {told(base['nll'])}."
    if card.current is not None and card.against["current"]["nll"].low > rules.nll_loss_to_current:
        yield f"Likelihood is worse than the current voice's: NLL {told(card.against['current']['nll'])}."
    if card.style_auc >= rules.style_auc and base["style"].mean < -rules.style_loss:
        yield f"Style is further from the creator than the base: {told(base['style'])}."
    if base["similarity"].high < -rules.similarity_loss:
        yield f"Meaning is further from the creator's answers: similarity {told(base['similarity'])}."
    if base["rouge_l"].high < -rules.rouge_loss:
        yield f"Wording is further from the creator's answers: ROUGE-L {told(base['rouge_l'])}."
    yield from health(card, rules)
    if base["groundedness"].high < -rules.groundedness_loss:
        yield f"Answers keep less to their notes: groundedness {told(base['groundedness'])}."
    yield from memorised(card, rules)
    lost = card.base.ability - card.candidate.ability
    if lost > rules.ability_loss:
        yield f"General ability fell by {lost:.0%}, at most {rules.ability_loss:.0%} is allowed."


def health(card: EvalCard, rules: Rules) -> Iterator[str]:
    """Broken answers, unless clearly fewer than the base's; copied ones, whatever the base does."""
    unhealthy, copied = card.candidate.mean("unhealthy"), card.candidate.mean("verbatim")
    if unhealthy > rules.unhealthy and card.against["base"]["unhealthy"].high >= 0:
        yield f"{unhealthy:.0%} of the answers loop, are empty or never end; at most {rules.unhealthy:.0%} may."
    if copied > rules.verbatim:
        yield f"{copied:.1%} of what it says is copied from training answers; at most {rules.verbatim:.1%} may be."


def memorised(card: EvalCard, rules: Rules) -> Iterator[str]:
    """What it gives back of its own training rows, although no note has handed it over."""
    found = card.memorisation
    if found and found["private"] > rules.private:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(found["kinds"].items()))
        yield (
            f"It gives back {found['private']} of {found['strings']} private strings of its training rows ({kinds}), "
            f"{found['from_question']} to the bare question; at most {rules.private} may be. They are in "
            f"{', '.join(found['exchanges'])}: forget these exchanges, or lower training.epochs."
        )


def told(interval: Interval) -> str:
    """A difference with its interval, as every refusal writes it."""
    return f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"
