"""The judge: a language model is shown two answers to a held-out question and says which the creator more likely gave.

Blind: it sees neither names nor measures, and each pair in both orders, because judges favour a place (Zheng et al.
2023, "Judging LLM-as-a-Judge"); two verdicts that contradict each other are a tie. It sees a few of the creator's other
answers, so that it compares with them and not with its own taste. It advises: the gate does not ask it. Which model
judges is a setting; one that also taught the voice would favour its own manner. Knows no adapter and trains nothing.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations

from infra.errors import UnderstudyError
from infra.settings import Settings, revealed
from infra.voice.chat import Sampling, Turn, Voice
from infra.voice.client import HttpVoice, said_whole
from memory.prompt import as_data, shorten
from trainer.card import Duel, Judged
from trainer.metrics import paired_bootstrap

# Asked with the turns of a prompt; returns the reply. Raises UnderstudyError.
Ask = Callable[[Sequence[Turn]], str]

CREATOR, CANDIDATE, BASE = "creator", "candidate", "base"
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"choice": {"enum": ["A", "B", "tie"]}},
        "required": ["choice"],
        "additionalProperties": False,
    }
)
JUDGING = Sampling(temperature=0, max_tokens=24, schema=SCHEMA)
# How much it is shown, in tokens: all of it fits the thousand that evaluations give a prompt.
SAMPLES, SAMPLE_TOKENS, QUESTION_TOKENS, ANSWER_TOKENS = 4, 50, 80, 110
# Verdicts asked for at a time: as many as the engine speaks at once.
AT_ONCE = 8
TASK = (
    "You compare two answers to a question that was put to one person. You are shown other answers that this person "
    "wrote. Say which of the two answers this person more likely wrote, by what it says and by its manner, not by its "
    'length. Reply with JSON only: {"choice": "A"}, {"choice": "B"}, or {"choice": "tie"} if you cannot tell.'
)


@dataclass(frozen=True)
class Bench:
    """Who judges: its name, how many questions it gets, and how it is asked; None where the base itself judges."""

    name: str
    questions: int
    ask: Ask | None


@dataclass(frozen=True)
class Pairing:
    """One question with two contestants' answers to it."""

    number: int
    first: str
    second: str


def bench_of(settings: Settings) -> Bench | None:
    """The judge that the settings name; None where they name none."""
    judge = settings.judge
    if not judge.model:
        return None
    if judge.model == "voice":
        return Bench(f"{settings.models.base} (the base itself)", judge.questions, None)
    voice = HttpVoice(judge.model, model=judge.name, token=revealed(judge.token))
    return Bench(judge.name or judge.model, judge.questions, asking(voice))


def asking(voice: Voice) -> Ask:
    """Ask a voice for verdicts."""
    return lambda turns: said_whole(voice, turns, JUDGING)


def judged(
    questions: Sequence[str],
    answers: Mapping[str, Sequence[str]],
    samples: Sequence[str],
    *,
    bench: Bench,
    ask: Ask,
    seed: int,
) -> Judged:
    """What the judge makes of `answers`, by contestant and in the order of the `questions`.

    `samples` are answers of the creator to other questions. A judge that cannot be asked costs no evaluation: the
    trouble stands in what is returned.
    """
    asked = spread(len(questions), bench.questions)
    pairs = [Pairing(number, *pair) for pair in combinations(answers, 2) for number in asked]
    shown = [shorten(each, SAMPLE_TOKENS) for each in samples[:SAMPLES]]

    def verdict(pair: Pairing) -> tuple[str, str]:
        first, second = answers[pair.first][pair.number], answers[pair.second][pair.number]
        if first.strip() == second.strip():
            return "tie", "tie"
        question = questions[pair.number]
        there = choice_of(ask(turns_of(question, first, second, samples=shown)))
        back = choice_of(ask(turns_of(question, second, first, samples=shown)))
        return there, {"A": "B", "B": "A"}.get(back, back)

    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            verdicts = list(pool.map(verdict, pairs))
    except UnderstudyError as error:
        return Judged(bench.name, len(asked), trouble=str(error))
    by_pair = dict(zip(pairs, verdicts, strict=True))
    duels = tuple(
        duel(first, second, [by_pair[Pairing(number, first, second)] for number in asked], seed=seed)
        for first, second in combinations(answers, 2)
    )
    return Judged(bench.name, len(asked), duels)


def spread(count: int, most: int) -> list[int]:
    """At most `most` of `count` numbers, evenly spread, in order."""
    kept = min(count, most)
    return [number * count // kept for number in range(kept)] if kept else []


def turns_of(question: str, first: str, second: str, *, samples: Sequence[str]) -> list[Turn]:
    """What the judge is shown. Everybody's words are one line each, so that none can pass for another's."""
    known = "\n".join(f"- {as_data(each)}" for each in samples)
    shown = (
        f"Other answers of this person:\n{known}\n\n"
        f"Question: {as_data(shorten(question, QUESTION_TOKENS))}\n"
        f"Answer A: {as_data(shorten(first, ANSWER_TOKENS)) or '(nothing)'}\n"
        f"Answer B: {as_data(shorten(second, ANSWER_TOKENS)) or '(nothing)'}\n\n"
        "Which did this person more likely write?"
    )
    return [Turn("system", TASK), Turn("user", shown)]


def choice_of(reply: str) -> str:
    """The choice of a reply, empty where it is no verdict. JSON with words around it counts."""
    opened, closed = reply.find("{"), reply.rfind("}")
    try:
        found = json.loads(reply[opened : closed + 1])
    except ValueError:
        return ""
    choice = str(found.get("choice")) if isinstance(found, dict) else ""
    return choice if choice in {"A", "B", "tie"} else ""


def duel(first: str, second: str, verdicts: Sequence[tuple[str, str]], *, seed: int) -> Duel:
    """Two contestants over all questions: "A" stands for `first` in both verdicts of each."""
    marks = {"A": 1.0, "B": 0.0}
    won = [marks.get(there, 0.5) if there == back else 0.5 for there, back in verdicts]
    read = [pair for pair in verdicts if all(pair)]
    return Duel(
        first,
        second,
        share=paired_bootstrap(won, [0.0] * len(won), seed=seed),
        ties=sum(mark == 0.5 for mark in won),
        agreed=sum(there == back for there, back in read) / len(read) if read else 0.0,
        unread=len(verdicts) - len(read),
    )
