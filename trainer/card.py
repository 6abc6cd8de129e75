"""The eval card as values: what was measured of an adapter, beside base + memory and the current voice. Pure."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from typing import Any

# Whether more of it is better. Every measure of a system is a mean over the held-out exchanges.
MEASURES: dict[str, bool] = {
    "nll": False,
    "rouge_1": True,
    "rouge_2": True,
    "rouge_l": True,
    "similarity": True,
    "style": True,
    "groundedness": True,
    "verbatim": False,
    "unhealthy": False,
}


@dataclass(frozen=True)
class Item:
    """One held-out exchange under one system: the answer it gave and each measure of it.

    `nll` is in nats per token of the creator's own answer; all others lie between 0 and 1.
    """

    answer: str
    measures: Mapping[str, float]


@dataclass(frozen=True)
class Interval:
    """A mean difference with its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class System:
    """One of the compared: its name, its items in the order of the questions, and its share of the ability probe."""

    name: str
    items: Sequence[Item]
    ability: float

    def mean(self, measure: str) -> float:
        return sum(item.measures[measure] for item in self.items) / len(self.items)


@dataclass(frozen=True)
class Duel:
    """One contestant before the judge against another, over all questions that it was asked.

    `share` is what of them `first` won, a tie counting half, with its 95 % interval. `agreed` is the share of pairs of
    which the judge said the same in both orders: one that only looks at the place has 0. `unread` replies were no
    verdict.
    """

    first: str
    second: str
    share: Interval
    ties: int
    agreed: float
    unread: int = 0


@dataclass(frozen=True)
class Judged:
    """What a judge said, or the `trouble` that kept it from saying anything."""

    judge: str
    questions: int
    duels: tuple[Duel, ...] = ()
    trouble: str = ""

    @property
    def ranking(self) -> list[tuple[str, float]]:
        """The contestants, the one first that was taken for the creator most often, with that share."""
        won: dict[str, list[float]] = {}
        for each in self.duels:
            won.setdefault(each.first, []).append(each.share.mean)
            won.setdefault(each.second, []).append(1 - each.share.mean)
        return sorted(((name, sum(all_) / len(all_)) for name, all_ in won.items()), key=lambda pair: -pair[1])


@dataclass(frozen=True)
class StyleCheck:
    """How far the style measure is to be trusted, on answers that it was not made from.

    `accuracy` is the mean of the shares of the creator's and of the base's held-out answers that it tells rightly;
    `creator` what the creator's own answers score, which is the most that a voice can hope for, and `base` the least.
    """

    accuracy: float
    creator: float
    base: float


@dataclass(frozen=True)
class EvalCard:
    """Everything measured. `against` holds candidate minus that system, for each measure.

    `style_auc` says how well the style measure tells the creator from the base at all: 0.5 is not, 1 is always.
    `sources` has the ids of what each question was asked with: its exchange and its notes. `sheet` has the base's and
    the candidate's answers to the fixed questions (`ability.py`), `memorisation` what of its own training rows the
    candidate gives back (`memorisation.py`), without the words. Cards from before there were these have none.
    """

    questions: Sequence[str]
    references: Sequence[str]
    candidate: System
    base: System
    current: System | None
    against: Mapping[str, Mapping[str, Interval]]
    style_auc: float
    seed: int
    wall_s: float
    dataset: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    sources: Sequence[Sequence[str]] = ()
    style_check: StyleCheck | None = None
    judged: Judged | None = None
    sheet: Sequence[Mapping[str, Any]] = ()
    memorisation: Mapping[str, Any] = field(default_factory=dict)

    @property
    def heldout(self) -> int:
        return len(self.questions)

    def headline(self) -> dict[str, Any]:
        """The few numbers that a run's result carries."""
        means = {name: round(self.candidate.mean(name), 4) for name in MEASURES}
        before = {name: round(self.base.mean(name), 4) for name in MEASURES}
        abilities = {"base": round(self.base.ability, 4), "candidate": round(self.candidate.ability, 4)}
        found = {"heldout": self.heldout, "base": before, "candidate": means, "ability": abilities}
        return found | ({"judged": asdict(self.judged)} if self.judged else {})


def without(card: EvalCard, forgotten: Set[str]) -> EvalCard:
    """The card without the words that were asked or answered with anything `forgotten`; what was measured stays.

    Of a card that does not say what its questions were asked with no words are left.
    """
    kept = [bool(known) and forgotten.isdisjoint(known) for known in card.sources] or [False] * card.heldout

    def silent(system: System) -> System:
        pairs = zip(system.items, kept, strict=True)
        return replace(system, items=[item if keep else replace(item, answer="") for item, keep in pairs])

    return replace(
        card,
        questions=[text if keep else "" for text, keep in zip(card.questions, kept, strict=True)],
        references=[text if keep else "" for text, keep in zip(card.references, kept, strict=True)],
        candidate=silent(card.candidate),
        base=silent(card.base),
        current=silent(card.current) if card.current else None,
        # What it said to the fixed questions may be words that it learned.
        sheet=card.sheet if all(kept) else [{**each, "after": ""} for each in card.sheet],
    )


def to_json(card: EvalCard) -> dict[str, Any]:
    """The card as JSON; `from_json` reads it back."""
    return asdict(card)


def from_json(found: Mapping[str, Any]) -> EvalCard:
    """The card that `to_json` wrote."""
    against = {
        system: {name: Interval(**interval) for name, interval in measures.items()}
        for system, measures in found["against"].items()
    }
    systems = {name: system_from(found[name]) for name in ("candidate", "base")}
    current = system_from(found["current"]) if found["current"] else None
    checked, judged = found.get("style_check"), found.get("judged")
    return EvalCard(
        **{
            **found,
            **systems,
            "current": current,
            "against": against,
            "style_check": StyleCheck(**checked) if checked else None,
            "judged": judged_from(judged) if judged else None,
        }
    )


def judged_from(found: Mapping[str, Any]) -> Judged:
    duels = tuple(Duel(**{**each, "share": Interval(**each["share"])}) for each in found["duels"])
    return Judged(**{**found, "duels": duels})


def system_from(found: Mapping[str, Any]) -> System:
    return System(found["name"], [Item(**item) for item in found["items"]], found["ability"])
