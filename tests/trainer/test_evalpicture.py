"""The eval card as a picture: a real PNG whose bars are as long as its numbers."""

import io
from itertools import count

from PIL import Image

from trainer.card import MEASURES, EvalCard, Interval, Item, System
from trainer.evalpicture import AFTER, BARS, HEAD, ROW, picture
from trainer.gate import Verdict


def system(name: str, value: float) -> System:
    return System(name, [Item("words", dict.fromkeys(MEASURES, value))], ability=0.5)


def test_bars_are_as_long_as_the_numbers() -> None:
    card = EvalCard(
        ["q"],
        ["a"],
        system("candidate", 0.5),
        system("base", 0.25),
        None,
        {"base": dict.fromkeys(MEASURES, Interval(0, 0, 0))},
        style_auc=0.8,
        seed=1,
        wall_s=1,
        dataset="d",
    )

    drawn = Image.open(io.BytesIO(picture(card, Verdict(passed=True, reasons=())))).convert("RGB")

    green = tuple(int(AFTER[n : n + 2], 16) for n in (1, 3, 5))
    for row in range(len(MEASURES)):
        y = HEAD + row * ROW + 28
        length = next(n for n in count() if drawn.getpixel((BARS[0] + n, y)) != green)
        assert abs(length - (BARS[1] - BARS[0]) / 2) <= 1
