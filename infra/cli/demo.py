"""`understudy demo`: the whole loop on the bundled community, in a folder of its own, through the real processes.

It starts `understudy up` and does what a creator and their members would do, over HTTP, while it watches. Every step
checks what it shows; the first that did not happen ends the demo with exit code 1. Run again, it resumes.
"""

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import httpx
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from infra.cli.compose import adapter_store, open_journal, open_runs, settings_of
from infra.cli.console import table
from infra.cli.setup import settings_text
from infra.errors import ServiceTrouble, UserMistake
from infra.files import write_atomic
from infra.remote import Remote
from infra.runs import Run
from infra.settings import CONFIG, Settings, child_environment

# How long the parts may take to answer for the first time: weights are re-quantised and measured once.
START_S = 900
# The demo as a whole must end within ten minutes, also on two cores that read 300 tokens a second.
TRAINING_MINUTES = 3.0
CHATS = 3


class NotShown(typer.Exit):
    """A step did not happen: exit code 1, after its sentence was printed."""

    def __init__(self) -> None:
        super().__init__(1)


@dataclass
class Show:
    """The console, the running twin, and what was measured on the way."""

    console: Console
    settings: Settings
    remote: Remote
    story: dict[str, Any]
    figures: dict[str, Any] = field(default_factory=dict)

    def step(self, title: str) -> None:
        self.console.print(f"\n[bold]{title}[/]")

    def line(self, text: str, style: str = "") -> None:
        self.console.print(escape(text), style=style)

    def require(self, happened: object, otherwise: str) -> None:
        """Go on only if `happened`."""
        if not happened:
            self.console.print(f"[red]{escape(otherwise)}[/]")
            raise NotShown

    def ask(self, question: str) -> dict[str, Any]:
        """One question, printed as it is answered; returns the whole answer."""
        self.line(f"› {question}", "cyan")
        body = {"question": question, "conversation": str(uuid.uuid4()), "message": str(uuid.uuid4())}
        found: dict[str, Any] = {}
        for event in self.remote.events("/api/ask", body):
            self.require("error" not in event, str(event.get("error")))
            found = event.get("answer", found)
        self.require(found, "The twin said nothing.")
        self.line(found["text"])
        for cited in found["citations"]:
            self.line(f"  [{cited['number']}] {cited['question'] or cited['source']}  {cited['url']}", "dim")
        return found


def demo(home: Path, *, fresh: bool, report: Path | None) -> None:
    """Import, ask, teach, retrain, compare, gate, swap under load; then say what to run next."""
    began = time.monotonic()
    console = Console(record=True, highlight=False, width=100)
    story = json.loads((files("memory") / "sample" / "demo.json").read_text(encoding="utf-8"))
    settings = prepare(home, story, fresh=fresh)
    console.print(f"[bold]Understudy demo[/], in {escape(str(home))}: everything below is measured now.")
    imported(console, settings, story)
    with running(console, settings) as remote:
        show = Show(console, settings, remote, story)
        asked(show)
        taught(show)
        run = retrained(show)
        judged(show, run)
    console.print(
        f"\n[bold green]Done in {(time.monotonic() - began) / 60:.1f} minutes.[/] Next, in {escape(str(home))}:"
    )
    console.print("  understudy up     the twin with its page at http://127.0.0.1:8321")
    console.print("  understudy chat   talk to it in another terminal")
    if report is not None:
        keep(report, console, settings, run)


def prepare(home: Path, story: dict[str, Any], *, fresh: bool) -> Settings:
    """The demo's own folder with its settings. Refuses a folder that holds something else."""
    if fresh and (home / CONFIG).exists():
        shutil.rmtree(home)
    creator = story["creator"]
    text = settings_text(creator=creator["name"], ids=creator["ids"], preset="tiny", language=creator["language"])
    text = text.replace("[creator]", f"[creator]\nabout = {json.dumps(creator['about'])}")
    # A short run on a small community: hold out a fifth of it, and bound the training by the clock.
    text += f"\n[training]\nvalidation_share = 0.2\nmax_minutes = {TRAINING_MINUTES}\n\n[schedule]\ncron = ''\n"
    path = home / CONFIG
    if not path.exists():
        if home.exists() and any(home.iterdir()):
            raise UserMistake(f"{str(home)!r} is not empty and no demo; give another folder with --home.")
        write_atomic(path, text)
    return settings_of(home)


def imported(console: Console, settings: Settings, story: dict[str, Any]) -> None:
    """Step 1: the community's history becomes memory."""
    from infra.cli.compose import import_context
    from memory.importing import import_paths

    console.print("\n[bold]1  What Wren has: an export, a FAQ, a guide, a Telegram group, a Discord channel[/]")
    journal = open_journal(settings)
    with as_file(files("memory") / "sample") as sample:
        found = import_paths(journal, [sample / name for name in story["files"]], import_context(settings))
    counts = journal.counts()
    journal.close()
    console.print(
        f"{found.imported} new events; memory holds {counts['exchanges']} exchanges, {counts['passages']} passages."
    )
    for reason, count in found.skipped.items():
        console.print(f"  {count} left out: {escape(reason)}", style="dim")
    if counts["exchanges"] < 200:
        console.print("[red]The import did not fill memory.[/]")
        raise NotShown


@contextmanager
def running(console: Console, settings: Settings) -> Iterator[Remote]:
    """`understudy up` as a process of its own, stopped again at the end."""
    log = settings.data_folder / "logs" / "up.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    arguments = [sys.executable, "-m", "infra.cli.main", "up", "--home", str(settings.home), "--port", "0"]
    with log.open("ab") as output:
        process = subprocess.Popen(arguments, stdout=output, stderr=output, env=child_environment())
    try:
        with console.status("Starting the twin; the first time, its weights are fitted to this machine"):
            remote = wait_for(settings, process, log)
        yield remote
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(settings: Settings, process: subprocess.Popen[bytes], log: Path) -> Remote:
    """The twin's address, once it answers."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        remote = Remote.here(settings)
        if remote is not None:
            return remote
        time.sleep(0.2)
    last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
    raise ServiceTrouble(f"The twin did not start: {' '.join(last) or 'no word from it'}. See {str(log)!r}.")


def asked(show: Show) -> None:
    """Step 2: answers with their sources, and honest refusals."""
    show.step("2  Members ask; what memory does not hold goes to Wren's inbox")
    for each in show.story["ask"]:
        answer = show.ask(each["question"])
        if each["answerable"]:
            show.require(
                answer["outcome"] == "answered" and answer["citations"], "It should have answered, with a source."
            )
        else:
            show.require(answer["abstained"], "It should have declined: memory holds no answer.")
    waiting = show.remote.get("/api/inbox")
    show.require(waiting, "The inbox should hold what was declined.")
    show.line(f"{len(waiting)} questions wait for Wren.", "dim")


def taught(show: Show) -> None:
    """Step 3: an answer taught is an answer known, in seconds."""
    show.step("3  Wren teaches one answer, and gets it back at once")
    lesson = show.story["teach"]
    began = time.monotonic()
    made = show.remote.post("/api/teach", question=lesson["question"], answer=lesson["answer"])
    found: dict[str, Any] = {"notes": []}
    while time.monotonic() - began < 5 and made["exchange"] not in [note["id"] for note in found["notes"]]:
        found = show.remote.get("/api/recall", question=lesson["then_ask"])
    took = time.monotonic() - began
    show.require(made["exchange"] in [note["id"] for note in found["notes"]], "It was not recalled within 5 seconds.")
    show.figures["taught_s"] = round(took, 3)
    show.line(f"Taught, indexed and recalled in {took * 1000:.0f} ms.", "dim")
    answer = show.ask(lesson["then_ask"])
    show.require(made["exchange"] in [cited["id"] for cited in answer["citations"]], "The answer does not cite it.")


def retrained(show: Show) -> Run:
    """Step 4: a persona is trained, measured, gated and put on while chats are streaming."""
    show.step("4  The twin studies: dataset, LoRA on the CPU, eval card, gate, swap under load")
    runs = open_runs(show.settings, open_journal(show.settings))
    done = [run for run in runs.recent() if run.state == "succeeded" and run.result.get("adapter")]
    if done:
        show.line(f"Run {done[0].id} of an earlier demo is done; --fresh trains again.", "dim")
        return done[0]
    run_id = show.remote.post("/api/retrain")["run"]
    load = Load(show.remote)
    columns = (SpinnerColumn(), TextColumn("{task.description:9}"), BarColumn(), TextColumn("{task.fields[words]}"))
    with Progress(*columns, TimeElapsedColumn(), console=show.console, transient=True) as progress:
        task = progress.add_task("waiting", total=None, words="")
        while (run := runs.get(run_id)).active:
            total, finished = run.progress.get("total") or None, run.progress.get("done") or 0
            words = str(run.progress.get("text") or "")
            progress.update(task, description=run.stage or run.state, total=total, completed=finished, words=words)
            if run.stage in {"gate", "publish", "swap"} and not load.started:
                load.start()
            time.sleep(0.02 if load.started or run.stage == "evals" else 0.5)
    if load.started:
        load.finish(seconds_more=4)
        swapped_under(show, load)
    show.require(run.state == "succeeded", f"The run ended as {run.state}. {run.error}")
    return run


class Load:
    """Members who chat without pause, in threads of their own: what a swap must not disturb."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self.started = False
        self.voices: list[str] = []
        self.failures: list[str] = []
        self.longest_gap_s = 0.0

    def start(self) -> None:
        import threading

        self.started = True
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._chat, args=(n,)) for n in range(CHATS)]
        for thread in self._threads:
            thread.start()

    def finish(self, seconds_more: float) -> None:
        """Chat on for a while after the swap, then stop."""
        time.sleep(seconds_more)
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _chat(self, number: int) -> None:
        asyncio.run(self._chat_on(number))

    async def _chat_on(self, number: int) -> None:
        headers = {"Authorization": f"Bearer {self._remote.token}"} if self._remote.token else {}
        async with httpx.AsyncClient(base_url=self._remote.url, headers=headers, timeout=60) as client:
            while not self._stop.is_set():
                await self._one(client, number)

    async def _one(self, client: httpx.AsyncClient, number: int) -> None:
        """One streamed answer; every chunk says which voice speaks, and all of them must say the same."""
        body = {
            "messages": [{"role": "user", "content": f"Tell me about bread, part {number}."}],
            "max_tokens": 48,
            "stream": True,
        }
        voices: set[str] = set()
        ended, last = False, 0.0
        try:
            async with client.stream("POST", "/v1/chat/completions", json=body) as response:
                async for line in response.aiter_lines():
                    if line == "data: [DONE]":
                        ended = True
                    elif line.startswith("data: "):
                        now = time.monotonic()
                        self.longest_gap_s = max(self.longest_gap_s, now - last if last else 0.0)
                        last = now
                        chunk = json.loads(line.removeprefix("data: "))
                        voices.add(chunk.get("model", "error"))
        except httpx.HTTPError as error:
            self.failures.append(type(error).__name__)
            return
        if not ended or len(voices) != 1:
            self.failures.append(f"ended {ended}, voices {sorted(voices)}")
        self.voices += voices


def swapped_under(show: Show, load: Load) -> None:
    """Say what the chats saw of the swap."""
    kinds = list(dict.fromkeys(load.voices))
    show.line(
        f"{len(load.voices)} answers streamed while the voice changed: {len(load.failures)} broken, "
        f"longest pause between two pieces {load.longest_gap_s * 1000:.0f} ms."
    )
    show.figures |= {"streams": len(load.voices), "broken": len(load.failures), "gap_s": round(load.longest_gap_s, 3)}
    for kind in kinds:
        show.line(f"  {load.voices.count(kind)} by {kind}", "dim")
    show.require(not load.failures, f"Streams broke: {load.failures[:3]}")


def judged(show: Show, run: Run) -> None:
    """Step 5: the eval card, before and after side by side, and the voice that speaks now."""
    show.step("5  Before and after, on questions that were held out")
    store = adapter_store(show.settings)
    version = run.result["adapter"]
    card = store.card(version)
    rows = []
    for measure, interval in card["against"]["base"].items():
        before, after = (mean(card[system]["items"], measure) for system in ("base", "candidate"))
        spread = f"{interval['mean']:+.3f} [{interval['low']:+.3f}, {interval['high']:+.3f}]"
        rows.append((measure, f"{before:.3f}", f"{after:.3f}", spread))
    rows.append(("ability", f"{card['base']['ability']:.3f}", f"{card['candidate']['ability']:.3f}", ""))
    title = f"Eval card of {version}, {len(card['questions'])} held-out exchanges"
    show.console.print(table(title, ("measure", "base + memory", "tuned + memory", "difference, 95 %"), rows))
    sides = [
        (card["questions"][n], card["base"]["items"][n]["answer"], card["candidate"]["items"][n]["answer"])
        for n in range(min(4, len(card["questions"])))
    ]
    show.console.print(table("", ("question", "before", "after"), sides))
    verdict = run.result["verdict"]
    show.line("The gate let it through." if verdict["passed"] else f"The gate refused: {verdict['reasons']}")
    show.require(verdict["passed"], "Without a passed gate there is no swap to show.")
    speaking = show.remote.get("/admin/voices")["voice"]
    show.require(speaking.endswith(version), f"The new voice should be speaking; {speaking} is.")
    show.line(f"Speaking now: {speaking}. Its card: data/adapters/{version}/evalcard.html", "dim")
    answer = show.ask(show.story["ask"][0]["question"])
    show.require(answer["voice"] == speaking, "The answer came from another voice.")


def mean(items: list[dict[str, Any]], measure: str) -> float:
    return sum(float(item["measures"][measure]) for item in items) / len(items)


def keep(folder: Path, console: Console, settings: Settings, run: Run) -> None:
    """Leave the printed report and the eval card where docs can show them."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "report.txt", console.export_text(clear=False))
    write_atomic(folder / "report.svg", console.export_svg(title="understudy demo"))
    shutil.copy2(adapter_store(settings).folder(run.result["adapter"]) / "evalcard.html", folder / "evalcard.html")
