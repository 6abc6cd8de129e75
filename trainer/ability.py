"""The fixed sheet of questions that is asked before and after every training, in English and Chinese.

Its questions and their checkers are data (`sheet.jsonl`, ours, CC0). Two dozen of them, knowledge and common sense that
even a small base mostly has, are the probe of general ability that the gate goes by: whether tuning made the model
forget what anybody may ask of it. It is no benchmark: it only compares two voices on the same base.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from trainer.rewards import NUMBER, number_of

# What small models write as words; "one" and 一 stand in too many sentences to be numbers.
ENGLISH = {word: n for n, word in enumerate("two three four five six seven eight nine ten eleven twelve".split(), 2)}  # noqa: SIM905
CHINESE = {sign: n for n, sign in enumerate("零一二三四五六七八九十")} | {"两": 2}
WORD = re.compile(rf"\b(?:{'|'.join(ENGLISH)})\b", re.IGNORECASE)
SIGNS = re.compile("[二三四五六七八九]?十[一二三四五六七八九]?|[零二三四五六七八九两]")


@dataclass(frozen=True)
class Question:
    """A question and what a right answer is: it says one pattern and not the other, or it names one number alone.

    `{creator}` in a pattern is the creator's name. Only what is asked of the persona, group "identity", has one.
    """

    id: str
    language: str
    group: str
    question: str
    says: str = ""
    never: str = ""
    number: str = ""
    probe: bool = False

    def right(self, answer: str, *, creator: str = "") -> bool:
        """Whether an answer is right; one that says nothing never is."""
        if self.number:
            return numbers(answer) - (numbers(self.question) - {self.number}) == {self.number}
        says, never = (each.replace("{creator}", re.escape(creator)) for each in (self.says, self.never))
        found = re.search(says, answer.strip(), re.IGNORECASE)
        return found is not None and not (never and re.search(never, answer.strip(), re.IGNORECASE))


def numbers(text: str) -> set[str]:
    """The numbers that a text names, in digits or words, as they would be written in digits."""
    named = {str(value) for each in NUMBER.findall(text) if (value := number_of(each)) is not None}
    named |= {str(ENGLISH[each.lower()]) for each in WORD.findall(text)}
    return named | {str(chinese(each)) for each in SIGNS.findall(text)}


def chinese(signs: str) -> int:
    """The value of a Chinese number below a hundred: 七, 十二, 五十六."""
    if "十" not in signs:
        return CHINESE[signs]
    tens, _, ones = signs.partition("十")
    return 10 * CHINESE.get(tens, 1) + CHINESE.get(ones, 0)


@cache
def sheet() -> tuple[Question, ...]:
    """All questions, in their order."""
    lines = (files("trainer") / "sheet.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(Question(**json.loads(line)) for line in lines)


def probe() -> tuple[Question, ...]:
    """The questions that the gate goes by."""
    return tuple(each for each in sheet() if each.probe)


def compared(before: Sequence[str], after: Sequence[str], *, creator: str) -> list[dict[str, Any]]:
    """Both answers to every question of the sheet, and whether each is right."""
    return [
        {
            "id": each.id,
            "language": each.language,
            "group": each.group,
            "question": each.question,
            "before": one,
            "after": other,
            "before_right": each.right(one, creator=creator),
            "after_right": each.right(other, creator=creator),
        }
        for each, one, other in zip(sheet(), before, after, strict=True)
    ]


def counts(answers: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How many are right before and after, by language and group, and of all together."""
    lines: dict[str, dict[str, Any]] = {}
    for each in answers:
        for name in (f"{each['group']}, {each['language']}", "all"):
            line = lines.setdefault(name, {"group": name, "asked": 0, "before": 0, "after": 0})
            line["asked"] += 1
            line["before"] += each["before_right"]
            line["after"] += each["after_right"]
    return sorted(lines.values(), key=lambda line: (line["group"] == "all", line["group"]))
