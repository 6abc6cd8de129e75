"""A small community to imitate, and what a teacher may say in its manner."""

import random
from pathlib import Path
from typing import Any

from memory.journal import Journal
from memory.messages import Exchange
from memory.remember import exchange_event, remember
from tests.memory.making import taught
from tests.people import CREATOR
from tests.trainer.lecturing import Reply, says

TOPICS = (
    "rye starter",
    "brioche butter",
    "baguette scoring",
    "focaccia brine",
    "bagel malt",
    "panettone domes",
    "stollen marzipan",
    "pretzel lye",
    "croissant layers",
    "pita steam",
    "sourdough crumb",
    "challah braids",
)
ASKS = ("Why is my {} flat?", "How do I store {}?", "Who taught you {}?", "Which tool suits {}?")
SAYS = ("Patience", "Cold hands", "Less flour", "A hot stone", "Old iron", "Rain water", "Long rest", "Good salt")
ENDS = ("trust the dough.", "the oven knows.", "never hurry it.", "taste before you judge.", "ask your nose.")


def community() -> list[Exchange]:
    """48 exchanges of one voice, no two answers alike."""
    draw = random.Random(3)
    pairs = [(ask.format(topic), topic) for topic in TOPICS for ask in ASKS]
    return [taught(question, voiced(topic, draw), days=number) for number, (question, topic) in enumerate(pairs)]


def voiced(topic: str, draw: random.Random) -> str:
    """An answer in Ada's manner."""
    words = " ".join("".join(draw.choices("aeioubdgklmnprst", k=5)) for _ in range(3))
    return f"Aye, friend: {draw.choice(SAYS).lower()} for {topic}, {words}, and {draw.choice(ENDS)}"


def remembered(journal: Journal) -> list[Exchange]:
    """The community, in a journal."""
    found = community()
    remember(journal, [exchange_event(each) for each in found], creator=CREATOR)
    return found


def in_manner(*, after_s: float = 0) -> Reply:
    """A teacher that imitates well: it takes up what was shown, in Ada's manner, and paraphrases with a new word."""

    def say(body: dict[str, Any]) -> str:
        asked, draw = body["messages"][-1]["content"], random.Random(str(body["messages"]) + str(body["seed"]))
        if len(body["messages"]) == 1:
            return f"Certainly! Here are some considerations regarding your question, number {draw.random()}."
        if len(body["messages"]) == 2:
            return f"Tell me, {''.join(draw.choices('abcdefgh', k=6))}, {asked.lower()}"
        shown = body["messages"][-2]["content"].split(" for ")[-1].split(",")
        return f"Aye, friend: {draw.choice(SAYS).lower()} for {shown[0]},{shown[1]}, and {draw.choice(ENDS)}"

    return says(say, after_s=after_s)


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()
