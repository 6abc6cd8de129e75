"""Keys for others: who may ask the published twin, how much a day, and until when. Two tables beside the journal's.

A key is shown once and kept as its SHA-256, which is enough for 256 random bits: there is nothing to guess. What a day
may cost is taken before an answer begins and corrected after it, so that any number of requests at once, in any number
of processes, stay within the quota; a process that dies in between has spent what it took. Knows nothing of what is
asked and answered.
"""

import hashlib
import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from infra.database import Migration, migrate, reading, writing
from infra.errors import UnderstudyError, UserMistake
from infra.voice.chat import Audience

# So that a leaked key is found by those who scan for such, and our own token is never taken for one.
PREFIX = "usk-"
NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
SPENT = {
    "requests": "This key's requests for today are spent ({most}); they begin anew at 00:00 UTC.",
    "tokens": "This key's tokens for today are spent ({most}); they begin anew at 00:00 UTC.",
}


class Unknown(UnderstudyError):
    """A key that opens nothing: never made, revoked, or past its day."""


class Spent(UnderstudyError):
    """A quota is used up; `retry_after_s` says when the next day begins."""

    def __init__(self, what: Literal["requests", "tokens"], most: int, *, retry_after_s: int) -> None:
        super().__init__(SPENT[what].format(most=most))
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Quota:
    """What a key may use in a UTC day; 0 is no limit."""

    requests: int
    tokens: int


@dataclass(frozen=True)
class Key:
    """What is kept of a key. `expires` is the last day on which it works, empty for none; times are text in UTC."""

    id: str
    name: str
    quota: Quota
    voice: str
    created: str
    expires: str
    revoked: str

    def state(self, now: datetime) -> Literal["open", "revoked", "expired"]:
        if self.revoked:
            return "revoked"
        return "expired" if self.expires and now.date().isoformat() > self.expires else "open"


@dataclass(frozen=True)
class Taken:
    """What a request has taken of its key's day: `room` tokens, to be corrected by `Published.settle`."""

    key: str
    day: str
    room: int


def m001_published(connection: Connection) -> None:
    """Keys and what they used."""
    for statement in M001:
        connection.execute(sa.text(statement))


M001 = (
    "CREATE TABLE published_keys (id TEXT PRIMARY KEY, sha256 TEXT NOT NULL UNIQUE, name TEXT NOT NULL,"
    " requests INTEGER NOT NULL, tokens INTEGER NOT NULL, voice TEXT NOT NULL, created TEXT NOT NULL,"
    " expires TEXT NOT NULL, revoked TEXT NOT NULL)",
    "CREATE UNIQUE INDEX one_open_key ON published_keys (name) WHERE revoked = ''",
    "CREATE TABLE published_use (key TEXT NOT NULL, day TEXT NOT NULL, requests BIGINT NOT NULL,"
    " tokens BIGINT NOT NULL, PRIMARY KEY (key, day))",
)

MIGRATIONS: list[Migration] = [m001_published]


class Published:
    """The keys. Every change is one transaction; nothing is remembered between two requests."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        migrate(engine, "published", MIGRATIONS)

    def create(self, name: str, quota: Quota, *, now: datetime, expires: str = "", voice: str = "") -> str:
        """A new key, which nobody can be shown again. Raises UserMistake for a name in use, and a day that is over."""
        check(name, expires, now)
        key = PREFIX + secrets.token_urlsafe(32)
        values = {
            "id": secrets.token_hex(6),
            "sha256": sha256(key),
            "name": name,
            "requests": quota.requests,
            "tokens": quota.tokens,
            "voice": voice,
            "now": now.isoformat(),
            "expires": expires,
        }
        with writing(self._engine) as connection:
            made = connection.execute(
                sa.text(
                    "INSERT INTO published_keys VALUES (:id, :sha256, :name, :requests, :tokens, :voice, :now,"
                    " :expires, '') ON CONFLICT DO NOTHING RETURNING id"
                ),
                values,
            ).first()
        if made is None:
            raise UserMistake(f"There is a key for {name!r} already: revoke it first, or choose another name.")
        return key

    def revoke(self, name: str, *, now: datetime) -> Key:
        """Let the key of `name` open nothing any more. Raises UserMistake where there is none."""
        with writing(self._engine) as connection:
            row = (
                connection.execute(
                    sa.text("UPDATE published_keys SET revoked = :now WHERE name = :name AND revoked = '' RETURNING *"),
                    {"name": name, "now": now.isoformat()},
                )
                .mappings()
                .first()
            )
        if row is None:
            raise UserMistake(f"There is no key for {name!r}; see understudy voices publish list.")
        return key_of(row)

    def all(self) -> list[Key]:
        """Every key that there ever was, the newest first."""
        with reading(self._engine) as connection:
            rows = connection.execute(sa.text("SELECT * FROM published_keys ORDER BY created DESC, id")).mappings()
            return [key_of(row) for row in rows]

    def used(self, day: date) -> dict[str, tuple[int, int]]:
        """Requests and tokens of a day, by key."""
        with reading(self._engine) as connection:
            rows = connection.execute(
                sa.text("SELECT key, requests, tokens FROM published_use WHERE day = :day"), {"day": day.isoformat()}
            )
            return {row[0]: (int(row[1]), int(row[2])) for row in rows}

    def opened(self, given: str, *, now: datetime) -> Key:
        """The key that `given` is. Raises Unknown for one that opens nothing."""
        with reading(self._engine) as connection:
            row = (
                connection.execute(
                    sa.text("SELECT * FROM published_keys WHERE sha256 = :sha256"), {"sha256": sha256(given)}
                )
                .mappings()
                .first()
            )
        found = key_of(row) if row else None
        if found is None or (state := found.state(now)) == "revoked":
            raise Unknown("This key is unknown or was revoked.")
        if state == "expired":
            raise Unknown(f"This key worked until {found.expires}.")
        return found

    def take(self, key: Key, *, least: int, wanted: int, now: datetime) -> Taken:
        """One request of today's, and of its tokens `wanted`, or fewer, but at least `least`. Raises Spent."""
        day, quota = now.date().isoformat(), key.quota
        with writing(self._engine) as connection:
            values: dict[str, Any] = {"key": key.id, "day": day}
            connection.execute(
                sa.text("INSERT INTO published_use VALUES (:key, :day, 0, 0) ON CONFLICT DO NOTHING"), values
            )
            # The first change holds the row until the end, so that nobody else takes what is counted here.
            requests, tokens = connection.execute(
                sa.text(
                    "UPDATE published_use SET requests = requests + 1 WHERE key = :key AND day = :day"
                    " RETURNING requests, tokens"
                ),
                values,
            ).one()
            if quota.requests and requests > quota.requests:
                raise Spent("requests", quota.requests, retry_after_s=until_tomorrow(now))
            room = min(wanted, quota.tokens - tokens) if quota.tokens else wanted
            if room < least:
                raise Spent("tokens", quota.tokens, retry_after_s=until_tomorrow(now))
            connection.execute(
                sa.text("UPDATE published_use SET tokens = tokens + :room WHERE key = :key AND day = :day"),
                {**values, "room": room},
            )
        return Taken(key.id, day, room)

    def settle(self, taken: Taken, *, tokens: int, requests: int = 1) -> None:
        """Let a request have used `tokens` instead of the room that it took; with `requests` 0 none was made."""
        with writing(self._engine) as connection:
            connection.execute(
                sa.text(
                    "UPDATE published_use SET tokens = tokens + :more, requests = requests - :fewer"
                    " WHERE key = :key AND day = :day"
                ),
                {"key": taken.key, "day": taken.day, "more": tokens - taken.room, "fewer": 1 - requests},
            )


def check(name: str, expires: str, now: datetime) -> None:
    """Raise UserMistake for what is no name, and for what is no day to come."""
    if not NAME.fullmatch(name):
        raise UserMistake(f"A name is up to 40 small letters, digits and hyphens, such as 'my-site'; not {name!r}.")
    if not expires:
        return
    try:
        last = date.fromisoformat(expires)
    except ValueError as error:
        raise UserMistake(f"A day is written as 2027-03-31, not {expires!r}.") from error
    if last.isoformat() != expires or last < now.date():
        raise UserMistake(f"{expires!r} is over, or not written as 2027-03-31.")


def sha256(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def until_tomorrow(now: datetime) -> int:
    """Seconds until the next day begins, whole ones."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return max(1, math.ceil((midnight - now).total_seconds()))


def key_of(row: Mapping[Any, Any]) -> Key:
    quota = Quota(row["requests"], row["tokens"])
    return Key(row["id"], row["name"], quota, row["voice"], row["created"], row["expires"], row["revoked"])


def audience_of(name: str, language: str = "") -> Audience:
    """Those who ask with the key of `name`: a voice may be pinned to them."""
    return Audience(f"published:{name}", language)
