"""What the twin says to members is whole in every language it carries."""

import string

import pytest

from bot.screens import why_line
from bot.wording import LANGUAGES, language_of, say, texts
from memory.messages import Note, Why
from tests.people import NOON


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_every_text_with_the_same_places(language: str) -> None:
    def places(text: str) -> set[str]:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name}

    english = texts("en")

    assert {key: places(text) for key, text in texts(language).items()} == {k: places(t) for k, t in english.items()}


@pytest.mark.parametrize(
    ("language", "line"),
    [
        ("en", "the creator's own answer · replaces the answer of 2026-03-01 · newest of 2 answers · has: dough"),
        ("zh-CN", "本人的回答 · 取代了 2026-03-01 的回答 · 2 次回答中最新的 · 含有：dough"),
        ("zh-TW", "本人的回答 · 取代了 2026-03-01 的回答 · 2 次回答中最新的 · 含有：dough"),
    ],
)
def test_why_a_source_was_chosen_is_one_line_in_every_language(language: str, line: str) -> None:
    why = Why(words=("dough",), answers=2, replaced=NOON)

    assert why_line(Note("1", "exchange", "24 °C.", 0.9, "telegram", NOON, why=why), language=language) == line


def test_a_language_that_is_not_carried_falls_back_to_english() -> None:
    assert say("thanks", "fi") == say("thanks", "en")


@pytest.mark.parametrize(
    ("text", "default", "language"),
    [
        ("how warm should it be", "en", "en"),
        ("面团要多热？", "en", "zh-CN"),
        ("麵團要多熱？", "zh-TW", "zh-TW"),
        ("用 Docker 怎么部署？", "en", "zh-CN"),
        ("Why does 你好 appear in the English output here?", "zh-CN", "en"),
        ("75 % ???", "zh-CN", "zh-CN"),
    ],
)
def test_the_question_decides_the_language(text: str, default: str, language: str) -> None:
    assert language_of(text, default) == language
