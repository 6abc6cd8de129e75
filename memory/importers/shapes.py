"""The shapes that question-and-answer rows come in: plain pairs, alpaca, ShareGPT conversations, OpenAI messages."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from memory.importers.records import ImportContext, Record, Skipped

QUESTION = ("question", "q", "prompt", "query", "asked", "instruction", "问题", "提问", "問題", "title")
ANSWER = ("answer", "a", "response", "reply", "completion", "output", "回答", "答案", "回复")
WHEN = ("at", "date", "time", "timestamp", "created_at", "created", "answered_at", "时间", "日期")
# The lists that hold turns, and who says what in a turn: ShareGPT's, OpenAI's.
CONVERSATIONS = (("conversations", "from", "value"), ("messages", "role", "content"))
WHO_ASKS = {"user", "human"}
WHO_ANSWERS = {"assistant", "gpt", "model", "creator"}


def exchanges(row: object, context: ImportContext, *, file: str) -> Iterator[Record]:
    """The pairs in one row, or the reason why there are none."""
    if not isinstance(row, Mapping):
        yield Skipped("not an object with fields")
        return
    fields = {str(key).strip().casefold(): value for key, value in row.items() if key is not None}
    if is_synthetic(fields):
        yield Skipped("a teacher's imitation, which never becomes memory")
        return
    pairs = list(pairs_of(fields))
    if not pairs:
        yield Skipped("no question and answer fields in it")
    for question, answer in pairs:
        yield context.exchange(
            question,
            answer,
            dates=[fields.get(name) for name in WHEN],
            thread=words(fields.get("conversation") or fields.get("thread")),
            title=words(fields.get("topic") or fields.get("category")),
            url=words(fields.get("url") or fields.get("link")),
            file=file,
        )


def is_synthetic(fields: Mapping[str, Any]) -> bool:
    """Whether a row says that it is what `understudy distil` made, at its top or in its provenance."""
    provenance = fields.get("provenance")
    marks = (fields.get("kind"), provenance.get("kind") if isinstance(provenance, Mapping) else None)
    return "synthetic" in marks


def exchanges_between(before: object, after: object, context: ImportContext, *, file: str) -> Iterator[Record]:
    """The pair that two turns next to each other make, if the second answers the first."""
    turns = [before, after]
    for name, speaker, text in CONVERSATIONS:
        known = [turn for turn in turns if isinstance(turn, Mapping) and speaker in turn]
        if any(True for _ in turns_of(known, speaker, text)):
            yield from exchanges({name: known}, context, file=file)


def is_turn(row: object) -> bool:
    """Whether an object is one turn of a conversation."""
    return isinstance(row, Mapping) and any(speaker in row and text in row for _, speaker, text in CONVERSATIONS)


def pairs_of(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Questions with their answers; halves that are missing are empty."""
    for name, speaker, text in CONVERSATIONS:
        turns = fields.get(name)
        if isinstance(turns, list):
            yield from turns_of([t for t in turns if isinstance(t, Mapping)], speaker, text)
            return
    asked = next((name for name in QUESTION if name in fields), None)
    answered = next((name for name in ANSWER if name in fields), None)
    if asked is None or answered is None:
        return
    extra = words(fields.get("input")) if asked == "instruction" else ""
    yield "\n".join(part for part in (words(fields[asked]), extra) if part), words(fields[answered])


def turns_of(turns: list[Mapping[str, Any]], speaker: str, text: str) -> Iterator[tuple[str, str]]:
    """Each answer right after a question of a conversation."""
    for before, after in pairwise(turns):
        if str(before.get(speaker)) in WHO_ASKS and str(after.get(speaker)) in WHO_ANSWERS:
            yield words(before.get(text)), words(after.get(text))


def words(value: object) -> str:
    """A field as text; OpenAI's content parts are joined."""
    if value is None or isinstance(value, Mapping):
        return ""
    if isinstance(value, list):
        return "".join(str(part.get("text", "")) if isinstance(part, Mapping) else str(part) for part in value).strip()
    return str(value).strip()
