"""The eval card as a small picture, for chats: one bar before and one after for each measure."""

import io

from PIL import Image, ImageDraw, ImageFont

from trainer.card import MEASURES, EvalCard
from trainer.evalcard import LABELS
from trainer.gate import Verdict

WIDTH, ROW, HEAD, MARGIN = 720, 44, 76, 24
BARS = (330, 600)
PAPER, INK, GREY, BEFORE, AFTER = "#ffffff", "#1c2430", "#6b7683", "#b9c4d0", "#2f7d6b"


def picture(card: EvalCard, verdict: Verdict) -> bytes:
    """A PNG of 720 pixels' width."""
    image = Image.new("RGB", (WIDTH, HEAD + ROW * len(MEASURES) + MARGIN), PAPER)
    draw = ImageDraw.Draw(image)
    title, text, small = (ImageFont.load_default(size) for size in (24, 17, 13))
    passed = "passed its gate" if verdict.passed else "did not pass its gate"
    draw.text((MARGIN, 18), f"{card.candidate.name} {passed}", INK, font=title)
    draw.text((MARGIN, 50), f"{card.heldout} held-out exchanges; grey before, green after", GREY, font=small)
    for number, (name, more_is_better) in enumerate(MEASURES.items()):
        top = HEAD + number * ROW
        before, after = card.base.mean(name), card.candidate.mean(name)
        draw.text((MARGIN, top + 4), LABELS[name][0], INK, font=text)
        draw.text((MARGIN, top + 24), "more is better" if more_is_better else "less is better", GREY, font=small)
        bars(draw, top, before, after)
        draw.text((BARS[1] + 12, top + 10), f"{before:.2f} to {after:.2f}", INK, font=small)
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()


def bars(draw: ImageDraw.ImageDraw, top: int, before: float, after: float) -> None:
    """Two bars on one scale: that of the larger of the two, and of 1 where both are shares."""
    left, right = BARS
    scale = (right - left) / max(1.0, before, after)
    draw.rectangle((left, top + 6, left + max(1, round(before * scale)), top + 18), BEFORE)
    draw.rectangle((left, top + 22, left + max(1, round(after * scale)), top + 34), AFTER)
