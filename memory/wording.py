"""What the wording of a chat message gives away, in English and Chinese: asking, thanking, agreeing, promising. Pure.

Word lists and patterns, no model: pairing runs on every message that is remembered. They err towards "says something";
where that is wrong, `memory/exchanges.py` has the reply graph and time to tell. Other languages fall back to question
marks, names and shared words.
"""

import re
from functools import lru_cache

ASKING = re.compile(
    r"[?？]|(^|[.!,;\n][^\S\n]*)(and |so |also |but |ok |hi |hey |please )*(how|what|why|when|where|which|who|whose|"
    r"can|could|"
    r"should|would|is|are|do|does|did|any(one|body)?|help|has|have)\b|\b(stuck|confused|not sure|no idea|no clue|"
    r"wonder(ing)?|struggling|can't|cannot|doesn't|won't|didn't|keeps?|how to|what to do|tips|advice|error|"
    r"problem|issue|"
    r"fails?|broken|wrong|question)\b|[吗呢么]|怎么|怎样|为什么|为啥|如何|什么|哪[里个儿些]?|几[个点次度]|"
    r"多[少久大热长]|是否|"
    r"能不能|可不可以|有没有|是不是|行不行|要不要|请问|求助|求教|请教|咋|不行|不对|失败|报错|总是|老是|一直|"
    r"还是没|没动静|没反应|没用|没效果",
    re.IGNORECASE,
)
# Asked to be sociable, or of everybody; an answer to it is worth nothing.
SOCIABLE = re.compile(
    r"^(how (nice|cool|lovely|funny|cute|sad)|who cares|how (are|r) (you|u|things|we)\b.*+|how'?s (it|everyone|"
    r"life).*+|"
    r"what'?s up.*+|any(one|body) (here|awake|up|around|else|baking|online).*+|right\??|really\??|is it\??|"
    r"who('?s| is| else is| wants)? (up|here|awake|around|coming|going|joining|in|free|excited).*+|"
    r"(老师|大佬)?在吗.*+|有人吗.*+|吃了吗.*+|真的吗.*+|是吗.*+)\W*$|^what an?\b",
    re.IGNORECASE,
)
THANKING = re.compile(
    r"\b(thanks?|thx|ty|tysm|cheers|got it|solved|that (worked|did it|fixed it|helps?)|fixed it|works now)\b|"
    r"谢|感谢|明白了|知道了|懂了|解决了|搞定|可以了|好了",
    re.IGNORECASE,
)
AGREEING = re.compile(
    r"((yes|yep|yeah|yup|no|nope|nah|sure|right|true|exactly|correct|absolutely|definitely|of course|never|always|"
    r"both|either|neither|it (does|is|can(not)?|will)|you can(not)?)(?![a-z])|"
    r"对+|是的?|不是|可以的?|能|不能|不行|不会|会|行|没有|当然|没错)",
    re.IGNORECASE,
)
TALK = re.compile(
    r"(ok(ay)?|k|kk|(many )?thanks?( you)?( so much| a lot| a million| again| both| all| everyone)?|thx|ty|"
    r"tysm|cheers|"
    r"a+h+|o+h+|lo+l|lmao|rofl|(ha)+h?|(he)+|nice( one)?|cool|great( one)?|good( one)?|awesome|perfect|amazing|"
    r"wow|whoa|ooh?|yay|"
    r"agreed|same( here| problem| issue| question)*|me too|following|bump|indeed|np|no problem|no worries|"
    r"any ?time|my pleasure|you(’|')?re welcome|you are welcome|"
    r"welcome( back| aboard)?|good luck|(good )?(morning|evening|night|afternoon)|g?night|hi|hiya|hello|hey|"
    r"bye|brb|gtg|"
    r"see you|see ya|congrats|congratulations|got it|i see|makes sense|fair enough|will (do|try)|on it|ugh|"
    r"oh no|sorry|"
    r"looking|be right back|well done|lovely|beautiful|love it|loved it|genius|brilliant|hm+|well|oh|ah|xd|o7|gg|"
    r"glad (it helped|to help|that helped|it worked)|happy (baking|to help)|"
    r"(非常|太|多)?(谢谢?|感谢)+[你您大家们]*|多谢|好+的?|嗯+|哦+|噢|[哈嘿呵]+|厉害|牛|赞|棒|收到|明白了?|"
    r"知道了?|懂了|早|早安|"
    r"早上好|晚安|晚上好|你好|大家好|没事|不客气|不用谢|加油|辛苦了?|原来如此|好吧|我?也是|同问|同求|我的也是|"
    r"恭喜|再见|拜拜|笑死|漂亮|太好了|学到了|在|羡慕)",
    re.IGNORECASE,
)
# Who is greeted or thanked, and softeners at the end.
TAIL = re.compile(
    r"(\s+(wow|man|mate|friend|friends|all|everyone|everybody|folks|guys|there|again|then|now|too|so much|"
    r"indeed|for (that|"
    r"this|the help|yesterday|today)))+$|(老师|大佬|老板|师傅|大家|各位|楼上|了|啦|啊|呀|哈|呢|哦|的|~)+$",
    re.IGNORECASE,
)
GREETING = re.compile(
    r"(good )?(morning|evening|night|hi|hiya|hello|hey|thanks?|thank you|welcome|cheers|congrats|你好|谢谢|"
    r"早)(\s+[a-z'’]+)?",
    re.IGNORECASE,
)
PROMISE = re.compile(
    r"\b(one|just a|give me a) (sec(ond)?|mo(ment)?|min(ute)?|bit)\b|\bhang on\b|\bhold on\b|\bbear with me\b|"
    r"\b(i'll|i will|let me|lemme|i need to|i have to|i must|gonna|going to|want to)( \w+)? (check|look|think|"
    r"ask|find out|"
    r"get back|come back|dig|test it|reply|answer|see if|write (it|this) up|measure)\b|\bgood question\b.{0,15}$|"
    r"\b(not at|away from) (my|the) (desk|computer|kitchen)\b|等[一下会]|稍等|我(先|去|回头|晚点|明天|"
    r"回家)?(看看|查|问|想想|试试)|"
    r"回头(说|告诉|回)|晚点(说|回|告诉)|好问题.{0,4}$|不在电脑",
    re.IGNORECASE,
)
POLAR = re.compile(
    r"(^|[.!?,;\n][^\S\n]*|\b(and|so|but|or|also|hi|hey)\W+)(is|are|was|were|am|do|does|did|can|could|should|would|will|"
    r"has|have|may|must|isn't|aren't|don't|doesn't|can't|won't)\b|吗|能不能|可不可以|是否|是不是|有没有|行不行|"
    r"要不要|好不好|会不会",
    re.IGNORECASE,
)
MEASURED = re.compile(
    r"\b(how (many|much|long|warm|hot|cold|old|big|far|often|high|deep|thick|heavy|late|early)|what (time|temp\w*|"
    r"percent\w*|ratio|size|weight|hydration)|when)\b|几|多[少久大热长高重厚]",
    re.IGNORECASE,
)
MEASURE = re.compile(
    r"\d|\b(one|two|three|four|five|six|seven|eight|nine|ten|twelve|twenty|thirty|half|an hour|overnight|monday|"
    r"tuesday|wednesday|thursday|friday|saturday|sunday|tomorrow|tonight|noon)\b|"
    r"[一二三四五六七八九十两半][个分小天克度成周]",
    re.IGNORECASE,
)
WHY = re.compile(r"\bwhy\b|为什么|为啥|怎么(会|回事)", re.IGNORECASE)
BECAUSE = re.compile(r"\bbecause\b|\bsince\b|\bthat'?s (what|how|why)\b|\bcause[ds]?\b|因为|是由于|所以", re.IGNORECASE)

# How a transcript or a log says who speaks.
SPEAKER = re.compile(r"([^\W\d_][\w .'’-]{0,38})(?:: |：)")
LATIN = re.compile(r"[^\W_\u3400-\u9fff]{3,}")
HAN = re.compile(r"[\u3400-\u9fff]{2,}")
ENDINGS = re.compile(r"(ings?|edly|ed|ies|es|s|ly|y)$")
COMMON = frozenset(
    re.findall(
        r"\S+",
        """the and for you your yours with this that these those what how why when where which who can could not should
        does did are was were have has had any but its it's i'm i've from they them there then than will would just like
        get got one some more most very too also only into out off over about after before all use using used make makes
        made need want know think try tried way thing things good well much many really still now here because don't
        doesn't didn't isn't can't won't let put say says said see look going keep keeps anyone anybody else been being
        same other day time 怎么 什么 可以 一个 这个 那个 没有 需要 多少 就是 不是 还是 如果 因为 所以 老师 请问 大家
        我的 你的 的话 一下 是不 能不 不能 怎样 为什 时候 现在 自己 我们 你们 他们 知道 觉得 应该 一样
        有点 问题 用的""",
    )
)
# To read, think and type: what was asked later than that before an answer, was asked after the answer was begun.
READ_SECONDS, TYPED_PER_SECOND, HAN_TYPED_PER_SECOND = 4.0, 7.0, 2.5

# A conversation is paired again whenever the creator says something, and then most of it has been read before.
once = lru_cache(maxsize=1 << 13)


@once
def asks(text: str) -> bool:
    """Whether a member's words ask for something."""
    return bool(ASKING.search(text)) and not SOCIABLE.match(text.strip()) and not is_talk(text)


def asks_back(text: str) -> bool:
    """Whether the creator only asks: the last sentence is a question and hardly anything stands before it."""
    stripped = text.strip()
    if not stripped.endswith(("?", "？")):
        return False
    sentences = [part for part in re.split(r"(?<=[.!?。！？])\s*", stripped) if part]
    told = [part for part in sentences if not part.endswith(("?", "？")) and len(words(part)) > 2]
    return not told


@once
def is_talk(text: str) -> bool:
    """Whether words are only thanks, laughter, greeting or agreement: a few such phrases and nothing else."""
    if len(text) > 100:
        return False
    bare = re.sub(r"[^\w\s'’,.!~，。！～、\u3400-\u9fff]", " ", text).strip()
    phrases = [part.strip() for part in re.split(r"\s{2,}|\s*[,.!~，。！～、\n]\s*", bare) if part.strip()]
    return not phrases or (len(bare) <= 60 and len(phrases) <= 4 and all(is_phrase(part) for part in phrases))


def is_phrase(phrase: str) -> bool:
    """Whether one phrase is a token of talk, alone or said to somebody."""
    kinds = (TALK, AGREEING, GREETING)
    shorter = TAIL.sub("", phrase)
    halves = phrase.split(" ", 1)
    return (
        any(kind.fullmatch(each) for kind in kinds for each in (phrase, shorter) if each)
        or not shorter
        or (len(halves) == 2 and all(any(kind.fullmatch(half) for kind in (TALK, AGREEING)) for half in halves))
    )


def thanks(text: str) -> bool:
    """Whether words hardly say more than that help arrived."""
    return len(text) <= 40 and bool(THANKING.search(text)) and not re.search("[?？]", text)


def agrees(text: str) -> bool:
    """Whether words begin with a yes or a no."""
    return bool(AGREEING.match(text.strip()) or re.match(r"not\b", text.strip(), re.IGNORECASE))


def is_promise(text: str) -> bool:
    """Whether the creator only puts off: they will look, ask or come back."""
    return len(text) <= 90 and bool(PROMISE.search(text)) and not re.search(r"\d", text)


def suits(question: str, answer: str) -> float:
    """How well the form of an answer suits that of a question: yes to what can be so, a number to how many."""
    polar, measured, why = form_asked(question)
    agreed, measure, because = form_answered(answer)
    fits = 0.0
    if agreed:
        fits += 0.9 if polar else -0.4
    if measured:
        fits += 0.6 if measure else -0.2
    if because and why:
        fits += 0.6
    return fits


@once
def form_asked(question: str) -> tuple[bool, bool, bool]:
    """Whether a question can be answered by yes or no, by a measure, by a reason."""
    return bool(POLAR.search(question)), bool(MEASURED.search(question)), bool(WHY.search(question))


@once
def form_answered(answer: str) -> tuple[bool, bool, bool]:
    """Whether an answer says yes or no, a measure, a reason."""
    return agrees(answer), bool(MEASURE.search(answer)), bool(BECAUSE.search(answer))


def calls(text: str, name: str) -> bool:
    """Whether words are said to somebody called `name`: its first part, marked by @, a greeting or a comma."""
    first, folded = first_name(name)
    # Who goes by "Yes" is not called by whoever says yes.
    if len(first) < 2 or folded not in text.casefold() or is_phrase(first):
        return False
    # Han is written without spaces: a name simply stands first. Elsewhere any word may stand first that is a name too.
    start, end = ("^|", "") if HAN.match(first) else ("", r"(?![\w'’])")
    at = rf"(?:{start}@|\b(?:hi|hey|hello|and|thanks|ok)\s+)"
    name = re.escape(first)
    return bool(re.search(rf"{at}{name}{end}|{name}\s*[,，:：]|[,，]\s*{name}\W*$", text, re.IGNORECASE))


def own_words(text: str) -> str:
    """What somebody writes without the lines that they quote: those are somebody else's."""
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith(">")).strip()


@once
def first_name(name: str) -> tuple[str, str]:
    """The first part of a name, as it is and for comparing."""
    first = next(iter(name.split()), "")
    return first, first.casefold()


@once
def seconds_to_write(text: str) -> float:
    """About the least time in which somebody reads a question and types `text`; only its first line, of 60 signs at
    most, is counted, as more may be pasted.
    """
    first = text.split("\n", 1)[0][:60]
    han = sum("\u3400" <= sign <= "\u9fff" for sign in first)
    return READ_SECONDS + (len(first) - han) / TYPED_PER_SECOND + han / HAN_TYPED_PER_SECOND


@once
def words(text: str) -> frozenset[str]:
    """Stems of content words, and pairs of neighbouring Han characters."""
    stems = {ENDINGS.sub("", word) if len(word) > 4 else word for word in LATIN.findall(text.casefold())}
    pairs = {run[at : at + 2] for run in HAN.findall(text) for at in range(len(run) - 1)}
    return frozenset((stems | pairs) - COMMON)
