"""What fuzzing has found, kept as plain examples: each once raised something else, or took minutes or all memory."""

from pathlib import Path

import pytest

from infra.errors import UserMistake
from tests.fuzz.harness import try_case
from tests.fuzz.targets import (
    BY_NAME,
    DISCORD,
    MANIFEST,
    NOTES,
    POSTS,
    TOML,
    backups_made,
    described,
    lying,
    update_of,
    zipped,
)


def lies(name: str, content: bytes) -> tuple[str, bytes]:
    """A data folder of which one file holds something else."""
    (number,) = (number for number, known in enumerate(lying()) if known.endswith(name))
    return "data folder", bytes([number]) + content


MENTION = {"type": "mention", "offset": 1, "length": 2}

FOUND = {
    "settings nested too deep": ("settings", b"x = " + b"[" * 5_000),
    "a variable that is no JSON": ("settings", TOML + b"\n----\nRETENTION=x"),
    "a variable nested too deep": ("settings", TOML + b"\n----\nCREATOR__IDS=" + b"[" * 50_000),
    "a key of thousands of signs": ("settings", TOML + b"\n" + b"9" * 5_000 + b" = 1"),
    "a .env in another encoding": ("settings", TOML + b"\n----\n\n----\nUNDERSTUDY_API__TOKEN=\xff"),
    "a .env with a NUL": ("settings", TOML + b'\n----\n\n----\nUNDERSTUDY_API__HOST="a\x00b"'),
    "a time zone that is none": ("settings", TOML.replace(b'"UTC"', b'"Mars/Base"')),
    "half a sign in an update": ("telegram updates", update_of(text="HALF hi").replace(b"HALF", b"\\ud800")),
    "a mention that begins inside a sign": (
        "telegram updates",
        update_of(text="👩 hi", entities=[{**MENTION, "type": "bot_command", "offset": 0, "length": 1}]),
    ),
    "a person with a number of thousands of digits": ("discord messages", b"<@" + b"9" * 5_000 + b">"),
    "notes without a confidence": ("recall elsewhere", NOTES.replace(b'"confidence"', b'"x"')),
    "notes that are none": ("recall elsewhere", b"null"),
    "a run of a number": ("doorbells", b'{"run_id": 99999999999999999999}'),
    "a run of half a sign": ("doorbells", b'{"run_id": "\\ud800"}'),
    "a pointer that is a list": lies("current.json", b"[]"),
    "a pointer to a number": lies("current.json", b'{"current": 5}'),
    "a canary without a share": lies("current.json", b'{"canary": {"version": "x"}}'),
    "a pin without an audience": lies("current.json", b'{"pinned": [{}]}'),
    "JSON nested too deep": lies("current.json", b"[" * 60_000),
    "a manifest of a number": lies("h/manifest.json", b"5"),
    "a manifest without files": lies("h/manifest.json", b"{}"),
    "a verdict that is a word": lies("h/manifest.json", b'{"verdict": "passed", "files": {}}'),
    "a card without systems": lies("evalcard.json", b"{}"),
    "a taint that says nothing": lies("tainted.json", b"[]"),
    "a row without a prompt": lies("train.jsonl", b"{}"),
    "backups that are a number": lies("backups.json", b"5"),
    "tombstones without a time": lies("forgotten.json", b'{"tombstones": [{}], "last": "x"}'),
    "an address without a process": lies("api.json", b"{}"),
    "a backup whose manifest is a link to itself": ("backups", backups_made()[4]),
    "a backup with a manifest nested too deep": ("backup manifests", b"[" * 60_000),
    "a backup that names a file beside it": (
        "backup manifests",
        b'{"format": 1, "files": {"../../../../etc/hostname": "x"}}',
    ),
    "half a sign in JSON": ("json", b'[{"question": "\xed\xa0\x80", "answer": "x"}]'),
    "a reason of several lines": ("xml", b"<a><![CDATA[x\n9"),
    "a name that is not UTF-8 and says so": (
        "importing",
        b"\x0b" + zipped({"é.md": b"x"}).replace("é".encode(), b"\x80\x80"),
    ),
    "an author that is no object": (
        "discord export",
        DISCORD.replace(b'{"id": "8", "name": "bob", "nickname": "Bob", "isBot": false}', b'"x"'),
    ),
    "mentions that are no list": ("discord export", DISCORD.replace(b'"mentions": []', b'"mentions": 5')),
    "a reference that is no object": (
        "discord export",
        DISCORD.replace(b'{"messageId": "1", "channelId": "5"}', b'["x"]'),
    ),
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


def test_a_manifest_as_long_as_the_disk_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.backup.MOST_PEEKED", 10)

    with pytest.raises(UserMistake, match="longer than 10 bytes"):
        described(MANIFEST, tmp_path)
