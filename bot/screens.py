"""What a platform shows and who asks for it, as plain values: both platforms draw the same screens. Pure."""

import re
from dataclasses import dataclass

from bot.wording import say
from memory.messages import Answer, Note, Person, Place

# Nothing in a label may become markup, a mention or a link of its own.
UNSAFE = re.compile(r"[\[\]()<>*_`~|@#\\\n]+")

# Of the question's words that a note has so many are shown.
MOST_WORDS = 5


@dataclass(frozen=True)
class Caller:
    """Who uses a command or presses a button, where, in which language, and what the platform lets them do there.

    `manages` is the platform's own permission to manage the place, true in a private chat. `space` is the server or
    group that the place belongs to. `replied_to` is the message that a command answers, if any.
    """

    person: Person
    place: Place
    language: str
    manages: bool = False
    space: str = ""
    replied_to: str = ""
    anonymous: bool = False

    @property
    def private(self) -> bool:
        return self.place.visibility == "private"


@dataclass(frozen=True)
class Form:
    """One question to the person, answered by free text; `value` is what the field begins with."""

    action: str
    title: str
    label: str
    value: str = ""


@dataclass(frozen=True)
class Button:
    """`action` says what pressing does and travels as the platform's own id: at most 64 bytes."""

    label: str
    action: str
    form: Form | None = None


@dataclass(frozen=True)
class Screen:
    """One message of the twin's own. `run` names a training run whose progress the screen follows."""

    text: str
    buttons: tuple[Button, ...] = ()
    private: bool = True
    file: tuple[str, bytes] | None = None
    run: str = ""


def answer_text(answer: Answer, *, creator: str, language: str, met: bool) -> str:
    """An answer as members read it: the introduction at first contact, the words, then the label and the sources."""
    introduction = "" if met else say("first_contact", language, creator=creator) + "\n\n"
    return f"{introduction}{answer.text}\n\n{footer(answer, creator=creator, language=language)}"


def footer(answer: Answer, *, creator: str, language: str) -> str:
    """Whose stand-in spoke, and from what."""
    label = f"*{plain(say('stand_in', language, creator=creator))}*"
    if not answer.notes:
        return label
    sources = ", ".join(
        source(number, note.question or note.source, note.url) for number, note in enumerate(answer.notes, 1)
    )
    return f"{label} · {say('sources', language)}: {sources}"


def source(number: int, label: str, url: str) -> str:
    """One source, as a link where there is one."""
    words = plain(label)
    short = words if len(words) <= 60 else f"{words[:59].rstrip()}…"
    linked = re.fullmatch(r"https?://[^\s()<>]+", url)
    return f"{number} [{short}]({url})" if linked else f"{number} {short}"


def why_line(note: Note, *, language: str) -> str:
    """Why a note was chosen, for whoever asks: whose word it is, what it replaced, what of the question is in it."""
    why = note.why
    parts = [
        say(f"why_{why.authority}", language),
        say("why_linked", language) if why.linked else "",
        say("why_names", language, name=plain(why.names)) if why.names else "",
        say("why_replaced", language, date=f"{why.replaced:%Y-%m-%d}") if why.replaced else "",
        say("why_answers", language, answers=why.answers) if why.answers > 1 else "",
        say("why_askers", language, askers=why.askers) if why.askers > 1 else "",
        say("why_words", language, words=", ".join(map(plain, why.words[:MOST_WORDS]))) if why.words else "",
        say("why_close", language, share=f"{why.cosine:.0%}") if why.cosine else "",
    ]
    return " · ".join(part for part in parts if part)


def plain(text: str) -> str:
    """Text without anything that a platform reads as markup."""
    return " ".join(UNSAFE.sub(" ", text).split())


def answer_buttons(answer: Answer, *, language: str) -> tuple[Button, ...]:
    """What a member can do with an answer: judge it, or have its question passed on."""
    if answer.outcome == "answered":
        return (Button("👍", f"up:{answer.id}"), Button("👎", f"down:{answer.id}"))
    if answer.outcome == "abstained":
        return (
            Button(say("pass_on", language), f"ask:{answer.id}"),
            Button(say("pass_on_direct", language), f"dm:{answer.id}"),
        )
    return ()
