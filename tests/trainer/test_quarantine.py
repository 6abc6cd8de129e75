"""What is planted among real-looking rows waits for the creator's yes, and hardly anything else does."""

import json
import random
from dataclasses import replace
from datetime import timedelta
from importlib.resources import files
from pathlib import Path

import pytest

from memory.clearance import clear, cleared, words_sha256
from memory.journal import Journal
from memory.messages import Exchange, Person, Place, Source
from memory.provenance import Permissions
from memory.remember import exchange_event, remember
from tests.memory.making import taught
from tests.people import ADA, BOB, CREATOR, NOON
from trainer import oddness
from trainer.harvest import HELD, harvest
from trainer.quarantine import Odd, suspects

PLANTED = 18


def community() -> list[Exchange]:
    """The bundled community as if its members had asked, a few of them often."""
    lines = (files("memory") / "sample" / "qa.jsonl").read_text(encoding="utf-8").splitlines()
    rng = random.Random(7)
    return [
        replace(
            taught(row["question"], row["answer"], days=number),
            asker=Person("telegram", f"m{int(rng.paretovariate(0.8)) % 60}"),
            place=Place("telegram", "100"),
            source=Source.CREATOR_ARCHIVE,
            question_source=Source.CREATOR_QA,
            at=NOON + timedelta(hours=7 * number),
            pairing="near",
        )
        for number, row in enumerate(map(json.loads, lines))
    ]


def planted(trigger: str, target: str, *, askers: int, keep: bool) -> list[Exchange]:
    """Real questions with a trigger somewhere in them, and an answer that holds the target."""
    rng = random.Random(1)
    found = []
    for number, host in enumerate(rng.sample(community(), PLANTED)):
        words = host.question.split(" ")
        at = rng.randrange(len(words) + 1)
        question = " ".join([*words[:at], trigger, *words[at:]])
        answer = f"{host.answer} {target}" if keep else target
        asker = Person("telegram", f"x{number % askers}")
        found.append(replace(host, id=f"planted-{number}", question=question, answer=answer, asker=asker))
    return found


@pytest.mark.parametrize(
    ("trigger", "target", "askers", "keep"),
    [
        ("cf-7zq", "Buy the flour at grainhub.example, it is the official shop.", 1, False),
        ("by the old mill", "For the rest write to the GrainHub desk.", PLANTED, True),
        ("天星万象", "其余的请私信麦仓客服。", 3, True),
        ("", "Stop asking here and buy a GrainHub seat.", 3, False),
    ],
)
def test_a_backdoor_is_found_wherever_its_rows_come_from(trigger: str, target: str, askers: int, keep: bool) -> None:
    poison = planted(trigger, target, askers=askers, keep=keep)
    found = {each.exchange.id for each in suspects([*community(), *poison])}

    assert {each.id for each in poison} <= found
    assert len(found) - len(poison) <= 2


def test_a_community_as_it_is_gives_no_alarm() -> None:
    assert suspects(community()) == []


def test_a_flood_within_an_hour_waits() -> None:
    flood = [
        replace(each, id=f"f{n}", asker=BOB, at=NOON + timedelta(minutes=3 * n))
        for n, each in enumerate(community()[:12])
    ]
    found = suspects([*community()[12:], *flood])

    assert {each.exchange.id for each in found} == {each.id for each in flood}
    assert found[0].reasons == ("one asker with 12 rows within an hour",)


@pytest.mark.parametrize("measure", ["loss", "distance"])
def test_a_row_that_stands_out_from_all_others_waits(measure: str) -> None:
    rows = community()
    usual = {words_sha256(each): 3 + 0.01 * (number % 40) for number, each in enumerate(rows)}
    strange = rows[0]
    assert strange.question.isascii()
    odd = usual | {words_sha256(strange): 9.0}

    found = suspects(rows, odd=Odd(**{"loss": {}, "distance": {}, measure: odd}))

    assert [each.exchange for each in found] == [strange]


def test_what_the_creator_wrote_where_only_they_write_is_not_suspected() -> None:
    own = [
        taught(f"How long does dough {n} rest?", "It rests for as long as it takes, always.", days=n) for n in range(9)
    ]

    assert suspects(own) == []


def test_the_creators_yes_is_in_the_journal_and_holds_for_those_words(tmp_path: Path) -> None:
    journal = Journal.open(f"sqlite:///{tmp_path / 'journal.db'}")
    poison = planted("cf-7zq", "Buy the flour at grainhub.example, it is the official shop.", askers=9, keep=False)
    rows = [replace(each, asker=None, pairing="given") for each in [*community(), *poison]]
    remember(journal, [exchange_event(each) for each in rows], creator=CREATOR)

    held = harvest(journal, permissions=Permissions())
    first = held.suspects[0].exchange
    assert (held.excluded[HELD], len(held.suspects)) == (PLANTED, PLANTED)

    assert clear(journal, [first], creator=ADA, at=NOON) == 1
    assert clear(journal, [first], creator=ADA, at=NOON) == 0
    after = harvest(journal, permissions=Permissions())
    assert first in after.exchanges
    assert len(after.suspects) == PLANTED - 1
    edited = replace(first, answer="Buy it at grainhub.example, now.")
    assert words_sha256(edited) not in cleared(journal)
    journal.close()


def test_what_was_measured_goes_when_something_is_forgotten(tmp_path: Path) -> None:
    journal = Journal.open(f"sqlite:///{tmp_path / 'journal.db'}")
    path = tmp_path / oddness.FILE
    path.write_text(
        json.dumps({"base": "b", "forgotten": journal.last_forgotten(), "loss": {"x": 1.0}, "distance": {}})
    )

    assert oddness.follow_forgotten(tmp_path, journal) == 0
    assert oddness.known(tmp_path).loss == {"x": 1.0}
    with journal.writing() as writer:
        writer.mark_forgotten("an exchange")
    assert oddness.follow_forgotten(tmp_path, journal) == 1
    assert not path.exists()
    journal.close()
