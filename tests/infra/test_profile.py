"""`understudy profile`, as the creator and their editor meet it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from infra.cli import profile
from infra.cli.graph import Opened
from infra.errors import UserMistake
from memory.remember import exchange_event, remember
from tests.memory.making import taught
from tests.people import CREATOR


def about(home: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str, int]:
    """What the profile says, and how many versions were kept."""
    capsys.readouterr()
    profile.show(home, as_json=True)
    shown = json.loads(capsys.readouterr().out)
    return shown["about"], shown["version"]


def use_editor(monkeypatch: pytest.MonkeyPatch, script: Path, does: str) -> None:
    """Let the editor be a program that does this to the file it is given."""
    script.write_text(f"#!/bin/sh\n{does}\n", encoding="utf-8")
    script.chmod(0o700)
    monkeypatch.setenv("VISUAL", str(script))


def test_what_the_editor_saves_is_the_next_version(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    profile.set_field(home, "about", "Bakes.", as_json=True)
    use_editor(monkeypatch, home / "vi", "echo 'about = \"Bakes rye.\"' > $1; touch -d 2030-01-01 $1")

    profile.edit(home)

    assert about(home, capsys) == ("Bakes rye.", 2)


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("exit 1", "EDITOR must name"),
        ("echo about > $1; touch -d 2030-01-01 $1", "no TOML"),
        ("echo 'salary = 3' > $1; touch -d 2030-01-01 $1", "no 'salary'"),
    ],
)
def test_an_editor_that_fails_changes_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], does: str, said: str
) -> None:
    profile.set_field(home, "about", "Bakes.", as_json=True)
    use_editor(monkeypatch, home / "vi", does)

    with pytest.raises(UserMistake, match=said):
        profile.edit(home)

    assert about(home, capsys) == ("Bakes.", 1)


def test_a_draft_says_nothing_that_only_a_private_place_knows(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every prompt carries the card, also where that place may not be seen."""
    opened = Opened(home)
    shown = [
        taught(f"Which oven for Baguettes number {n}?", f"The Rofco, as with Ciabatta and Focaccia {n}. Wait a day.")
        for n in range(8)
    ]
    hidden = [
        taught(f"How is the Zanzibar deal {n}?", f"Zanzibar {n} needs Mombasa and Nairobi. Tell nobody at all.")
        for n in range(20)
    ]
    hidden = [replace(each, place=replace(each.place, visibility="private")) for each in hidden]
    remember(opened.journal, map(exchange_event, [*shown, *hidden]), creator=CREATOR)
    assert any("Zanzibar" in topic.label for topic in opened.graph.topics())

    profile.show(home, as_json=True)

    drafted = json.loads(capsys.readouterr().out)
    assert "baguettes" in drafted["cares"].casefold()
    assert not [field for field in ("cares", "speaks") if "Zanzibar" in drafted[field] or "nobody" in drafted[field]]
