"""Whether to answer a message, and why not. Pure: everything it judges by is an argument."""

import re
from dataclasses import dataclass
from typing import Literal

from memory.messages import Message

# A question to a community runs to a few hundred characters; a longer one is a document or an attack.
MOST_CHARACTERS = 4000
# Ten questions a minute is more than a person types and less than a loop of two bots sends.
MOST_A_MINUTE = 10
# Two cores answer about this many in one channel; more is a raid, and the channel is told once.
MOST_A_MINUTE_HERE = 40

GREETING = re.compile(
    r"(hi|hello|hey|good (morning|evening|day)|你好|您好|哈喽|嗨|早上好|晚上好)[\s!.,~。！～]*", re.IGNORECASE
)
THANKS = re.compile(r"(thanks?( you)?( so much)?|thx|ty|cheers|谢谢你?|多谢|謝謝|感谢)[\s!.,~。！～]*", re.IGNORECASE)


@dataclass(frozen=True)
class Decision:
    """`action` says what to do and `reason` why, in words that `/why` may show.

    "answer" goes on to recall; "say" replies with the text `reason` names in `bot/texts`; "ignore" stays quiet.
    """

    action: Literal["answer", "say", "ignore"]
    reason: str


def decide(message: Message, *, silenced: bool, asked_last_minute: int, place_last_minute: int = 0) -> Decision:
    """What to do with `message`.

    `asked_last_minute` counts this person's earlier messages of the last 60 seconds, `place_last_minute` everybody's in
    this place.
    """
    text = message.text.strip()
    if message.person.role in {"twin", "bot"}:
        return Decision("ignore", "another bot, or the twin itself, wrote this")
    if not text:
        return Decision("ignore", "the message has no text")
    if silenced:
        return Decision("say", "silenced")
    if asked_last_minute > MOST_A_MINUTE:
        return Decision("ignore", "this person was told to slow down and has not")
    if asked_last_minute == MOST_A_MINUTE:
        return Decision("say", "too_fast")
    if place_last_minute > MOST_A_MINUTE_HERE:
        return Decision("ignore", "this place was told to slow down and has not")
    if place_last_minute == MOST_A_MINUTE_HERE:
        return Decision("say", "too_many_here")
    if len(text) > MOST_CHARACTERS:
        return Decision("say", "too_long")
    if GREETING.fullmatch(text):
        return Decision("say", "greeting")
    if THANKS.fullmatch(text):
        return Decision("say", "thanks")
    return Decision("answer", "a question in words")
