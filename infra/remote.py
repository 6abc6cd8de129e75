"""The running twin, seen from another process: of the same machine, or where `bot.api` says that it is.

`up` leaves its address and token in `data/run/api.json`. Commands that need the index or the voice go through it when
it runs, because one process owns the index's folder; without it they open the parts themselves.
"""

import json
import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import psutil

from infra.errors import ServiceTrouble, UserMistake
from infra.files import read_object, told_as, write_atomic
from infra.settings import Settings, revealed
from infra.traces import passed_on

# A twin that is started again is back within some seconds; whether it is, is looked at as often as this.
BACK_S, LOOK_S = 30.0, 0.25
# Who takes no connection within this time is not there.
CONNECT_S = 10.0


class Gone(ServiceTrouble):
    """The other process cannot be reached, or went away; what it would have answered nobody knows."""


@cache
def certificates() -> ssl.SSLContext:
    """Whom to believe over TLS. Made once: reading them takes longer than most requests, also those that need none."""
    return httpx.create_ssl_context()


def address_file(settings: Settings) -> Path:
    return settings.data_folder / "run" / "api.json"


def announce(settings: Settings, *, url: str, token: str | None, pid: int) -> None:
    """Leave the address of this process for other commands; readable by its owner only."""
    path = address_file(settings)
    write_atomic(path, json.dumps({"url": url, "token": token, "pid": pid, "host": os.uname().nodename}))
    path.chmod(0o600)


def withdraw(settings: Settings) -> None:
    """Take the address of this process back at its end."""
    address_file(settings).unlink(missing_ok=True)


@dataclass(frozen=True)
class Remote:
    """A running twin's HTTP address, or another server's: `what` it is, and for how many seconds it may be silent.

    By default as long as an order to several voice servers may take, see `infra/voice/servers.py`.
    """

    url: str
    token: str | None
    what: str = "running twin"
    silence_s: float = 200.0

    @classmethod
    def find(cls, settings: Settings) -> "Remote | None":
        """The running twin: where `bot.api` says that it is, else on this host; None where there is no such."""
        if settings.bot.api:
            return cls(settings.bot.api.rstrip("/"), revealed(settings.api.token))
        return cls.here(settings)

    @classmethod
    def here(cls, settings: Settings) -> "Remote | None":
        """The twin that runs on this host. A file left by a process that was killed, or by another host, is none."""
        path = address_file(settings)
        if not path.is_file():
            return None
        found = read_object(path)
        with told_as(path):
            alive = found["host"] == os.uname().nodename and psutil.pid_exists(int(found["pid"]))
            token = found["token"]
            return cls(str(found["url"]), None if token is None else str(token)) if alive else None

    def get(self, path: str, **query: Any) -> Any:
        """The JSON of a GET. Raises as `call`."""
        return self.call("GET", path, params=query)

    def post(self, path: str, **body: Any) -> Any:
        """The JSON of a POST. Raises as `call`."""
        return self.call("POST", path, json=body)

    def call(self, method: str, path: str, **options: Any) -> Any:
        """The JSON of one request. Raises as `send`."""
        response = self.send(method, path, **options)
        try:
            return response.json()
        except ValueError as error:
            raise ServiceTrouble(f"The {self.what} at {self.url} answered with something that is no JSON.") from error

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request. Raises UserMistake for a 4xx and ServiceTrouble for what else is no answer, see `Gone`."""
        patience = httpx.Timeout(self.silence_s, connect=min(CONNECT_S, self.silence_s))
        try:
            response = httpx.request(
                method, self.url + path, headers=self._headers, timeout=patience, verify=certificates(), **options
            )
        except httpx.HTTPError as error:
            raise Gone(f"The {self.what} at {self.url} does not answer ({error}); restart it.") from error
        if response.is_success:
            return response
        raise complaint(response, self.what)

    def events(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The server-sent events of a POST, as they come. Raises as `call`, also when the stream breaks off."""
        try:
            with httpx.stream(
                "POST", self.url + path, json=body, headers=self._headers, timeout=120, verify=certificates()
            ) as response:
                if not response.is_success:
                    response.read()
                    raise complaint(response)
                for line in response.iter_lines():
                    if line.startswith("data: "):
                        yield json.loads(line.removeprefix("data: "))
        except httpx.HTTPError as error:
            raise ServiceTrouble(f"The running twin at {self.url} broke off ({error}).") from error

    @property
    def _headers(self) -> dict[str, str]:
        return passed_on() | ({"Authorization": f"Bearer {self.token}"} if self.token else {})


def complaint(response: httpx.Response, what: str = "running twin") -> UserMistake | ServiceTrouble:
    """The error that a failed response stands for; our API speaks OpenAI's shape: {"error": {"message": ...}}."""
    try:
        message = str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = f"The {what} answered with HTTP status {response.status_code}."
    return UserMistake(message) if response.status_code < 500 else ServiceTrouble(message)
