"""Pairing: which of the creator's messages answer which question. Pure.

Each of the creator's messages is linked to the question it answers by the strongest evidence there is, in this order:

1. `reply`    it replies to a member's message, or carries on from one that does; no limit in time
2. `mention`  it mentions a member who said something within `WINDOW` before
3. `thread`   it stands in a thread, where a question of the last `WINDOW` is still open
4. `near`     in an open channel, a question of the last `NEAR` is still open; with several open ones only if the
              words point to one of them, or it comes within `AT_ONCE` of the last

Messages of one answer or one question are stitched. A question back to the asker is no answer: what the asker says to
it becomes part of the question. Thanks, laughter and agreement are neither. Peers pair by a window of five minutes
alone; `understudy bench pairing` measures both on the same labelled conversations.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from memory.messages import Exchange, Message, Source, name_uuid

# The furthest that any rule but `reply` looks back: what changes outside it cannot change a pair.
WINDOW = timedelta(hours=12)
# A channel moves on: after three hours without a sign, an answer is more likely to something else.
NEAR = timedelta(hours=3)
# Somebody who types at once answers what was just said.
AT_ONCE = timedelta(minutes=4)
# Two messages of one thought: people type a long message in under five minutes, or have begun another.
STITCH = timedelta(minutes=5)

Rule = Literal["reply", "mention", "thread", "near"]

ASKING = re.compile(
    r"[?？]|(^|[.!,;]\s*)(how|what|why|when|where|which|who|can|could|should|would|is|are|do|does|did|any(one|body)?|"
    r"help|has|have)\b|\b(stuck|confused|not sure|no idea|wonder(ing)?|struggling|can't|cannot|doesn't work|"
    r"won't|how to|tips|advice|error|problem|issue)\b|[吗呢么]|怎么|怎样|为什么|为啥|如何|什么|哪[里个儿]?|几[个点次]|"
    r"多少|多久|是否|能不能|可不可以|有没有|是不是|请问|求助|求教|咋",
    re.IGNORECASE,
)
CHAT = re.compile(
    r"(ok(ay)?|k|thanks?( you)?( so much| a lot)?|thx|ty|tysm|cheers|lol|lmao|haha+|hehe+|nice|cool|great|awesome|"
    r"perfect|amazing|wow|yay|yes|yep|yeah|no|nope|sure|right|true|exactly|agreed|same|indeed|np|no problem|no worries|"
    r"you'?re welcome|welcome|good luck|morning|good (morning|night|evening)|hi|hello|hey|bye|brb|gtg|see you|"
    r"congrats|congratulations|got it|i see|makes sense|will do|on it|one (sec|moment|minute)|hang on|let me check|"
    r"looking|be right back|谢谢|多谢|感谢|好的?|嗯+|哦+|对|是的|哈+|厉害|赞|收到|明白了?|知道了|早|早安|晚安|"
    r"没事|不客气|加油|稍等|等一下|我看看)",
    re.IGNORECASE,
)
WORD = re.compile(r"[^\W_]{3,}|[\u3400-\u9fff]")
COMMON = frozenset(
    {"the", "and", "for", "you", "your", "with", "this", "that", "what", "how", "why", "when", "can", "could", "not"}
    | {"should", "does", "did", "are", "was", "have", "has", "any", "but", "its"}
)


@dataclass
class Thread:
    """A question as it grows: its messages, what the creator has said to it, and by which rule."""

    asked: list[Message]
    answer: list[Message] = field(default_factory=list)
    rule: Rule = "near"
    asked_back: bool = False

    @property
    def asker(self) -> str:
        return self.asked[0].person.key

    @property
    def open(self) -> bool:
        return not self.answer


def pair(messages: Sequence[Message], *, creator: frozenset[str]) -> list[Exchange]:
    """The exchanges among `messages` of one conversation, which may come in any order; ordered by their answers' time.

    `creator` holds the creator's person keys. An exchange's id names its first answer message, so that an edit changes
    the exchange and not its identity. `source` is left as the messages' sender cannot know it: the caller sets it.
    """
    told = Told(creator)
    for message in sorted(messages, key=lambda m: (m.at, len(m.id), m.id)):
        if message.person.role in {"twin", "bot"} or not message.text.strip():
            continue
        if message.person.key in creator:
            told.by_creator(message)
        else:
            told.by_member(message)
    return [exchange_of(thread) for thread in told.threads if thread.answer]


class Told:
    """The conversation as read so far."""

    def __init__(self, creator: frozenset[str]) -> None:
        self.threads: list[Thread] = []
        self._creator = creator
        self._of: dict[str, Thread] = {}  # message id -> the question it belongs to, as question or answer
        self._said: dict[str, Message] = {}
        self._last: Message | None = None

    def by_member(self, message: Message) -> None:
        """A member's message starts a question, continues one, or answers a question back."""
        thread = self._continued(message)
        if thread is None and (asks(message.text) or message.reply_to or not is_chat(message.text)):
            thread = Thread([message])
            self.threads.append(thread)
        elif thread is not None and not is_chat(message.text):
            thread.asked.append(message)
        self._note(message, thread)

    def _continued(self, message: Message) -> Thread | None:
        """The question that a member's message belongs to, if it is not a new one."""
        replied = self._of.get(message.reply_to or "")
        if replied is not None and replied.asker == message.person.key and (replied.open or is_chat(message.text)):
            return replied
        if message.reply_to:
            return None
        for thread in reversed(self.threads):
            if thread.asker == message.person.key:
                waited = message.at - (thread.answer or thread.asked)[-1].at
                if thread.open and (thread.asked_back or waited <= STITCH):
                    return thread if waited <= NEAR else None
                return None
        return None

    def by_creator(self, message: Message) -> None:
        """The creator's message answers a question, carries on an answer, asks back, or is talk."""
        thread, rule = self._target(message)
        self._note(message, thread)
        if thread is None or rule is None or is_chat(message.text):
            return
        if thread.open and asks_back(message.text):
            thread.asked_back = True
            return
        if thread.open:
            thread.rule = rule
        thread.answer.append(message)

    def _target(self, message: Message) -> tuple[Thread | None, Rule | None]:
        """The question that the creator's message is about, and the evidence for it."""
        if message.reply_to:
            thread = self._of.get(message.reply_to)
            return (thread, "reply") if thread else (None, None)
        carried = self._carried_on(message)
        if carried is not None:
            return carried, carried.rule
        if (mentioned := self._mentioned(message)) is not None:
            return mentioned, "mention"
        limit: timedelta
        rule: Rule
        limit, rule = (WINDOW, "thread") if message.place.thread else (NEAR, "near")
        waiting = [
            t for t in self.threads if t.open and message.at - t.asked[-1].at <= limit and asks(text_of(t.asked))
        ]
        chosen = choose(waiting, message)
        return (chosen, rule) if chosen else (None, None)

    def _carried_on(self, message: Message) -> Thread | None:
        """The question that the creator was just answering, when this is the next message of that answer."""
        last = self._last
        if last is None or message.at - last.at > STITCH:
            return None
        thread = self._of.get(last.id)
        if thread is None or (message.mentions and thread.asker not in message.mentions):
            return None
        if last.person.key in self._creator:
            return thread if thread.answer else None
        # The asker nodded in between: "ok", and the creator goes on.
        return thread if thread.answer and is_chat(last.text) and last.person.key == thread.asker else None

    def _mentioned(self, message: Message) -> Thread | None:
        """The latest question of somebody whom the message mentions, an open one first."""
        of_them = [
            thread
            for thread in self.threads
            if thread.asker in message.mentions and message.at - thread.asked[-1].at <= WINDOW
        ]
        still_open = [thread for thread in of_them if thread.open]
        found = still_open or of_them
        return found[-1] if found else None

    def _note(self, message: Message, thread: Thread | None) -> None:
        self._said[message.id] = message
        self._last = message
        if thread is not None:
            self._of[message.id] = thread


def choose(waiting: Sequence[Thread], message: Message) -> Thread | None:
    """The one of several open questions that an unaddressed message answers, or None when nothing tells."""
    if len(waiting) <= 1:
        return waiting[0] if waiting else None
    said = words(message.text)
    scores = [len(said & words(text_of(thread.asked))) for thread in waiting]
    best = max(scores)
    if best and scores.count(best) == 1:
        return waiting[scores.index(best)]
    return waiting[-1] if message.at - waiting[-1].asked[-1].at <= AT_ONCE else None


def exchange_of(thread: Thread) -> Exchange:
    """The exchange that a question and its answer make; its time is that of the first answering message."""
    first = thread.answer[0]
    return Exchange(
        id=name_uuid("exchange", first.place.key, first.id),
        question=text_of(thread.asked),
        answer=text_of(thread.answer),
        author=first.person,
        place=first.place,
        at=first.at,
        source=Source.CHAT_EXPORT,
        question_source=Source.CHAT_EXPORT,
        asker=thread.asked[0].person,
        question_ids=tuple(message.id for message in thread.asked),
        answer_ids=tuple(message.id for message in thread.answer),
        pairing=thread.rule,
        url=first.url,
    )


def text_of(messages: Sequence[Message]) -> str:
    return "\n".join(message.text.strip() for message in messages)


def asks(text: str) -> bool:
    """Whether a member's words ask for something."""
    return bool(ASKING.search(text)) and not is_chat(text)


def asks_back(text: str) -> bool:
    """Whether the creator only asks: the last sentence is a question and hardly anything stands before it."""
    stripped = text.strip()
    if not stripped.endswith(("?", "？")):
        return False
    sentences = [part for part in re.split(r"(?<=[.!?。！？])\s*", stripped) if part]
    told = [part for part in sentences if not part.endswith(("?", "？")) and len(words(part)) > 2]
    return not told


def is_chat(text: str) -> bool:
    """Whether words are only thanks, laughter, greeting or agreement: up to three such phrases and nothing else."""
    bare = re.sub(r"[^\w\s'\u3400-\u9fff]", " ", text).strip()
    phrases = [part for part in re.split(r"\s{2,}|\s*[,.!~，。！～]\s*", bare) if part]
    return not bare or (
        len(bare) <= 40 and all(CHAT.fullmatch(part.strip()) for part in phrases[:3]) and len(phrases) <= 3
    )


def words(text: str) -> set[str]:
    """Content words, and single Han characters."""
    return {word for word in WORD.findall(text.casefold()) if word not in COMMON}
