"""Kill -9 while remembering: what was acknowledged is there, nothing is there twice, and the index can follow."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from infra.settings import child_environment
from memory.journal import Journal

# Remembers numbered exchanges for ever and acknowledges each on stdout, after `remember` returned.
WRITER = """
import sys
from memory.journal import Journal
from memory.remember import exchange_event, remember
from tests.memory.making import taught
journal = Journal.open(sys.argv[1])
for number in range(int(sys.argv[2]), 10**6):
    remember(journal, [exchange_event(taught(f"number {number}?", "yes"))], creator=frozenset({"telegram:1"}))
    print(number, flush=True)
"""
KILLS = 8


def test_nothing_acknowledged_is_lost_and_nothing_doubled(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    rng = random.Random(5)
    acknowledged: set[int] = set()
    for _ in range(KILLS):
        # Each life begins a little before where the one before ended, as a client that repeats what was not answered.
        begin = max(0, max(acknowledged, default=0) - 3)
        command = [sys.executable, "-c", WRITER, url, str(begin)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, env=child_environment())
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.2))
        os.kill(writer.pid, signal.SIGKILL)
        rest, _ = writer.communicate()
        acknowledged |= {begin, *(int(line) for line in rest.split(b"\n")[:-1])}

    journal = Journal.open(url)
    questions = [exchange.question for exchange in journal.exchanges()]
    counts = journal.counts()
    waiting = {item.id for item in journal.outbox(10**6)}
    assert {f"number {number}?" for number in acknowledged} <= set(questions)
    assert len(questions) == len(set(questions)) == counts["events"]
    assert waiting == {exchange.id for exchange in journal.exchanges()}
    journal.close()
