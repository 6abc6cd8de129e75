"""What docs/discord.md and docs/telegram.md tell an operator to type is there."""

import re
from pathlib import Path

import discord
import pytest

from bot.commands import COMMANDS
from infra.settings import Settings

DOCS = Path(__file__).parents[2] / "docs"
# Handled by the platform itself, and BotFather's.
BESIDES = {"telegram.md": {"teach", "newbot", "setprivacypolicy", "setjoingroups", "setprivacy"}}


@pytest.mark.parametrize("name", ["discord.md", "telegram.md"])
def test_every_command_that_is_named_exists_and_every_one_is_named(name: str) -> None:
    text = (DOCS / name).read_text(encoding="utf-8")
    known = {command.name for command in COMMANDS} | BESIDES.get(name, set())

    assert set(re.findall(r"`/(\w+)", text)) == known


@pytest.mark.parametrize("name", ["discord.md", "telegram.md"])
def test_every_setting_that_is_named_exists(name: str) -> None:
    named = re.findall(r"`(discord|telegram|creator|bot|api|journal)\.(\w+)", (DOCS / name).read_text(encoding="utf-8"))

    assert named
    for section, setting in named:
        assert setting in Settings.model_fields[section].annotation.model_fields, f"{section}.{setting}"


def test_the_invitation_asks_for_the_permissions_that_the_text_lists() -> None:
    text = (DOCS / "discord.md").read_text(encoding="utf-8")
    (number,) = re.findall(r"permissions=(\d+)", text)
    listed = re.findall(r"The permissions are: ([^.]+)\.", text)[0].lower().replace(" ", "_").split(",_")
    names = {"view_channels": "view_channel"}

    asked = discord.Permissions(**{names.get(each, each): True for each in listed})
    assert asked == discord.Permissions(int(number))
