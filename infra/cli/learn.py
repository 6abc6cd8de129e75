"""Learning: datasets, runs, eval cards and voices."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import typer

from infra.adapters import AdapterStore, check_share
from infra.cli.compose import (
    adapter_store,
    now,
    open_encoder,
    open_journal,
    open_runs,
    persona,
    served_weights,
    settings_of,
    threads,
)
from infra.cli.console import err, out, print_json, table
from infra.errors import UserMistake
from infra.files import finished
from infra.remote import Remote
from infra.runs import Run, Runs
from infra.settings import Settings

LOOK_S = 0.5
FORMATS: dict[str, Literal["alpaca", "sharegpt", "messages"]] = {
    "alpaca": "alpaca",
    "sharegpt": "sharegpt",
    "messages": "messages",
}


def dataset_build(home: Path | None, *, dry_run: bool, as_json: bool) -> None:
    """Count, or build, what a training would learn from."""
    from trainer.cycle import harvest_counts

    settings = settings_of(home)
    if not dry_run:
        run = start(settings, options={"dry_run": True})
        finish(settings, run.id, as_json=as_json)
        return
    found = harvest_counts(settings, open_journal(settings))
    if as_json:
        print_json(found)
        return
    out().print(f"{found['rows']} rows: {found['train']} to train on, {found['validation']} held out.")
    out().print(table("Left out", ("rows", "why"), ((n, why) for why, n in found["excluded"].items())))


def datasets(settings: Settings) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Finished datasets by id, with their folders and manifests; each run has at most one."""
    found = {}
    for folder in sorted((settings.data_folder / "runs").glob("*/dataset")):
        manifest = finished(folder)
        if manifest is not None:
            found[str(manifest["id"])] = (folder, manifest)
    return found


def one_dataset(settings: Settings, dataset: str) -> tuple[Path, dict[str, Any]]:
    found = datasets(settings)
    if dataset not in found:
        raise UserMistake(f"There is no dataset {dataset!r}; known are: {', '.join(found) or 'none'}.")
    return found[dataset]


def dataset_list(home: Path | None, *, as_json: bool) -> None:
    """All datasets."""
    found = [
        {name: manifest[name] for name in ("id", "rows", "train", "validation")}
        for _, manifest in datasets(settings_of(home)).values()
    ]
    if as_json:
        print_json(found)
        return
    columns = ("id", "rows", "train", "validation")
    out().print(table("Datasets", columns, ([each[name] for name in columns] for each in found)))


def dataset_show(home: Path | None, dataset: str, *, as_json: bool) -> None:
    """One dataset's manifest."""
    print_json(one_dataset(settings_of(home), dataset)[1])


def dataset_export(home: Path | None, dataset: str, *, out: Path, format_name: str, as_json: bool) -> None:
    """Write both splits as jsonl in another trainer's format."""
    from trainer.dataset import export

    form = FORMATS.get(format_name)
    if form is None:
        raise UserMistake(f"The format is one of {', '.join(FORMATS)}, not {format_name!r}.")
    folder, _ = one_dataset(settings_of(home), dataset)
    out.mkdir(parents=True, exist_ok=True)
    written = {split: export(folder, form, out / f"{split}.jsonl", split=split) for split in ("train", "validation")}
    print_json(written) if as_json else err().print(f"Wrote {written} rows into {out}.")


def start(settings: Settings, *, options: dict[str, Any]) -> Run:
    """Queue a run, or join the one that is active, and ring for it."""
    from infra.queue import ring
    from trainer.app import queue_app

    runs = open_runs(settings, open_journal(settings))
    run, made = runs.create("retrain", f"manual:{now().isoformat()}", options=options, now=now())
    if not made:
        err().print(f"Run {run.id} is under way already; following it.")
    ring(queue_app(settings), run.id)
    return run


def retrain(home: Path | None, *, wait: bool, dry_run: bool, as_json: bool) -> None:
    """Start a run. Without a running twin a worker is started here, for as long as the run takes."""
    settings = settings_of(home)
    if dry_run:
        dataset_build(home, dry_run=True, as_json=as_json)
        return
    run = start(settings, options={})
    if wait:
        finish(settings, run.id, as_json=as_json)
        return
    if Remote.find(settings) is None:
        err().print("No twin is running, so nobody works on it yet: understudy up, or retrain --wait.")
    print_json({"run": run.id}) if as_json else out().print(f"Run {run.id}; see understudy runs {run.id}.")


def finish(settings: Settings, run_id: str, *, as_json: bool) -> None:
    """Follow a run to its end; with a worker of our own when no twin is running. Exit 1 unless it succeeded."""
    from infra.cli.run import children
    from infra.processes import Supervisor

    own = Remote.find(settings) is None
    supervisor = Supervisor([child for child in children(settings) if own and child.name == "worker"], say=err().print)
    supervisor.open()
    try:
        run = follow(open_runs(settings, open_journal(settings)), run_id)
    finally:
        supervisor.close()
    print_json(asdict(run)) if as_json else show_run(run)
    if run.state != "succeeded":
        raise typer.Exit(1)


def follow(runs: Runs, run_id: str) -> Run:
    """Show a run's progress on stderr until it ends."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:10}"),
        BarColumn(),
        TextColumn("{task.fields[words]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err(), transient=True) as progress:
        task = progress.add_task("waiting", total=None, words="")
        while (run := runs.get(run_id)).active:
            total, done = run.progress.get("total") or None, run.progress.get("done") or 0
            words = str(run.progress.get("text") or "")
            progress.update(task, description=run.stage or run.state, total=total, completed=done, words=words)
            time.sleep(LOOK_S)
    return run


def show_run(run: Run) -> None:
    """How a run ended, for a person."""
    out().print(f"Run {run.id} {run.state} after {run.attempt} attempt(s). {run.error}".strip(), markup=False)
    verdict = run.result.get("verdict")
    if verdict:
        out().print("Passed the gate." if verdict["passed"] else "Refused by the gate:", markup=False)
        for reason in verdict["reasons"]:
            out().print(f"  {reason}", markup=False)


def runs(home: Path | None, run_id: str, *, cancel: bool, as_json: bool) -> None:
    """All runs, or one; or cancel one."""
    settings = settings_of(home)
    table_of_runs = open_runs(settings, open_journal(settings))
    if run_id and cancel:
        run = table_of_runs.cancel(run_id, now=now())
        print_json(asdict(run)) if as_json else err().print(f"Run {run.id} is being cancelled.")
    elif run_id:
        run = table_of_runs.get(run_id)
        print_json(asdict(run)) if as_json else show_run(run)
    else:
        found = table_of_runs.recent()
        rows = ((run.id, run.kind, run.state, run.stage, run.created[:16], run.error) for run in found)
        columns = ("run", "kind", "state", "stage", "created", "why")
        print_json([asdict(run) for run in found]) if as_json else out().print(table("Runs", columns, rows))


def evaluate(home: Path | None, version: str, *, questions: Path | None, as_json: bool) -> None:
    """Measure an adapter again on the held-out exchanges it was judged by, or let it answer a file of questions."""
    settings = settings_of(home)
    store = adapter_store(settings)
    if questions is not None:
        from trainer.evals import answers_to

        weights, adapter = served_weights(settings), store.gguf(version)
        found = answers_to(
            questions, weights=weights, adapter=adapter, persona=persona(settings, open_journal(settings))
        )
        rows = ((each["question"], each["base"], each["adapter"]) for each in found)
        print_json(found) if as_json else out().print(table("Before, after", ("question", "base", version), rows))
        return
    from trainer.dataset import load
    from trainer.evals import evaluate as measure

    folder, _ = one_dataset(settings, store.manifest(version)["dataset"])
    target = settings.data_folder / "evaluations" / version
    target.mkdir(parents=True, exist_ok=True)
    card = measure(
        load(folder),
        weights=served_weights(settings),
        adapter=store.gguf(version),
        current=None,
        persona=persona(settings, open_journal(settings)),
        encoder=open_encoder(settings),
        folder=target,
        seed=settings.training.seed,
        threads=threads(settings),
        on_progress=lambda done, total, text: err().print(f"{done}/{total} {text}"),
    )
    print_json(card.headline()) if as_json else out().print(f"Wrote {target / 'evalcard.html'}.")


def voices_list(home: Path | None, *, as_json: bool) -> None:
    """All adapters, and which one speaks."""
    settings = settings_of(home)
    store = adapter_store(settings)
    remote = Remote.find(settings)
    speaking = remote.get("/admin/voices") if remote else stored_voices(store)
    found = [
        {"version": each, "passed": passed(store, each), "tainted": store.tainted(each)} for each in store.versions()
    ]
    if as_json:
        print_json({**{n: speaking[n] for n in ("voice", "canary")}, "previous": store.previous(), "adapters": found})
        return
    out().print(f"Speaking: {speaking['voice']}", markup=False)
    if on_trial := speaking["canary"]:
        loaded = "" if on_trial.get("speaks", True) else " (it could not be loaded and answers nobody)"
        out().print(f"Canary: {on_trial['version']}, share {on_trial['share']:g}{loaded}", markup=False)
    rows = ((each["version"], "passed" if each["passed"] else "refused") for each in found)
    out().print(table("Adapters", ("version", "gate"), rows))


def stored_voices(store: AdapterStore) -> dict[str, Any]:
    """What the next start will speak with."""
    canary = store.canary()
    return {"voice": store.current() or "base", "canary": asdict(canary) if canary else None}


def passed(store: AdapterStore, version: str) -> bool:
    """Whether a version passed its gate."""
    return bool((store.manifest(version).get("verdict") or {}).get("passed"))


def voices_promote(home: Path | None, version: str, *, as_json: bool) -> None:
    """Let a version speak, in the running twin at once, else from the next start."""
    settings = settings_of(home)
    remote = Remote.find(settings)
    if remote is not None:
        answer = remote.post("/admin/voices/promote", version=version)
    else:
        adapter_store(settings).point(None if version == "base" else version)
        answer = {"voice": version}
    print_json(answer) if as_json else err().print(f"Speaking: {answer['voice']}", markup=False)


def voices_rollback(home: Path | None, *, as_json: bool) -> None:
    """Go back to the voice before."""
    settings = settings_of(home)
    remote = Remote.find(settings)
    if remote is not None:
        answer = remote.post("/admin/voices/rollback")
    else:
        store = adapter_store(settings)
        before = store.previous()
        store.point(before)
        answer = {"voice": before or "base"}
    print_json(answer) if as_json else err().print(f"Speaking: {answer['voice']}", markup=False)


def voices_canary(home: Path | None, version: str, *, share: float, off: bool, as_json: bool) -> None:
    """Let a version answer a share of the conversations, or end that; as `voices_promote` with or without a twin."""
    if off == bool(version):
        raise UserMistake("Name the adapter that shall answer a share of the conversations, or say --off.")
    check_share(share)
    settings = settings_of(home)
    remote, store = Remote.find(settings), adapter_store(settings)
    if off:
        answer = remote.post("/admin/voices/canary/stop") if remote else {"stopped": store.end_canary().version}
        sentence = f"Canary {answer['stopped']} has stopped."
    else:
        if remote is not None:
            answer = remote.post("/admin/voices/canary", version=version, share=share)
        else:
            store.try_out(version, share, now=now())
            answer = {"canary": version, "share": share}
        sentence = f"Canary: {version}, share {share:g}."
    print_json(answer) if as_json else err().print(sentence, markup=False)
