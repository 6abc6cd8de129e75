"""What fuzzing has found, kept as plain examples: each once raised something else, or took minutes or all memory."""

from pathlib import Path

import pytest

from tests.fuzz.harness import try_case
from tests.fuzz.targets import BY_NAME

FOUND = {
    "a question of one long word": ("graph", "--\n面".encode() + "面".encode() * 12_000),
    "an address of one long word": ("graph", b"q\n--\n" + b"a" * 20_000),
    "a profile of answers without words": ("persona", b""),
    "a profile longer than a prompt": ("persona", b"a" * 60_000),
    "a question of empty lines": ("chat wording", b"ok" + b"\n" * 60_000 + b"x"),
    "a greeting that never ends": ("chat wording", b"how are you" + b"!" * 60_000 + b"\nx"),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_stays_mended(name: str, tmp_path: Path) -> None:
    target, data = FOUND[name]

    try_case(BY_NAME[target], data, tmp_path / "room")
