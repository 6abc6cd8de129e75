"""How screens and answers look on Telegram: parts of at most 4096 UTF-16 units, entities, keyboards, files."""

from dataclasses import dataclass, replace

from telegram import InlineKeyboardButton, InlineKeyboardMarkup, MessageEntity
from telegramify_markdown import convert, split_entities
from telegramify_markdown.config import RenderConfig

from bot.delivery import split, utf16
from bot.screens import Button, Form, Screen

MOST_TEXT = 4096
MOST_CAPTION = 1024
# What fits into the little window over a chat.
MOST_TOAST = 200
MOST_PLACEHOLDER = 64


@dataclass(frozen=True)
class Part:
    """One message: text, where it is styled, and the buttons under it. `first` is the one that replies."""

    text: str
    entities: tuple[MessageEntity, ...] = ()
    buttons: InlineKeyboardMarkup | None = None
    first: bool = True


def parts_of(screen: Screen) -> list[Part]:
    """A screen as messages, in order; its buttons are on the last."""
    found = [part for piece in split(screen.text, MOST_TEXT, size=utf16) for part in converted(piece)]
    parts = [replace(part, first=number == 0) for number, part in enumerate(found or [Part("…")])]
    return [*parts[:-1], replace(parts[-1], buttons=keyboard(screen.buttons))]


def converted(markdown: str) -> list[Part]:
    """Markdown as text and entities. Symbols before headings and formulas in Unicode are not what the twin said."""
    text, entities = convert(markdown, latex_escape=False, config=plain_config())
    pieces = split_entities(text, entities, MOST_TEXT)
    return [
        Part(words, tuple(MessageEntity(e.type, e.offset, e.length, url=e.url, language=e.language) for e in marks))
        for words, marks in pieces
    ]


def plain_config() -> RenderConfig:
    config = RenderConfig.isolated()
    symbol = config.markdown_symbol
    symbol.heading_level_1 = symbol.heading_level_2 = symbol.heading_level_3 = symbol.heading_level_4 = ""
    symbol.unordered_list_item = "•"
    return config


def keyboard(buttons: tuple[Button, ...]) -> InlineKeyboardMarkup | None:
    """Thumbs share a row; words need one each to be readable on a phone."""
    if not buttons:
        return None
    drawn = [InlineKeyboardButton(button.label, callback_data=button.action) for button in buttons]
    short = all(len(button.label) <= 2 for button in buttons)
    return InlineKeyboardMarkup([drawn] if short else [[button] for button in drawn])


def question(form: Form) -> Part:
    """A form as a message to reply to, with what the field would begin with in a block that a tap copies."""
    if not form.value:
        return Part(f"{form.title}\n\n{form.label}"[:MOST_TEXT])
    head, room = f"{form.title}\n\n", MOST_TEXT - utf16(form.title) - utf16(form.label) - 8
    value = split(form.value, room, size=utf16)[0]
    block = MessageEntity(MessageEntity.PRE, utf16(head), utf16(value))
    return Part(f"{head}{value}\n\n{form.label}", (block,))
