"""What fuzzing has found, kept as plain examples: each once raised something else, or took minutes or all memory."""

from pathlib import Path

import pytest

from tests.fuzz.harness import try_case
from tests.fuzz.targets import BY_NAME, DISCORD, POSTS, zipped

FOUND = {
    "half a sign in JSON": ("json", b'[{"question": "\xed\xa0\x80", "answer": "x"}]'),
    "a reason of several lines": ("xml", b"<a><![CDATA[x\n9"),
    "a name that is not UTF-8 and says so": ("importing", b"\x0b" + zipped({"é.md": b"x"}).replace("é".encode(), b"\x80\x80")),
    "an author that is no object": ("discord export", DISCORD.replace(b'{"id": "8", "name": "bob", "nickname": "Bob", "isBot": false}', b'"x"')),
    "mentions that are no list": ("discord export", DISCORD.replace(b'"mentions": []', b'"mentions": 5')),
    "a reference that is no object": ("discord export", DISCORD.replace(b'{"messageId": "1", "channelId": "5"}', b'["x"]')),
    "a number before empty lines": ("text", b"1" + b"\n" * 60_000 + b"x"),
    "a Q before blanks": ("text", b"Why\nQ" + b" " * 60_000 + b"x"),
    "a post of blanks": ("xml", POSTS.replace(b"Dough", b" " * 60_000)),
    "an encoding of names": ("html", b'<html><meta charset="idna"><p>\xff'),
    "an encoding that takes long": ("html", b'<html><meta charset="punycode"><p>-\xff' + b"a" * 60_000),
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
