"""Thinking stays hidden however a stream is cut."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.voice.thinking import Shown, visible

ANSWERS = [
    ("<think>secret 6 < 7</think>\n\nIt is 42.", "It is 42."),
    ("Well. <THINK>secret</Think> It is <b>42</b>.", "Well. It is <b>42</b>."),
    ("<think>secret</think>a<think>secret</think> b", "ab"),
    ("<think>secret <think>secret</think> 42", "42"),
    ("<think>secret that never ends", ""),
    ("1 < 2 <<think>secret</think>3", "1 < 2 <3"),
    ("It is</think> 42", "It is42"),
    ("<thinking>no tag</thinking>", "<thinking>no tag</thinking>"),
    ("no tags at all", "no tags at all"),
    ("<think>想一想，secret</think>是四十二。", "是四十二。"),
]


@pytest.mark.parametrize(("said", "seen"), ANSWERS)
def test_a_whole_answer_is_shown_without_its_thinking(said: str, seen: str) -> None:
    assert visible(said) == seen


@pytest.mark.parametrize(("said", "seen"), ANSWERS)
def test_a_stream_cut_in_two_at_any_place_shows_the_same(said: str, seen: str) -> None:
    for cut in range(len(said) + 1):
        shown = Shown()
        first = shown.feed(said[:cut])
        rest = shown.feed(said[cut:])

        assert (first + rest).strip() == seen
        assert seen.startswith(first.strip())  # nothing that would have to be taken back


@pytest.mark.parametrize(("said", "seen"), ANSWERS)
def test_a_stream_that_breaks_off_anywhere_shows_no_thinking_and_no_half_of_a_tag(said: str, seen: str) -> None:
    for cut in range(len(said) + 1):
        shown = Shown()
        found = "".join(shown.feed(each) for each in said[:cut])

        assert seen.startswith(found.strip())
        assert "secret" not in found


@settings(deadline=None)
@given(st.lists(st.sampled_from(["<", "<th", "ink>", "</", "think>", "a", " ", "\n", "<think>", "</think>"])))
def test_pieces_and_the_whole_show_the_same(pieces: list[str]) -> None:
    shown = Shown()
    found = "".join(shown.feed(piece) for piece in pieces)

    assert found.strip() == visible("".join(pieces))


def test_who_asks_for_it_sees_the_thinking_without_its_tags() -> None:
    assert visible("<think>six sevens</think>42", thinking=True) == "six sevens\n\n42"
    assert visible("<think>six sevens", thinking=True) == "six sevens"
