"""What the twin says to members is whole in every language it carries."""

import string

import pytest

from bot.wording import LANGUAGES, language_of, say, texts


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_every_text_with_the_same_places(language: str) -> None:
    def places(text: str) -> set[str]:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name}

    english = texts("en")

    assert {key: places(text) for key, text in texts(language).items()} == {k: places(t) for k, t in english.items()}


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
