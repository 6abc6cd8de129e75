"""What one exchange or passage mentions, and what the creator states in it, read by rules. Pure.

Names show themselves by how they are written: capitals, code, addresses, #channels. Plain terms come from the lexicon,
which `memory/lexicon.py` learns from all of memory; stances from `memory/stances.py`. Two names are one thing where the
creator's sentence says so.
"""

import re
from collections.abc import Container, Iterable, Iterator
from typing import Protocol

from memory.alike import normal_form
from memory.lexicon import CALENDAR, EDGES, HAN, Lexicon, not_a_name, sentences, telling_part
from memory.messages import Exchange, Passage
from memory.readings import EntityKind, Mention, Reading, Statement, name_key, names_in
from memory.stances import answered_stance, stances_of
from memory.terms import CJK, STOP
from memory.wording import SPEAKER, own_words

# Written so that it can only be a name.
CODE = re.compile(r"`([^`\n]{2,40})`")
CHANNEL = re.compile(r"(?<!\w)#[a-z][\w-]{2,30}")
AT = re.compile(r"(?<![\w@])@([A-Za-z]\w{2,30})")
ADDRESS = re.compile(
    r"(?<![a-z\d-])(?:https?://)?((?:[a-z\d-]{1,63}\.){1,8}(?:com|org|net|io|dev|ai|app|cn|tw|uk|example))\b[^\s，。）)]*"
)
CAMEL = re.compile(r"\b(?:[a-z]+[A-Z]\w{2,}|[A-Z][a-z]+[A-Z]\w*|[a-zA-Z]+_\w+)\b")
ACRONYM = re.compile(r"(?<![\w.])[A-Z][A-Z\d]{1,6}(?![\w])")
TITLE = re.compile(r"《([^》]{2,30})》")
CAPITALS = re.compile(r"[A-Z][A-Za-zÀ-ɏ\d’'-]*(?:(?: of the| of| and| de| van| von)? [A-Z][A-Za-zÀ-ɏ\d’'-]+)*")
# What a sentence may open with before a name.
OPENERS = frozenset(
    """ask buy use try see read take thank visit call write ring get tell give put make like then and but so or when if
    on in at for from by with before after since until both no not my your our their every each some any all only even
    also maybe perhaps well oh dear hi hello hey yes""".split()  # noqa: SIM905
)
PERSON_BEFORE = re.compile(
    r"(?:\b(?:by|ask|thanks?|Mrs?\.?|Dr\.?)|\bmy (?:friend|sister|brother|wife|husband|teacher|colleague))\s$",
    re.I,
)
PERSON_AFTER = re.compile(r",? (?:who|says?|said|told|taught|knows|wrote|does it|translated)\b")
PRONOUN_AFTER = re.compile(r",? s?he\b")
PLACE_BEFORE = re.compile(r"\b(?:in|at|near|from|to)\s$")
TOOL_BEFORE = re.compile(r"\b(?:use|using|used|own|bought|buy|run|install|recommend)(?: an?| the| my)?\s$", re.I)
WHO = re.compile(r"\bwho\b|谁", re.I)

# Two names for one thing, and whether the words between them say so. The name is what the first group ends with:
# 我们用的检索增强生成（RAG）.
NAME = f"[\\w{CJK}][\\w{CJK} .+#-]{{0,40}}?"
END = r"(?=[.,;)。，；）\n]|$)"
ALIASES = (
    (re.compile(f"({NAME})\\s*[(（]({NAME})[)）]"), False),
    (re.compile(f"({NAME})\\s*=\\s*({NAME}){END}"), False),
    (re.compile(f"({NAME})[,，]?\\s*(?:即|就是|也就是|简称|簡稱)\\s*({NAME}){END}"), False),
    (
        re.compile(
            f"({NAME}),? (?:aka|a\\.k\\.a\\.|also known as|also called|(?:is )?short for|stands for),? ({NAME}){END}"
        ),
        True,
    ),
    (re.compile(f"({NAME}),? i\\.e\\.,? ({NAME}){END}"), False),
    (re.compile("([\u3400-\u9fff]{2,8})[,，]?(?:也叫做?|又叫做?|又称|俗称)([\u3400-\u9fff]{2,8})" + END), True),
)
LONGEST_HAN = 8
# Nothing in a Chinese sentence goes on with a name across these.
HAN_BREAKS = re.compile("[的是用叫了在和与跟把对做有这那个]|就是|我们|他们|你们|[我你他她]")


class Extractor(Protocol):
    """Whatever reads one exchange or passage. `name` changes whenever the same text would be read otherwise."""

    name: str

    def read(self, value: Exchange | Passage, lexicon: Lexicon) -> Reading: ...


class Rules:
    """The extractor that needs no model."""

    name = "rules-3"

    def read(self, value: Exchange | Passage, lexicon: Lexicon) -> Reading:
        """What `value` mentions, and what the creator's own half of it states: an asker cannot put words in theirs."""
        asked, heading, said = parts(value)
        own = without_others(said, value.author.name) if isinstance(value, Passage) else said
        asked, said, own = f"{asked}\n{heading}", *(telling_part(each, lexicon.refrains) for each in (said, own))
        mentions = mentions_of(asked, said, lexicon)
        aliases = tuple(dict.fromkeys(pair for sentence in sentences(own) for pair in aliases_of(sentence)))
        known = {name_key(mention.name): mention.name for mention in mentions} | dict.fromkeys(
            map(name_key, flat(aliases)), ""
        )
        named = {name_key(mention.name) for mention in mentions}
        mentions += [Mention(name) for name in flat(aliases) if name_key(name) not in named]
        statements = [*stances_of(own, known), *answered_stance(asked, own, known)] if is_creators(value) else []
        names = {name_key(mention.name): mention.name for mention in mentions}
        return Reading(
            source=value.id,
            at=value.at,
            asks=normal_form(value.question) if isinstance(value, Exchange) and value.question else "",
            mentions=tuple(mentions),
            aliases=aliases,
            statements=tuple(
                Statement(each.stance, names[each.about], each.quote) for each in dict.fromkeys(statements)
            ),
        )


def parts(value: Exchange | Passage) -> tuple[str, str, str]:
    """What is asked, what it is filed under, and what is said."""
    if isinstance(value, Passage):
        return "", value.heading, value.text
    return value.question, "" if value.title == value.question else value.title, value.answer


def is_creators(value: Exchange | Passage) -> bool:
    """A teacher's answers are memory, and not what the creator thinks."""
    return value.author.role == "creator"


def without_others(text: str, name: str) -> str:
    """What a document says without the lines that it quotes, and without what its transcripts have others than `name`
    say.
    """
    kept, speaker = [], ""
    for line in own_words(text).splitlines():
        for sentence in sentences(line):
            found = SPEAKER.match(sentence)
            speaker = found[1].casefold() if found else speaker
            kept += [sentence] if speaker in {"", name.casefold()} else []
    return "\n".join(kept)


def flat(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return list(dict.fromkeys(name for pair in pairs for name in pair))


def mentions_of(asked: str, said: str, lexicon: Lexicon) -> list[Mention]:
    """Every name and every term, once; a name that is written as one tells more of its kind than a term."""
    found: dict[str, Mention] = {}
    who = bool(WHO.search(asked))
    for sentence in [*sentences(said), *sentences(asked)]:
        written = [*written_names(sentence), *capitalised(sentence, who=who, known=lexicon.terms)]
        named = {name_key(mention.name): mention for mention in written}
        for key in names_in(sentence, named, lexicon.terms):
            mention = named.get(key) or Mention(lexicon.terms[key])
            if found.setdefault(key, mention).kind == "concept":
                found[key] = mention
    return list(found.values())


def written_names(sentence: str) -> Iterator[Mention]:
    """Names that their writing gives away, whatever the language around them."""
    kinds: tuple[tuple[re.Pattern[str], EntityKind], ...] = (
        (CODE, "tool"), (CHANNEL, "place"), (AT, "person"), (ADDRESS, "tool"), (CAMEL, "tool"), (ACRONYM, "concept"),
        (TITLE, "project"),
    )  # fmt: skip
    for pattern, kind in kinds:
        for match in pattern.finditer(sentence):
            name = match.group(match.lastindex or 0)
            if name.casefold() not in CALENDAR and not (pattern is ACRONYM and sentence.isupper()):
                yield Mention(name, kind)


def capitalised(sentence: str, *, who: bool, known: Container[str]) -> Iterator[Mention]:
    """Names by their capitals; a lone word at the start of a sentence says nothing, and in a headline none does."""
    every = re.findall(r"[A-Za-z][\w’']*", sentence)
    if len(every) > 4 and sum(word[0].isupper() for word in every) > 0.6 * len(every):
        return
    for match in CAPITALS.finditer(sentence):
        words, first = match.group().split(" "), opens(sentence, match.start())
        if first and (words[0].casefold() in OPENERS | STOP or name_key(" ".join(words[1:])) in known):
            words, first = words[1:], False
        name = " ".join(words).removesuffix("'s").removesuffix("’s")
        if not words or (first and len(words) == 1) or any(map(not_a_name, words)):
            continue
        yield Mention(name, kind_at(sentence, match, who=who and len(words) == 2))


def opens(sentence: str, at: int) -> bool:
    """Whether a sentence, a clause after a colon or a quotation begins here."""
    return not sentence[:at].strip(" \"'“‘«(*_#>-") or sentence[:at].rstrip(" \"'“‘").endswith((":", "?", "!", "."))


def kind_at(sentence: str, match: re.Match[str], *, who: bool) -> EntityKind:
    """What a name seems to be from the words beside it."""
    before, after = sentence[: match.start()], sentence[match.end() :]
    if PERSON_BEFORE.search(before) or PERSON_AFTER.match(after):
        return "person"
    if PLACE_BEFORE.search(before):
        return "place"
    if who or PRONOUN_AFTER.match(after):
        return "person"
    return "tool" if TOOL_BEFORE.search(before) else "concept"


def aliases_of(sentence: str) -> Iterator[tuple[str, str]]:
    """Pairs of names for one thing: in two scripts, an abbreviation and what it stands for, or said to be one."""
    for pattern, said in ALIASES:
        for match in pattern.finditer(sentence):
            one, other = last_name(match.group(1)), match.group(2).strip(" .")
            if one and other and one != other and (of_two_scripts(one, other) or abbreviates(one, other) or said):
                yield one, other


def last_name(text: str) -> str:
    """The name that a piece of a sentence ends with."""
    text = text.strip()
    if HAN.match(text[-1:]):
        run = re.split("[^\u3400-\u9fff]", text)[-1]
        return str(HAN_BREAKS.split(run)[-1])[-LONGEST_HAN:]
    words = re.findall(r"[\w.+#-]+", text.rpartition(",")[2])
    start = len(words)
    while start and words[start - 1].casefold() not in STOP and len(words) - start < 4:
        start -= 1
    return " ".join(words[start:])


def of_two_scripts(one: str, other: str) -> bool:
    """Whether one name is Chinese, with nothing in it that makes it a phrase, and the other is Latin."""
    chinese, latin = (one, other) if HAN.match(one) else (other, one)
    named = bool(HAN.fullmatch(chinese)) and len(chinese) in range(2, LONGEST_HAN + 1) and not set(chinese) & EDGES
    return named and bool(re.fullmatch(r"[A-Za-z][\w .+#-]+", latin)) and len(latin.split()) <= 4


def abbreviates(one: str, other: str) -> bool:
    """Whether either is the initials of the other."""
    short, long = sorted((one, other), key=len)
    initials = "".join(word[0] for word in re.split(r"[\s-]+", long) if word)
    return len(short) > 1 and short.isupper() and initials.casefold() == short.casefold()
