"""The twin in a terminal: streaming answers, their sources, `/good` and `/bad`.

Knows nothing of where answers come from: it is handed a `Line` to the twin, in this process or over HTTP.
"""

from collections.abc import Iterable
from typing import Any, Literal, Protocol

from rich.console import Console
from rich.text import Text

from bot.events import Event
from bot.wording import say

Value = Literal["good", "bad"]


class Line(Protocol):
    """A line to the twin."""

    def ask(self, question: str) -> Iterable[Event]:
        """The events of one answer; see `bot/events.py`."""
        ...

    def vote(self, answer: str, value: Value) -> None:
        """Judge an answer."""
        ...


def converse(line: Line, console: Console, *, creator: str, language: str) -> None:
    """Read questions until /quit or the end of input."""
    console.print(Text(say("first_contact", language, creator=creator), style="dim"))
    console.print(Text("/good and /bad judge the last answer, /quit leaves.", style="dim"))
    last = ""
    while (typed := read(console)) is not None:
        if typed in {"/good", "/bad"}:
            judge(line, console, last=last, value="good" if typed == "/good" else "bad")
        elif typed.startswith("/"):
            console.print(Text(f"{typed.split()[0]} is not a command here: /good, /bad, /quit.", style="dim"))
        elif typed:
            last = show(line.ask(typed), console, language=language)


def read(console: Console) -> str | None:
    """One typed line, or None when the person leaves."""
    try:
        typed = console.input("[bold]> [/]").strip()
    except (EOFError, KeyboardInterrupt):
        return None
    return None if typed == "/quit" else typed


def judge(line: Line, console: Console, *, last: str, value: Value) -> None:
    """Vote on the last answer, if there is one to judge."""
    if not last:
        console.print(Text("There is no answer to judge yet.", style="dim"))
        return
    line.vote(last, value)
    console.print(Text("Noted.", style="dim"))


def show(events: Iterable[Event], console: Console, *, language: str) -> str:
    """Print an answer as it comes, then its sources. Returns the id to judge it by, empty when it cannot be judged."""
    streamed, identity = "", ""
    for event in events:
        if "piece" in event:
            streamed += event["piece"]
            console.print(Text(event["piece"]), end="")
        elif "answer" in event:
            identity = finish(event["answer"], console, streamed=streamed, language=language)
        else:
            console.print(Text(event["error"], style="red"))
    return identity


def finish(answer: dict[str, Any], console: Console, *, streamed: str, language: str) -> str:
    """What stands under an answer. The text itself only if it was not streamed already."""
    console.print("" if streamed.strip() == answer["text"] else Text(answer["text"]))
    if answer["citations"]:
        console.print(Text(say("sources", language), style="dim"))
    for cited in answer["citations"]:
        label = cited["question"] or cited["source"]
        console.print(Text(f"  [{cited['number']}] {label} {cited['url']}".rstrip(), style="dim"))
    if answer["outcome"] != "answered":
        return ""
    console.print(Text(f"{answer['voice']}, {answer['timings_ms'].get('total', 0) / 1000:.1f} s", style="dim"))
    return str(answer["id"])
