"""Worth: how much an exchange can teach, 0 to 1, with the reasons in words. Pure, by rules, in English and Chinese.

A product of factors, one for each weakness that was found, so that one grave weakness or several small ones leave a
row out. What it does not know: whether an answer is right, whether it is about its question at all, other languages
than English and Chinese beyond their script, and any insult that is not on a short list: irony, slurs of other
languages and new spellings pass, and somebody who quotes a listed word is marked.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from memory.messages import Exchange
from memory.standing import Standing, question_form, standings
from memory.terms import IS_CJK, RUNS, content_terms
from memory.wording import asks_back, is_promise, is_talk, suits

# Rows below are left out. Set on labelled exchanges of two real communities; docs/training.md says how precise it is.
LEAST = 0.4
# What is later by less goes on with the same answer.
SOON = timedelta(days=2)
# A longer text that promises something also says something.
MOST_PROMISED = 12
# A question of fewer words than this may be all names.
LEAST_ASKED = 8

LINK = re.compile(r"<?https?://\S+>?")
FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
INLINE = re.compile(r"`[^`\n]+`")
# Pictures and stickers as exports write them: ":smile:", "[大笑]".
STICKER = re.compile(r":[a-z_0-9+-]+:|\[[\u4e00-\u9fff]{1,6}\]|\[[a-z _]{2,20}\]")
MENTION = re.compile(r"@\*{0,2}[\w|-]+\*{0,2}")
NO_ANSWER = re.compile(
    r"\b(?:(?:i )?(?:have |'ve )?(?:got )?no (?:idea|clue)|(?:i )?dunno|i (?:really |honestly |"
    r"also )*(?:don['’]t|do not|didn['’]t) (?:really |even )*(?:know|remember|recall|understand|"
    r"follow)(?: (?:this|that|it|either|anything about \w+))?|(?:i['’]m |i am )?not (?:really |entirely |"
    r"quite )?sure(?: either)?(?! (?:i|it|the|this|that|you|we|there)\b)|beats me|who knows|"
    r"can['’]t (?:say|help|tell)(?: you)?|no comment|never (?:used|heard of|tried) (?:it|that|this)|"
    r"(?:let['’]s )?wait and see)\b|(?:我也?|真的?|还|完全|实在|确实)*(?:不知道|不清楚|不太清楚|不晓得|不了解|"
    r"没了解过|没研究过?|没听说过?|没听过|"
    r"不记得|忘了|记不清|不好说|无可奉告|没看懂|没懂|没注意|没关注过?|不认识|没想过|没看过)(?:哈|啊|呀|了|的)*",
    re.IGNORECASE,
)
# The answer names something that stands elsewhere in its thread.
POINTS = re.compile(
    r"\b(?:as|like) (?:i|you|he|she|they|\w+) (?:said|say|says|wrote|mentioned)(?: (?:above|before|"
    r"earlier))?\b|\b(?:see|as|read|scroll) (?:the )?(?:above|up)\b|\bsame (?:here|as above|problem)\b|"
    r"^(?:\^+|this\W*$|what \S+ said)|\b(?:i['’]m with|agree with|i['’]d echo|i echo|\+1 to)\b|\b(?:the|"
    r"your|my) (?:above|previous|last) (?:message|post|comment|code|example|reply)\b|如上|同上|见上|上面(?:说|讲|写|"
    r"那|的)|前面(?:说|讲|已经|那|写|回)|楼上|刚才(?:说|讲)|刚说|说过了|回答过",
    re.IGNORECASE,
)
# The answer begins with a word that stands for something said before.
LEADS = re.compile(
    r"(?:(?:oh|ah|well|yes|yeah|no|nope|right|sure|ok(?:ay)?|but|and|so|hmm+)\W+)*(?:this|that|it|these|"
    r"those|they|them|he|she|his|her|its|both|neither|the (?:first|second|former|latter|other|"
    r"same)(?: one)?)\b(?! (?:is|'s) (?:a|no) way)|(?:[是对嗯哦]+[，,。])?(?:这|那|它|他|她|此|其)(?:个|些|样|"
    r"是|也|就|么|们|不|"
    r"都|俩|两|会|应|可|在)",
    re.IGNORECASE,
)
# The question goes on with something that stands before it.
CONTINUES = re.compile(
    r"(?:(?:hi|hey|ok(?:ay)?|thanks?|yes|no|ah|oh|right|i see|hmm+)\W+)*(?:and|but|so|or|then|because|"
    r"though|why not|really|is (?:it|that|this)|are (?:they|those|these)|does (?:it|that|this)|"
    r"do they|did (?:it|that)|was (?:it|that)|it|that|this|these|those|they|he|she|like this|how so|"
    r"what do you mean|which one|what about (?:it|that|this))\b|(?:那|但|可是|但是|所以|而且|然后|还有|这|它|"
    r"他|她|是吗|真的|难道|"
    r"就是|也就是|为啥|为什么呢|也是|不是)",
    re.IGNORECASE,
)
SHOWN = re.compile(
    r"\[?(?:image|screenshot)[\w .:-]*(?:\.png|\.jpe?g)?\]?|查看图片|看图|如图|图片评论|[\w.-]+\.(?:png|jpe?g)",
    re.IGNORECASE,
)
INSULT = re.compile(
    r"(?<!i'm an )(?<!i am an )(?<!like an )(?<!such an )\bidiots?\b|\b(?:moron|imbecile|retard(?:ed)?|"
    r"dumb ?ass|asshole|bastard|bitch|cunt|whore|slut|faggot|nigg(?:er|a)|kike|tranny|kys|scumbag)s?\b|"
    r"\b(?:fuck|screw|damn) (?:you|off|u)\b|\bf+u+c+k+(?:ing|ed|er)?\b|\bshut (?:the \w+ )?up\b|"
    r"\bkill yourself\b|\b(?:go|just) die\b|\byou(?:['’]re| are) (?:so |such |a |an |just )*(?:stupid|"
    r"dumb|pathetic|worthless|trash|garbage|useless|a liar|a fraud)\b|傻[逼比叉bB]|[傻煞沙]笔|\bsb\b|操你|"
    r"草你|日你|他妈|"
    r"特么的|尼玛|脑残|智障|白痴(?!的?问题)|弱智(?!的?问题)|贱[人货]|婊|王八蛋|混蛋|狗[东日]|去死|滚[蛋开粗]|"
    r"找死|死全家|废物|人渣|不要脸|臭不要|畜生|杂种",
    re.IGNORECASE,
)

# What the creator wants to know before they can answer; any other question may be advice or their manner.
CLARIFIES = re.compile(
    r"\b(?:what (?:do|did) you mean|what (?:are|were) you (?:trying|asking|talking|doing)|what exactly|"
    r"which \w+ (?:are|do|did|is)|which (?:one|version|book)|(?:can|could|would) you (?:please )?(?:post|"
    r"share|show|give|make|paste|explain|send|say|elaborate|clarify|be more)|(?:do|did) you mean|"
    r"what(?:['’]s| is| are) (?:your|the question|the error|the goal|you)|is (?:this|that|it) (?:windows|"
    r"linux|mac|for|homework|a)|are you (?:on|using|running|asking|talking|sure)|what (?:version|os|"
    r"happens|error|does it say)|where (?:did|do|are|is)|mwe|who (?:are|is) you|how (?:do|"
    r"did) you know)\b|啥意思|什么意思|什么来的|你(?:是)?(?:指|问|说)的?(?:是|啥|什么|哪)|哪个|哪家|哪位|"
    r"哪里说|谁说|你是(?:谁|干)",
    re.IGNORECASE,
)

BACK, NOTHING, THREAD = "answer: asks back", "answer: does not answer", "answer: only makes sense in its thread"
THIN, SHOWS = "question: only makes sense in its thread", "question: about a picture that is not there"
SHORT, CODE = "answer: hardly a word", "answer: code and no words"
LANGUAGE, TOXIC = "answer: in another script than the question", "question: insults"
REPLACED, LATER = "answer: replaced by a later one", "answer: only puts off"
ASKS = "answer: nothing but questions"
FACTORS = {
    BACK: 0.3,
    ASKS: 0.75,
    NOTHING: 0.25,
    LATER: 0.25,
    REPLACED: 0.2,
    TOXIC: 0.3,
    LANGUAGE: 0.35,
    THREAD: 0.6,
    THIN: 0.6,
    SHOWS: 0.6,
    CODE: 0.7,
}


@dataclass(frozen=True)
class Worth:
    """The score, and for each weakness by how much it lowers it. `thread`: the words before it would mend some."""

    score: float
    reasons: Mapping[str, float]

    @property
    def thread(self) -> bool:
        return THREAD in self.reasons or THIN in self.reasons

    @property
    def worst(self) -> str:
        """The gravest weakness; empty when there is none."""
        return min(self.reasons, key=lambda reason: (self.reasons[reason], reason), default="")

    def in_thread(self) -> "Worth":
        """The same when the words before the question stand in the prompt."""
        return total({reason: by for reason, by in self.reasons.items() if reason not in {THREAD, THIN}})

    def described(self) -> dict[str, Any]:
        return asdict(self)


def total(reasons: Mapping[str, float]) -> Worth:
    score = 1.0
    for by in reasons.values():
        score *= by
    return Worth(round(score, 3), dict(reasons))


def worth(exchange: Exchange, *, replaced: bool = False) -> Worth:
    """What an exchange can teach; `replaced` when the creator said something else to the same question later."""
    question, answer = exchange.question.strip(), exchange.answer.strip()
    said = words_of(answer)
    found = {
        REPLACED: replaced,
        BACK: asks_back(spoken(answer)) and clarifies(answer),
        ASKS: asks_back(spoken(answer)) and not clarifies(answer),
        NOTHING: answers_nothing(question, answer),
        LATER: is_promise(spoken(answer)) and len(said) <= MOST_PROMISED,
        THREAD: bool(POINTS.search(answer)) or (points_back(answer) and thin(question)),
        THIN: thin(question),
        SHOWS: bool(SHOWN.search(question)) and len(content_terms(SHOWN.sub("", question))) < 8,
        CODE: not said and bool(FENCED.search(answer) or INLINE.search(answer)),
        LANGUAGE: other_script(question, answer),
        TOXIC: bool(INSULT.search(question)),
    }
    reasons = {reason: FACTORS[reason] for reason, true in found.items() if true}
    by = length_factor(question, answer)
    return total({**reasons, SHORT: by} if by < 1 else reasons)


def worths(exchanges: Iterable[Exchange]) -> dict[str, Worth]:
    """The worth of each exchange by its id, knowing which of them the creator replaced by a later answer."""
    known = list(exchanges)
    standing = standings((question_form(each), each) for each in known)
    return {each.id: worth(each, replaced=is_replaced(each, standing[question_form(each)])) for each in known}


def is_replaced(exchange: Exchange, standing: Standing) -> bool:
    """Whether the creator said something else later, on another day; a second answer to one message adds to it."""
    speaks = standing.speaks
    one_message = exchange.asker is not None and (exchange.asker, exchange.question) == (speaks.asker, speaks.question)
    return standing.state(exchange) == "replaced" and speaks.at - exchange.at > SOON and not one_message


def clarifies(answer: str) -> bool:
    """Whether a question wants to know more from the asker, and proposes nothing."""
    return bool(CLARIFIES.search(spoken(answer))) and not INLINE.search(answer)


def spoken(text: str) -> str:
    """A text without links, stickers and whom it calls: what of it says something."""
    return " ".join(MENTION.sub(" ", STICKER.sub(" ", LINK.sub(" ", text))).split())


def words_of(text: str) -> list[str]:
    """The words outside of code, every CJK character by itself."""
    bare = INLINE.sub(" ", FENCED.sub(" ", spoken(text)))
    return [word for run in RUNS.findall(bare) for word in (run if IS_CJK.match(run) else [run])]


def answers_nothing(question: str, answer: str) -> bool:
    """Whether nothing is left of an answer without not knowing, laughter, thanks and links."""
    code = bool(FENCED.search(answer) or INLINE.search(answer))
    rest, hedges = NO_ANSWER.subn(" ", spoken(answer))
    if code or len(words_of(rest)) >= 40:
        return False
    left = len(content_terms(rest) - content_terms(question))
    if hedges and left < (8 if IS_CJK.search(answer) else 5):
        return True
    return not RUNS.findall(rest) or (is_talk(rest) and suits(question, answer) <= 0)


def points_back(answer: str) -> bool:
    """Whether an answer opens with a word for something said before."""
    return bool(LEADS.match(spoken(answer)))


def thin(question: str) -> bool:
    """Whether a question names so little that nobody could answer it without what stands before it."""
    text = spoken(SHOWN.sub("", question))
    about = len(content_terms(text)) / (2 if IS_CJK.search(text) else 1)
    return about < 1 or (about < 6 and bool(CONTINUES.match(text)) and not INLINE.search(text))


def length_factor(question: str, answer: str) -> float:
    """Short answers teach little, unless a yes, a no or a number is what was asked for."""
    count = len(words_of(answer)) + 4 * len(INLINE.findall(answer)) + 12 * len(FENCED.findall(answer))
    if count >= 8:
        return 1.0
    if suits(question, spoken(answer)) > 0:
        return 0.85
    return 0.85 if count >= 5 else 0.7 if count >= 3 else 0.55


def other_script(question: str, answer: str) -> bool:
    """Whether an answer of more than a name's length is written in another script than its question."""
    asked, said = script_of(spoken(FENCED.sub("", question))), script_of(spoken(FENCED.sub("", answer)))
    few = len(words_of(question)) < LEAST_ASKED or len(words_of(answer)) <= 3
    return bool(asked and said) and asked != said and not few


def script_of(text: str) -> str:
    """ "cjk", "latin" or "other", whichever a text has most words of; empty for one without letters."""
    runs = [run for run in RUNS.findall(LINK.sub("", text)) if not run.isdigit()]
    counts = {"cjk": 0, "latin": 0, "other": 0}
    for run in runs:
        if IS_CJK.match(run):
            counts["cjk"] += (len(run) + 1) // 2
        else:
            counts["latin" if run[0] < "\u0250" else "other"] += 1
    return max(counts, key=lambda name: counts[name]) if runs else ""
