"""A small probe of general ability: whether tuning made the model forget what anybody may ask of it.

Two dozen questions with answers that can be checked by a pattern. It is no benchmark: it only compares two voices on
the same base.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """A question and the pattern that a right answer contains."""

    text: str
    pattern: str

    def right(self, answer: str) -> bool:
        return re.search(self.pattern, answer, re.IGNORECASE) is not None


PROBE = (
    Question("What is the capital of France?", r"\bparis\b"),
    Question("What is the capital of Japan?", r"\btokyo\b"),
    Question("What is 2 plus 3?", r"\b(5|five)\b"),
    Question("What is 10 minus 4?", r"\b(6|six)\b"),
    Question("How many days are in a week?", r"\b(7|seven)\b"),
    Question("How many legs does a spider have?", r"\b(8|eight)\b"),
    Question("Which planet do we live on?", r"\bearth\b"),
    Question("What colour is the sky on a clear day?", r"\bblue\b"),
    Question("What do bees make?", r"\bhoney\b"),
    Question("What is the opposite of hot?", r"\bcold\b"),
    Question("What is frozen water called?", r"\bice\b"),
    Question("Who wrote Romeo and Juliet?", r"shakespeare"),
    Question("What is the largest ocean?", r"\bpacific\b"),
    Question("Name the first month of the year.", r"\bjanuary\b"),
    Question("What gas do plants take in from the air?", r"carbon dioxide|\bco2\b"),
    Question("Which animal says meow?", r"\bcat\b"),
    Question("How many hours are in a day?", r"\b24\b|twenty"),
    Question("What language is spoken in Spain?", r"\bspanish\b"),
    Question("What is the chemical formula of water?", r"h2o|h₂o"),
    Question("Which star is at the centre of our solar system?", r"\bsun\b"),
    Question("What is the plural of child?", r"\bchildren\b"),
    Question("中国的首都是哪里？", r"北京|beijing"),
    Question("一年有几个月？", r"12|十二|twelve"),
    Question("Translate the word 'bread' into French.", r"\bpain\b"),
)
