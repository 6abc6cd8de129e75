"""Which plain words and groups of words are terms of this memory, found by statistics over all of it. Pure.

A term is what questions and their answers share far more often than chance: "starter" comes back in the answer, "know"
does not. A group of words or of Chinese characters is one term when its parts stand together far more often than chance
and what stands beside it varies. A name is a word that is never written small. No list of words, no language pack.
"""

import hashlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from memory.readings import name_key
from memory.terms import CJK, STOP, stem, stop_terms

# A term is in this many sources at least and in this share of them at most; its question and answer share it this many
# times as often as if they had nothing to do with each other. Set by hand on the bundled community.
LEAST, MOST_SHARE, LIFT = 3, 0.3, 3.0
# What a tenth of all sources hold cannot come back that often: chance alone brings it back.
COMMON, COMMON_LIFT = 0.1, 2.0
# How much more often than chance the parts of a group stand together, in nats.
TOGETHER = 2.5
# Of a group that is nearly always part of a longer one only the longer one is a term.
PART = 0.8
CHARACTERS = (2, 3, 4)
# A sentence that ends or opens so many answers is a manner of speaking.
REFRAIN = 4
LONGEST_HEADING = 24
SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
# Each piece is bounded, or begins where a word does: Chinese is one word for pages.
PRIVATE = re.compile(
    r"[^\s@]{1,64}@[^\s@]{1,255}\.\w+|\+?\d[\d\s().-]{7,}\d|"
    r"(?<![A-Za-z0-9_-])(?=[A-Za-z_-]*\d)(?=[\d_-]*[A-Za-z])[A-Za-z0-9_-]{16,}"
)
# Of what is in nearly every text and no stop word of a search.
PLAIN = frozenset(
    """yes never always now day week over down away top make way back good right one two first last next still more most
    less use used using answer need want say said think know look see thing something anything nothing much many really
    better best same other another without again only even both each every never here after before while until since
    because though take put give keep go come work works mean means might must may able sure maybe well great nice lot
    bit kind sort try tried looks seems got gets getting going done doing made makes people time times year years hour
    hours minute minutes new old long short big small enough left late early far near between help thank thanks question
    point problem case example using wrong fine works actually probably basically simply quite though
    自己 今天 感觉 意思 喜欢 开始 基本 发现 部分 当年 明白 理解 容易 继续 超过 似乎 直接 回答 觉得 知道 已经 非常 事情 东西""".split()  # noqa: SIM905, E501  Chinese is wide
)
CALENDAR = frozenset(
    """i i'm i'll i've i'd ok no yes mr mrs dr ps uk us january february march april may june july august september
    october november december monday tuesday wednesday thursday friday saturday sunday mon tue wed thu fri sat sun am pm
    english chinese thanks hi hello""".split()  # noqa: SIM905  a list of quoted words is harder to read
)
HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff]+")
WORD = re.compile(f"[^\\W\\d_{CJK}]+(?:['’][a-z]+)?")
SENTENCE_START = re.compile(r"(?:^|[.!?:\n\"“])\s*$")
# Characters at whose edge no Chinese term begins or ends.
EDGES = frozenset(STOP) | frozenset(
    "个只把被让给再又还没别太更最很会能要想用去来做时候后前中里外上下之其此该每各某与及或但而且所以因此如果虽然"
    "己些件样请谢呢哈嘛吧啦呵哦天年万亿元块度克分钟小时"
)


@dataclass(frozen=True)
class Lexicon:
    """The terms of this memory by key, as they are written, and the prints of sentences that say nothing."""

    terms: Mapping[str, str] = field(default_factory=dict)
    refrains: frozenset[str] = frozenset()


@dataclass
class Counts:
    """In how many sources something stands: at all, in the asked half, in the said half, in both."""

    either: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    said: Counter[str] = field(default_factory=Counter)
    both: Counter[str] = field(default_factory=Counter)

    def add(self, asked: set[str], said: set[str]) -> None:
        self.either.update(asked | said)
        self.asked.update(asked)
        self.said.update(said)
        self.both.update(asked & said)


def learn(sources: Iterable[tuple[str, str, str]]) -> Lexicon:
    """The terms of what was asked, under which heading, and what was said to it, source by source."""
    found = list(sources)
    refrains = frozenset(refrains_of(said for _, _, said in found))
    halves = [(f"{asked}\n{heading}", telling_part(said, refrains)) for asked, heading, said in found]
    terms = {
        **chinese_terms(halves),
        **shared_words(halves),
        **word_groups(halves),
        **headings(heading for _, heading, _ in found),
        **names(halves),
    }
    return Lexicon({key: name for key, name in sorted(terms.items()) if key}, refrains)


def sentences(text: str) -> list[str]:
    """The sentences of a text, without addresses, numbers to call and keys: those become no memory of their own."""
    return [sentence.strip() for sentence in SENTENCE.split(PRIVATE.sub(" ", text)) if sentence.strip()]


def refrains_of(texts: Iterable[str]) -> set[str]:
    """The prints of what is said again and again whatever was asked, like a farewell."""
    counts = Counter(print_of(sentence) for text in texts for sentence in set(sentences(text)))
    return {found for found, count in counts.items() if count >= REFRAIN}


def telling_part(text: str, refrains: Container[str]) -> str:
    """A text without its refrains, a sentence a line."""
    return "\n".join(sentence for sentence in sentences(text) if print_of(sentence) not in refrains)


def print_of(sentence: str) -> str:
    """What tells a sentence from others without keeping its words: they may have to be forgotten."""
    return hashlib.sha256(name_key(sentence).encode()).hexdigest()[:16]


def headings(found: Iterable[str]) -> dict[str, str]:
    """What somebody filed two sources under, or more, in a word or two."""
    counts = Counter(heading.strip() for heading in found if 0 < len(heading.split()) <= 2)
    return {
        name_key(heading): heading for heading, count in counts.items() if count > 1 and len(heading) <= LONGEST_HEADING
    }


def shared_words(halves: list[tuple[str, str]]) -> dict[str, str]:
    """Words that come back in the answers to the questions that hold them."""
    counts, written = Counts(), Counter[tuple[str, str]]()
    for asked, said in halves:
        row = content_words(asked), content_words(said)
        counts.add({stem(word) for word in row[0]}, {stem(word) for word in row[1]})
        written.update((stem(word), word) for half in row for word in half)
    chosen = {term for term, count in counts.either.items() if telling(counts, term, count, len(halves))}
    return as_written(chosen, written)


def telling(counts: Counts, term: str, count: int, sources: int) -> bool:
    """Whether a question that holds a term makes it likelier in the answer. Of a rare one, once is enough."""
    if count < LEAST or count > max(MOST_SHARE * sources, LEAST) or counts.both[term] < (2 if count > 2 * LEAST else 1):
        return False
    lift = COMMON_LIFT if count > COMMON * sources else LIFT
    return counts.both[term] * sources >= lift * counts.asked[term] * counts.said[term]


def word_groups(halves: list[tuple[str, str]]) -> dict[str, str]:
    """Pairs of words that belong together, "dutch oven"."""
    single, pairs, written = Counter[str](), Counter[str](), Counter[tuple[str, str]]()
    for text in halves:
        seen = {(name_key(f"{a} {b}"), f"{a} {b}") for a, b in neighbours("\n".join(text))}
        pairs.update({key for key, _ in seen})
        written.update(seen)
        single.update({stem(word) for half in text for word in content_words(half)})
    chosen = set()
    for key, count in pairs.items():
        parts = [single[part] for part in key.split()]
        if count >= LEAST and min(parts) and math.log(count * len(halves) / math.prod(parts)) >= TOGETHER / 2:
            chosen.add(key)
    return as_written(chosen, written)


def chinese_terms(halves: list[tuple[str, str]]) -> dict[str, str]:
    """Groups of Chinese characters that stand together, with different neighbours, and come back in answers."""
    grams, total, counts = Counter[str](), 0, Counts()
    beside: dict[str, set[str]] = defaultdict(set)
    for text in halves:
        asked, said = ([each for run in HAN.findall(half) for each in grams_of(f"^{run}$")] for half in text)
        counts.add({gram for gram, _, _ in asked}, {gram for gram, _, _ in said})
        grams.update(gram for gram, _, _ in [*asked, *said])
        total += sum(len(gram) == 1 for gram, _, _ in [*asked, *said])
        for gram, before, after in [*asked, *said]:
            if len(gram) > 1 and len(beside[gram]) < 16:
                beside[gram] |= {f"<{before}", f">{after}"}
    chosen = {
        gram
        for gram, count in counts.either.items()
        if len(gram) > 1
        and gram not in PLAIN
        and not {gram[0], gram[-1]} & EDGES
        and telling(counts, gram, count, len(halves))
        and coherence(gram, grams, total) >= TOGETHER
        and varied(beside[gram])
    }
    return {name_key(gram): gram for gram in chosen if not only_a_part(gram, chosen, grams)}


def grams_of(run: str) -> Iterator[tuple[str, str, str]]:
    """Every group of a run of characters, and the characters around it."""
    for size in (1, *CHARACTERS):
        for at in range(1, len(run) - size):
            yield run[at : at + size], run[at - 1], run[at + size]


def coherence(gram: str, grams: Counter[str], total: int) -> float:
    """The least pointwise mutual information over the ways to cut a group in two."""
    halves = ((gram[:at], gram[at:]) for at in range(1, len(gram)))
    return min(math.log(grams[gram] * total / (grams[one] * grams[other])) for one, other in halves)


def varied(beside: set[str]) -> bool:
    """Whether different characters stand before a group, and after it."""
    before = sum(each.startswith("<") for each in beside)
    return before >= 2 and len(beside) - before >= 2


def only_a_part(gram: str, chosen: set[str], grams: Counter[str]) -> bool:
    return any(gram != other and gram in other and grams[other] >= PART * grams[gram] for other in chosen)


def names(halves: list[tuple[str, str]]) -> dict[str, str]:
    """Words that are written with a capital inside a sentence, or again and again at its start, and never small."""
    inside, anywhere, small = Counter[str](), Counter[str](), set[str]()
    for text in halves:
        for match in WORD.finditer("\n".join(text)):
            word = re.sub("['’]s$", "", match.group())
            if not word[:1].isupper():
                small.add(word.casefold())
            elif word[1:].islower():
                anywhere[word] += 1
                inside[word] += not SENTENCE_START.search(match.string[max(0, match.start() - 4) : match.start()])
    return {
        name_key(word): word
        for word, count in anywhere.items()
        if inside[word] and count > 1 and not not_a_name(word) and word.casefold() not in small
    }


def not_a_name(word: str) -> bool:
    """A weekday, a month, a single letter: written with a capital all the same."""
    folded = word.casefold().replace("’", "'")
    return len(folded) < 2 or folded in STOP or folded in CALENDAR or folded.removesuffix("s") in CALENDAR


def content_words(text: str) -> list[str]:
    """The words of a text, small, that are no function words."""
    stops = stop_terms()
    found = (word.casefold() for word in WORD.findall(text))
    return [word for word in found if len(word) > 2 and not {word, stem(word)} & (stops | PLAIN)]


def neighbours(text: str) -> Iterator[tuple[str, str]]:
    """Content words that stand directly side by side."""
    stops = stop_terms()
    for one, other in pairwise(WORD.finditer(text)):
        pair = one.group().casefold(), other.group().casefold()
        beside = text[one.end() : other.start()] in {" ", "-"}
        if beside and all(len(word) > 2 and not {word, stem(word)} & (stops | PLAIN) for word in pair):
            yield pair


def as_written(chosen: set[str], written: Counter[tuple[str, str]]) -> dict[str, str]:
    """Each chosen term in its most frequent form."""
    forms: dict[str, str] = {}
    for (key, form), _ in written.most_common():
        if key in chosen:
            forms.setdefault(key, form)
    return {name_key(form): form for form in forms.values()}
