"""What the twin says to those it was published to: the persona, from what is public in memory, and nothing else.

Others talk to it through clients of their own, so nothing of it is journalled, passed on or learned from, and what they
send as earlier turns is only what they say was said. Of the steps of `twin.py` these are decide, recall and render.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from bot.policy import MOST_CHARACTERS, decide
from bot.twin import HISTORY_EXCHANGES, Manner
from bot.wording import language_of, say
from infra.errors import ServiceTrouble, UserMistake
from infra.voice.chat import Turn
from memory.messages import Message, Note, Person, Place
from memory.prompt import HISTORY_TOKENS, estimate_tokens, render, system_text
from memory.recall import EVERYBODY, Recaller, Recollection

# Whoever asks from outside is nobody that memory knows.
CALLER = Person("published", "caller")
# Chat templates write some tokens around every turn.
TURN_TOKENS = 8


@dataclass(frozen=True)
class Prepared:
    """What is to be said: `text` as it stands, or what a voice makes of `turns`; `notes` are what it may use."""

    language: str
    text: str = ""
    turns: tuple[Turn, ...] = ()
    notes: tuple[Note, ...] = ()
    abstained: bool = False

    @property
    def tokens(self) -> int:
        """About what the prompt takes."""
        return tokens_of(self.turns)


@dataclass(frozen=True)
class Outside:
    """The twin as others have it. Safe to call from several threads."""

    recall: Recaller
    manner: Manner
    silenced: Callable[[], bool]
    clock: Callable[[], datetime]

    @property
    def label(self) -> str:
        """Whose stand-in it is, in the twin's own language."""
        return say("stand_in", self.manner.persona.language, creator=self.manner.persona.name)

    def at_most(self, turns: Sequence[Turn]) -> int:
        """About how many tokens the prompt may take at the most, before memory was asked."""
        persona, notes = estimate_tokens(system_text(self.manner.persona)), self.manner.budget_tokens
        history = min(tokens_of(turns[:-1]), 2 * HISTORY_EXCHANGES * (HISTORY_TOKENS + TURN_TOKENS))
        return persona + notes + history + tokens_of(turns[-1:]) + 4 * TURN_TOKENS

    def prepared(self, turns: Sequence[Turn]) -> Prepared:
        """What to say to the last of `turns`. Raises UserMistake for turns that are none of a caller's.

        Raises ServiceTrouble where the twin is silenced or memory cannot be asked.
        """
        question, history = asked(turns)
        language, name = language_of(question, self.manner.persona.language), self.manner.persona.name
        if self.silenced():
            raise ServiceTrouble(say("silenced", language, creator=name))
        message = Message("asked", CALLER, Place("published", "caller", visibility="private"), self.clock(), question)
        decision = decide(message, silenced=False, asked_last_minute=0)
        if decision.action == "ignore":
            raise UserMistake(f"There is nothing to answer: {decision.reason}.")
        if decision.action == "say":
            said = say(decision.reason, language, creator=name, length=len(question), most=MOST_CHARACTERS, seconds=60)
            return Prepared(language, said)
        found = self._recollect(question, history)
        if found.confidence < self.manner.threshold:
            return Prepared(language, say("abstained_here", language, creator=name), abstained=True)
        rendered = render(
            self.manner.persona,
            notes=found.notes,
            history=history,
            question=question,
            budget_tokens=self.manner.budget_tokens,
        )
        return Prepared(language, turns=tuple(rendered), notes=found.notes)

    def _recollect(self, question: str, history: Sequence[Turn]) -> Recollection:
        """What anybody may know of the question; of it and the one before together, where it alone finds nothing."""
        first = self._recall(question)
        earlier = [turn.content for turn in history if turn.role == "user"]
        if first.confidence >= self.manner.threshold or not earlier:
            return first
        return max(first, self._recall(f"{earlier[-1]}\n{question}"), key=lambda found: found.confidence)

    def _recall(self, words: str) -> Recollection:
        """EVERYBODY is what is public in the main community: nothing private, and no other community's."""
        manner = self.manner
        return self.recall.recall(words, scope=EVERYBODY, limit=manner.notes, budget_tokens=manner.budget_tokens)


def asked(turns: Sequence[Turn]) -> tuple[str, tuple[Turn, ...]]:
    """The question and what was said before it, as far as it is carried. Raises UserMistake for other turns."""
    if any(turn.role == "system" for turn in turns):
        raise UserMistake("This twin has a system prompt of its own; leave out system and developer messages.")
    if not turns or turns[-1].role != "user":
        raise UserMistake("The last message has to be the user's.")
    return turns[-1].content, tuple(turns[:-1][-2 * HISTORY_EXCHANGES :])


def tokens_of(turns: Sequence[Turn]) -> int:
    return sum(estimate_tokens(turn.content) + TURN_TOKENS for turn in turns)
