"""THE renderer: persona, notes and conversation become chat turns. Answering and training both call `render`.

No words reach the model except through here. The system turn holds only the persona, so its bytes, and with them the
voice's cached prefix, are the same for every chat. Notes stand in the last user turn, beside the question they are for.
Pure; token counts are estimates, since the real tokenizer belongs to the voice.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, replace

from infra.voice.chat import Turn
from memory.messages import Note
from memory.persona import PersonaCard

# The most that the notes for one answer may take together; `recall.budget_tokens` sets less.
MOST_TOKENS = 1200
# Bounds what one earlier turn may take: a 2k context must hold persona, notes, history, question and answer.
HISTORY_TOKENS = 80

# What asks for thinking; its form is what `infra/voice/thinking.py` hides and `trainer/rewards.py` pays for.
THINK = "First think step by step between <think> and </think>, then give the answer."

# What some model's chat template marks turns with. Not every server behind a voice keeps members' words from being one.
CONTROL = re.compile(
    r"<(?=[|｜][^<>|｜]{1,40}[|｜]>|<?/?SYS>|/?(?:s|bos|eos|unk|pad)>|(?:start|end)_of_turn>)|\[(?=/?INST\])",
    re.IGNORECASE,
)
# Signs that show nothing, or turn the words around them: they hide a text from whoever reads along.
UNSEEN = re.compile("[\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]")
HAN = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef]")


def render(
    persona: PersonaCard,
    *,
    notes: Sequence[Note],
    history: Sequence[Turn],
    question: str,
    budget_tokens: int,
    thinking: bool = False,
) -> list[Turn]:
    """Chat turns for one answer: a system turn, the earlier turns, then the notes and the question.

    `budget_tokens` bounds all notes together; the last note is cut, and those after it left out, when it is reached.
    With `thinking` the model is asked to think before it answers.
    """
    earlier = [Turn(turn.role, shorten(as_data(turn.content), HISTORY_TOKENS)) for turn in history]
    return [
        Turn("system", system_text(persona, thinking=thinking)),
        *earlier,
        Turn("user", asking(notes, question, budget_tokens)),
    ]


def system_text(persona: PersonaCard, *, thinking: bool = False) -> str:
    """What the model is told about whom it stands in for; short, because a small model follows little of it."""
    about = "".join(f" {part.strip()}" for part in (persona.about, persona.profile) if part.strip())
    asked = f"You are the AI stand-in for {persona.name}.{about} Answer as {persona.name} would, only from the notes."
    return f"{asked} {THINK}" if thinking else asked


def asking(notes: Sequence[Note], question: str, budget_tokens: int) -> str:
    """The user turn: numbered notes, then the question; the bare question when there are none."""
    kept = fitted([replace(note, text=as_data(note.text)) for note in notes], budget_tokens)
    if not kept:
        return as_data(question)
    lines = "\n".join(f"[{number}] {note.text}" for number, note in enumerate(kept, 1))
    return f"Notes:\n{lines}\n\nQuestion: {as_data(question)}"


def fitted(notes: Sequence[Note], budget_tokens: int) -> tuple[Note, ...]:
    """The notes that take `budget_tokens` together at most: the last is cut, and those after it are left out."""
    kept: list[Note] = []
    left = budget_tokens
    for note in notes:
        whole, text = note.text.strip(), shorten(note.text, left)
        kept += [replace(note, text=text)] if text else []
        if text != whole:
            break
        left -= estimate_tokens(text)
    return tuple(kept)


def as_data(text: str) -> str:
    """Anybody's words as one line that can start no note, question or turn of its own, and hides nothing."""
    return CONTROL.sub(r"\g<0> ", UNSEEN.sub("", " ".join(text.split())))


def estimate_tokens(text: str) -> int:
    """About how many tokens `text` takes: 1 for each CJK character or fullwidth sign, 1 for every 4 other characters.

    On English and Chinese samples the packaged tokenizer needs 0.9 to 1.1 and 1.5 to 2 times as many; budgets leave
    that room.
    """
    han = len(HAN.findall(text))
    return han + (len(text) - han + 3) // 4


def shorten(text: str, tokens: int) -> str:
    """`text` cut to about `tokens`, at a word or character, with an ellipsis when something was cut; may be empty."""
    text = text.strip()
    if estimate_tokens(text) <= tokens:
        return text
    kept, used = [], 1.0
    for character in text:
        used += 1 if HAN.match(character) else 0.25
        if used > tokens:
            break
        kept.append(character)
    cut = "".join(kept)
    head, space, _ = cut.rpartition(" ")
    cut = head if space and len(head) > len(cut) // 2 else cut
    return f"{cut.rstrip()}…" if cut.strip() else ""


def prompt_sha256(turns: Sequence[Turn]) -> str:
    """Hex SHA-256 of the turns as canonical JSON: the journal names the exact prompt without keeping it twice."""
    return hashlib.sha256(json.dumps([asdict(turn) for turn in turns], ensure_ascii=False).encode()).hexdigest()
