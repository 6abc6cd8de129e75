"""`understudy profile`: who the twin is told that it stands in for, drafted from memory and edited by the creator."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.cli.compose import creator_person, now
from infra.cli.console import err, out, print_json, table
from infra.cli.graph import Opened
from infra.errors import UserMistake

if TYPE_CHECKING:
    from memory.profile import Profile

# How many opinions one screen shows.
SHOWN = 10


def show(home: Path | None, *, as_json: bool) -> None:
    """The profile that counts, or what would be drafted, and the opinions with their sources."""
    from memory.profile import current, opinions, versions

    opened = Opened(home)
    kept = current(opened.journal)
    profile = kept or drafted(opened)
    found = opinions(opened.graph.graph)[:SHOWN]
    held = [{"stance": each.kind, "words": each.quote, "sources": list(each.sources)} for each in found]
    document: dict[str, Any] = {"kept": kept is not None, "version": len(versions(opened.journal)), **asdict(profile)}
    if as_json:
        print_json({**document, "opinions": held})
        return
    out().print(table("Profile", ("field", "what it says"), document.items()))
    out().print(
        table(
            "Opinions",
            ("stance", "words", "sources"),
            ((each["stance"], each["words"], ", ".join(each["sources"])) for each in held),
        )
    )
    if kept is None:
        err().print("This is a draft, and not used yet. Use it: understudy profile draft")


def draft(home: Path | None, *, as_json: bool) -> None:
    """Keep a draft from memory as the version that counts."""
    opened = Opened(home)
    keep_version(opened, drafted(opened), as_json=as_json)


def set_field(home: Path | None, field: str, text: str, *, as_json: bool) -> None:
    """Keep a version with one field in other words."""
    from memory.profile import edited

    opened = Opened(home)
    keep_version(opened, edited(kept_or_drafted(opened), field, text), as_json=as_json)


def edit(home: Path | None) -> None:
    """Open the profile in the creator's editor and keep what comes back."""
    import tomli_w

    opened = Opened(home)
    text = from_editor(tomli_w.dumps(asdict(kept_or_drafted(opened))))
    if text is None:
        err().print("Nothing was changed.")
    else:
        keep_version(opened, profile_of(text), as_json=False)


def from_editor(text: str) -> str | None:
    """What the creator's editor makes of a text; None when it was not saved. Raises UserMistake without an editor."""
    import click

    try:
        return click.edit(text, extension=".toml")
    except click.ClickException as error:
        why = error.message.rstrip(".")
        raise UserMistake(f"{why}. EDITOR must name a program that is here. Nothing was changed.") from error


def profile_of(text: str) -> "Profile":
    """The profile that somebody wrote as TOML. Raises UserMistake for what is none."""
    import tomllib

    from memory.profile import Profile, edited

    try:
        fields = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserMistake(f"That is no TOML: {error}. Nothing was changed.") from error
    profile = Profile()
    for field, value in fields.items():
        profile = edited(profile, field, str(value))
    return profile


def versions(home: Path | None, *, as_json: bool) -> None:
    """Every version that was kept, by the number that `restore` takes."""
    from memory.profile import FIELDS
    from memory.profile import versions as kept_versions

    kept = list(enumerate(kept_versions(Opened(home).journal), start=1))
    if as_json:
        print_json([{"version": number, "at": at, **asdict(profile)} for number, (at, profile) in kept])
        return
    rows = ((number, f"{at:%Y-%m-%d %H:%M}", *asdict(profile).values()) for number, (at, profile) in kept)
    out().print(table("Versions", ("version", "kept", *FIELDS), rows))


def restore(home: Path | None, number: int, *, as_json: bool) -> None:
    """Let an old version count again, as a new one: none is ever lost."""
    from memory.profile import version

    opened = Opened(home)
    keep_version(opened, version(opened.journal, number), as_json=as_json)


def kept_or_drafted(opened: Opened) -> "Profile":
    """What an edit begins with."""
    from memory.profile import current

    return current(opened.journal) or drafted(opened)


def drafted(opened: Opened) -> "Profile":
    """What memory says of the creator today, from what anybody may see: every prompt everywhere carries it."""
    from memory.profile import draft as draft_of
    from memory.profile import named_in

    answers, shown = [], {each.id for each in opened.journal.passages() if each.place.visibility == "public"}
    for each in opened.journal.exchanges():
        if each.place.visibility == "public":
            shown.add(each.id)
            answers += [each.answer] if each.author.role == "creator" else []
    topics = named_in(shown, opened.graph.topics(), opened.graph.graph)
    return draft_of(topics, answers, about=opened.settings.creator.about)


def keep_version(opened: Opened, profile: "Profile", *, as_json: bool) -> None:
    from memory.profile import keep

    keep(opened.journal, profile, creator=creator_person(opened.settings), at=now())
    if as_json:
        print_json(asdict(profile))
    else:
        err().print("Kept. The twin speaks by it from its next start, and its voice learns it in the next training.")
