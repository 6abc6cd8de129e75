"""Every way of asking the twin on Telegram, and what an answer looks like."""

from pathlib import Path

from tests.bot.telegram_stage import SAYS, WARM, scene


async def test_a_private_question_is_answered(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        asked = await on.private(WARM)

        answer = await on.answered(on.bob, asked)

        assert SAYS in answer.text
        assert on.labels(answer) == ["👍", "👎"]
