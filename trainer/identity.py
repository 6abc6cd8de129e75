"""Identity: a few rows that say who speaks here, from the creator's own introduction, profile and stances. Pure.

The model is told in every prompt whom it stands in for; these rows teach it to say so, in English and Chinese. It
always answers as the stand-in, an AI that speaks for the creator, never as the creator. Stances come with the words
that they were read from, and only where that source may train. At most a small share of all rows, so that they do not
drown the rest; each names its source, so that what is forgotten takes its rows along.
"""

import hashlib
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

from memory.graph import Edge
from memory.persona import PersonaCard
from memory.profile import Profile
from memory.prompt import render, shorten
from trainer.dataset import Row

# Of the rows to train on so many may be identity rows: 1 in 40, and no more than a dozen.
SHARE, MOST = 0.025, 12
QUOTE_TOKENS = 60


@dataclass(frozen=True)
class Said:
    """A question about who speaks, the answer, and the exchange or passage that it rests on, if any."""

    question: str
    answer: str
    source: str = ""


def sayings(persona: PersonaCard, profile: Profile | None, stances: Iterable[Edge], allowed: Set[str]) -> list[Said]:
    """Everything that can be said, what matters most first, the persona's language before the other."""
    known = profile or Profile(persona.about)
    pairs = [*introductions(persona.name, known.about or persona.about), *cares(persona.name, known)]
    first = "zh" if persona.language.startswith("zh") else "en"
    general = [said for language in (first, "zh" if first == "en" else "en") for at, said in pairs if at == language]
    # Who it is, in both languages, before anything else is.
    general.sort(key=lambda said: "AI" not in said.answer)
    return [*general, *held(persona.name, first, stances, allowed)]


def introductions(name: str, about: str) -> list[tuple[str, Said]]:
    """Who are you."""
    own_en = f' In {name}\'s own words: "{about.strip()}"' if about.strip() else ""
    own_zh = f"{name}自己的话：“{about.strip()}”" if about.strip() else ""
    english = f"I am an AI, the stand-in for {name}, not {name} in person.{own_en}"
    chinese = f"我是{name}的AI替身，不是{name}本人。{own_zh}"
    return [
        ("en", Said("Who are you?", english)),
        ("zh", Said("你是谁？", chinese)),
        ("en", Said(f"Are you {name}?", f"No, I am an AI that speaks for {name}.")),
        ("zh", Said(f"你是{name}本人吗？", f"不是，我是替{name}回答的AI。")),
    ]


def cares(name: str, profile: Profile) -> list[tuple[str, Said]]:
    """What do you care about."""
    if not profile.cares.strip():
        return []
    what = profile.cares.strip().rstrip(".。")
    return [
        ("en", Said("What do you care about?", f"I speak for {name}, who cares about {what}.")),
        ("zh", Said("你在乎什么？", f"我替{name}说话，{name}在乎的是：{what}。")),
    ]


def held(name: str, language: str, stances: Iterable[Edge], allowed: Set[str]) -> list[Said]:
    """What do you think of something: the creator's words on it, from a source that may train."""
    found = []
    for edge in stances:
        source = next((each for each in reversed(edge.sources) if each in allowed), "")
        if not source or not edge.quote or len(edge.sources) > len(set(edge.sources) & allowed):
            continue
        quote = shorten(edge.quote, QUOTE_TOKENS)
        asked = f"你怎么看{edge.tail}？" if language == "zh" else f"What do you think of {edge.tail}?"
        answer = f"{name}说过：“{quote}”" if language == "zh" else f'{name} has said: "{quote}"'
        found.append(Said(asked, answer, source))
    return found


def rows(said: Iterable[Said], persona: PersonaCard, *, train: int) -> list[Row]:
    """The first of them as rows, as many as a training set of `train` rows takes."""
    found = list(said)
    return [row(each, persona) for each in found[: room(train, found)]]


def room(train: int, said: Sequence[Said]) -> int:
    """How many identity rows a training set of `train` other rows takes."""
    return min(MOST, int(train * SHARE), len(said))


def row(said: Said, persona: PersonaCard) -> Row:
    turns = render(persona, notes=(), history=(), question=said.question, budget_tokens=0)
    named = hashlib.sha256(f"{said.question}\x1f{said.answer}".encode()).hexdigest()
    provenance = {"exchange": said.source or f"identity:{named[:16]}", "source": "identity", "sha256": named}
    return Row(tuple(turns), said.answer, "none", "train", provenance)
