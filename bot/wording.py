"""What the twin itself says to members, apart from answers: one TOML file of texts for each language in `texts/`.

A language that is not carried falls back to English; a text that a translation lacks is a mistake that a test finds.
"""

import tomllib
from functools import cache
from importlib.resources import files

LANGUAGES = ("en", "zh-CN", "zh-TW")


@cache
def texts(language: str) -> dict[str, str]:
    """All texts of one language by their key."""
    chosen = language if language in LANGUAGES else "en"
    return tomllib.loads((files("bot") / "texts" / f"{chosen}.toml").read_text(encoding="utf-8"))


def say(key: str, language: str, **values: object) -> str:
    """The text `key` in `language` with its places filled in. Raises KeyError for a key or value that is missing."""
    return texts(language)[key].format(**values)


def language_of(text: str, default: str) -> str:
    """The language to answer in: Chinese when a third of the letters are Han, else `default`, or English for Latin.

    Traditional and simplified are not told apart by script alone; a creator set to zh-TW keeps zh-TW.
    """
    letters = [c for c in text if c.isalpha()]
    han = sum("一" <= c <= "鿿" for c in letters)
    if letters and han * 3 >= len(letters):
        return default if default.startswith("zh") else "zh-CN"
    return "en" if letters else default
