"""Rewards: what an answer that was thought about is worth, as small pure functions of its text. Each is 0 to 1.

They are for comparing the answers of one group, as GRPO does (Shao et al. 2024, arXiv 2402.03300); the form of the
thinking section is DeepSeek-R1's (arXiv 2501.12948). A model is paid for what these functions see and for nothing else,
so each is written against the cheapest way to be paid for nothing: tags said twice, the answer only in the thinking,
two answers of which one is right, the right number where no answer stands. They judge no truth of the thinking itself.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Literal

from infra.voice.thinking import CLOSE, OPEN
from memory.prompt import estimate_tokens

Kind = Literal["number", "choice", "open"]
# How near two texts are, or how much one reads like the creator; 0 to 1.
Similarity = Callable[[str, str], float]
Likeness = Callable[[str], float]

TAG = re.compile(r"</?\s*think\s*>", re.IGNORECASE)
# Chinese has no blanks, so only Latin letters and digits beside a number make it part of something else.
NUMBER = re.compile(r"(?<![A-Za-z0-9_.,])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?(?![A-Za-z0-9_/]|[.,]\d)")
# After these the answer stands: GSM8K's mark, TeX's box, and how people say it in English and Chinese.
MARK = re.compile(
    r"####|\\boxed\s*\{|\b(?:the\s+)?(?:final\s+)?answer(?:\s+is|\s*:|\s*=)|(?:最终)?答案(?:是|为|[::])|答[::]",
    re.IGNORECASE,
)
BESIDE = re.compile(r"[\s,;、.?]*(?:or|and|maybe|perhaps|或者?|和|也许)?[\s,;、]*", re.IGNORECASE)
LETTER = re.compile(r"(?<![A-Za-z])([A-H])(?![A-Za-z'’])")
HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff]")
LATIN_WORD = re.compile(r"[A-Za-z]{2,}")
# What belongs to no language: code, formulas and addresses.
NEITHER = re.compile(r"```.*?```|`[^`]*`|\$[^$]*\$|\\[a-zA-Z]+|https?://\S+", re.DOTALL)


@dataclass(frozen=True)
class Parts:
    """An answer taken apart. `whole` says that it thought once, first and to the end, and then answered."""

    thinking: str
    answer: str
    whole: bool


def parts(text: str) -> Parts:
    """What was thought and what was answered. Thinking that never ends has no answer; without tags all is answer."""
    tags = [tag.group().lower().replace(" ", "") for tag in TAG.finditer(text)]
    if not tags:
        return Parts("", text.strip(), whole=False)
    places = list(TAG.finditer(text))
    if tags != [OPEN, CLOSE]:
        last = places[-1]
        return Parts("", text[last.end() :].strip() if tags[-1] == CLOSE else "", whole=False)
    thinking, answer = text[places[0].end() : places[1].start()].strip(), text[places[1].end() :].strip()
    return Parts(thinking, answer, whole=bool(thinking and answer) and not text[: places[0].start()].strip())


def form(text: str) -> float:
    """A thinking section, once, first, closed, and an answer after it; a quarter for each that is there.

    Quarters, since a group of which every answer gets nothing teaches nothing. A tag said twice gets nothing at all.
    """
    found = [tag.group() for tag in TAG.finditer(text)]
    opened, closed = found.count(OPEN), found.count(CLOSE)
    if len(found) != opened + closed or max(opened, closed) > 1 or found[:1] == [CLOSE]:
        return 0.0
    first = text.lstrip().startswith(OPEN)
    thought = text.partition(OPEN)[2].partition(CLOSE)[0].strip() if opened else ""
    answered = text.partition(CLOSE)[2].strip() if closed else ""
    return (first + bool(opened and closed) + bool(closed and thought) + bool(answered)) / 4


def correct(text: str, expected: str, kind: Kind, *, similarity: Similarity | None = None) -> float:
    """Whether the answer, not the thinking, is right; for open ones how near it is."""
    answer = parts(text).answer
    if kind == "number":
        return float((said := number_in(answer)) is not None and said == number_of(expected))
    if kind == "choice":
        return float((chosen := choice_in(answer)) is not None and chosen == choice_in(expected.upper()))
    if not answer or similarity is None:
        return 0.0
    return clamp(similarity(answer, expected))


def number_in(answer: str) -> Fraction | None:
    """The one number that an answer stands by, else None.

    That after its last mark of an answer, and all marks must agree; without a mark the last number of its last line
    that has any. Numbers offered side by side, "5 or 6", are no answer.
    """
    plain = unicodedata.normalize("NFKC", answer)
    marks = list(MARK.finditer(plain))
    if marks:
        said = [first_number(plain[mark.end() :].split("\n")[0]) for mark in marks]
        return said[0] if len(set(said)) == 1 else None
    for line in reversed(plain.splitlines()):
        found = list(NUMBER.finditer(line))
        if found:
            return None if hedged(line, found) else number_of(found[-1].group())
    return None


def first_number(rest: str) -> Fraction | None:
    """The number that a line begins with or names first; None when another is offered beside it."""
    found = list(NUMBER.finditer(rest))
    return None if not found or hedged(rest, found) else number_of(found[0].group())


def hedged(line: str, found: list[re.Match[str]]) -> bool:
    """Whether two different numbers of a line are offered as alternatives."""
    between = [line[a.end() : b.start()] for a, b in pairwise(found) if a.group() != b.group()]
    return any(BESIDE.fullmatch(words) for words in between)


def number_of(text: str) -> Fraction | None:
    """A number as people write it: 1,200, $3.50, 1/2, 12%. None for what is none."""
    found = NUMBER.search(unicodedata.normalize("NFKC", text))
    try:
        return Fraction(found.group().replace(",", "")) if found else None
    except (ValueError, ZeroDivisionError):
        return None


def choice_in(answer: str) -> str | None:
    """The one letter that an answer chooses, else None: after its marks, or the only one that it names."""
    plain = unicodedata.normalize("NFKC", answer)
    marks = list(MARK.finditer(plain))
    places = [plain[mark.end() :].split("\n")[0] for mark in marks] or [plain]
    # "A cat" begins with a letter that chooses nothing.
    named = {letter for place in places for letter in LETTER.findall(re.sub(r"\bA(?= [a-z])", "", place))}
    return named.pop() if len(named) == 1 else None


def language(text: str, question: str) -> float:
    """The share of the words, thinking included, that are in the question's writing: Chinese or not.

    A Chinese sign counts as half a word, since most words are two of them.
    """
    plain = NEITHER.sub(" ", TAG.sub(" ", text))
    han, latin = len(HAN.findall(plain)) / 2, len(LATIN_WORD.findall(plain))
    if not han + latin:
        return 0.0
    return han / (han + latin) if HAN.search(question) else latin / (han + latin)


def brevity(text: str, tokens: int) -> float:
    """1 up to `tokens`, thinking included, falling to 0 at twice as many; saying nothing is not short."""
    length = estimate_tokens(text.strip())
    return clamp(2 - length / tokens) if length and parts(text).answer else 0.0


def persona(text: str, likeness: Likeness) -> float:
    """How much the answer, without the thinking, reads like the creator."""
    answer = parts(text).answer
    return clamp(likeness(answer)) if answer else 0.0


def clamp(value: float) -> float:
    """A reward that is no number pays nothing."""
    return min(max(value, 0.0), 1.0) if value == value else 0.0
