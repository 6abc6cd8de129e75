"""Pairing: which of the creator's messages answer which question. Pure.

Each of the creator's messages is linked to the question it answers by the strongest evidence there is, in this order:

1. `reply`    it replies to a member's message, or to an answer to one; no limit in time
2. `mention`  it names a member who said something within `WINDOW` before, by id or by calling their name
3. `thread`   it stands in a thread, where a question of the last `WINDOW` waits
4. `near`     in an open channel, a question of the last `NEAR` waits, or of the last `WINDOW` if the words point to it

Where several questions wait, `fit` weighs them; below `ENOUGH` the message is taken for talk. Messages of one answer or
one question are stitched. A question back to the asker is no answer: what the asker says to it becomes part of the
question. Thanks, laughter, promises and agreement are neither, but "yes" answers what can be answered so. Peers pair
by a window of five minutes alone; `understudy bench pairing` measures both on the same labelled conversations.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from memory.messages import Exchange, Message, Source, name_uuid
from memory.wording import (
    agrees,
    asks,
    asks_back,
    calls,
    first_name,
    is_promise,
    is_talk,
    own_words,
    seconds_to_write,
    suits,
    thanks,
    words,
)

# The furthest that any rule but `reply` looks back: what changes outside it cannot change a pair.
WINDOW = timedelta(hours=12)
# A channel moves on: after three hours without a sign, an answer is more likely to something else.
NEAR = timedelta(hours=3)
# Two who talk with each other go on without naming each other for about this long.
DIALOGUE = timedelta(minutes=15)
# Two messages of one thought: people type a long message in under five minutes, or have begun another.
STITCH = timedelta(minutes=5)
# What `fit` must reach. It and the weights below were set on memory/sample/pairing/tuned.txt.
ENOUGH = 1.0

Rule = Literal["reply", "mention", "thread", "near"]


@dataclass(eq=False)
class Question:
    """A question as it grows: its messages, what the creator has said to it, and what is known about whom it is for.

    `number` counts the questions of a conversation; `last` is the last of its messages and of what was said to it.
    """

    number: int
    last: Message
    asked: list[Message] = field(default_factory=list)
    answer: list[Message] = field(default_factory=list)
    rule: Rule = "near"
    asked_back: bool = False
    settled: bool = False  # the asker thanked somebody else
    to_creator: bool = False
    elsewhere: bool = False
    opener: bool = False  # the first message of a thread, or the first after a long silence in it
    replied: bool = False  # somewhere the creator replies to it
    text: str = ""

    @property
    def asker(self) -> str:
        return self.asked[0].person.key

    @property
    def open(self) -> bool:
        return not self.answer

    @property
    def waits(self) -> bool:
        """Whether it asks somebody who may be the creator, in so many words or by where it stands."""
        return self.to_creator or self.opener or asks(self.text)

    @property
    def words(self) -> frozenset[str]:
        return words(self.text)


def pair(messages: Sequence[Message], *, creator: frozenset[str]) -> list[Exchange]:
    """The exchanges among `messages` of one place, which may come in any order; ordered by when they were asked.

    `creator` holds the creator's person keys. An exchange's id names its first answer message, so that an edit changes
    the exchange and not its identity. `source` is left as the messages' sender cannot know it: the caller sets it.
    """
    in_order = sorted(messages, key=lambda m: (m.at, len(m.id), m.id))
    told = Told(creator, in_order)
    for message in in_order:
        if message.person.role in {"twin", "bot"} or not message.text.strip():
            told.by_machine(message)
        elif message.person.key in creator:
            told.by_creator(message)
        else:
            told.by_member(message)
    return [exchange_of(question) for question in told.questions if question.answer]


class Told:
    """The conversation as read so far."""

    def __init__(self, creator: frozenset[str], messages: Sequence[Message]) -> None:
        self.questions: list[Question] = []
        # Place -> its questions, those with the latest messages last.
        self._touched: defaultdict[str, dict[Question, None]] = defaultdict(dict)
        self._creator = creator
        self._of: dict[str, Question] = {}  # message id -> the question it belongs to, as question, answer or nod
        self._by: dict[str, str] = {}  # message id -> who wrote it
        self._last: dict[str, Message] = {}  # place -> what was said there last
        self._last_of: dict[tuple[str, str], Message] = {}  # place and person -> what they said there last
        self._creator_names = {m.person.name for m in messages if m.person.key in creator}
        # Person -> when they last spoke anywhere and under which name, the longest silent first.
        self._spoke: dict[str, tuple[datetime, str, str]] = {}
        # What the creator answers by a reply is not what they answer without one.
        self._replied = {m.reply_to for m in messages if m.reply_to and m.person.key in creator}

    def by_machine(self, message: Message) -> None:
        """What a bot says, or a picture without words, only stands between others."""
        self._note(message, None)

    def by_member(self, message: Message) -> None:
        """A member's message starts a question, continues one, nods at an answer, or is talk."""
        question = self._continued(message)
        if is_talk(message.text) or thanks(message.text):
            self._settle(message)
        else:
            question = question or self._started(message)
            question.asked.append(message)
            question.text = text_of(question.asked)
            question.replied = question.replied or message.id in self._replied
            self._touch(question, message)
        self._note(message, question)

    def _continued(self, message: Message) -> Question | None:
        """The question that a member's message belongs to, if it is not a new one."""
        if message.reply_to:
            replied = self._of.get(message.reply_to)
            mine = replied is not None and replied.asker == message.person.key
            return replied if replied and mine and (replied.open or is_talk(message.text)) else None
        for question in self._recent(message, NEAR):
            if question.asker != message.person.key:
                continue
            waited = message.at - question.last.at
            if not question.open:
                return question if is_talk(message.text) and waited <= DIALOGUE else None
            if not question.waits and asks(message.text) and len(question.words) <= 2:
                return None  # a remark on something else, then a question
            undisturbed = self._last[message.place.key] is question.asked[-1] and not asks(message.text)
            going_on = question.asked_back or waited <= STITCH or (undisturbed and waited <= DIALOGUE)
            return question if going_on and not self._meant_elsewhere(message) else None
        return None

    def _started(self, message: Message) -> Question:
        """A new question, with what can be told about whom it is for."""
        place, before = message.place, self._last.get(message.place.key)
        told = [q for q in self._recent(message, DIALOGUE) if q.asker == message.person.key]
        two = {*self._creator, message.person.key}
        in_dialogue = before is not None and before.person.key in two and any(not q.open for q in told)
        elsewhere = self._meant_elsewhere(message) or self._remarks(message)
        self.questions.append(
            Question(
                len(self.questions),
                message,
                to_creator=self._meant_for_creator(message) or (in_dialogue and not elsewhere),
                elsewhere=elsewhere,
                opener=bool(place.thread) and (before is None or message.at - before.at > WINDOW),
            )
        )
        return self.questions[-1]

    def _meant_for_creator(self, message: Message) -> bool:
        replied = self._by.get(message.reply_to or "") in self._creator
        named = any(calls(message.text, name) for name in self._creator_names)
        return replied or named or bool(self._creator & set(message.mentions))

    def _meant_elsewhere(self, message: Message) -> bool:
        """Whether a member's message speaks to another member."""
        if self._meant_for_creator(message):
            return False
        replied = self._by.get(message.reply_to or "", message.person.key)
        return bool(message.mentions) or replied != message.person.key or bool(self._called(message))

    def _called(self, message: Message) -> set[str]:
        """Which members are called by name, of those that spoke within `WINDOW` before."""
        found, text, since = set(), message.text.casefold(), message.at - WINDOW
        for key, (at, folded, name) in reversed(self._spoke.items()):
            if at < since:
                break
            if folded in text and calls(message.text, name):
                found.add(key)
        return found - {message.person.key, *self._creator}

    def _remarks(self, message: Message) -> bool:
        """Whether a member only remarks on, or answers, what another one asked."""
        return not asks(message.text) and any(
            question.open and question.waits and question.asker != message.person.key
            for question in self._recent(message, DIALOGUE)
        )

    def _settle(self, message: Message) -> None:
        """An asker who thanks before the creator said anything was helped by somebody else."""
        if not thanks(message.text):
            return
        for question in self._recent(message, NEAR):
            if question.asker == message.person.key and question.open:
                last = self._last[message.place.key]
                question.settled = last.person.key not in {message.person.key, *self._creator}
                return

    def by_creator(self, message: Message) -> None:
        """The creator's message answers a question, carries on an answer, asks back, or is talk."""
        question, rule = self._target(message)
        self._note(message, question)
        if question is None or not self._says_something(own_words(message.text), question):
            return
        if asks_back(message.text):
            question.asked_back = question.open
            return
        if question.open:
            question.rule = rule
        question.answer.append(message)
        self._touch(question, message)

    def _says_something(self, text: str, question: Question) -> bool:
        """Whether the creator's words can be an answer to `question`."""
        if is_talk(text):
            return question.open and agrees(text) and suits(question.text, text) > 0
        return not is_promise(text)

    def _target(self, message: Message) -> tuple[Question | None, Rule]:
        """The question that the creator's message is about, and the evidence for it."""
        if message.reply_to:
            return self._of.get(message.reply_to), "reply"
        if (mentioned := self._mentioned(message)) is not None:
            return mentioned, "mention"
        if message.mentions:
            return None, "mention"
        carried, carried_fit = self._carried_on(message)
        rule: Rule = "thread" if message.place.thread else "near"
        found, best, newer = None, 0.0, 0
        for question in self._recent(message, WINDOW):
            if question.open and question is not carried:
                fit = self._fit(question, message, newer=newer)
                if fit > best:
                    found, best = question, fit
                newer += question.waits and not question.replied
        if carried is not None and carried_fit >= best:
            return carried, rule if carried.open else carried.rule
        return (found, rule) if best >= ENOUGH else (None, rule)

    def _carried_on(self, message: Message) -> tuple[Question | None, float]:
        """The question that the creator was just answering or asking about, and how likely it is this one still."""
        before = self._last_of.get((message.place.key, message.person.key))
        if before is None or message.at - before.at > STITCH or before.id not in self._of:
            return None, 0.0
        question, last = self._of[before.id], self._last[message.place.key]
        shared = len(words(message.text) & (question.words | words(text_of(question.answer))))
        if last is before:
            return question, 2.2 + shared
        # Somebody nodded, talked or asked in between.
        return question, (0.5 if asks(last.text) or last.person.role == "bot" else 1.5) + shared

    def _mentioned(self, message: Message) -> Question | None:
        """The latest question of somebody whom the message names, one that waits first."""
        called = {key for key in self._called(message) if not self._is_asked_about(key, message)}
        named = set(message.mentions) | called
        theirs = [q for q in self._recent(message, WINDOW) if q.asker in named] if named else []
        return next((q for q in theirs if q.open), theirs[0] if theirs else None)

    def _is_asked_about(self, person: str, message: Message) -> bool:
        """Whether a name is a word of what others ask: the creator speaks of that then, and calls nobody."""
        _, name, _ = self._spoke[person]
        return any(words(name) & each.words for each in self._recent(message, WINDOW) if each.asker != person)

    def _fit(self, question: Question, message: Message, *, newer: int) -> float:
        """How well an unaddressed message fits a question that waits with `newer` ones."""
        waited = message.at - question.asked[-1].at
        if waited.total_seconds() < seconds_to_write(message.text):
            return 0.0  # the creator was typing already
        shared = min(2, len(words(message.text) & question.words))
        if waited > NEAR and not (message.place.thread or shared):
            return 0.0
        weight = recency(waited, in_thread=bool(message.place.thread)) - 0.3 * min(newer, 3)
        weight += 1.5 * shared + suits(question.text, message.text)
        weight += 1.0 * question.to_creator + 1.0 * question.opener + 0.5 * question.asked_back
        # In a thread everybody is welcome to answer what one asked another.
        weight -= (1.0 if message.place.thread else 2.0) * question.elsewhere
        weight -= 2.0 * question.settled + 1.5 * question.replied
        return weight - (0.0 if question.waits else 0.7 if len(question.asked) > 1 else 1.2)

    def _recent(self, message: Message, limit: timedelta) -> list[Question]:
        """The questions of this conversation that were touched within `limit` before, the latest first."""
        found, since, oldest = [], message.at - limit, message.at - 4 * WINDOW
        for question in reversed(self._touched[message.place.key]):
            if question.last.at < since:
                break
            if question.asked[0].at >= oldest:
                found.append(question)
        return sorted(found, key=lambda each: each.number, reverse=True)

    def _touch(self, question: Question, message: Message) -> None:
        question.last = message
        touched = self._touched[question.asked[0].place.key]
        touched.pop(question, None)
        touched[question] = None

    def _note(self, message: Message, question: Question | None) -> None:
        self._by[message.id] = message.person.key
        self._spoke.pop(message.person.key, None)
        self._spoke[message.person.key] = message.at, first_name(message.person.name)[1], message.person.name
        self._last[message.place.key] = message
        self._last_of[message.place.key, message.person.key] = message
        if question is not None:
            self._of[message.id] = question


def recency(waited: timedelta, *, in_thread: bool) -> float:
    """What the time between a question and an unaddressed message says: much at once, little after hours."""
    if waited <= STITCH:
        return 1.5
    if in_thread or waited <= 2 * DIALOGUE:
        return 1.2
    return 1.0 if waited <= NEAR else 0.0


def exchange_of(question: Question) -> Exchange:
    """The exchange that a question and its answer make; its time is that of the first answering message."""
    first = question.answer[0]
    return Exchange(
        id=name_uuid("exchange", first.place.key, first.id),
        question=question.text,
        answer=own_words(text_of(question.answer)),
        author=first.person,
        place=first.place,
        at=first.at,
        source=Source.CHAT_EXPORT,
        question_source=Source.CHAT_EXPORT,
        asker=question.asked[0].person,
        question_ids=tuple(message.id for message in question.asked),
        answer_ids=tuple(message.id for message in question.answer),
        pairing=question.rule,
        url=first.url,
    )


def text_of(messages: Sequence[Message]) -> str:
    return "\n".join(message.text.strip() for message in messages)
