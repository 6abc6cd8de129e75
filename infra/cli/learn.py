"""Learning: datasets, runs, eval cards and voices."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import typer

from infra.adapters import BASE, AdapterStore, check_audience, check_share, version_of
from infra.cli.compose import (
    adapter_store,
    creator_person,
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
from infra.voice.chat import Audience

LOOK_S = 0.5
FORMATS: dict[str, Literal["alpaca", "sharegpt", "messages"]] = {
    "alpaca": "alpaca",
    "sharegpt": "sharegpt",
    "messages": "messages",
}


def dataset_build(home: Path | None, *, dry_run: bool, stage: str, as_json: bool) -> None:
    """Count, or build, what a training would learn from."""
    from infra.cli.training import checked_stage
    from trainer.planning import harvest_counts

    settings, about = settings_of(home), checked_stage(stage)
    if not dry_run:
        run = start(settings, options={"dry_run": True, "stage": about})
        finish(settings, run.id, as_json=as_json)
        return
    found = harvest_counts(settings, open_journal(settings), about)
    if as_json:
        print_json(found)
        return
    if about:
        show_opinions(found)
    else:
        out().print(f"{found['rows']} rows: {found['train']} to train on, {found['validation']} held out.")
    out().print(table("Left out", ("rows", "why"), ((n, why) for why, n in found["excluded"].items())))
    out().print(table("About", ("rows", "topic"), ((n, topic) for topic, n in found["topics"].items())))
    out().print(f"{found['with_context']} are read after the words before them; {found['identity']} say who speaks.")
    if found["quarantined"]:
        out().print(f"{found['quarantined']} look planted and wait for your yes: understudy dataset quarantine")


def dataset_quarantine(home: Path | None, *, accept: str, as_json: bool) -> None:
    """What looks planted, and the creator's yes to one of them or all."""
    from memory.clearance import clear
    from trainer.planning import suspected

    settings = settings_of(home)
    journal = open_journal(settings)
    found = suspected(settings, journal)
    if accept:
        chosen = found if accept == "all" else [each for each in found if each.exchange.id.startswith(accept)]
        if not chosen or (accept != "all" and len(chosen) > 1):
            raise UserMistake(f"{len(chosen)} held exchanges begin with {accept!r}; see understudy dataset quarantine.")
        count = clear(journal, [each.exchange for each in chosen], creator=creator_person(settings), at=now())
        print_json({"accepted": count}) if as_json else out().print(f"{count} train from now on.")
        return
    rows = [
        {
            "id": each.exchange.id,
            "asker": each.exchange.asker.key if each.exchange.asker else "",
            "at": each.exchange.at.isoformat(),
            "question": each.exchange.question,
            "answer": each.exchange.answer,
            "reasons": list(each.reasons),
        }
        for each in found
    ]
    if as_json:
        print_json(rows)
        return
    shown = ((each["id"][:8], each["asker"], each["question"], "; ".join(each["reasons"])) for each in rows)
    out().print(table("Waiting for your yes", ("id", "asked by", "question", "why"), shown))
    out().print("They do not train until you say so: understudy dataset quarantine --accept ID, or --accept all.")


def show_opinions(found: dict[str, Any]) -> None:
    """What may be learned of what people made of the twin's words, for a person."""
    method = found["method"].upper() or found["missing"]
    out().print(f"{found['pairs']} edited drafts; in all {found['good']} texts liked, {found['bad']} not. {method}")
    if found["voices"]:
        out().print(table("Said by", ("texts", "voice"), ((n, voice) for voice, n in found["voices"].items())))


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
    from trainer.schedule import asked

    journal = open_journal(settings)
    runs, key = open_runs(settings, journal), f"manual:{now().isoformat()}"
    run, made = asked(settings, runs, journal, key, options, now=now())
    if not made:
        err().print(f"Run {run.id} is under way already; following it.")
    ring(queue_app(settings), run)
    return run


def retrain(
    home: Path | None,
    *,
    wait: bool,
    dry_run: bool,
    as_json: bool,
    tune: int = 0,
    options: dict[str, Any] | None = None,
) -> None:
    """Start a run. Without a running twin a worker is started here, for as long as the run takes."""
    from infra.cli import training

    settings = settings_of(home)
    if dry_run:
        if (options or {}).get("stage") == training.PREFERENCE:
            dataset_build(home, dry_run=True, stage=training.PREFERENCE, as_json=as_json)
        else:
            training.dry_run(settings, as_json=as_json)
        return
    if tune:
        from trainer.tune import price, refuse_count

        refuse_count(tune)
        err().print(price(tune), markup=False)
    if (options or {}).get("stage") != training.PREFERENCE:
        err().print(training.before(settings), markup=False, soft_wrap=True)
    run = start(settings, options={**(options or {}), **({"tune": tune} if tune else {})})
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
    from infra.cli.training import show_training

    out().print(f"Run {run.id} {run.state} after {run.attempt} attempt(s). {run.error}".strip(), markup=False)
    verdict = run.result.get("verdict")
    if verdict:
        out().print("Passed the gate." if verdict["passed"] else "Refused by the gate:", markup=False)
        for reason in verdict["reasons"]:
            out().print(f"  {reason}", markup=False)
    show_training(run)


def runs(home: Path | None, run_id: str, *, cancel: bool, as_json: bool) -> None:
    """All runs, or one; or cancel one."""
    from infra.cli.reasoning import show_reasoning
    from trainer.reasoning import told

    settings = settings_of(home)
    table_of_runs = open_runs(settings, open_journal(settings))
    if run_id and cancel:
        run = table_of_runs.cancel(run_id, now=now())
        print_json(asdict(run)) if as_json else err().print(f"Run {run.id} is being cancelled.")
    elif run_id:
        run, reasoned = table_of_runs.get(run_id), told(settings.data_folder / "runs" / run_id)
        if as_json:
            print_json({**asdict(run), **({"reasoning": reasoned} if reasoned else {})})
            return
        show_run(run)
        show_reasoning(reasoned)
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
    from trainer.judge import bench_of

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
        bench=bench_of(settings),
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
        {"version": each, "passed": passed(store, each), "tainted": store.tainted(each), **made(store, each)}
        for each in store.versions()
    ]
    ended = last_trial(settings)
    if as_json:
        head = {**{n: speaking[n] for n in ("voice", "canary", "pinned")}, "previous": store.previous(), "ended": ended}
        print_json({**head, "servers": speaking.get("servers", []), "adapters": found})
        return
    out().print(f"Speaking: {speaking['voice']}", markup=False)
    if on_trial := speaking["canary"]:
        loaded = "" if on_trial.get("speaks", True) else " (it could not be loaded and answers nobody)"
        out().print(f"Canary: {on_trial['version']}, share {on_trial['share']:g}{loaded}", markup=False)
    for pinned in speaking["pinned"]:
        loaded = "" if pinned.get("speaks", True) else " (it could not be loaded and answers nobody)"
        whom = Audience(pinned["community"], pinned["language"])
        out().print(f"Pinned to {whom}: {pinned['version']}{loaded}", markup=False)
    for server in speaking.get("servers", []):
        out().print(f"{server['url']}: {server['state']} {server['trouble']}".rstrip(), markup=False)
    if ended:
        out().print(f"{ended['at'][:16]}: {ended['reason']}", markup=False)
    rows = ((each["version"], "passed" if each["passed"] else "refused") for each in found)
    out().print(table("Adapters", ("version", "gate"), rows))


def last_trial(settings: Settings) -> dict[str, str] | None:
    """The last trial that ended by itself, when and why; None when none did."""
    from memory.messages import Kind

    journal = open_journal(settings)
    found = [event for _, event in journal.events(kind=Kind.TRIAL)]
    journal.close()
    if not found:
        return None
    last = found[-1]
    return {"version": last.payload["version"], "at": last.at.isoformat(), "reason": last.payload["reason"]}


def stored_voices(store: AdapterStore) -> dict[str, Any]:
    """What the next start will speak with."""
    canary = store.canary()
    pinned = [{**asdict(audience), "version": version or BASE} for audience, version in store.pins().items()]
    return {"voice": store.current() or BASE, "canary": asdict(canary) if canary else None, "pinned": pinned}


def passed(store: AdapterStore, version: str) -> bool:
    """Whether a version passed its gate."""
    return bool((store.manifest(version).get("verdict") or {}).get("passed"))


def made(store: AdapterStore, version: str) -> dict[str, str]:
    """On which base a version was made, and by which version of this program."""
    manifest = store.manifest(version)
    return {"base": manifest.get("base", ""), "code_version": manifest.get("code_version", "")}


def voices_history(home: Path | None, *, again: bool, as_json: bool) -> None:
    """What all eval cards say together; writes the page into the data folder."""
    from trainer import history
    from trainer.dataset import load

    settings = settings_of(home)
    store = adapter_store(settings)
    found = history.weeks(store)
    measured = None
    if again:
        known = [each.version for each in found if not each.tainted]
        folder, _ = one_dataset(settings, store.manifest(found[-1].version)["dataset"])
        measured = history.again(
            store,
            load(folder),
            known,
            weights=served_weights(settings),
            persona=persona(settings, open_journal(settings)),
            threads=threads(settings),
            seed=settings.training.seed,
            on_progress=lambda version: err().print(f"measuring {version}", markup=False),
        )
    page = history.save(settings.data_folder / "evaluations", found, measured)
    if as_json:
        print_json({**history.summary(found, measured), "page": str(page)})
        return
    out().print(history.verdict(found, measured), markup=False)
    out().print(f"Wrote {page}.", markup=False)


def voices_promote(home: Path | None, version: str, *, as_json: bool) -> None:
    """Let a version speak, in the running twin at once, else from the next start."""
    settings = settings_of(home)
    remote = Remote.find(settings)
    if remote is not None:
        answer = remote.post("/admin/voices/promote", version=version)
    else:
        adapter_store(settings).point(version_of(version))
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


def voices_pin(home: Path | None, version: str, *, audience: Audience, off: bool, as_json: bool) -> None:
    """Let a version answer an audience, or end that; as `voices_promote` with or without a twin."""
    if off == bool(version):
        raise UserMistake("Name the adapter that shall speak to them, or say --off.")
    check_audience(audience)
    settings = settings_of(home)
    answer = unpin(settings, audience) if off else pin(settings, version, audience)
    sentence = f"Pinned to {audience} no more: {answer['unpinned']}." if off else f"Pinned to {audience}: {version}."
    print_json(answer) if as_json else err().print(sentence, markup=False)


def pin(settings: Settings, version: str, audience: Audience) -> Any:
    """In the running twin at once, else from the next start. Raises UserMistake where the voice is on servers."""
    if settings.voice.url or settings.voice.urls:
        raise UserMistake("A voice is pinned in the engine here only, not on the servers of voice.url or voice.urls.")
    if (remote := Remote.find(settings)) is not None:
        return remote.post("/admin/voices/pin", version=version, **asdict(audience))
    adapter_store(settings).pin(version_of(version), audience)
    return {"pinned": version, "to": str(audience)}


def unpin(settings: Settings, audience: Audience) -> Any:
    """As `pin`."""
    if (remote := Remote.find(settings)) is not None:
        return remote.post("/admin/voices/unpin", **asdict(audience))
    return {"unpinned": adapter_store(settings).unpin(audience) or BASE}
