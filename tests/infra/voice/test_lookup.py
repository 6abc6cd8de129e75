"""Guesses come from what was said before, the latest first."""

from infra.voice.lookup import Lookup


def test_what_followed_the_last_three_tokens_is_guessed() -> None:
    lookup = Lookup([1, 2, 3, 4, 5, 6, 1, 2, 3])

    assert lookup.guess(2) == [4, 5]
    assert lookup.guess(50) == [4, 5, 6, 1, 2, 3]
    assert lookup.guess(0) == []


def test_the_latest_of_several_places_counts_and_the_answer_is_one_of_them() -> None:
    lookup = Lookup([1, 2, 3, 7, 1, 2, 3, 8])
    for token in (1, 2, 3):
        lookup.add(token)

    assert lookup.guess(1) == [8]


def test_nothing_is_guessed_after_what_was_never_said() -> None:
    assert Lookup([]).guess(4) == []
    assert Lookup([1, 2]).guess(4) == []
    assert Lookup([1, 2, 3, 4]).guess(4) == []
