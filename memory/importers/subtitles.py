"""Subtitles, srt and vtt: what was said in a video, cited with the time at which it was."""

import io
import re
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from memory.importers.chunks import Block, records
from memory.importers.records import MOST_RECORD, ImportContext, Record, Skipped, broken, open_text

if TYPE_CHECKING:
    from webvtt.models import Caption

NUMBERED = re.compile(r"\s*\d+[^\S\n]*+\n\s*+\d{1,2}:\d{2}:\d{2}[,.]\d{1,3}\s*-->")
URL = re.compile(r"https?://[^\s<>\"]+")
# Downloaders add the language, and the video's id in brackets, to the title.
ADDED = re.compile(r"( \[[\w-]{11}\])?(\.[a-z]{2,3}(-[A-Za-z]{2,4})?)?$")
ARROW = "-->"
# A caption that is spoken into is shown again with its next words: up to three lines are on the screen.
REPEATED = 3


def sniff(head: str, name: str) -> bool:
    return name.endswith((".srt", ".vtt")) or head.startswith(("WEBVTT", "\ufeffWEBVTT")) or bool(NUMBERED.match(head))


def read(path: Path, context: ImportContext) -> Iterator[Record]:
    """Passages of several cues each. Raises UserMistake for a file without one that can be read."""
    text = text_of(path)
    cues = cues_of(path, text)
    unread = sum(ARROW in line for line in text.splitlines()) - len(cues)
    yield from (Skipped("a cue without words, or whose times cannot be read") for _ in range(unread))
    # The format has no field for the video's address, but comments before the first cue.
    stated = URL.search(text.partition(ARROW)[0])
    blocks = (
        Block(words, mark=clock(seconds), url=f"{stated[0]}#t={seconds}" if stated else "")
        for seconds, words in said(cues)
    )
    name = context.stem_of(path)
    title = ADDED.sub("", name) or name
    yield from records(blocks, context, file=context.name_of(path), title=title, joint=" ")


def text_of(path: Path) -> str:
    if path.stat().st_size > MOST_RECORD:
        raise broken(path, "its size", f"longer than {MOST_RECORD} bytes")
    with open_text(path) as file:
        return file.read().lstrip("\ufeff \t\r\n")


def cues_of(path: Path, text: str) -> list["Caption"]:
    from webvtt import WebVTT
    from webvtt.errors import MalformedCaptionError, MalformedFileError

    try:
        cues = WebVTT.from_buffer(io.StringIO(text), format="vtt" if text.startswith("WEBVTT") else "srt").captions
    except (MalformedFileError, MalformedCaptionError) as error:
        raise broken(
            path, "its top", "these are no subtitles: no number, times and words as srt or vtt have"
        ) from error
    if not any(cue.text.strip() for cue in cues):
        raise broken(path, "its top", "no cue of it has words and times that can be read")
    return cues


def said(cues: Iterable["Caption"]) -> Iterator[tuple[int, str]]:
    """The words of each cue with its second, without those that the cues before it showed already."""
    shown: deque[str] = deque(maxlen=REPEATED)
    for cue in cues:
        fresh = []
        for line in (" ".join(each.split()) for each in cue.text.splitlines()):
            if line and line not in shown:
                begun = next((each for each in shown if line.startswith(f"{each} ")), "")
                fresh.append(line.removeprefix(begun).strip())
                shown.append(line)
        if fresh:
            yield cue.start_in_seconds, " ".join(fresh)


def clock(seconds: int) -> str:
    """A time as players show it."""
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"
