"""Reasoning on the command line: what a run of GRPO is asked for and what it showed, multiplying, the fixed sheet."""

import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from infra.cli.bench import show
from infra.cli.compose import adapter_store, open_journal, persona, served_weights, settings_of
from infra.cli.console import err, out, print_json, table
from infra.cli.training import SFT, checked_stage
from infra.errors import UserMistake
from infra.presets import PRESETS
from infra.settings import Settings, offline

# Of a group's answers so many are shown, each cut to this many characters.
ANSWERS, CHARACTERS = 4, 160
STEPS_SHOWN = 12


def options_for(home: Path | None, stage: str, *, data: Path | None, steps: int) -> dict[str, Any]:
    """What a run is asked for beyond the usual; warns in words. Raises UserMistake for what cannot be used."""
    from trainer.grpo import cases_of

    if stage != "grpo" and data is None:
        about = checked_stage(stage or SFT)
        return {"stage": about} if about else {}
    if stage != "grpo" or data is None:
        raise UserMistake("Reasoning is learned with: retrain --stage grpo --data FILE.")
    cases = cases_of(data)
    err().print(f"{len(cases)} worked cases, {sum(bool(case.steps) for case in cases)} with steps.", markup=False)
    for each in warned(settings_of(home), steps):
        err().print(f"Mind: {each}", markup=False)
    return {"stage": stage, "data": str(data.resolve()), "steps": steps}


def warned(settings: Settings, steps: int) -> list[str]:
    """Warnings that can be given before anything is loaded; of a base on a hub the run itself says it."""
    from infra.voice.weights import source_of
    from trainer.grpo import LEAST_PARAMETERS, parameters, warnings_for

    hub = settings.models.gguf.startswith("hub:")
    return warnings_for(int(LEAST_PARAMETERS) if hub else parameters(source_of(settings.models.gguf)), steps)


def show_reasoning(told: dict[str, Any] | None) -> None:
    """Rewards by step, and the groups that were kept, for a person."""
    from trainer.reasoning import sampled

    if told is None:
        return
    steps = sampled(told["steps"], STEPS_SHOWN)
    columns = [name for name in steps[0] if name != "cut"]
    out().print(table("Mean rewards of a step", columns, ([each.get(name, "") for name in columns] for each in steps)))
    for group in told["samples"]:
        out().print(f"\nStep {group['step']}: {group['question']} ({group['expected']})", markup=False)
        for each in group["answers"][:ANSWERS]:
            paid = ", ".join(f"{name} {value:.2f}" for name, value in each["rewards"].items())
            text = " ".join(each["text"].split())
            cut = text if len(text) <= CHARACTERS else f"{text[:CHARACTERS]}…"
            out().print(f"  {cut or '(nothing)'}\n    {paid}", markup=False)
    for each in told.get("warnings", ()):
        out().print(f"Mind: {each}", markup=False)


def multiply(keep: Path | None, *, digits: int, rows: int, epochs: int, preset: str, asked: int, as_json: bool) -> None:
    """The multiplication experiment on a preset's base."""
    from trainer.multiply import multiplying

    if preset not in PRESETS:
        raise UserMistake(f"The preset is one of {', '.join(PRESETS)}, not {preset!r}.")
    chosen = PRESETS[preset]
    if not any(name.startswith("hub:") for name in (chosen.gguf, chosen.trainable)):
        offline()
    with nullcontext(str(keep)) if keep else tempfile.TemporaryDirectory() as folder:
        figures = multiplying(
            Path(folder),
            preset=chosen,
            digits=digits,
            rows=rows,
            epochs=epochs,
            asked=asked,
            say=lambda line: err().print(line, markup=False),
        )
    show("Multiplications right, of pairs never seen", figures, as_json=as_json)


def sheet(home: Path | None, version: str, *, as_json: bool) -> None:
    """The fixed sheet of questions, asked of the bare base and of an adapter on it."""
    from trainer.evals import sheet_of

    settings = settings_of(home)
    card = persona(settings, open_journal(settings))
    found = sheet_of(served_weights(settings), adapter_store(settings).gguf(version), persona=card)
    if as_json:
        print_json(found)
        return
    columns = ("group", "asked", "before", "after")
    counts = [[each[name] for name in columns] for each in found["counts"]]
    marks = {True: "right", False: "wrong"}
    rows = (
        (each["question"], each["before"], marks[each["before_right"]], each["after"], marks[each["after_right"]])
        for each in found["answers"]
    )
    out().print(table("The same questions", ("question", "before", "", "after", ""), rows))
    out().print(table("Right", columns, counts))
