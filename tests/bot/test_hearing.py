"""What follows from messages that are not meant for the twin, apart from any platform."""

from dataclasses import replace
from pathlib import Path

from bot import hearing
from memory.messages import Message, Source
from memory.remember import message_event
from tests.bot.stage import staged
from tests.memory.making import GROUP, said
from tests.people import BOB

MESSAGE = said("1", BOB, "How warm?")
FIRST, SECOND = (replace(MESSAGE, text=text, revision=100) for text in ("How hot?", "How cold?"))
NEXT = replace(MESSAGE, text="How deep?", revision=101)
LATER = replace(MESSAGE, text="How high?", revision=200)


async def heard(folder: Path, *edits: Message) -> list[str]:
    """What the message says after each of these edits."""
    async with staged(folder, creator="telegram:1") as stage:
        await stage.community.remember(message_event(MESSAGE, Source.TELEGRAM_GROUP))
        found = []
        for edit in edits:
            await hearing.edited(stage.community, edit)
            message = stage.journal.message(GROUP, "1")
            found.append(message.text if message else "")
        return found


async def test_the_last_edit_stands_also_of_two_in_one_second(tmp_path: Path) -> None:
    edits = FIRST, SECOND, NEXT, LATER

    assert await heard(tmp_path, *edits) == [each.text for each in edits]


async def test_an_edit_that_is_told_again_changes_nothing(tmp_path: Path) -> None:
    edits = FIRST, SECOND, FIRST, SECOND, NEXT, FIRST, LATER, SECOND, NEXT

    assert (await heard(tmp_path, *edits))[2:] == [SECOND.text] * 2 + [NEXT.text] * 2 + [LATER.text] * 3


async def test_an_edit_that_comes_after_a_later_one_changes_nothing(tmp_path: Path) -> None:
    assert await heard(tmp_path, LATER, FIRST) == [LATER.text] * 2
