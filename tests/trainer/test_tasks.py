"""What the scheduler rings for besides trainings."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from infra.runs import Runs
from infra.settings import load_settings
from memory.journal import Journal
from memory.messages import Source
from memory.remember import message_event, remember
from tests.memory.making import GROUP, said
from tests.people import BOB, CREATOR
from trainer.app import queue_app
from trainer.tasks import now, register_scheduled


def test_what_members_say_expires_by_itself(home: Path) -> None:
    assert "retention" not in queue_app(load_settings(home)).conf.beat_schedule
    config = home / "understudy.toml"
    config.write_text(config.read_text() + "[retention]\ndays = 30\n", encoding="utf-8")
    settings = load_settings(home)
    journal = Journal.open(settings.journal_url)
    chat = [
        replace(said(number, BOB, "Good morning"), at=now() - timedelta(days=days))
        for number, days in (("1", 31), ("2", 1))
    ]
    remember(journal, [message_event(each, Source.TELEGRAM_GROUP) for each in chat], creator=CREATOR)
    app = queue_app(settings)
    register_scheduled(app, Runs(journal.engine), settings)

    app.tasks[app.conf.beat_schedule["retention"]["task"]]()

    assert journal.message(GROUP, "1") is None
    assert journal.message(GROUP, "2") is not None
    journal.close()
