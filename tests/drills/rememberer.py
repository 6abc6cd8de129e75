"""A process that starts processes to kill: each remembers a fixed story in portions.

Run as `python -m tests.drills.rememberer URL`. Every line `first step fatal` on stdin starts one process, which takes
each `step`-th portion from number `first` on and says its number once `remember` has returned. Where `fatal` is above 0
it kills itself with SIGKILL before that statement; below 0 it waits in the end, so that who kills it by its number never
meets another process that was given the same one. stdout has `N started PID`, `N did PORTION` and `N ended STATUS`, N
being the number of the process. It is one program and forks, because importing costs a second and dying must be cheap.
"""

import os
import random
import signal
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from itertools import count

import sqlalchemy as sa

from memory.journal import Journal
from memory.messages import Event, Source
from memory.remember import (
    consent_event,
    deletion_event,
    exchange_event,
    message_event,
    passage_event,
    question_event,
    remember,
)
from tests.memory.making import GROUP, document_event, piece, said, taught
from tests.people import ADA, BOB, CREATOR, NOON

CHAPTERS = 40


def chapter(number: int) -> list[Event]:
    """One conversation with everything that happens to one, around an hour of its own."""
    group, minutes = Source.TELEGRAM_GROUP, number * 170
    asked, told, late = (str(3 * number + each) for each in range(3))
    place = replace(GROUP, id=str(number % 3))
    question = said(asked, BOB, f"How warm is oven {number}?", minutes=minutes, place=place)
    answer = said(told, ADA, f"{number} °C.", minutes=minutes + 2, reply_to=asked, place=place)
    edited = replace(answer, text=f"{number + 1} °C，对。", revision=1)
    gone = said(late, ADA, "On Monday.", minutes=minutes + 4, place=place)
    waiting = question_event(question, Source.OWN_DIRECT)
    pieces = [piece(f"guide {number % 4}", each, f"edition {number}, piece {each}") for each in range(2)]
    return [
        *(message_event(each, group) for each in (question, answer, edited, gone)),
        deletion_event(place, late, by=ADA, source=group, at=gone.at + timedelta(minutes=1)),
        waiting,
        exchange_event(taught(f"Oven {number}?", "Warm."), answers=waiting.message_id if number % 2 else ""),
        *(passage_event(each, revision=number // 4) for each in pieces),
        document_event(pieces, revision=number // 4, sha256=str(number)),
        consent_event(BOB, place, granted="yes" if number % 2 else "no", at=NOON + timedelta(hours=number)),
    ]


def story(chapters: int = CHAPTERS) -> list[list[Event]]:
    """Portions of one to four events, here and there out of order, as they might arrive."""
    rng = random.Random(7)
    events = [event for number in range(chapters) for event in chapter(number)]
    for at in range(0, len(events) - 9, 9):
        middle = events[at : at + 9]
        rng.shuffle(middle)
        events[at : at + 9] = middle
    portions = []
    while events:
        size = rng.randint(1, 4)
        portions.append(events[:size])
        events = events[size:]
    return portions


def live(url: str, portions: list[list[Event]], *, name: int, first: int, step: int, fatal: int) -> None:
    """What one process does until it is through or killed."""
    journal = Journal.open(url)
    statements = count(1)

    def die(*_: object) -> None:
        if next(statements) == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    if fatal > 0:
        sa.event.listen(journal.engine, "before_cursor_execute", die)
        sa.event.listen(journal.engine, "commit", die)
    for number in range(first, len(portions), step):
        remember(journal, portions[number], creator=CREATOR)
        tell(f"{name} did {number}")
    while fatal < 0:
        signal.pause()


def main() -> None:
    url, portions = sys.argv[1], story()
    # The last portion is one long transaction of everything that can happen.
    portions.append(chapter(CHAPTERS))
    waiting = []
    for name, line in enumerate(sys.stdin):
        first, step, fatal = map(int, line.split())
        child = os.fork()
        if not child:
            tell(f"{name} started {os.getpid()}")
            live(url, portions, name=name, first=first, step=step, fatal=fatal)
            os._exit(0)
        waiting.append(threading.Thread(target=ended, args=(name, child)))
        waiting[-1].start()
    for each in waiting:
        each.join()


def ended(name: int, child: int) -> None:
    """Say how a process ended."""
    tell(f"{name} ended {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}")


def tell(line: str) -> None:
    """One line in one write: no buffer and no lock that a fork could copy in the middle."""
    os.write(1, f"{line}\n".encode())


if __name__ == "__main__":
    main()
