"""Kill -9 while remembering, at random moments and before every statement, on SQLite and on PostgreSQL.

The oracle is what the killed processes acknowledged, and what a journal derives that nobody disturbed.
"""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path

import pytest

from infra.errors import ServiceTrouble
from infra.settings import child_environment
from memory.journal import Journal
from memory.remember import remember
from tests.drills.rememberer import CHAPTERS, chapter, story
from tests.people import BOB, CREATOR

STORY = [*story(), chapter(CHAPTERS)]
# How many events the journal holds after each whole number of portions.
WHOLE = [0, *accumulate(len(portion) for portion in STORY)]
KILLS = 20
PORTIONS_A_LIFE = 4
# More than an empty journal's files need, and less than the story's, in bytes.
ROOM = 600 * 1024


class Rememberers:
    """The processes that remember, started and killed by number."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout
        self._started = 0

    def start(self, *, first: int, step: int = 1, fatal: int = 0) -> None:
        """One more process; returns at once."""
        self._stdin.write(f"{first} {step} {fatal}\n")
        self._stdin.flush()
        self._started += 1

    def said(self) -> tuple[int, str, int]:
        """The next line of any of them: its number, what it did, and the figure to that."""
        name, what, figure = self._stdout.readline().split()
        return int(name), what, int(figure)

    def until_all_ended(self) -> tuple[set[int], list[int]]:
        """The portions that were acknowledged, and the exit codes."""
        done: set[int] = set()
        codes: list[int] = []
        while len(codes) < self._started:
            _, what, figure = self.said()
            done |= {figure} if what == "did" else set()
            codes += [figure] if what == "ended" else []
        self._started = 0
        return done, codes


@contextmanager
def rememberers(url: str) -> Iterator[Rememberers]:
    command = [sys.executable, "-m", "tests.drills.rememberer", url]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=child_environment()
    ) as process:
        yield Rememberers(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=60) == 0


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journal]:
    """The whole story, remembered in one go by nobody who dies."""
    journal = Journal.open(f"sqlite:///{tmp_path_factory.mktemp('undisturbed') / 'journal.db'}")
    for portion in STORY:
        remember(journal, portion, creator=CREATOR)
    yield journal
    journal.close()


def known(journal: Journal) -> dict[str, object]:
    """Everything derived that must not depend on who wrote when."""
    return {
        "exchanges": sorted(journal.exchanges(), key=lambda each: each.id),
        "passages": sorted(journal.passages(), key=lambda each: each.id),
        "documents": [journal.document(f"guide {number}") for number in range(4)],
        "consents": [journal.consent(BOB.key, f"telegram:{place}") for place in range(3)],
        "events": journal.counts()["events"],
    }


def inbox(journal: Journal) -> list[tuple[str, int, str | None]]:
    states = ("open", "answered", "dismissed")
    return [(item.question, item.count, item.exchange_id) for state in states for item in journal.inbox(state=state)]


def assert_index_can_follow(journal: Journal) -> None:
    """Whoever applies the outbox from the first row to the last ends with exactly what there is."""
    index: set[str] = set()
    for item in journal.outbox(10**6):
        index = index | {item.id} if item.op == "upsert" else index - {item.id}
    assert index == {each.id for each in [*journal.exchanges(), *journal.passages()]}


def test_the_story_has_everything_in_it(undisturbed: Journal) -> None:
    counts = undisturbed.counts()

    assert counts["events"] == WHOLE[-1] == (CHAPTERS + 1) * 11
    assert {each.pairing for each in undisturbed.exchanges()} == {"reply", "given"}
    assert counts["exchanges"] == (CHAPTERS + 1) * 2
    assert counts["passages"] == 8
    assert any(item.op == "delete" for item in undisturbed.outbox(10**6))
    assert {count for _, count, _ in inbox(undisturbed)} == {1}


def test_nothing_acknowledged_is_lost_and_nothing_doubled(journal_url: str, undisturbed: Journal) -> None:
    rng = random.Random(5)
    first, acknowledged, codes = 0, -1, list[int]()
    with rememberers(journal_url) as processes:
        for _ in range(KILLS):
            # Each life begins a little before where the one before ended, as one that repeats what was not answered.
            processes.start(first=max(0, first - 2), fatal=-1)
            _, _, pid = processes.said()
            while acknowledged < min(first + PORTIONS_A_LIFE, len(STORY) - 1):
                acknowledged = max(acknowledged, processes.said()[2])
            time.sleep(rng.uniform(0.0, 0.006))
            os.kill(pid, signal.SIGKILL)
            done, code = processes.until_all_ended()
            acknowledged = max([acknowledged, *done])
            codes += code
            journal = Journal.open(journal_url)
            # The last transaction may be in without its acknowledgement; half of it may not.
            assert journal.counts()["events"] in WHOLE[acknowledged + 1 : acknowledged + 3]
            assert_index_can_follow(journal)
            journal.close()
            first = acknowledged + 1
        processes.start(first=max(0, first - 2))
        assert processes.until_all_ended()[1] == [0]

    journal = Journal.open(journal_url)
    assert codes == [-signal.SIGKILL] * KILLS
    assert known(journal) == known(undisturbed)
    assert inbox(journal) == inbox(undisturbed)
    assert_index_can_follow(journal)
    journal.close()


def test_dying_before_any_statement_leaves_all_of_a_transaction_or_nothing(
    journal_url: str, undisturbed: Journal
) -> None:
    journal = Journal.open(journal_url)
    for portion in STORY[:-1]:
        remember(journal, portion, creator=CREATOR)
    before = (journal.counts(), inbox(journal))
    deaths = 0
    with rememberers(journal_url) as processes:
        while True:
            processes.start(first=len(STORY) - 1, fatal=deaths + 1)
            done, codes = processes.until_all_ended()
            if codes == [0]:
                break
            deaths += 1
            assert (done, codes) == (set(), [-signal.SIGKILL])
            assert (journal.counts(), inbox(journal)) == before

    # 11 events, each with at least the row of the event and one derived from it.
    assert deaths > 2 * len(STORY[-1])
    assert known(journal) == known(undisturbed)
    assert inbox(journal) == inbox(undisturbed)
    journal.close()


def test_processes_that_start_and_write_at_once_end_with_what_one_alone_would(
    journal_url: str, undisturbed: Journal
) -> None:
    """Four make the tables at the same moment and then write every fourth portion each; two more repeat them all."""
    with rememberers(journal_url) as processes:
        for first in range(4):
            processes.start(first=first, step=4)
        for _ in range(2):
            processes.start(first=0)
        done, codes = processes.until_all_ended()

    journal = Journal.open(journal_url)
    assert (done, codes) == (set(range(len(STORY))), [0] * 6)
    assert known(journal) == known(undisturbed)
    assert_index_can_follow(journal)
    journal.close()


def test_a_disk_that_fills_up_loses_nothing_and_goes_on_when_there_is_room(
    tmp_path: Path, undisturbed: Journal
) -> None:
    """A limit on the size of files stands for the disk: SQLite's log meets it in the middle of a commit."""
    journal = Journal.open(f"sqlite:///{tmp_path / 'journal.db'}")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    kept = 0
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, hard))
        kept = sum(1 for _ in written_until_trouble(journal))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)

    assert 0 < kept < len(STORY)
    assert journal.counts()["events"] == WHOLE[kept]
    for portion in STORY[kept:]:
        remember(journal, portion, creator=CREATOR)
    assert known(journal) == known(undisturbed)
    journal.close()


def written_until_trouble(journal: Journal) -> Iterator[int]:
    for number, portion in enumerate(STORY):
        try:
            remember(journal, portion, creator=CREATOR)
        except ServiceTrouble:
            return
        yield number
