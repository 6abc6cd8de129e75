"""The fixed sheet: every checker takes right answers and refuses near misses."""

from collections import Counter

import pytest

from trainer.ability import Question, compared, counts, numbers, probe, sheet

BY_TEXT = {each.question: each for each in sheet()}


def test_the_sheet_has_forty_questions_in_each_language_and_each_kind() -> None:
    languages = Counter(each.language for each in sheet())
    kinds = {
        "comparing",
        "letters",
        "arithmetic",
        "common sense",
        "knowledge",
        "identity",
        "instructions",
        "translation",
    }

    assert min(languages[each] for each in ("en", "zh")) >= 40
    assert {each.group for each in sheet()} == kinds
    assert len({each.id for each in sheet()}) == len(sheet()) == len(BY_TEXT)
    assert all(bool(each.says) != bool(each.number) for each in sheet())


def test_the_gates_probe_is_the_part_of_it_that_it_always_was() -> None:
    assert len(probe()) == 24
    assert probe()[0].question == "What is the capital of France?"
    assert {each.group for each in probe()}.isdisjoint({"identity", "comparing", "letters", "instructions"})


@pytest.mark.parametrize("question", sheet(), ids=lambda each: each.id)
def test_saying_nothing_or_the_question_again_is_never_right(question: Question) -> None:
    assert not question.right("", creator="Ada")
    assert not question.right("I don't know. 我不知道。", creator="Ada")


@pytest.mark.parametrize(
    ("question", "right", "wrong"),
    [
        (
            "Which is larger, 9.9 or 9.11?",
            ["9.9", "9.9 is larger than 9.11.", "The larger number is 9.9.", "9.9 > 9.11", "9.90 is the larger."],
            ["9.11", "9.11 is larger than 9.9.", "9.9 and 9.11 are equal.", "9.9 is smaller.", "9.11 > 9.9", "9.911"],
        ),
        (
            "9.9和9.11哪个大？",
            ["9.9", "9.9大。", "9.9更大", "9.9比9.11大。", "更大的是9.9"],
            ["9.11", "9.11更大", "9.11比9.9大。", "一样大", "9.9小"],
        ),
        (
            "How many letters r are in the word strawberry?",
            ["3", "There are three r's in strawberry.", "3 letters"],
            ["2", "There are 2 or 3.", "13", "strawberry"],
        ),
        ("单词strawberry里有几个字母r？", ["3", "有3个字母r。", "三个"], ["2", "2个或3个", "十三个"]),
        ("What is 7 times 8?", ["56", "7 times 8 is 56.", "7 × 8 = 56"], ["54", "56 or 54", "7 times 8", "5.6"]),
        ("7乘以8等于多少？", ["56", "7乘以8等于56。", "五十六"], ["54", "七乘八", "五十四"]),
        ("我有3个苹果，吃了1个，还剩几个？", ["还剩2个苹果。", "两个", "3-1=2"], ["3个", "还剩1个"]),
        ("Reply with exactly one word: banana.", ["banana", "Banana."], ["The word is banana.", "banana banana"]),
        ("Count from 1 to 5.", ["1, 2, 3, 4, 5", "1 2 3 4 5."], ["1, 2, 3, 4", "1 to 5", "1, 2, 3, 4, 5, 6"]),
        ("Write the word understudy in capital letters.", ["UNDERSTUDY"], ["understudy", "Understudy"]),
        ("For whom do you stand in?", ["For Ada.", "ada"], ["For Adam.", "For you."]),
        ("你是谁的替身？", ["我是Ada的替身。"], ["我是你的替身。"]),
        ("Are you a human being?", ["No, I am an AI.", "I'm Ada's stand-in."], ["Yes.", "Yes, not an AI."]),
        ("If today is Monday, which day is tomorrow?", ["Tuesday"], ["Sunday", "Tuesday or Wednesday"]),
        ("What is the last letter of the word bread?", ["d", "D.", "The last letter is d."], ["b", "bread", "and"]),
    ],
)
def test_a_checker_takes_what_is_right_and_nothing_near_it(question: str, right: list[str], wrong: list[str]) -> None:
    asked = BY_TEXT[question]

    assert [each for each in right if not asked.right(each, creator="Ada")] == []
    assert [each for each in wrong if asked.right(each, creator="Ada")] == []


def test_numbers_are_read_in_digits_and_in_words() -> None:
    assert numbers("Twelve eggs, 1,200 hens, 3.50 each") == {"12", "1200", "7/2"}
    assert numbers("十二个鸡蛋，五十六只鸡，两只鸭") == {"12", "56", "2"}
    assert numbers("a one-off 一样") == set()


def test_before_and_after_are_counted_by_language_and_group() -> None:
    silence = ["" for _ in sheet()]
    said = ["It is Paris." if "capital of France" in each.question else "" for each in sheet()]

    found = counts(compared(silence, said, creator="Ada"))

    assert found[-1] == {"group": "all", "asked": len(sheet()), "before": 0, "after": 1}
    knowledge = sum((each.group, each.language) == ("knowledge", "en") for each in sheet())
    assert {"group": "knowledge, en", "asked": knowledge, "before": 0, "after": 1} in found
