"""The answer path, from a member's message to a delivered, journalled reply. Read `Twin.answer` and you know the bot.

The twin owns no SQL, no vectors and no model: it asks memory and the voice. What acknowledges a message has journalled
it first, and what is answered is journalled with its notes, voice, prompt hash and timings.
"""

import asyncio
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
from infra.voice.chat import Finish, Sampling, Turn, Voice
from memory.journal import Journal
from memory.messages import Answer, Event, Message, Source, name_uuid
from memory.persona import PersonaCard
from memory.prompt import prompt_sha256, render
from memory.recall import Recall, Recollection
from memory.remember import answer_event, message_event, question_event, remember
from memory.vectors import Scope

# A follow-up rarely reaches further back than this, and every turn costs prompt tokens on a small machine.
HISTORY_EXCHANGES = 2


@dataclass(frozen=True)
class Manner:
    """How the twin answers: its card, how much it may recall and say, and below which confidence it abstains."""

    persona: PersonaCard
    sampling: Sampling
    notes: int
    budget_tokens: int
    threshold: float


class Twin:
    """Answers one message at a time for any number of conversations at once; safe to call concurrently."""

    def __init__(
        self,
        journal: Journal,
        recall: Recall,
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

    async def answer(self, message: Message, reply: Reply, *, source: Source) -> Answer:
        """Decide, journal, recall, render, speak, deliver, journal: the whole path, in this order.

        Returns what was delivered; an "ignore" of the policy delivers nothing. Raises ServiceTrouble only when the
        journal or the platform fails: a voice that fails becomes a reply that says so.
        """
        started = time.perf_counter()
        language = language_of(message.text, self._manner.persona.language)
        history = await asyncio.to_thread(self._history, message)

        # 1 decide
        decision = decide(message, silenced=self._silenced(), asked_last_minute=self._rate(message.person.key))
        if decision.action == "ignore":
            return blank(message, outcome="declined", reason=decision.reason)

        # 2 journal the question before anything acknowledges it
        await self._remember(message_event(message, source))
        if decision.action == "say":
            text = say(decision.reason, language, **self._facts(message))
            return await self._finish(message, reply, replace(blank(message, "declined", decision.reason), text=text))

        # 3 recall; a short follow-up may only make sense beside the question before it
        recollection = await asyncio.to_thread(self._recollect, message, history)
        timings = {"recall": since(started)}
        found = replace(blank(message, "answered", "a note fits the question"), notes=recollection.notes)
        if recollection.confidence < self._manner.threshold:
            await self._remember(question_event(message, source))
            reason = f"no note fits well enough ({recollection.confidence:.2f} < {self._manner.threshold:.2f})"
            text = say("abstained", language, **self._facts(message))
            missed = replace(found, outcome="abstained", reason=reason, notes=(), text=text, timings_ms=timings)
            return await self._finish(message, reply, missed)

        # 4 render: the one renderer, which training uses too
        turns = render(
            self._manner.persona,
            notes=recollection.notes,
            history=history,
            question=message.text,
            budget_tokens=self._manner.budget_tokens,
        )
        found = replace(found, prompt_sha256=prompt_sha256(turns))

        # 5 speak
        try:
            text, finish = await self._speak(turns, reply)
            timings |= {"queue": finish.queue_ms, "first_token": finish.first_token_ms, "total": since(started)}
            spoken = replace(found, text=text, voice=finish.voice, timings_ms=timings)
        except (ServiceTrouble, UserMistake) as error:
            await self._remember(question_event(message, source))
            text = say("failed", language)
            spoken = replace(found, text=text, outcome="failed", reason=str(error), notes=(), timings_ms=timings)

        # 6 deliver and 7 journal
        return await self._finish(message, reply, spoken)

    async def _speak(self, turns: Sequence[Turn], reply: Reply) -> tuple[str, Finish]:
        """Stream the voice to the reply. Raises ServiceTrouble when it breaks off or says nothing."""
        said: list[str] = []
        finish: Finish | None = None
        async for piece in self._voice.stream(turns, self._manner.sampling):
            said.append(piece.text)
            finish = piece.finish or finish
            if piece.text:
                await reply.preview(piece.text)
        text = "".join(said).strip()
        if finish is None or not text:
            raise ServiceTrouble("The voice ended without an answer.")
        return text, finish

    async def _finish(self, message: Message, reply: Reply, answer: Answer) -> Answer:
        """Journal what is about to be shown, then show it: a crash between the two repeats nothing to the member."""
        await self._remember(answer_event(answer, message, at=self._clock()))
        await reply.deliver(answer)
        return answer

    async def _remember(self, *events: Event) -> None:
        await asyncio.to_thread(remember, self._journal, events, creator=self._creator)

    def _recollect(self, message: Message, history: Sequence[Turn]) -> Recollection:
        """Notes for the message; when it finds none, for it and the question before it together."""
        scope = Scope(message.place.community)
        first = self._recall.recall(message.text, scope=scope, limit=self._manner.notes)
        earlier = [turn.content for turn in history if turn.role == "user"]
        if first.confidence >= self._manner.threshold or not earlier:
            return first
        both = self._recall.recall(f"{earlier[-1]}\n{message.text}", scope=scope, limit=self._manner.notes)
        return max(first, both, key=lambda found: found.confidence)

    def _history(self, message: Message) -> list[Turn]:
        """What was said in this conversation before `message`, oldest first; only what the twin answered."""
        past = self._journal.conversation(message.place, HISTORY_EXCHANGES)
        answered = [(question, answer.text) for question, answer in past if answer.outcome == "answered"]
        return [turn for asked, said in answered for turn in (Turn("user", asked), Turn("assistant", said))]

    def _rate(self, person: str) -> int:
        """How often `person` asked in the last minute, counting this time from the next call on."""
        now = time.monotonic()
        times = self._asked.setdefault(person, deque(maxlen=64))
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


def blank(message: Message, outcome: Literal["answered", "declined"], reason: str) -> Answer:
    """An answer to `message` that says nothing yet."""
    identity = name_uuid("answer", message.place.key, message.id, str(message.revision))
    return Answer(identity, message.id, "", outcome, reason, (), voice="", prompt_sha256="", timings_ms={})


def since(started: float) -> float:
    """Milliseconds since `started`, a `time.perf_counter` value."""
    return round((time.perf_counter() - started) * 1000, 2)
