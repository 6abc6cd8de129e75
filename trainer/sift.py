"""Which of a teacher's imitations are worth learning from: small pure functions, each with its reason in words.

The bars are the creator's own: an imitation must be no less like them than nine of ten of their own answers are, no
less grounded in what was shown than nine of ten of those are in their neighbours, and no longer or shorter than theirs.
Judges words only; whether an answer is true nobody here knows.
"""

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from infra.errors import Refused
from memory.messages import Exchange
from memory.prompt import estimate_tokens
from trainer import metrics
from trainer.dataset import folded
from trainer.questions import language_of
from trainer.scrub import scrub
from trainer.style import Style, learn

# Shares of the creator's own answers that the bars would let go.
LOW, SHORT, LONG = 0.10, 0.02, 0.98
# However little the creator's answers share with their neighbours, an imitation that shares less is made up.
LEAST_GROUNDED = 0.2
# Of an answer's runs of eight units so many may stand in what was shown.
MOST_COPIED = 0.3
# A style measure that tells the creator from the teacher no better than this is no measure.
LEAST_AUC = 0.6
LEAST_BARE = 12
# MinHash (Broder 1997) of word pairs, in bands: two answers that share 2/3 of their pairs are found in 97 of 100 cases,
# those that share a fifth in 3 of 100 (1 - (1 - s^4)^16), and what is found is then compared by its signatures.
HASHES, BAND = 64, 4
MOST_REPEATED = 0.6

REFUSAL = re.compile(
    r"\bas an? (?:ai|artificial intelligence|(?:large )?language model|assistant)\b|\bi(?:'|’| a)m (?:just )?an? "
    r"(?:ai|language model)\b|\bi(?:'|’| a)m (?:sorry|afraid),? (?:but |that )?i (?:can(?:not|['’]t)|am unable)|"
    r"\bi (?:can(?:not|['’]t)|am unable to) (?:assist|help|answer|provide|fulfil)|\b(?:how can i|i am here to) "
    r"(?:assist|help) you\b|\bmy (?:training data|knowledge cutoff)\b|"
    r"作为(?:一[个名位])?(?:AI|人工智能|语言模型|大?模型|助手)|我(?:只)?是(?:一[个名])?(?:AI|人工智能|语言模型)|"
    r"(?:很?抱歉|对不起)[，,]?我(?:不能|无法)|我无法(?:回答|提供|协助)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Bars:
    """What an imitation must reach. `style` None is no bar: the measure does not tell the two apart."""

    least_tokens: int
    most_tokens: int
    grounded: float
    style: float | None
    auc: float


@dataclass(frozen=True)
class Imitation:
    """A question, what the teacher said to it, whether it came to an end, and what was shown."""

    question: str
    answer: str
    finished: bool
    shown: Sequence[Exchange]


def bars_of(
    real: Sequence[tuple[Exchange, Sequence[Exchange]]], bare: Sequence[str], *, most_tokens: int, seed: int
) -> tuple[Bars, Style | None]:
    """The bars that real exchanges with their neighbours set, and the measure of style that the bar is for.

    `bare` is what the teacher says to real questions when it imitates nobody. The style bar is set by answers that
    the measure has not learned.
    """
    answers = [exchange.answer for exchange, _ in real]
    lengths = [estimate_tokens(answer) for answer in answers]
    grounded = [metrics.groundedness(exchange.answer, given(exchange.question, shown)) for exchange, shown in real]
    measure, bar = None, None
    if len(bare) >= LEAST_BARE:
        measure = learn(answers, bare, seed=seed)
        if measure.auc >= LEAST_AUC:
            bar = float(np.quantile(learn(answers[::2], bare, seed=seed).score(answers[1::2]), LOW))
    bars = Bars(
        least_tokens=int(np.quantile(lengths, SHORT)),
        most_tokens=min(most_tokens, int(np.ceil(np.quantile(lengths, LONG)))),
        grounded=max(LEAST_GROUNDED, float(np.quantile(grounded, LOW))),
        style=bar,
        auc=measure.auc if measure else 0.5,
    )
    return bars, measure if bar is not None else None


def given(question: str, shown: Sequence[Exchange]) -> str:
    """Everything that the teacher was told."""
    return "\n".join([question, *(text for each in shown for text in (each.question, each.answer))])


def reason_against(imitation: Imitation, bars: Bars) -> str:
    """Why an imitation is not learned from, by itself; empty when nothing is against it."""
    return next((reason for check in CHECKS if (reason := check(imitation, bars))), "")


def empty(imitation: Imitation, bars: Bars) -> str:
    return "" if folded(imitation.answer) else "answer: empty"


def broken(imitation: Imitation, bars: Bars) -> str:
    if not imitation.finished:
        return "answer: ran into its limit"
    return "answer: loops" if len(metrics.units(imitation.answer)) > 1 and loops(imitation.answer) else ""


def loops(answer: str) -> bool:
    return metrics.unhealthy(answer, finished=True) > 0


def refusal(imitation: Imitation, bars: Bars) -> str:
    return "answer: speaks as an AI, or refuses" if REFUSAL.search(imitation.answer) else ""


def language(imitation: Imitation, bars: Bars) -> str:
    """The language is that of the answers shown, of which the nearest counts."""
    wanted = language_of(imitation.shown[0].answer if imitation.shown else imitation.question)
    return "" if language_of(imitation.answer) == wanted else "answer: in another language"


def length(imitation: Imitation, bars: Bars) -> str:
    tokens = estimate_tokens(imitation.answer)
    if tokens < bars.least_tokens:
        return "answer: shorter than the creator's"
    return "answer: longer than the creator's" if tokens > bars.most_tokens else ""


def overlap(imitation: Imitation, bars: Bars) -> str:
    """Copied: the same as an answer shown, or with too many of their runs of eight units."""
    said = folded(imitation.answer)
    shown = [folded(each.answer) for each in imitation.shown]
    runs = metrics.learned_runs([each.answer for each in imitation.shown])
    copied = metrics.verbatim(imitation.answer, runs, imitation.question) > MOST_COPIED
    return "answer: copies what was shown" if said in shown or copied else ""


def parrots(imitation: Imitation, bars: Bars) -> str:
    return "answer: repeats the question" if folded(imitation.answer) == folded(imitation.question) else ""


def grounded(imitation: Imitation, bars: Bars) -> str:
    """Every number must have been shown, and as much of what it is about as in the creator's answers."""
    told = given(imitation.question, imitation.shown)
    if not set(metrics.NUMBER.findall(imitation.answer)) <= set(metrics.NUMBER.findall(told)):
        return "answer: a number that nothing shown has"
    enough = metrics.groundedness(imitation.answer, told) >= bars.grounded
    return "" if enough else "answer: about what nothing shown is about"


def private(imitation: Imitation, bars: Bars) -> str:
    """What looks like a secret or a personal number, invented or not, is not taught."""
    try:
        masked = scrub(imitation.answer).masked or scrub(imitation.question).masked
    except Refused:
        masked = {"unsure": 1}
    return "answer: what looks like personal data" if masked else ""


CHECKS: tuple[Callable[[Imitation, Bars], str], ...] = (
    empty,
    broken,
    refusal,
    parrots,
    language,
    length,
    private,
    overlap,
    grounded,
)


def unlike(score: float, bars: Bars) -> str:
    """Why an answer of this style score is not learned from."""
    return "answer: not in the creator's manner" if bars.style is not None and score < bars.style else ""


@dataclass
class Repeats:
    """What was taken already, as signatures: whether a text nearly repeats one of them. 300 bytes a text."""

    signatures: list[np.ndarray] = field(default_factory=list)
    bands: dict[tuple[int, bytes], list[int]] = field(default_factory=dict)

    def take(self, text: str) -> bool:
        """Take a text in, unless it nearly repeats one: then False."""
        signature = signature_of(text)
        keys = [(at, signature[at : at + BAND].tobytes()) for at in range(0, HASHES, BAND)]
        near = {other for key in keys for other in self.bands.get(key, ())}
        if any(float(np.mean(self.signatures[other] == signature)) >= MOST_REPEATED for other in near):
            return False
        for key in keys:
            self.bands.setdefault(key, []).append(len(self.signatures))
        self.signatures.append(signature)
        return True


# Odd multipliers make 64 functions of one hash; any would do, but they must be the same in every process.
MULTIPLIERS = np.random.default_rng(1).integers(1, 1 << 31, HASHES, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


def signature_of(text: str) -> np.ndarray:
    """The MinHash of a text's pairs of neighbouring units."""
    pairs = np.array([zlib.crc32(pair.encode()) for pair in pairs_of(text)], dtype=np.uint64)
    hashed = (pairs[:, None] * MULTIPLIERS[None, :]) % np.uint64(4_294_967_291)
    return np.asarray(hashed.min(axis=0), dtype=np.uint32)


def pairs_of(text: str) -> Iterator[str]:
    units = metrics.units(text) or [""]
    yield from (" ".join(pair) for pair in pairwise(units)) if len(units) > 1 else units
