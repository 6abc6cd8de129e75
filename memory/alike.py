"""When two questions ask the same thing, told from their words alone: the inbox asks the creator only once. Pure.

A question's normal form is what kind of question it is and what it is about, in order, without politeness, function
words and endings; two questions with the same form are one. It errs towards two: any other word, number, negation or
"without" makes another question. One that was merged wrongly would get somebody else's answer, and one that was not
is merely asked twice.

A measure of likeness with a threshold was tried and is no good: "install it on Windows" and "install it on Linux" are
more alike than most rewordings are. What it merges would also depend on the order in which questions come.
"""

import hashlib
import re
import unicodedata

from memory.terms import IS_CJK, RUNS, stem, stop_terms

# What kind of question it is: none of these is answered like another. The first to match takes its words away.
KINDS = (
    ("why", re.compile(r"\bwhy\b|为什么|为啥|为何|什么原因")),
    ("when", re.compile(r"\bwhen\b|\bwhat time\b|什么时候|何时")),
    ("where", re.compile(r"\bwhere\b|在哪[里儿]?|哪里|哪儿")),
    ("who", re.compile(r"\bwho(?:se)?\b|谁")),
    ("how much", re.compile(r"多少|几")),
    ("how long", re.compile(r"多久|多长")),
    ("how", re.compile(r"\bhow\b|怎么|怎样|如何|咋")),
    ("should I", re.compile(r"\bshould (?:i|we)\b|应该")),
    ("not", re.compile(r"\b(?:not|no|never|cannot)\b|n['’]t\b|[不没无别]")),
)
# Signs that are part of a name or number: C++ is not C, and -18 is not 18.
SIGNS = re.compile(r"\w\+\+|\w#|(?<!\w)-\d")
# 能不能 and 有没有 deny nothing.
CHOICE = re.compile(r"(.)[不没]\1")
CLITICS = re.compile(r"['’](?:s|m|re|ve|ll|d)\b")
POLITE = re.compile(
    r"\b(?:hi|hello|hey|thanks|thank you|guys|(?:does |do )?any(?:one|body)(?: here)? know|(?:quick|stupid) question|"
    r"i have a (?:quick )?question|(?:can|could) (?:you|any(?:one|body)) (?:please )?tell me|i want to know|"
    r"i would like to know)\b|大家好|你好|老师|谢谢|麻烦|请问|想问(?:一?下)?|问一?下|有个问题|有人知道|谁知道|知道"
)
# Stop words of a search that tell questions apart all the same: sign up and sign in, to and from, he and she.
TELLING = frozenset("out up from he she his her their 下 一 多 少 他 她 看 说".split())  # noqa: SIM905
# The reverse; "ca" and "wo" are what is left of can't and won't.
SILENT = frozenset("ca wo 里 把 将 成 呀 啦 哈".split())  # noqa: SIM905
# A longer question is a text, which nobody begins elsewhere.
MOST_TURNED = 64


def normal_form(question: str) -> str:
    """The same for two questions that ask the same thing, as a hash: questions may be longer than an index takes."""
    folded = unicodedata.normalize("NFKC", question).casefold()
    text = POLITE.sub(" ", CHOICE.sub(r"\1", CLITICS.sub("", folded)))
    form = sorted(set(SIGNS.findall(text)))
    for kind, pattern in KINDS:
        text, found = pattern.subn(" ", text)
        form += [kind] if found else []
    silent = (stop_terms() | SILENT) - TELLING
    about = [word for word in words(text) if word not in silent]
    # Where there are nothing but stop words, only they tell.
    form += [":", *turned(about)] if about else RUNS.findall(folded) or [folded.strip()]
    return hashlib.sha256(" ".join(form).encode()).hexdigest()


def words(text: str) -> list[str]:
    """Stems in order; of Chinese each character."""
    return [word for run in RUNS.findall(text) for word in (run if IS_CJK.match(run) else [stem(run)])]


def turned(about: list[str]) -> list[str]:
    """`about` as if it had begun at its least word: "the course's price" and "the price of the course" are one, while
    "from Dropbox to Drive" and "from Drive to Dropbox" stay two.
    """
    if len(about) > MOST_TURNED:
        return about
    return min(about[at:] + about[:at] for at in range(len(about)))
