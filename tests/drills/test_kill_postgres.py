"""PostgreSQL killed under whoever writes into it: nothing acknowledged is lost, and writers go on when it is back."""

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pgserver
import psutil

from infra.errors import UnderstudyError
from memory.journal import Journal
from memory.remember import remember
from tests.drills.test_kill_remember import STORY, assert_index_can_follow, known, undisturbed
from tests.people import CREATOR

__all__ = ["undisturbed"]  # a fixture

KILLS = 5
PG_CTL = Path(pgserver.__file__).parent / "pginstall" / "bin" / "pg_ctl"


class Postgres:
    """A server of our own, killed as a crash of its machine would, and started again on the same files."""

    def __init__(self, folder: Path) -> None:
        self.server = pgserver.get_server(folder, cleanup_mode="delete")
        self.folder, self.url = folder, self.server.get_uri()

    def kill(self) -> None:
        first = int((self.folder / "postmaster.pid").read_text().split()[0])
        family = [psutil.Process(first), *psutil.Process(first).children(recursive=True)]
        for process in family:
            os.kill(process.pid, signal.SIGKILL)
        psutil.wait_procs(family, timeout=10)

    def start(self) -> None:
        options = f"-h '' -k {self.folder}"
        command = [
            str(PG_CTL),
            "-D",
            str(self.folder),
            "-w",
            "-l",
            str(self.folder / "again.log"),
            "-o",
            options,
            "start",
        ]
        user = self.server.system_user if os.getuid() == 0 else None
        subprocess.run(command, check=True, user=user, stdout=subprocess.DEVNULL, timeout=60, cwd="/")


def test_a_killed_database_loses_nothing_that_was_acknowledged(tmp_path: Path, undisturbed: Journal) -> None:
    postgres = Postgres(tmp_path / "pg")
    journal = Journal.open(postgres.url)
    refused, done, over = 0, 0, threading.Event()

    def write() -> None:
        nonlocal refused, done
        for portion in STORY:
            while not over.is_set():
                try:
                    remember(journal, portion, creator=CREATOR)
                    done += 1
                    break
                except UnderstudyError:  # in a sentence: it may or may not have been kept, so it is said again
                    refused += 1
                    time.sleep(0.02)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        recovered = []
        for kill in range(KILLS):
            while done < (kill + 1) * len(STORY) // (KILLS + 2) and writer.is_alive():
                time.sleep(0.005)
            postgres.kill()
            time.sleep(0.2)
            postgres.start()
            began, before = time.monotonic(), done
            while done == before and writer.is_alive():
                time.sleep(0.005)
                assert time.monotonic() - began < 30, "writers do not go on"
            recovered.append(time.monotonic() - began)
        writer.join(60)
        assert done == len(STORY)
        assert refused >= KILLS
        assert max(recovered) < 5
        assert known(journal) == known(undisturbed)
        assert_index_can_follow(journal)
    finally:
        over.set()
        writer.join(10)
        journal.close()
        postgres.server.cleanup()
