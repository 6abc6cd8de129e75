"""Plain values that go into a voice and come out of it. Nothing here knows llama.cpp, HTTP or people."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation as chat templates know it."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Audience:
    """For whom a voice speaks: a community as PLATFORM:ID, a language, or both; empty is any."""

    community: str = ""
    language: str = ""

    def __str__(self) -> str:
        return " in ".join(filter(None, (self.community, self.language))) or "everybody"

    @property
    def wider(self) -> "tuple[Audience, ...]":
        """This one and those that hold it too, the most specific first."""
        return self, Audience(community=self.community), Audience(language=self.language)


EVERYBODY = Audience()


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; the same names, ranges and meaning as OpenAI's chat completions.

    `temperature` 0 is greedy. `seed` None draws one. `stop` texts end the answer and are not part of it.
    `repeat_penalty` is llama.cpp's, over the last 64 tokens; 1.0 switches it off. `schema` is the text of a JSON schema
    that the answer keeps to, as long as `max_tokens` suffices. A request that has waited `timeout_s` seconds in the
    queue is refused as Busy: nobody waits for its answer any more.
    """

    temperature: float = 0.7
    top_p: float = 0.9
    max_tokens: int = 256
    seed: int | None = None
    stop: tuple[str, ...] = ()
    repeat_penalty: float = 1.0
    schema: str = ""
    timeout_s: float | None = None


@dataclass(frozen=True)
class Finish:
    """How an answer ended and what it cost. Times in milliseconds since the request was accepted."""

    reason: FinishReason
    voice: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    queue_ms: float
    first_token_ms: float
    total_ms: float


@dataclass(frozen=True)
class Piece:
    """A piece of an answer: whole characters, never half of one. The last piece carries `finish`.

    `voice` is who speaks; empty where the server behind it does not say.
    """

    text: str
    finish: Finish | None = None
    voice: str = ""


class Voice(Protocol):
    """Anything that can speak: the engine in this process or a server behind HTTP."""

    def stream(
        self, turns: Sequence[Turn], sampling: Sampling, *, conversation: str = "", audience: Audience = EVERYBODY
    ) -> AsyncGenerator[Piece, None]:
        """Pieces of the answer as they come; closing the generator cancels the request and frees its place.

        Requests of the same `conversation` are answered by the same voice, also while a canary answers some; an
        `audience` may have a voice of its own. Raises ServiceTrouble when the queue is full or the voice fails,
        UserMistake when the prompt cannot fit.
        """
        ...
