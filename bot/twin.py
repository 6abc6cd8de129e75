"""The answer path, from a member's message to a delivered, journalled reply. Read `Twin.answer` and you know the bot.

The twin owns no SQL, no vectors and no model: it asks memory and the voice. What acknowledges a message has journalled
it first, and what is answered is journalled with its notes, voice, prompt hash and timings.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from bot.platform import Reply
from bot.policy import MOST_CHARACTERS, decide
from bot.wording import language_of, say
from infra.errors import ServiceTrouble, UserMistake
from infra.logs import about, tell
from infra.traces import span
from infra.voice.chat import Audience, Finish, Sampling, Turn, Voice
from infra.voice.thinking import Shown, visible
from memory.journal import Journal
from memory.messages import Answer, Event, Message, Person, Place, Source, name_uuid
from memory.persona import PersonaCard
from memory.prompt import MOST_TOKENS, prompt_sha256, render
from memory.recall import Recaller, Recollection
from memory.remember import answer_event, message_event, question_event, remember
from memory.vectors import Scope

# A follow-up rarely reaches further back than this, and every turn costs prompt tokens on a small machine.
HISTORY_EXCHANGES = 2
# A voice that says nothing for this long has stalled: what there is of the answer is sent as it is.
STALL_S = 45.0
# Of so many people and places it is noted when they asked last, before those who were long silent are dropped.
MOST_RATED = 4096

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Manner:
    """How the twin answers: its card, how much it may recall and say, and below which confidence it abstains.

    Whether it is asked to think first, and whether members see that. Thinking that comes unasked is never shown.
    """

    persona: PersonaCard
    sampling: Sampling
    notes: int
    budget_tokens: int
    threshold: float
    thinks: bool = False
    shows_thinking: bool = False


class Twin:
    """Answers one message at a time for any number of conversations at once; safe to call concurrently."""

    def __init__(
        self,
        journal: Journal,
        recall: Recaller,
        *,
        voice: Voice,
        manner: Manner,
        creator: frozenset[str],
        silenced: Callable[[], bool],
        clock: Callable[[], datetime],
    ) -> None:
        self._journal, self._recall, self._voice = journal, recall, voice
        self._manner, self._creator, self._silenced, self._clock = manner, creator, silenced, clock
        self._asked: dict[str, deque[float]] = {}
        self._answering: set[str] = set()

    @property
    def language(self) -> str:
        """The language it speaks where the member's is not known."""
        return self._manner.persona.language

    async def answer(
        self,
        message: Message,
        reply: Reply,
        *,
        source: Source,
        language: str = "",
        community: str = "",
        offers: bool = False,
    ) -> Answer:
        """Answer a message once, however often a platform hands it over, and also when two do so at the same time.

        `language` is the member's, where the platform knows it, and `community` the server or group as PLATFORM:ID:
        either may have a voice of its own. A platform that `offers` lets the member decide whether
        a question goes to the creator's inbox; otherwise it goes there by itself. Returns what was delivered; what the
        policy ignores, and what was answered before, delivers nothing. Raises ServiceTrouble only when the journal or
        the platform fails: a memory or voice that fails becomes a reply that says so.
        """
        identity = blank(message, "declined", "").id
        again = blank(message, "declined", "this message is answered already")
        if identity in self._answering:
            return again
        self._answering.add(identity)
        try:
            if (await asyncio.to_thread(self._journal.answer, identity)) is not None:
                return again
            language = language or language_of(message.text, self._manner.persona.language)
            audience = Audience(community, language)
            with about(answer=identity), span("answer", answer=identity):
                return await self._answer(message, reply, source=source, audience=audience, offers=offers)
        finally:
            self._answering.discard(identity)

    async def _answer(
        self, message: Message, reply: Reply, *, source: Source, audience: Audience, offers: bool
    ) -> Answer:
        """Decide, journal, recall, render, speak, deliver, journal: the whole path, in this order."""
        started, language = time.perf_counter(), audience.language

        # 1 decide
        decision = decide(
            message,
            silenced=await asyncio.to_thread(self._silenced),
            # A private chat may have its person's number, as on Telegram.
            asked_last_minute=self._rate(f"by {message.person.key}"),
            place_last_minute=self._rate(f"in {message.place.key}"),
        )
        if decision.action == "ignore":
            return blank(message, outcome="declined", reason=decision.reason)

        # 2 journal the question before anything acknowledges it
        began = time.perf_counter()
        with span("journal"):
            await self._remember(message_event(message, source))
        timings = {"journal": since(began)}
        if decision.action == "say":
            text = say(decision.reason, language, **self._facts(message))
            return await self._finish(message, reply, replace(blank(message, "declined", decision.reason), text=text))

        # 3 recall; a short follow-up may only make sense beside the question before it
        began = time.perf_counter()
        try:
            with span("recall"):
                history = await asyncio.to_thread(self._history, message)
                recollection = await asyncio.to_thread(self._recollect, message, history)
        except ServiceTrouble as trouble:
            return await self._fail(message, reply, source=source, language=language, reason=str(trouble))
        parts = {f"recall_{name}": took for name, took in recollection.timings_ms.items()}
        timings |= {"recall": since(began), **parts}
        found = replace(blank(message, "answered", "a note fits the question"), notes=recollection.notes)
        if recollection.confidence < self._manner.threshold:
            if not offers:
                await self._remember(question_event(message, source))
            reason = f"no note fits well enough ({recollection.confidence:.2f} < {self._manner.threshold:.2f})"
            text = say("abstained_offer" if offers else "abstained", language, **self._facts(message))
            missed = replace(found, outcome="abstained", reason=reason, notes=(), text=text, timings_ms=timings)
            return await self._finish(message, reply, missed)

        # 4 render: the one renderer, which training uses too
        turns = render(
            self._manner.persona,
            notes=recollection.notes,
            history=history,
            question=message.text,
            budget_tokens=self._manner.budget_tokens,
            thinking=self._manner.thinks,
        )
        found = replace(found, prompt_sha256=prompt_sha256(turns))

        # 5 speak
        try:
            with span("speak"):
                spoken = await self._speak(
                    turns, reply, found, conversation=conversation_of(message), audience=audience
                )
        except (ServiceTrouble, UserMistake) as error:
            voice = error.voice if isinstance(error, ServiceTrouble) else ""
            return await self._fail(message, reply, source=source, language=language, reason=str(error), voice=voice)

        # 6 deliver and 7 journal
        timings |= {**spoken.timings_ms, "total": since(started)}
        return await self._finish(message, reply, replace(spoken, timings_ms=timings))

    async def _speak(
        self, turns: Sequence[Turn], reply: Reply, found: Answer, *, conversation: str, audience: Audience
    ) -> Answer:
        """`found` with what the voice says, streamed to the reply. Raises ServiceTrouble when it says nothing.

        A voice that breaks off or stalls after its first words leaves what there is: half an answer with its sources
        helps more than an apology.
        """
        said: list[str] = []
        shown = Shown(thinking=self._manner.thinks and self._manner.shows_thinking)
        finish: Finish | None = None
        reason, voice = found.reason, ""
        pieces = self._voice.stream(turns, self._manner.sampling, conversation=conversation, audience=audience)
        try:
            while (piece := await asyncio.wait_for(anext(pieces, None), STALL_S)) is not None:
                said.append(shown.feed(piece.text))
                finish = piece.finish or finish
                voice = finish.voice if finish else piece.voice or voice
                if said[-1]:
                    await reply.preview(said[-1])
        except (ServiceTrouble, TimeoutError) as error:
            reason = f"the voice broke off: {error or 'it stalled'}"
            voice = error.voice or voice if isinstance(error, ServiceTrouble) else voice
            if not "".join(said).strip():
                raise ServiceTrouble(reason, voice=voice) from error
        finally:
            await pieces.aclose()
        text = "".join(said).strip()
        if not text:
            raise ServiceTrouble("The voice ended without an answer.", voice=voice)
        if finish is None:
            return replace(found, text=f"{text}…", reason=reason, voice=voice)
        timings = {"queue": finish.queue_ms, "first_token": finish.first_token_ms}
        return replace(found, text=text, voice=voice, timings_ms=timings)

    async def _fail(
        self, message: Message, reply: Reply, *, source: Source, language: str, reason: str, voice: str = ""
    ) -> Answer:
        """Say that something is broken; the question waits in the inbox. `voice` is the one that failed, if one did."""
        await self._remember(question_event(message, source))
        failed = replace(blank(message, "failed", reason), text=say("failed", language), voice=voice)
        return await self._finish(message, reply, failed)

    async def _finish(self, message: Message, reply: Reply, answer: Answer) -> Answer:
        """Journal what is about to be shown, then show it: a crash between the two repeats nothing to the member."""
        await self._remember(answer_event(answer, message, at=self._clock()))
        took = {f"{stage}_ms": each for stage, each in answer.timings_ms.items()}
        tell(log, "an answer is journalled", outcome=answer.outcome, voice=answer.voice, **took)
        began = time.perf_counter()
        with span("deliver"):
            await self.show(message, reply, answer)
        tell(log, "an answer is delivered", deliver_ms=since(began))
        return answer

    async def show(self, message: Message, reply: Reply, answer: Answer) -> None:
        """Deliver an answer that is journalled, and journal the messages that show it: replies to them continue it."""
        shown = await reply.deliver(answer)
        twin = Person(message.place.platform, "twin", role="twin")
        parts = [
            Message(identity, twin, message.place, self._clock(), answer.text, reply_to=message.id)
            for identity in shown
        ]
        await self._remember(*(message_event(part, Source.TWIN) for part in parts))

    async def draft(self, question: str, place: Place) -> tuple[str, str, tuple[str, ...]]:
        """What the twin would say to a question that it should not answer alone, the voice that would, and from what.

        For the creator's eyes: nothing is journalled. Empty when memory or voice cannot be reached.
        """
        try:
            notes = (await asyncio.to_thread(self.recollect, question, place)).notes
            turns = render(
                self._manner.persona,
                notes=notes,
                history=(),
                question=question,
                budget_tokens=self._manner.budget_tokens,
                thinking=self._manner.thinks,
            )
            pieces = [piece async for piece in self._voice.stream(turns, self._manner.sampling)]
        except (ServiceTrouble, UserMistake):
            return "", "", ()
        voice = pieces[-1].finish.voice if pieces[-1].finish else ""
        return visible("".join(piece.text for piece in pieces)), voice, tuple(note.id for note in notes)

    async def _remember(self, *events: Event) -> None:
        await asyncio.to_thread(remember, self._journal, events, creator=self._creator)

    def recollect(self, words: str, place: Place, *, budget_tokens: int = MOST_TOKENS) -> Recollection:
        """What memory has on some words, as far as `place` may see it."""
        scope, limit = Scope(place.community), self._manner.notes
        return self._recall.recall(words, scope=scope, limit=limit, budget_tokens=budget_tokens)

    def _recollect(self, message: Message, history: Sequence[Turn]) -> Recollection:
        """Notes for the message; when it finds none, for it and the question before it together."""
        budget = self._manner.budget_tokens
        first = self.recollect(message.text, message.place, budget_tokens=budget)
        earlier = [turn.content for turn in history if turn.role == "user"]
        if first.confidence >= self._manner.threshold or not earlier:
            return first
        both = self.recollect(f"{earlier[-1]}\n{message.text}", message.place, budget_tokens=budget)
        return max(first, both, key=lambda found: found.confidence)

    def _history(self, message: Message) -> list[Turn]:
        """What was said in this conversation before `message`, oldest first.

        The chain of replies where there is one. Else a thread or a private chat is one conversation; in a busy channel
        what others asked before is none of this member's.
        """
        if message.reply_to:
            chain = self._journal.chain(message.place, message.reply_to, 2 * HISTORY_EXCHANGES)
            named = message.place.visibility != "private"
            return [spoken_turn(each, self._speaker(each) if named else "") for each in chain]
        if message.place.visibility != "private" and not message.place.thread:
            return []
        past = self._journal.conversation(message.place, HISTORY_EXCHANGES)
        answered = [(question, answer.text) for question, answer in past if answer.outcome == "answered"]
        return [turn for asked, said in answered for turn in (Turn("user", asked), Turn("assistant", said))]

    def _speaker(self, message: Message) -> str:
        """Who spoke, as the model is told: by id, since anybody may go by the creator's name or by a sentence."""
        return self._manner.persona.name if message.person.key in self._creator else "A member"

    def _rate(self, key: str) -> int:
        """How often this person asked, or was asked in this place, in the last minute; counts this time too."""
        now = time.monotonic()
        if len(self._asked) > MOST_RATED:
            self._asked = {each: times for each, times in self._asked.items() if now - times[-1] <= 60}
        times = self._asked.setdefault(key, deque(maxlen=64))
        while times and now - times[0] > 60:
            times.popleft()
        times.append(now)
        return len(times) - 1

    def _facts(self, message: Message) -> dict[str, object]:
        """What the texts may mention."""
        return {
            "creator": self._manner.persona.name,
            "length": len(message.text),
            "most": MOST_CHARACTERS,
            "seconds": 60,
        }


def blank(message: Message, outcome: Literal["answered", "declined", "failed"], reason: str) -> Answer:
    """An answer to `message` that says nothing yet."""
    identity = name_uuid("answer", message.place.key, message.id, str(message.revision))
    return Answer(identity, message.id, "", outcome, reason, (), voice="", prompt_sha256="", timings_ms={})


def conversation_of(message: Message) -> str:
    """One id for all that belongs to a conversation: a thread, a private chat, what one member asks in a channel.

    Derived, so that a voice on another server does not learn who is who.
    """
    place = message.place
    shared = place.thread or place.visibility == "private"
    return name_uuid("conversation", place.key, "" if shared else message.person.key)


def spoken_turn(message: Message, speaker: str) -> Turn:
    """An earlier message as the model reads it; where several people talk, each line says who spoke."""
    if message.person.role == "twin":
        return Turn("assistant", message.text)
    return Turn("user", f"{speaker}: {message.text}" if speaker else message.text)


def since(started: float) -> float:
    """Milliseconds since `started`, a `time.perf_counter` value."""
    return round((time.perf_counter() - started) * 1000, 2)
