"""Being asked on Discord: every way to ask, and what comes back."""

from pathlib import Path

from tests.bot.discord_stage import KNOWN, SAYS, UNKNOWN, actions, on_discord


async def test_a_mention_is_answered_by_a_reply(tmp_path: Path) -> None:
    async with on_discord(tmp_path) as at:
        asked = await at.asked(KNOWN)
        answer = await at.answer()

        assert SAYS in answer.content
        assert answer.reply_to == asked
        assert at.heard(asked) == KNOWN
