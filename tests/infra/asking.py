"""A bot without a platform: asks the running twin of an installation one question, as `understudy bot` would."""

import asyncio
import sys
from pathlib import Path

from bot.events import EventReply
from infra.cli.bots import open_community
from infra.cli.compose import open_journal, settings_of
from memory.messages import Message, Person, Place, Source


def main(home: str, words: str, name: str) -> None:
    """Ask, and print the answer's id."""
    settings = settings_of(Path(home), part="bot")
    journal = open_journal(settings)
    community = open_community(settings, journal)
    message = Message(
        "1", Person("telegram", "2", name=name), Place("telegram", "7", visibility="private"), community.clock(), words
    )
    answer = asyncio.run(community.twin.answer(message, EventReply("en"), source=Source.TELEGRAM_DIRECT))
    sys.stdout.write(answer.id)
    journal.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
