"""`doctor --tune`: measure in which format and in which way this machine computes the voice fastest, and keep it."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.cli.compose import adapter_store, calibrated, served_weights, settings_of, weights_folder
from infra.cli.console import err, out, print_json, table
from infra.errors import UserMistake
from infra.files import MANIFEST, read_json
from infra.remote import Remote
from infra.settings import Settings

if TYPE_CHECKING:
    from infra.voice.tuning import Calibration

SPEED = {"prompt_tps": "reads, tokens/s", "alone_tps": "says alone", "eight_tps": "says to eight"}


def tune(home: Path | None, *, force: bool, as_json: bool) -> None:
    """Measure formats and ways to compute, keep the fastest for the voice's next start, and show everything."""
    settings = settings_of(home)
    refuse_to_disturb(settings)
    adapters = bool(adapter_store(settings).versions())
    before = read_json(path) if (path := weights_folder(settings) / MANIFEST).is_file() else {}
    err().print("Measuring for a minute or two; whatever else computes now makes the figures worse.")
    weights = served_weights(settings, err().print, again=True, pinned=adapters and not force)
    found, formats = calibrated(settings, weights), read_json(path)
    said = remark(str(before.get("format", "")), formats, adapters=adapters)
    if as_json:
        kept = {key: formats[key] for key in ("format", "fastest", "measured")}
        print_json({"weights": kept, "remark": said, **asdict(found)})
    else:
        show(formats, found, said)


def refuse_to_disturb(settings: Settings) -> None:
    """Raises UserMistake where members would wait for the measurements, or there is nothing to measure."""
    if settings.voice.url:
        raise UserMistake(f"{settings.voice.url!r} speaks (voice.url): there is no voice here to tune.")
    if Remote.here(settings) is not None:
        raise UserMistake(
            "The twin is running: its answers and these measurements would slow each other down. Stop it."
        )


def remark(before: str, formats: Mapping[str, Any], *, adapters: bool) -> str:
    """What became of the format, where adapters hang on it."""
    served, fastest = formats["format"], formats["fastest"]
    if served != fastest:
        return (
            f"{fastest} is faster than {served}, which stays: your adapters were trained on it and could speak on no "
            "other. To change it all the same: understudy doctor --tune --force, and then retrain."
        )
    if adapters and before not in {"", served}:
        return (
            f"{served} is served instead of {before}: your adapters, trained on that, cannot speak any more. Retrain."
        )
    return ""


def show(formats: Mapping[str, Any], found: "Calibration", said: str) -> None:
    """The measurements as two tables, and what was chosen."""
    console = out()
    files = (
        (name, *(round(each[key]) for key in SPEED), f"{each['turn_s']:.2f}", spoken(each.get("perplexity")))
        for name, each in formats["measured"].items()
    )
    columns = (*SPEED.values(), "a turn, s", "perplexity")
    console.print(table("Formats of the base", ("format", *columns), files))
    ways = (
        (
            each.name,
            *(round(getattr(each.speed, key)) for key in SPEED),
            f"{each.speed.turn_s:.2f}",
            spoken(each.perplexity),
            f"{each.share:.2f}",
            each.verdict,
        )
        for each in found.measured
    )
    console.print(table("Ways to compute it", ("way", *columns, "of the default's time", ""), ways))
    console.print(f"Served: {formats['format']}; {found.tuning}.", markup=False)
    if found.disturbed:
        console.print(
            f"Others had {found.others:.0%} of the machine, so the defaults stay. Repeat it when it is quiet."
        )
    if said:
        console.print(said, markup=False)


def spoken(perplexity: float | None) -> str:
    return f"{perplexity:.2f}" if perplexity else ""
