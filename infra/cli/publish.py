"""`understudy voices publish`: keys for others, made, listed and taken back; see `infra/published.py`."""

from datetime import datetime
from pathlib import Path
from typing import Any

from infra.cli.compose import adapter_store, now, open_journal, settings_of
from infra.cli.console import err, out, print_json, table
from infra.cli.learn import pin, unpin
from infra.errors import UnderstudyError
from infra.published import Key, Published, Quota, audience_of


def create(home: Path | None, name: str, *, quota: Quota, expires: str, voice: str, as_json: bool) -> None:
    """Make a key, and pin its voice; without that there is no key either."""
    settings = settings_of(home)
    keys = Published(open_journal(settings).engine)
    key = keys.create(name, quota, now=now(), expires=expires, voice=voice)
    try:
        if voice:
            pin(settings, voice, audience_of(name))
    except UnderstudyError:
        keys.revoke(name, now=now())
        raise
    if as_json:
        limits = {"requests_per_day": quota.requests, "tokens_per_day": quota.tokens}
        print_json({"name": name, "key": key, **limits, "expires": expires, "voice": voice})
        return
    err().print(f"The key of {name}; it is not shown again. Its address is the twin's, with /v1 behind it.")
    out().print(key, markup=False, soft_wrap=True)


def revoke(home: Path | None, name: str, *, as_json: bool) -> None:
    """Take a key back, and the voice that was pinned for it."""
    settings = settings_of(home)
    key = Published(open_journal(settings).engine).revoke(name, now=now())
    if audience_of(name) in adapter_store(settings).pins():
        unpin(settings, audience_of(name))
    print_json(document(key, now())) if as_json else err().print(f"The key of {name} opens nothing any more.")


def listing(home: Path | None, *, as_json: bool) -> None:
    """Every key, with what it used today."""
    keys, at = Published(open_journal(settings_of(home)).engine), now()
    used = keys.used(at.date())
    found = [{**document(key, at), "used": use(used.get(key.id, (0, 0)))} for key in keys.all()]
    if as_json:
        print_json(found)
        return
    columns = ("name", "state", "requests today", "tokens today", "until", "voice")
    rows = [
        (
            each["name"],
            each["state"],
            share(each["used"]["requests"], each["requests_per_day"]),
            share(each["used"]["tokens"], each["tokens_per_day"]),
            each["expires"],
            each["voice"],
        )
        for each in found
    ]
    out().print(table("Keys", columns, rows))


def use(counted: tuple[int, int]) -> dict[str, int]:
    return {"requests": counted[0], "tokens": counted[1]}


def share(used: int, most: int) -> str:
    return f"{used} of {most}" if most else f"{used}"


def document(key: Key, at: datetime) -> dict[str, Any]:
    """A key as JSON, without anything that opens."""
    return {
        "name": key.name,
        "state": key.state(at),
        "requests_per_day": key.quota.requests,
        "tokens_per_day": key.quota.tokens,
        "created": key.created,
        "expires": key.expires,
        "revoked": key.revoked,
        "voice": key.voice,
    }
