"""The creator's profile: what they care about, how they speak, what they think. Drafted from memory, theirs to edit.

Each version is a line of the journal, so none is lost and any may come back. Opinions are in no version: they are read
from the graph when they are asked for, with their sources, so that they never outlive them.
"""

import re
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from infra.errors import UserMistake
from memory.codec import time_text
from memory.graph import Edge, Graph
from memory.journal import BATCH, Journal
from memory.lexicon import sentences
from memory.messages import Event, Kind, Person, Source
from memory.persona import PersonaCard
from memory.prompt import shorten
from memory.remember import remember
from memory.topics import Topic

# What the profile may take of every prompt; a small model follows little of it.
TOKENS = 48
FIELDS = ("about", "cares", "speaks")
# As in the settings: a prompt carries it whole.
MOST_CHARACTERS = 600
# How many topics the creator is said to care about, and how often a phrase comes back that is called typical.
TOPICS, TYPICAL = 4, 0.04
EMOJI = re.compile("[\U0001f300-\U0001faff\u2600-\u27bf]")
WORDS = re.compile("[\u3400-\u9fff]|[^\\W\u3400-\u9fff]+")


@dataclass(frozen=True)
class Profile:
    """One version. `about` in the creator's own words; empty fields say nothing."""

    about: str = ""
    cares: str = ""
    speaks: str = ""


def draft(topics: Sequence[Topic], answers: Iterable[str], *, about: str) -> Profile:
    """A profile from the creator's self-introduction, the topics of the graph and how their answers are written."""
    labels = [topic.label.split(", ")[0] for topic in topics[:TOPICS]]
    return Profile(about, ", ".join(labels), manner_of([answer for answer in answers if answer.strip()]))


def named_in(sources: Set[str], topics: Sequence[Topic], graph: Graph) -> list[Topic]:
    """The topics whose name, which is that of their first thing, stands in some of these sources."""
    return [topic for topic in topics if not sources.isdisjoint(graph.sources(topic.members[0]))]


def manner_of(answers: Sequence[str]) -> str:
    """How answers are written, in a sentence; empty when there are too few to tell."""
    if len(answers) < 5:
        return ""
    split = [found for answer in answers if (found := sentences(answer))]
    if not split:
        return ""
    count = statistics.median(len(each) for each in split)
    length = statistics.median(len(WORDS.findall(sentence)) for each in split for sentence in each)
    said = [f"in about {count:.0f} sentences of {length:.0f} words"]
    said += [] if share(answers, "!！") > 0.02 else ["without exclamation marks"]
    emoji = statistics.fmean(bool(EMOJI.search(answer)) for answer in answers)
    said += ["with emoji"] if emoji > 0.2 else []
    phrases = Counter(
        sentence for each in split for sentence in dict.fromkeys(each) if len(WORDS.findall(sentence)) > 2
    )
    typical = [f'"{phrase}"' for phrase, times in phrases.most_common(1) if times >= max(3, TYPICAL * len(answers))]
    return ", ".join([*said, *(f"often with {phrase}" for phrase in typical)])


def share(texts: Sequence[str], signs: str) -> float:
    """The share of texts that hold one of some signs."""
    return statistics.fmean(any(sign in text for sign in signs) for text in texts)


def opinions(graph: Graph) -> list[Edge]:
    """What the creator stands for now, each with its sources, the newest first."""
    edges = [edge for identity in graph.ids() for edge in graph.stances(identity)]
    standing = [edge for edge in edges if edge.valid_to is None and edge.kind != "describes"]
    return sorted(standing, key=lambda edge: (edge.valid_from, edge.tail), reverse=True)


def versions(journal: Journal) -> list[tuple[datetime, Profile]]:
    """Every version that was kept, oldest first."""
    found: list[tuple[int, Event]] = []
    while rows := journal.events(kind=Kind.PROFILE, after=found[-1][0] if found else 0, limit=BATCH):
        found += rows
    return [(event.at, Profile(**event.payload)) for _, event in found]


def current(journal: Journal) -> Profile | None:
    """The version that counts; None before the first."""
    kept = versions(journal)
    return kept[-1][1] if kept else None


def version(journal: Journal, number: int) -> Profile:
    """One version by its number, which counts from 1. Raises UserMistake for one that there is not."""
    kept = versions(journal)
    if not 1 <= number <= len(kept):
        there = f"there are 1 to {len(kept)}" if kept else "none was kept yet"
        raise UserMistake(f"There is no version {number} of the profile: {there}.")
    return kept[number - 1][1]


def keep(journal: Journal, profile: Profile, *, creator: Person, at: datetime) -> None:
    """Make this the version that counts."""
    event = Event(
        creator.platform,
        "profile",
        f"profile:{time_text(at)}",
        Kind.PROFILE,
        0,
        creator,
        Source.CREATOR_SURFACE,
        at,
        asdict(profile),
    )
    remember(journal, [event], creator=frozenset({creator.key}))


def edited(profile: Profile, field: str, text: str) -> Profile:
    """The profile with one field in other words. Raises UserMistake for one that there is not or that is too long."""
    if field not in FIELDS:
        raise UserMistake(f"A profile has {', '.join(FIELDS)}, no {field[:MOST_CHARACTERS]!r}.")
    line = " ".join(text.split())
    if len(line) > MOST_CHARACTERS:
        raise UserMistake(f"{field!r} has {len(line)} characters, at most {MOST_CHARACTERS} fit into every prompt.")
    return replace(profile, **{field: line})


def persona_card(journal: Journal, name: str, about: str, language: str) -> PersonaCard:
    """Whom the twin stands in for: the profile that counts, else what the settings say."""
    profile = current(journal)
    if profile is None:
        return PersonaCard(name, about, language)
    return PersonaCard(name, profile.about or about, language, prompt_text(name, profile))


def prompt_text(name: str, profile: Profile) -> str:
    """What of a profile every prompt carries."""
    said = [f"{name} cares about {profile.cares}."] if profile.cares else []
    said += [f"{name} answers {profile.speaks}."] if profile.speaks else []
    return shorten(" ".join(said), TOKENS)
