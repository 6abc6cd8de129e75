"""Fuzzing led by coverage: `python -m tests.fuzz.run [--seconds N] [TARGET...]`, without a target all, one by one.

Each target has a process of its own, which ends at the first thing that is neither a result nor a sentence of ours and
leaves the input in `build/fuzz`. What led to new places stays there as well, for the next time.
"""

import argparse
import os
import random
import sys
from pathlib import Path

import atheris

from tests.fuzz.harness import Target, changed, try_case

CORPUS = Path("build") / "fuzz"
# A case that takes too much processor time is found by `within`; this ends what is stuck in C.
STUCK_S, MOST_MIB, MOST_INPUT = 60, 3_000, 8_192
OURS = ("bot", "infra", "memory", "trainer", "tests.fuzz.targets")
READERS = ("zipfile", "tarfile", "tomllib", "csv", "json.decoder", "docx", "pypdf", "webvtt", "ijson", "dotenv", "html")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--seconds", type=int, default=60)
    given = parser.parse_args()
    with atheris.instrument_imports(include=[*OURS, *READERS]):
        from tests.fuzz.targets import BY_NAME

        for target in BY_NAME.values():
            target.seeds()  # what they import inside is instrumented too
    found = []
    for name in given.targets or BY_NAME:
        child = os.fork()
        if not child:
            fuzz(BY_NAME[name], given.seconds)
        found += [name] if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) else []
    sys.stderr.write(f"Something was found in: {', '.join(found) or 'nothing'}.\n")
    return bool(found)


def fuzz(target: Target, seconds: int) -> None:
    """One target, in this process, which libFuzzer ends."""
    corpus = CORPUS / target.name.replace(" ", "-")
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    room = corpus.with_suffix(".room").absolute()

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        """Half of the changes are ours, which know what a piece of a format is; half libFuzzer's."""
        if seed % 2:
            return changed(target, data, random.Random(seed), most=most)
        return bytes(atheris.Mutate(data, most))

    options = [
        f"-max_total_time={seconds}", f"-max_len={MOST_INPUT}", f"-timeout={STUCK_S}", f"-rss_limit_mb={MOST_MIB}",
        f"-artifact_prefix={CORPUS}/found-{corpus.name}-", "-print_final_stats=1",
    ]  # fmt: skip
    atheris.Setup(
        [sys.argv[0], *options, str(corpus)], lambda data: try_case(target, data, room), custom_mutator=mutate
    )
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
