"""Each reward against the cheapest ways to be paid for nothing."""

import math

import pytest

from trainer.rewards import brevity, choice_in, correct, form, language, number_in, number_of, parts, persona

THOUGHT = "<think>6 boxes of 7.</think>The answer is 42."


@pytest.mark.parametrize(
    ("text", "worth"),
    [
        (THOUGHT, 1.0),
        ("\n<think>a</think>\nb", 1.0),
        ("Hm. <think>a</think>b", 0.75),  # something before the thinking
        ("<think>a</think>", 0.75),  # no answer
        ("<think></think>b", 0.75),  # no thinking
        ("<think>a", 0.25),
        ("42", 0.0),
        ("</think>42<think>", 0.0),
        ("a</think>42", 0.0),
        ("<think>a</think>b<think>a</think>b", 0.0),
        ("<think><think>a</think>b", 0.0),
        ("<think>a</think></think>b", 0.0),
        ("<THINK>a</think>b", 0.0),  # nobody hides what is written so
        ("", 0.0),
    ],
)
def test_the_form_is_thinking_once_and_then_an_answer(text: str, worth: float) -> None:
    assert form(text) == worth


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (THOUGHT, True),
        ("<think>So it is 42.</think>I do not know.", False),  # right only in the thinking
        ("<think>6 * 7 = 42", False),  # thinking that never ends
        ("<think>41</think>42<think>42</think>41", False),
        ("It is 41 or 42.", False),
        ("#### 42\n#### 41", False),
        ("The answer is 41. The answer is 42.", False),
        ("The answer is 42. The answer is 42.", True),
        ("#### 42 or 41", False),
        ("#### 42, 41", False),
        ("42 apples less 5 are 37.", False),  # right number, wrong place
        ("There are 42.5 left.", False),
        ("Route 42a.", False),
        ("37 + 5 = 42", True),
        ("\\boxed{42}", True),
        ("$42.00", True),
        ("答案是42。", True),
        ("最终答案:42", True),
        ("答案是41或42", False),
        ("一共有42个苹果。", True),
        ("42", True),  # full width
        ("-42", False),
        ("142", False),
        ("42 years of 1,042 days make 9", False),
        ("", False),
    ],
)
def test_only_the_one_number_that_an_answer_stands_by_is_right(text: str, right: bool) -> None:
    assert correct(text, "42", "number") == float(right)


@pytest.mark.parametrize(
    ("written", "other", "same"),
    [
        ("1,200", "1200", True),
        ("3.50", "3.5", True),
        ("1/2", "0.5", True),
        ("12,00", "1200", False),
        ("1/0", "1", False),
    ],
)
def test_numbers_are_compared_by_value(written: str, other: str, same: bool) -> None:
    assert (number_of(written) is not None and number_of(written) == number_of(other)) is same


def test_no_number_is_not_right_even_where_none_is_expected() -> None:
    assert correct("many", "some", "number") == 0
    assert number_in("none at all") is None


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("The answer is B.", "B"),
        ("A looks right, but the answer is B.", "B"),
        ("B or C", None),
        ("A, B, C and D", None),
        ("The answer is B. The answer is C.", None),
        ("A cat says so: B", "B"),
        ("Because", None),
        ("答案:B", "B"),
    ],
)
def test_a_choice_is_one_letter(text: str, chosen: str | None) -> None:
    assert choice_in(text) == chosen


def test_a_choice_in_the_thinking_chooses_nothing() -> None:
    assert correct("<think>B</think>C", "B", "choice") == 0
    assert correct("<think>C?</think>B", "B", "choice") == 1
    assert correct("<think>C?</think>B", "(b).", "choice") == 1
    assert correct("<think>C?</think>B", "", "choice") == 0
    assert correct("none", "", "choice") == 0


def test_open_answers_are_as_right_as_they_are_near() -> None:
    heard: list[str] = []

    def near(answer: str, expected: str) -> float:
        heard.append(answer)
        return 0.75

    assert correct("<think>warm water?</think>Warm water.", "Use warm water.", "open", similarity=near) == 0.75
    assert heard == ["Warm water."]
    assert correct("<think>warm", "Use warm water.", "open", similarity=near) == 0
    assert correct("x", "y", "open", similarity=lambda a, b: math.nan) == 0
    assert correct("x", "y", "open", similarity=lambda a, b: 7) == 1


def test_the_language_is_the_questions() -> None:
    assert language("<think>先算七乘六</think>答案是42", "六乘七是多少?") == 1
    assert language("The answer is 42.", "六乘七是多少?") == 0
    assert language("<think>First the sevens</think>答案是42", "六乘七是多少?") < 0.7
    assert language("<think>先算七乘六</think>The answer is 42.", "What is 6 times 7?") < 0.8
    assert language("Use `docker run` and $x$.", "用什么?") == 0
    assert language("用 `docker run`。", "用什么?") == 1  # code is no English
    assert language("42", "What is 6 times 7?") == 0


def test_short_is_good_and_silence_is_not_short() -> None:
    assert brevity("word " * 20, 40) == 1
    assert brevity("word " * 48, 40) == pytest.approx(0.5, abs=0.02)
    assert brevity("word " * 100, 40) == 0
    assert brevity("", 40) == 0
    assert brevity("<think>short</think>", 40) == 0
    assert brevity("<think></think>", 40) == 0


def test_what_was_thought_does_not_sound_like_anybody() -> None:
    assert persona("<think>friend, friend</think>No.", lambda answer: float("friend" in answer)) == 0
    assert persona("<think>no</think>No, friend.", lambda answer: 3 * ("friend" in answer)) == 1
    assert persona("<think>friend", lambda answer: 1) == 0


def test_an_answer_is_taken_apart() -> None:
    assert parts(THOUGHT) == parts("<think>6 boxes of 7. </think> The answer is 42.")
    assert (parts(THOUGHT).thinking, parts(THOUGHT).answer) == ("6 boxes of 7.", "The answer is 42.")
    assert not parts("<think>a</think>b</think>c").whole
