"""The answer path on a real memory, with a voice that reads a script: once, in the right conversation, never silent."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio

import bot.twin
from bot.policy import MOST_A_MINUTE
from infra.errors import ServiceTrouble
from memory.messages import Answer, Message, Person, Place, Source
from memory.recall import Recollection
from memory.remember import message_event, remember
from tests.bot.stage import Stage, staged

CHANNEL = Place("discord", "10", name="general")
BOB = Person("discord", "5", "Bob")
KNOWN = "how warm should the sourdough be?"
UNKNOWN = "who wins the football cup?"


@dataclass
class Heard:
    """A reply that keeps what it is given."""

    pieces: list[str] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    async def preview(self, piece: str) -> None:
        self.pieces.append(piece)

    async def deliver(self, answer: Answer) -> tuple[str, ...]:
        self.answers.append(answer)
        return (f"shown-{answer.question_id}",)


@pytest_asyncio.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path, creator="discord:1") as found:
        yield found


def asking(
    text: str, identity: str = "100", *, person: Person = BOB, place: Place = CHANNEL, reply_to: str | None = None
) -> Message:
    return Message(identity, person, place, datetime.now(UTC), text, reply_to=reply_to)


async def answer(stage: Stage, message: Message, *, offers: bool = False) -> tuple[Answer, Heard]:
    heard = Heard()
    return await stage.community.twin.answer(message, heard, source=Source.DISCORD_API, offers=offers), heard


async def test_a_message_is_answered_once_however_often_it_comes(stage: Stage) -> None:
    first, heard = await answer(stage, asking(KNOWN))
    second, silence = await answer(stage, asking(KNOWN))

    assert (first.outcome, len(heard.answers)) == ("answered", 1)
    assert second.reason == "this message is answered already"
    assert not silence.answers


async def test_of_two_at_the_same_time_one_is_answered(stage: Stage) -> None:
    stage.voice.pace_s = 0.01
    both = await asyncio.gather(*(answer(stage, asking(KNOWN)) for _ in range(2)))

    assert sorted(len(heard.answers) for _, heard in both) == [0, 1]


async def test_a_voice_that_breaks_off_leaves_what_there_is(stage: Stage) -> None:
    stage.voice.breaks_after = 3

    found, _ = await answer(stage, asking(KNOWN))

    assert (found.outcome, found.text, found.voice) == ("answered", "Keep it at…", "tiny+test")
    assert found.notes


async def test_a_voice_that_stalls_is_not_waited_for(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bot.twin, "STALL_S", 0.1)
    stage.voice.pace_s = 5

    found, _ = await answer(stage, asking(KNOWN))

    assert found.outcome == "failed"
    assert [item.question for item in stage.journal.inbox()] == [KNOWN]


async def test_a_voice_that_is_down_is_said_and_the_question_kept(stage: Stage) -> None:
    stage.voice.breaks_after = 0

    found, heard = await answer(stage, asking(KNOWN))

    assert found.outcome == "failed"
    assert "went wrong" in heard.answers[0].text
    assert [item.question for item in stage.journal.inbox()] == [KNOWN]


async def test_a_voice_that_says_nothing_has_failed(stage: Stage) -> None:
    stage.voice.words = ""

    found, _ = await answer(stage, asking(KNOWN))

    assert (found.outcome, found.voice) == ("failed", "tiny+test")


async def test_a_memory_that_is_down_is_said_and_the_question_kept(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(words: str, place: Place, *, budget_tokens: int) -> Recollection:
        raise ServiceTrouble("The index cannot be reached.")

    monkeypatch.setattr(stage.community.twin, "recollect", gone)

    found, _ = await answer(stage, asking(KNOWN))

    assert (found.outcome, found.reason) == ("failed", "The index cannot be reached.")
    assert [item.question for item in stage.journal.inbox()] == [KNOWN]


async def test_what_it_does_not_know_waits_for_the_member_s_word_where_that_can_be_asked(stage: Stage) -> None:
    offered, _ = await answer(stage, asking(UNKNOWN), offers=True)
    assert stage.journal.inbox() == []
    passed, _ = await answer(stage, asking(UNKNOWN, "101"))

    assert "Shall I pass" in offered.text
    assert "I have passed" in passed.text
    assert len(stage.journal.inbox()) == 1


async def test_a_conversation_has_one_name_that_names_nobody(stage: Stage) -> None:
    """By which a voice may tell conversations apart; in a channel each member has one of their own."""
    charlie = Person("discord", "6", "Charlie")
    thread, private = replace(CHANNEL, thread="7"), Place("discord", "55", visibility="private")
    asked = [(BOB, CHANNEL), (BOB, CHANNEL), (charlie, CHANNEL), (BOB, thread), (charlie, thread), (BOB, private)]
    for number, (person, place) in enumerate(asked):
        await answer(stage, asking(KNOWN, str(200 + number), person=person, place=place))

    channel, again, others, threads, theirs, alone = stage.voice.conversations

    assert (channel, threads) == (again, theirs)
    assert len({channel, others, threads, alone}) == 4
    assert not {"5", "6", "10", "55"} & {channel, others, threads, alone}


async def test_in_a_busy_channel_others_questions_are_no_context(stage: Stage) -> None:
    await answer(stage, asking(KNOWN))
    await answer(
        stage, asking("which flour do you use for baguettes?", "101", person=Person("discord", "6", "Charlie"))
    )

    assert [turn.role for turn in stage.voice.asked[-1]] == ["system", "user"]


async def test_the_chain_of_replies_is_the_context_and_says_who_spoke(stage: Stage) -> None:
    await answer(stage, asking(KNOWN))
    await answer(stage, asking("and which flour for baguettes?", "101", reply_to="shown-100"))

    _, asked, said, _ = stage.voice.asked[-1]
    assert (asked.role, asked.content) == ("user", f"A member: {KNOWN}")
    assert (said.role, said.content) == ("assistant", "Keep it at 24 degrees, friend. Trust the dough.")


async def test_a_thread_is_a_conversation(stage: Stage) -> None:
    thread = replace(CHANNEL, thread="77")
    await answer(stage, asking(KNOWN, place=thread))
    await answer(stage, asking("which flour do you use for baguettes?", "101", place=thread))

    assert [turn.role for turn in stage.voice.asked[-1]] == ["system", "user", "assistant", "user"]


async def test_one_friendly_notice_then_quiet(stage: Stage) -> None:
    outcomes = [await answer(stage, asking("hello", str(number))) for number in range(MOST_A_MINUTE + 3)]

    texts = [heard.answers[0].text for _, heard in outcomes if heard.answers]
    assert len(texts) == MOST_A_MINUTE + 1
    assert "a lot of questions" in texts[-1]


async def test_what_the_twin_said_is_kept_as_context_and_never_as_memory(stage: Stage) -> None:
    before = stage.journal.counts()["exchanges"]
    await answer(stage, asking(KNOWN))
    remember(
        stage.journal,
        [message_event(asking("thanks", "102", reply_to="shown-100"), Source.DISCORD_API)],
        creator=stage.community.creator,
    )

    shown = stage.journal.said(CHANNEL, "shown-100")
    assert shown is not None
    assert shown[1] is Source.TWIN
    assert stage.journal.counts()["exchanges"] == before


async def test_an_answer_that_was_written_down_and_not_sent_is_found(stage: Stage) -> None:
    class Gone(Heard):
        async def deliver(self, answer: Answer) -> tuple[str, ...]:
            raise ServiceTrouble("The process dies here.")

    with pytest.raises(ServiceTrouble):
        await stage.community.twin.answer(asking(KNOWN), Gone(), source=Source.DISCORD_API)

    ((message, lost),) = stage.journal.unshown("discord", since=datetime(2026, 1, 1, tzinfo=UTC))
    assert (message.id, lost.outcome) == ("100", "answered")
    await stage.community.twin.show(message, Heard(), lost)
    assert stage.journal.unshown("discord", since=datetime(2026, 1, 1, tzinfo=UTC)) == []


async def test_what_it_thinks_is_neither_shown_nor_kept(stage: Stage) -> None:
    stage.voice.words = "<think> the notes say 24 </think> Keep it at 24 degrees."

    found, heard = await answer(stage, asking(KNOWN))

    assert found.text == "Keep it at 24 degrees."
    assert "".join(heard.pieces).strip() == "Keep it at 24 degrees."
    assert [a.text for _, a in stage.journal.conversation(CHANNEL, 1)] == ["Keep it at 24 degrees."]


async def test_thinking_is_shown_where_the_settings_ask_for_it(stage: Stage) -> None:
    twin = stage.community.twin
    twin._manner = replace(twin._manner, thinks=True, shows_thinking=True)
    stage.voice.words = "<think> the notes say 24 </think> Keep it at 24 degrees."

    found, _ = await answer(stage, asking(KNOWN))

    assert " ".join(found.text.split()) == "the notes say 24 Keep it at 24 degrees."
    assert "between <think> and </think>" in stage.voice.asked[-1][0].content


async def test_a_voice_that_only_thinks_has_failed(stage: Stage) -> None:
    stage.voice.words = "<think> the notes say"

    found, heard = await answer(stage, asking(KNOWN))

    assert found.outcome == "failed"
    assert not heard.pieces
