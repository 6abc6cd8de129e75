"""The reasoning stages of a run: worked cases are frozen, shown to the first training, and learned from by GRPO.

The first training sees cases whose steps somebody wrote, as thinking and then the answer: a model that never thinks
would be rewarded for nothing (DeepSeek-R1's cold start, arXiv 2501.12948). `grpo.py` then goes on from there. Cases
come from a file that the creator or operator gave, not from the journal, so `forget` does not look into them.
"""

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.files import finish_folder, finished, fresh_folder, sha256_of, write_atomic
from infra.voice.chat import Turn
from infra.voice.engine import Engine
from infra.voice.thinking import CLOSE, OPEN
from infra.voice.weights import Weights
from memory.persona import PersonaCard
from memory.prompt import render
from trainer import dataset, lora, style
from trainer.dataset import Row, as_lines, row_to
from trainer.grpo import REWARDS, SAMPLES, SHOWN, Case, GrpoBudget, Paying, Step, cases_of, lines_of, reason
from trainer.rewards import Likeness, Similarity

if TYPE_CHECKING:
    from trainer.learning import Attempt, Given

# On a CPU a step of eight answers of 512 tokens takes minutes even for a tiny base.
ON_CPU = {"group": 4, "completion": 96}


def wanted(work: "Attempt") -> bool:
    return work.run.options.get("stage") == "grpo"


def cold_start(work: "Attempt", folder: Path, built: dataset.Dataset, persona: PersonaCard) -> Path:
    """The run's dataset with worked cases among its rows: at most as many as there are others, drawn by the seed.

    The file is frozen at the first attempt. Raises UserMistake when it holds no cases.
    """
    if finished(folder) is None:
        cases = cases_of(Path(work.run.options["data"]))
        fresh_folder(folder)
        rows = built.rows("train")
        worked = [row_of(case, persona) for case in cases if case.steps]
        random.Random(work.settings.training.seed).shuffle(worked)  # noqa: S311
        train = as_lines(map(row_to, [*rows, *worked[: len(rows)]]))
        write_atomic(folder / "cases.jsonl", as_lines(asdict(case) for case in cases))
        write_atomic(folder / "train.jsonl", train)
        write_atomic(folder / "validation.jsonl", as_lines(map(row_to, built.rows("validation"))))
        identity = hashlib.sha256(f"{built.id}\x1f{train}".encode()).hexdigest()[:16]
        finish_folder(folder, {"kind": "dataset", "id": identity, "worked": min(len(worked), len(rows))})
    return folder


def row_of(case: Case, persona: PersonaCard) -> Row:
    """A worked case as a training row: the steps as thinking, then the answer."""
    said = f"{OPEN}\n{case.steps}\n{CLOSE}\n{case.answer}"
    return Row(tuple(prompt_of(persona, case.question)), said, "none", "train", {"worked": True})


def prompt_of(persona: PersonaCard, question: str) -> list[Turn]:
    """The question as a member would ask it of a voice that thinks."""
    return render(persona, notes=(), history=(), question=question, budget_tokens=0, thinking=True)


def reasoned(work: "Attempt", folder: Path, report: lora.TrainReport, given: "Given") -> lora.TrainReport:
    """The first training's report with the adapter that GRPO made of it. Raises Cancelled when asked to stop."""
    from trainer.learning import Cancelled

    assert report.peft is not None
    budget, frozen = budget_of(work.run.options), given.learned.folder
    folder.mkdir(parents=True, exist_ok=True)
    paying = Paying(
        folder,
        every=max(1, budget.steps // SHOWN),
        tokens=budget.completion // 2,
        similarity=similarity(work),
        likeness=likeness(work, folder, given.built, weights=given.weights),
    )

    def tell(step: Step) -> None:
        parts = ", ".join(f"{name} {value:.2f}" for name, value in step.parts.items())
        text = f"reward {step.reward:.2f} ({parts}), {step.seconds / step.step:.1f} s/step"
        work.report("grpo", {"done": step.step, "total": step.steps, "text": text})

    found = reason(
        [Case(**row) for row in lines_of(frozen / "cases.jsonl")],
        folder,
        peft=report.peft,
        base_gguf=given.weights.path,
        trainable=work.settings.models.trainable,
        four_bit=work.settings.models.four_bit,
        prompt_of=lambda question: prompt_of(given.persona, question),
        paying=paying,
        budget=budget,
        seed=work.settings.training.seed,
        on_step=tell,
        should_stop=work.stopping.is_set,
    )
    if found.peft is None:
        raise Cancelled(f"Run {work.run.id!r} was asked to stop.")
    cases = {"worked": sha256_of(frozen / "cases.jsonl"), "trained_by": found.trained_by}
    described = {**report.hyperparameters, "grpo": {**found.budget, **cases}}
    peak = max(report.peak_memory_mib, found.peak_memory_mib)
    return replace(
        report,
        peft=found.peft,
        wall_s=report.wall_s + found.wall_s,
        peak_memory_mib=peak,
        hyperparameters=described,
    )


def budget_of(options: Any) -> GrpoBudget:
    """What the run was asked for, smaller where there is no GPU."""
    import torch

    steps = {"steps": int(options["steps"])} if options.get("steps") else {}
    return GrpoBudget(**steps, **({} if torch.cuda.is_available() else ON_CPU))


def similarity(work: "Attempt") -> Similarity:
    """How near two texts are in meaning, by the installation's embedder, loaded when first asked."""
    loaded: list[Any] = []

    def near(answer: str, expected: str) -> float:
        if not loaded:
            loaded.append(work.encoder())
        one, other = loaded[0].dense([answer, expected])
        return float(one @ other)

    return near


def likeness(work: "Attempt", folder: Path, built: dataset.Dataset, *, weights: Weights) -> Likeness:
    """How much an answer reads like the creator rather than like the bare base, as the eval card measures it.

    Unlike the card's, this classifier is trained against on purpose; the card learns its own from the same rows, so a
    voice that games one may look good on the other too. Hence its small weight, and the gate's other rules.
    """
    from trainer import evals

    learned = evals.own_rows(built)
    path = folder / "others.json"
    if not path.is_file():
        sampled = evals.drawn(learned)
        engine = Engine(weights.path, base="base", base_sha256=weights.sha256, waiting=len(sampled))
        try:
            said = [each.text for each in evals.speak(engine, sampled, evals.ANSWERING)]
        finally:
            engine.close()
        write_atomic(path, json.dumps(said, ensure_ascii=False))
    others = json.loads(path.read_text(encoding="utf-8"))
    measure = style.learn([row.answer for row in learned], others, seed=work.settings.training.seed)
    return lambda answer: measure.score([answer])[0]


def told(run_folder: Path) -> dict[str, Any] | None:
    """What `understudy runs ID` shows of a run's GRPO: rewards by step, and groups with their answers; None without."""
    folder = run_folder / "grpo"
    steps = lines_of(folder / REWARDS)
    if not steps:
        return None
    done = finished(folder)
    report: dict[str, Any] = done["report"] if done else {}
    names = ("trained_by", "first", "last", "wall_s", "peak_memory_mib", "warnings")
    return {"steps": steps, "samples": lines_of(folder / SAMPLES), **{n: report[n] for n in names if n in report}}


def sampled(steps: Sequence[dict[str, Any]], most: int = 12) -> list[dict[str, Any]]:
    """So many of the steps, the first and the last among them."""
    if len(steps) <= most:
        return list(steps)
    return [steps[round(n * (len(steps) - 1) / (most - 1))] for n in range(most)]
