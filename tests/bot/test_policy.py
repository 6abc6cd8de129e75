"""Why the twin answers, says one of its texts, or stays quiet."""

import pytest

from bot.policy import MOST_A_MINUTE, MOST_CHARACTERS, decide
from memory.messages import Message, Person, Place
from tests.people import NOON


def message(text: str, role: str = "member") -> Message:
    return Message("1", Person("telegram", "7", role=role), Place("telegram", "9"), NOON, text)


@pytest.mark.parametrize(
    ("text", "action", "reason"),
    [
        ("How warm should the dough be?", "answer", "a question in words"),
        ("  ", "ignore", "the message has no text"),
        ("hello!", "say", "greeting"),
        ("你好！", "say", "greeting"),
        ("谢谢", "say", "thanks"),
        ("hello, how warm should the dough be?", "answer", "a question in words"),
        ("x" * (MOST_CHARACTERS + 1), "say", "too_long"),
    ],
)
def test_the_text_decides(text: str, action: str, reason: str) -> None:
    decision = decide(message(text), silenced=False, asked_last_minute=0)

    assert (decision.action, decision.reason) == (action, reason)


@pytest.mark.parametrize("role", ["bot", "twin"])
def test_bots_never_start_a_loop(role: str) -> None:
    assert decide(message("And you?", role), silenced=False, asked_last_minute=0).action == "ignore"


def test_the_kill_switch_silences_every_answer() -> None:
    assert decide(message("How warm?"), silenced=True, asked_last_minute=0).reason == "silenced"


def test_too_many_questions_get_one_notice_and_then_silence() -> None:
    asked = [decide(message("How?"), silenced=False, asked_last_minute=n).action for n in range(MOST_A_MINUTE + 2)]

    assert asked == ["answer"] * MOST_A_MINUTE + ["say", "ignore"]
