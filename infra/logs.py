"""What processes say of themselves: one line a record, for people or as JSON, by id; never a name, a word or a token.

A module of ours logs an event and facts about it. Of what libraries log only their own words are kept, with the numbers
in them: the rest may be anybody's words, and an address may hold a token. Of an exception its kind and place are told.
"""

import json
import logging
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from infra.settings import Settings

OURS = ("bot", "infra", "memory", "trainer")
# What a fact may be beside a number: an id, a kind, a version; never a sentence.
FACT = re.compile(r"[\w.:+-]{0,80}", re.ASCII)
HIDDEN = "…"
# Tokens that no setting names, such as those of an older installation: Telegram's, what follows "Bearer", and what an
# address has before its host or in its query.
TOKENS = re.compile(r"\b\d{6,}:[\w-]{20,}|(?<=Bearer )\S+|(?<=://)[^/\s@]+(?=@)|(?<=\?)[^\s\"')]+")
# Where a library begins to quote what it is about.
QUOTED = re.compile(r"[\n<({\[\"'`]")
# So many calls say where an exception came from.
DEEP = 8

log = logging.getLogger(__name__)
_about: ContextVar[Mapping[str, str]] = ContextVar("about")


@contextmanager
def about(**ids: str) -> Iterator[None]:
    """Everything that is logged within belongs to these, for example `answer` or `run`."""
    token = _about.set({**_about.get({}), **ids})
    try:
        yield
    finally:
        _about.reset(token)


def followed() -> Mapping[str, str]:
    """What is being worked on here, by `about`."""
    return _about.get({})


def tell(logger: logging.Logger, event: str, **facts: Any) -> None:
    """Log an event with facts: ids, kinds, counts, and durations in milliseconds (`_ms`) or seconds (`_s`)."""
    logger.info(event, extra={"facts": facts})


def say(sentence: str, *, level: int = logging.INFO) -> None:
    """A sentence for whoever started this process: as it is, or as a line like the others where those are JSON."""
    if any(isinstance(each, Lines) and each.as_json for each in logging.root.handlers):
        log.log(level, sentence)
    else:
        sys.stderr.write(f"{sentence}\n")


def begin(settings: "Settings", part: str) -> None:
    """Log as the settings say, as this part: a service tells its events, a command only what is wrong."""
    from infra.settings import secrets_of

    for each in [each for each in logging.root.handlers if isinstance(each, Lines)]:
        logging.root.removeHandler(each)
    chosen = settings.log
    logging.root.addHandler(Lines(part, as_json=chosen.format == "json", secrets=secrets_of(settings)))
    for name in OURS:
        logging.getLogger(name).setLevel(logging.WARNING if part == "command" else chosen.level.upper())
    if chosen.format == "json":
        warnings.showwarning = warned
    if part != "command":
        sys.excepthook = lambda kind, error, trace: unexpected(error)
        threading.excepthook = lambda failed: unexpected(failed.exc_value)


def warned(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    """A library's warning by its kind and place."""
    log.warning("%s in %s, line %s", category.__name__, filename.rsplit("/", 1)[-1], lineno)


def unexpected(error: BaseException | None) -> None:
    """What ends a process or a thread, without its words."""
    if not isinstance(error, KeyboardInterrupt | SystemExit):
        log.critical("ended by an error that nobody expected", exc_info=error)


class Lines(logging.StreamHandler[TextIO]):
    """Standard error as it is now, a record a line."""

    def __init__(self, part: str, *, as_json: bool, secrets: frozenset[str]) -> None:
        logging.Handler.__init__(self)
        self.as_json = as_json
        self.setFormatter(Line(part, as_json=as_json, secrets=secrets))

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


class Line(logging.Formatter):
    """A record as JSON {time, level, part, logger, event, ...facts}, or the same for people."""

    def __init__(self, part: str, *, as_json: bool, secrets: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self._part, self._as_json = part, as_json
        self._secrets = re.compile("|".join(map(re.escape, sorted(secrets, key=len, reverse=True))) or r"(?!)")

    def format(self, record: logging.LogRecord) -> str:
        """See `Line`."""
        ours = record.name.split(".")[0] in OURS
        event = self._without_tokens(record.getMessage() if ours else outline(record)).strip()
        told = {**followed(), **getattr(record, "facts", {})} if ours else dict(followed())
        facts = {name: value if is_fact(value) else HIDDEN for name, value in told.items()} | failure(record)
        at = datetime.fromtimestamp(record.created, UTC)
        if self._as_json:
            head = {"time": at.isoformat(timespec="milliseconds"), "level": record.levelname.lower()}
            named = {"part": self._part, "logger": record.name, "event": event}
            return json.dumps({**head, **named, **facts}, ensure_ascii=False)
        said = " ".join(f"{name}={value}" for name, value in facts.items())
        return f"{at:%Y-%m-%d %H:%M:%S} {record.levelname} {self._part} {' '.join(event.split())} {said}".rstrip()

    def _without_tokens(self, text: str) -> str:
        return TOKENS.sub(HIDDEN, self._secrets.sub(HIDDEN, text))


def is_fact(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float) or bool(FACT.fullmatch(str(value)))


def outline(record: logging.LogRecord) -> str:
    """A library's record up to where it quotes something; of what was put in, numbers and the kinds of exceptions."""
    given = record.args if isinstance(record.args, Mapping) else dict(enumerate(record.args or ()))
    kept = {name: bare(value) for name, value in given.items()}
    try:
        said = str(record.msg) % (kept if isinstance(record.args, Mapping) else tuple(kept.values())) if kept else ""
    except (TypeError, ValueError, KeyError):  # a %d of something that is no number
        said = str(record.msg)
    return QUOTED.split(said or str(record.msg), maxsplit=1)[0]


def bare(value: object) -> object:
    if isinstance(value, BaseException):
        return type(value).__name__
    return value if isinstance(value, int | float) else HIDDEN


def failure(record: logging.LogRecord) -> dict[str, str]:
    """The kind of an exception, with what caused it, and the calls that led there."""
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return {}
    kinds, cause = [type(error).__name__], error
    while (below := cause.__cause__ or cause.__context__) is not None and len(kinds) < DEEP:
        kinds.append(type(below).__name__)
        cause = below
    frames = traceback.extract_tb(cause.__traceback__)[-DEEP:]
    where = " > ".join(f"{each.filename.rsplit('/', 1)[-1]}:{each.lineno} {each.name}" for each in frames)
    return {"error": " from ".join(kinds), "where": where}
