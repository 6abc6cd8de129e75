"""Splitting keeps Markdown whole, previews keep the pace, and the final message arrives whatever the platform does."""

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.delivery import Delivery, split, utf16
from infra.errors import Busy, ServiceTrouble
from memory.messages import Answer

WORDS = st.text(alphabet="ab 。，é\n.👩‍🚀中`", min_size=0, max_size=400)


@given(WORDS, st.integers(min_value=20, max_value=80))
def test_parts_fit_and_lose_nothing_but_blanks(text: str, limit: int) -> None:
    parts = split(text, limit, size=utf16)

    assert all(utf16(part) <= limit for part in parts)
    assert re.sub(r"\s", "", "".join(parts)) == re.sub(r"\s", "", text)


def test_a_code_block_is_closed_and_opened_again() -> None:
    code = "\n".join(f"line_{number} = {number}" for number in range(40))
    text = f"See:\n```python\n{code}\n```\nThat is all."

    parts = split(text, 150)

    assert len(parts) > 2
    assert all(len(part) <= 150 and part.count("```") % 2 == 0 for part in parts)
    assert all(part.startswith("```python\n") for part in parts[1:-1])
    assert "line_39 = 39" in parts[-1]


def test_a_link_is_never_cut() -> None:
    text = "word " * 15 + "[the whole guide](https://ada.example/guide/with/a/long/path)" + " word" * 20

    parts = split(text, 100)

    assert sum("[the whole guide](https://ada.example/guide/with/a/long/path)" in part for part in parts) == 1


def test_sentences_are_preferred_to_words_in_both_scripts() -> None:
    assert split("First sentence here. Second one follows now.", 30)[0] == "First sentence here."
    assert split("第一句话在这里。第二句话跟着来了，还很长。", 14)[0] == "第一句话在这里。"


def test_an_emoji_of_several_characters_stays_whole() -> None:
    parts = split("👩‍🚀" * 20, 33, size=utf16)

    assert all(set(part.split("👩‍🚀")) == {""} for part in parts)


@pytest.mark.parametrize("sign", ["🇨🇳", "1️⃣", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "👍🏽", "कि", "한"])
def test_a_character_of_several_code_points_stays_whole(sign: str) -> None:
    for before in range(4):
        parts = split("x" * before + sign * 30, 40, size=utf16)

        assert "".join(part.replace(sign, "") for part in parts) == "x" * before


@pytest.mark.parametrize(
    "text",
    [
        "```" + "x" * 5000,
        "```" + "x" * 700 + "\n" + "y\n" * 900,
        "```python\nhttps://ada.example/" + "x" * 5000 + "\n```",
        "a" + "\u0301" * 5000,
        "[" * 40_000,
    ],
    ids=["endless opening line", "long opening line", "endless link in code", "endless marks", "brackets"],
)
def test_what_cannot_stay_whole_ends_in_a_few_parts(text: str) -> None:
    """The first three were cut for ever, the fourth into a message for each mark."""
    parts = split(text, 2000)

    assert all(0 < len(part) <= 2000 for part in parts)
    assert len(parts) < 2 + len(text) / 1000
    assert "".join(parts).count(text[-1]) >= text.count(text[-1])


def test_a_link_that_begins_a_message_and_takes_half_of_it_is_not_cut() -> None:
    link = f"[{'the whole guide ' * 8}](https://ada.example/guide)"

    assert split(f"{link} and more words after it, of which there are enough. " * 3, 260)[0].startswith(link)


@dataclass
class Shown:
    """An outlet that notes when it was called, and fails as it is told."""

    interval_s: float = 0.05
    troubles: list[ServiceTrouble] = field(default_factory=list)
    previews: list[tuple[float, str]] = field(default_factory=list)
    typed: int = 0
    sent: list[str] = field(default_factory=list)
    slow_preview_s: float = 0.0

    async def typing(self) -> None:
        self.typed += 1

    async def preview(self, text: str) -> None:
        if self.slow_preview_s:
            await asyncio.sleep(self.slow_preview_s)
        self.previews.append((time.monotonic(), text))
        if self.troubles:
            raise self.troubles.pop(0)

    def parts(self, answer: Answer) -> Sequence[str]:
        return answer.text.split("|")

    async def send(self, part: str) -> str:
        if self.troubles:
            raise self.troubles.pop(0)
        self.sent.append(part)
        return str(len(self.sent))


def answered(text: str) -> Answer:
    return Answer("a", "q", text, "answered", "", (), "tiny", "", {})


async def spoken(outlet: Shown, pieces: int, *, pause_s: float = 0.01, text: str = "one|two") -> tuple[str, ...]:
    delivery = Delivery(outlet)
    await delivery.begin()
    for number in range(pieces):
        await delivery.preview(f"{number} ")
        await asyncio.sleep(pause_s)
    return await delivery.deliver(answered(text))


async def test_typing_is_shown_until_the_first_words() -> None:
    outlet = Shown()
    delivery = Delivery(outlet)
    await delivery.begin()
    await asyncio.sleep(0.05)

    assert outlet.typed == 1
    assert await delivery.deliver(answered("done")) == ("1",)


async def test_previews_keep_the_pace_and_grow() -> None:
    outlet = Shown()

    await spoken(outlet, 40)

    moments = [moment for moment, _ in outlet.previews]
    assert 3 <= len(moments) <= 12
    assert min(later - earlier for earlier, later in pairwise(moments)) >= 0.05
    assert all(after.startswith(before) for (_, before), (_, after) in pairwise(outlet.previews))


async def test_every_part_is_sent_in_order() -> None:
    outlet = Shown()

    assert await spoken(outlet, 2) == ("1", "2")
    assert outlet.sent == ["one", "two"]


async def test_a_platform_that_asks_for_patience_gets_no_previews_until_then() -> None:
    outlet = Shown(interval_s=0.01, troubles=[Busy("later", retry_after_s=1)])

    await spoken(outlet, 30)

    assert len(outlet.previews) == 1
    assert outlet.sent == ["one", "two"]


async def test_the_final_waits_for_as_long_as_it_is_told_and_arrives() -> None:
    outlet = Shown(troubles=[Busy("later", retry_after_s=1), ServiceTrouble("502")])
    delivery = Delivery(outlet)
    began = time.monotonic()

    await delivery.deliver(answered("whole"))

    assert outlet.sent == ["whole"]
    assert time.monotonic() - began >= 1.4


async def test_what_never_can_be_shown_is_said_at_once() -> None:
    outlet = Shown(troubles=[ServiceTrouble("blocked", permanent=True)])

    with pytest.raises(ServiceTrouble, match="blocked"):
        await Delivery(outlet).deliver(answered("whole"))


async def test_a_preview_on_its_way_never_lands_on_the_final() -> None:
    outlet = Shown(slow_preview_s=0.2)
    delivery = Delivery(outlet)
    await delivery.begin()
    await delivery.preview("half ")
    await asyncio.sleep(0.05)

    await delivery.deliver(answered("whole"))

    assert [text for _, text in outlet.previews] == ["half "]
    assert outlet.sent == ["whole"]
    await asyncio.sleep(0.25)
    assert len(outlet.previews) == 1
