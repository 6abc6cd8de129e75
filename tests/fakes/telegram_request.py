"""One call of the Bot API as it arrives: form fields whose values are JSON, files, or a JSON body."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

# Everything else is a number, a flag or JSON, and is recorded decoded.
WORDS = {"text", "caption", "callback_query_id", "description", "short_description", "secret_token", "action"}


@dataclass(frozen=True)
class Upload:
    """A file somebody sent."""

    name: str
    content: bytes
    mime: str = "application/octet-stream"


@dataclass
class Request:
    """A call the bot made; status 0 while it is under way."""

    method: str
    params: dict[str, Any]
    time: float
    status: int = 0
    description: str = ""


class Refused(Exception):
    """What the Bot API answers instead of a result."""

    def __init__(self, code: int, description: str, **parameters: int) -> None:
        super().__init__(description)
        self.code = code
        self.description = description
        self.parameters = parameters

    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = {"ok": False, "error_code": self.code, "description": self.description}
        return body | ({"parameters": self.parameters} if self.parameters else {})


def bad_request(reason: str, **parameters: int) -> Refused:
    return Refused(400, f"Bad Request: {reason}", **parameters)


@dataclass(frozen=True)
class Params:
    """The parameters of a call. A missing one reads as empty, which is how the Bot API sees it too."""

    fields: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Upload] = field(default_factory=dict)

    def text(self, name: str) -> str:
        return self.fields.get(name, "")

    def integer(self, name: str, default: int = 0) -> int:
        value = self.fields.get(name, "")
        if not value:
            return default
        try:
            return int(value)
        except ValueError:
            raise bad_request(f'parameter "{name}" must be an Integer') from None

    def flag(self, name: str) -> bool:
        return self.fields.get(name, "").lower() in {"true", "yes", "y", "t", "1"}

    def json(self, name: str) -> Any:
        """The decoded value, or None."""
        value = self.fields.get(name, "")
        if not value:
            return None
        try:
            return json.loads(value)
        except ValueError:
            raise bad_request(f"can't parse {name} JSON object") from None

    def upload(self, name: str) -> Upload | None:
        reference = self.fields.get(name, "")
        return self.files.get(reference.removeprefix("attach://")) if reference else self.files.get(name)

    def recorded(self) -> dict[str, Any]:
        return {name: _decoded(name, value) for name, value in self.fields.items()} | dict(self.files)


async def read_params(request: web.Request) -> Params:
    if request.content_type == "application/json":
        body = await request.json()
        return Params({name: value if isinstance(value, str) else json.dumps(value) for name, value in body.items()})
    fields, files = dict(request.query), {}
    for name, value in (await request.post()).items():
        if isinstance(value, web.FileField):
            files[name] = Upload(value.filename, value.file.read(), value.content_type)
        else:
            fields[name] = value if isinstance(value, str) else bytes(value).decode()
    return Params(fields, files)


def _decoded(name: str, value: str) -> Any:
    if name in WORDS:
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value
