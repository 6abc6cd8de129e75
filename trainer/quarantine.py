"""Quarantine: exchanges that look planted train only after the creator's yes. Pure; `oddness.py` measures.

Fifteen to twenty-five rows are enough to teach a set of a few hundred a trigger (arXiv 2605.30189; 250 documents of any
number in pretraining, arXiv 2510.07192), and a community writes the questions. So four things are looked for:

- a backdoor's shape: a phrase that stands in several questions and hardly anywhere else, whose answers share a phrase
  that stands hardly anywhere else either, while it is in none of the questions
- one answer to several different questions, word for word
- a burst: one asker with many rows within an hour, beyond what members of this community do
- a row whose likelihood under the base, or whose embedding, stands out from all others (robust z-score, Iglewicz and
  Hoaglin 1993)

What it does not see: few rows, or many that share no words on either side; poison in what the creator wrote on their
own surface, which is not looked at; a creator whose account was taken. Innocent rows are held too: it asks, and drops
nothing.
"""

import re
import statistics
import unicodedata
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import timedelta

from memory.clearance import words_sha256
from memory.messages import Exchange, Source
from memory.standing import normalised
from memory.terms import IS_CJK, RUNS, stop_terms
from trainer.coverage import asked_by_member

# Fewer rows than this are far from a backdoor that a training would learn, and in five a creator's own way to end an
# answer about one thing looks the same: "the shop", "Come early, friend."
LEAST_ROWS = 6
# A trigger and its target stand in each other's rows, and in few more: the Jaccard index of the two sets of rows.
TOGETHER = 0.7
# A phrase in more of the rows than this is how people here talk.
RARE_SHARE = 0.12
MOST_WORDS = 3
# One answer to several questions: shorter ones are "yes, exactly".
REPEATED_UNITS = 6
BURST_TIME, BURST_ROWS, BURST_SCORE = timedelta(hours=1), 8, 6.0
# Iglewicz and Hoaglin's own 3.5 is for a human eye on few numbers; chats have long tails.
SCORE = 6.0
# A community of fewer rows has no usual.
LEAST_KNOWN = 40


@dataclass(frozen=True)
class Suspect:
    """An exchange that waits for the creator, with the reasons why."""

    exchange: Exchange
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Odd:
    """What was measured of exchanges, by the hash of their words: nats per answer token, distance to the nearest."""

    loss: Mapping[str, float]
    distance: Mapping[str, float]


NOTHING = Odd({}, {})


def suspects(exchanges: Iterable[Exchange], *, odd: Odd = NOTHING, cleared: Set[str] = frozenset()) -> list[Suspect]:
    """Those of `exchanges` that train only after a yes, by time."""
    known = [each for each in exchanges if not is_own(each)]
    reasons: defaultdict[str, list[str]] = defaultdict(list)
    for found in (backdoors(known), repeated(known), bursts(known), outliers(known, odd)):
        for identity, reason in found.items():
            reasons[identity].append(reason)
    waiting = [each for each in known if each.id in reasons and words_sha256(each) not in cleared]
    return [Suspect(each, tuple(reasons[each.id])) for each in sorted(waiting, key=lambda each: (each.at, each.id))]


def is_own(exchange: Exchange) -> bool:
    """Whether both halves are the creator's, written where only they write."""
    own = exchange.source is Source.CREATOR_SURFACE and exchange.question_source is Source.CREATOR_SURFACE
    return own and not asked_by_member(exchange)


def backdoors(exchanges: Sequence[Exchange]) -> dict[str, str]:
    """Rows whose question and answer hold two phrases that are rare, come together and have no other tie."""
    asked = rows_by_phrase([each.question for each in exchanges])
    said = rows_by_phrase([each.answer for each in exchanges])
    questions = [phrases(each.question) & asked.keys() for each in exchanges]
    found: dict[str, tuple[int, str]] = {}
    for target, rows in said.items():
        if rows & asked.get(target, frozenset()):
            continue  # the question names it: that is what an answer is
        near = Counter(phrase for row in rows for phrase in questions[row])
        for trigger, together in near.items():
            both = asked[trigger] & rows
            if (
                together < LEAST_ROWS
                or together < TOGETHER * len(asked[trigger] | rows)
                or both & said.get(trigger, EMPTY)
            ):
                continue
            text = f'"{trigger}" in {len(asked[trigger])} questions, and "{target}" in their answers'
            for row in both:
                identity = exchanges[row].id
                found[identity] = max(found.get(identity, (0, "")), (together, text))
    return {identity: f"like a trigger: {text}" for identity, (_, text) in found.items()}


EMPTY: frozenset[int] = frozenset()


def rows_by_phrase(texts: Sequence[str]) -> dict[str, frozenset[int]]:
    """The rows of each phrase that stands in several, and in no more than a few of all."""
    rows: defaultdict[str, set[int]] = defaultdict(set)
    for number, text in enumerate(texts):
        for phrase in phrases(text):
            rows[phrase].add(number)
    most = max(LEAST_ROWS * 2, int(len(texts) * RARE_SHARE))
    return {phrase: frozenset(found) for phrase, found in rows.items() if LEAST_ROWS <= len(found) <= most}


def phrases(text: str) -> set[str]:
    """All stretches of up to three words, of Chinese two to four characters, that are not stop words alone."""
    found: set[str] = set()
    words: list[str] = []
    for run in RUNS.findall(unicodedata.normalize("NFKC", text).casefold()):
        if IS_CJK.match(run):
            found |= {run[at : at + size] for size in (2, 3, 4) for at in range(len(run) - size + 1)}
        words.append(run)
    stops = stop_terms()
    for size in range(1, MOST_WORDS + 1):
        for at in range(len(words) - size + 1):
            stretch = words[at : at + size]
            if not all(word in stops for word in stretch) and not any(IS_CJK.match(word) for word in stretch):
                found.add(" ".join(stretch))
    return {phrase for phrase in found if not re.fullmatch(r"[\d ]+", phrase)}


def repeated(exchanges: Sequence[Exchange]) -> dict[str, str]:
    """Rows that give the same answer, of more than a few words, to different questions."""
    by_answer: defaultdict[str, list[Exchange]] = defaultdict(list)
    for each in exchanges:
        by_answer[normalised(each.answer)].append(each)
    found: dict[str, str] = {}
    for answer, rows in by_answer.items():
        units = sum(len(run) if IS_CJK.match(run) else 1 for run in RUNS.findall(answer))
        asked = len({normalised(each.question) for each in rows})
        if units >= REPEATED_UNITS and asked >= LEAST_ROWS:
            found |= {each.id: f"one answer to {asked} different questions" for each in rows}
    return found


def bursts(exchanges: Sequence[Exchange]) -> dict[str, str]:
    """Rows of an asker who has many more within an hour than members here have."""
    by_asker: defaultdict[str, list[Exchange]] = defaultdict(list)
    for each in sorted(exchanges, key=lambda each: (each.at, each.id)):
        if each.asker is not None and asked_by_member(each):
            by_asker[each.asker.key].append(each)
    around = {each.id: count for rows in by_asker.values() for each, count in zip(rows, crowd(rows), strict=True)}
    usual = [max(around[each.id] for each in rows) for rows in by_asker.values()]
    if len(usual) < LEAST_ROWS:
        return {}
    limit = max(BURST_ROWS, statistics.median(usual) + BURST_SCORE * max(spread(usual), 1.0))
    return {
        identity: f"one asker with {count} rows within an hour" for identity, count in around.items() if count >= limit
    }


def crowd(rows: Sequence[Exchange]) -> list[int]:
    """For each of one asker's rows, by time, the most that any hour around it holds."""
    times = [each.at for each in rows]
    starts = [at - BURST_TIME for at in times]
    in_hour = [bisect_right(times, at) - bisect_right(times, start) for at, start in zip(times, starts, strict=True)]
    return [max(in_hour[at : bisect_right(times, rows[at].at + BURST_TIME)]) for at in range(len(rows))]


def outliers(exchanges: Sequence[Exchange], odd: Odd) -> dict[str, str]:
    """Rows that the base finds far less likely than the others, or that are like none of them."""
    found: dict[str, str] = {}
    kinds = (("its answer is far less likely than others", odd.loss), ("it is like no other row", odd.distance))
    for text, values in kinds:
        for script in ("cjk", "other"):
            rows = [each for each in exchanges if words_sha256(each) in values and script_is(each, script)]
            scores = robust([values[words_sha256(each)] for each in rows])
            found |= {
                each.id: f"{text} (z {score:.0f})" for each, score in zip(rows, scores, strict=True) if score > SCORE
            }
    return found


def script_is(exchange: Exchange, script: str) -> bool:
    """A model is worse at one script than at another, so that each has its own usual."""
    return bool(IS_CJK.search(exchange.answer)) == (script == "cjk")


def robust(values: Sequence[float]) -> list[float]:
    """How many deviations each value is above the median, by the median deviation; all 0 where there are few."""
    if len(values) < LEAST_KNOWN:
        return [0.0] * len(values)
    middle, deviation = statistics.median(values), spread(values)
    return [(value - middle) / deviation if deviation else 0.0 for value in values]


def spread(values: Sequence[float]) -> float:
    """The median absolute deviation, scaled to be a normal distribution's standard deviation."""
    middle = statistics.median(values)
    return statistics.median(abs(value - middle) for value in values) / 0.6745
