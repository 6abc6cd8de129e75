"""What the creator likes, uses, recommends, decided or turns down, by patterns of English and Chinese sentences. Pure.

They miss what is said otherwise; what they find is always a sentence that can be shown. A yes or no to a question that
asks for a stance is one too: "Do you toast seeds?" "Always."
"""

import re
from collections.abc import Iterator, Mapping

from memory.lexicon import sentences
from memory.readings import Stance, Statement, names_in

# A quote is what fits into a line or two.
QUOTE = 160

ADVERBS = r"(?: (?:really|still|always|also|much|now|only|usually|just|personally|strongly|would|'d))*"
I_SAY = rf"\b(?:I|[Ww]e)(?:'d| would)?{ADVERBS}"
ZH_I = "(?:我们?|咱们?|本人)(?:一直|现在|都|就|平时|自己|更|最|还是|比较|很|也|从来)*"
ABOUT, ZH_ABOUT = r" (?P<about>[^.;:!?]+)", "(?P<about>[^，。；！？,.;!?]+)"
WE_HAVE = r"\b(?:I|[Ww]e)(?:'ve| have)?"
TAKEN = "use|like|recommend|suggest|trust|buy|believe in|love|add|eat|drink|touch|bake"
# In this order; the first that fits a sentence counts. `old` is what was given up.
PATTERNS: tuple[tuple[Stance, str], ...] = (
    ("decided", rf"{WE_HAVE} (?:switched|moved|migrated|changed)(?: over)?(?: from (?P<old>[^.;!?]+?))? to{ABOUT}"),
    ("decided", rf"{WE_HAVE} replaced (?P<old>[^.;!?]+?) (?:with|by){ABOUT}"),
    ("decided", f"从(?P<old>[^，。；！？]+?)(?:换|改|转|迁移)(?:成|到|用|为|了){ZH_ABOUT}"),
    ("decided", f"(?:改用|换成|换到)了?{ZH_ABOUT}"),
    ("decided", rf"{WE_HAVE} (?:decided|chose|picked|settled|agreed)(?: on| to| for)*{ABOUT}"),
    ("decided", f"决定了?(?:用|买|做|改|采用)?{ZH_ABOUT}"),
    ("avoids", rf"{I_SAY} (?:don't|do not|never|no longer|won't|wouldn't|would not)(?: ever)? (?:{TAKEN}){ABOUT}"),
    ("avoids", rf"{I_SAY} (?:avoid|hate|dislike|stopped using|quit|gave up|regret){ABOUT}"),
    ("avoids", rf"(?:^|, )(?:[Nn]ever|[Dd]on't|[Dd]o not|[Aa]void)(?: use| buy| put| add)?{ABOUT}"),
    ("avoids", f"(?:{ZH_I})?(?:不再|从不|再也不|不|没)(?:用|喜欢|推荐|建议|买|看好|碰){ZH_ABOUT}"),
    ("avoids", f"(?:^|[，。；！？])(?:别|不要|千万别)(?:用|买|放|加|碰)?{ZH_ABOUT}"),
    ("avoids", f"(?:反对|讨厌){ZH_ABOUT}"),
    ("prefers", rf"{I_SAY} (?:prefer|like|love|favou?r|trust|enjoy){ABOUT}"),
    ("prefers", f"{ZH_I}(?:喜欢|偏好|偏爱|看好|爱用){ZH_ABOUT}"),
    ("recommends", rf"{I_SAY} (?:recommend|suggest|advise){ABOUT}"),
    ("recommends", rf"(?:^|, )(?:Buy|Get|Use|Go with){ABOUT}"),
    ("recommends", f"(?:推荐|建议(?:你|大家)?(?:用|买|先)?){ZH_ABOUT}"),
    ("uses", rf"{I_SAY} (?:use|run|bake with|work with|swear by){ABOUT}"),
    ("uses", f"{ZH_I}(?:用|在用|使用){ZH_ABOUT}"),
)
STANCES = tuple((stance, re.compile(pattern)) for stance, pattern in PATTERNS)
DESCRIBES = re.compile(r"^\W*(?:is|was|are|were|means|是|指)(?=\s|[^\x00-\x7f])")
# "I prefer spelt over rye" turns down what stands behind.
OVER = re.compile(r"\b(?:over|rather than|instead of|than)\b|而不是")

ASKED_FOR_A_STANCE = re.compile(
    r"^(?:(?P<uses>do you (?:use|like|own|keep|toast|add|bake)|你(?:用|喜欢|会用))|should (?:i|we)|would you|"
    r"is it worth|(?:is|are)\b.*\b(?:worth|better|ok|okay|good|needed|useful)\b|.*\byes or no\b|"
    r".*(?:要不要|该不该|值得|推荐吗|更好吗|好吗|需要吗|有必要|要.{1,8}吗))",
    re.I,
)
SAYS_NO = re.compile(
    r"^(?:[\w\s']{0,20}[:?,，：？] ?)?(?:no|never|none|not|don't|不|别|没)(?![a-z])(?!.{0,12}mystery)", re.I
)
SAYS_YES = re.compile(
    r"^(?:[\w\s']{0,20}[:?,，：？] ?)?(?:yes|always|of course|definitely|要|会|可以|值得|好|对)(?![a-z])", re.I
)


def stances_of(said: str, known: Mapping[str, str]) -> Iterator[Statement]:
    """What the sentences of the creator's half state, of what they are about. `about` is a key here."""
    for sentence in sentences(said):
        yield from described(sentence, known)
        for stance, pattern in STANCES:
            if match := pattern.search(sentence):
                yield from stance_in(stance, match, sentence, known)
                break


def stance_in(stance: Stance, match: re.Match[str], sentence: str, known: Mapping[str, str]) -> Iterator[Statement]:
    """The stance, and the contrary one on what it is set against: what was given up, or comes second."""
    groups = match.groupdict()
    chosen, *beaten = OVER.split(groups["about"], maxsplit=1)
    for about in names_in(chosen, known)[:1]:
        yield Statement(stance, about, quoted(sentence))
    for about in names_in(groups.get("old") or (beaten[0] if beaten else ""), known)[:1]:
        yield Statement("avoids", about, quoted(sentence))


def described(sentence: str, known: Mapping[str, str]) -> Iterator[Statement]:
    """What a sentence says its first word is: "Beatrix is my oven"."""
    for key in names_in(sentence, known)[:1]:
        name = known[key]
        if name and sentence.casefold().startswith(name.casefold()) and DESCRIBES.match(sentence[len(name) :]):
            yield Statement("describes", key, quoted(sentence))


def answered_stance(asked: str, said: str, known: Mapping[str, str]) -> Iterator[Statement]:
    """The stance in a yes or no: "Do you toast seeds?" "Always." """
    question = sentences(asked)[0] if sentences(asked) else ""
    answer = " ".join(sentences(said)[:2])
    wanted = ASKED_FOR_A_STANCE.match(question)
    if not wanted or not (SAYS_YES.match(answer) or SAYS_NO.match(answer)):
        return
    stance: Stance = "avoids" if SAYS_NO.match(answer) else "uses" if wanted.group("uses") else "recommends"
    for about in names_in(question, known)[:1]:
        yield Statement(stance, about, quoted(f"{question} {answer}"))


def quoted(text: str) -> str:
    """A sentence as it is quoted: one line, not too long."""
    line = " ".join(text.split())
    return line if len(line) <= QUOTE else f"{line[: QUOTE - 1].rstrip()}…"
