"""`understudy`: one Typer app. Each command's body lives in the module named after what it is about.

Start-up counts, so nothing here imports more than Typer; a command imports what it needs when it runs. Errors that are
meant for people become one sentence on stderr and exit code 1; `--json` prints exactly one document on stdout.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from infra.adapters import SHARE
from infra.errors import UnderstudyError, UserMistake

app = typer.Typer(
    name="understudy",
    help="A self-hosted AI twin: it remembers a creator's answers, cites them, and trains itself to speak like them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
inbox_app = typer.Typer(help="Questions that wait for the creator.")
journal_app = typer.Typer(help="The record of everything: encrypt it.")
dataset_app = typer.Typer(help="Frozen sets of training rows.")
voices_app = typer.Typer(help="Voices: list, promote, go back.")
publish_app = typer.Typer(help="Give the twin to others, as an OpenAI-compatible address with keys and quotas.")
graph_app = typer.Typer(
    help="What memory's graph knows: things, how they hang together, what the creator thinks of them."
)
profile_app = typer.Typer(help="Who the twin is told that it stands in for.")
bench_app = typer.Typer(help="Measure this machine: medians and ratios, side by side in one run.")
app.add_typer(inbox_app, name="inbox")
app.add_typer(journal_app, name="journal")
app.add_typer(dataset_app, name="dataset")
app.add_typer(voices_app, name="voices")
voices_app.add_typer(publish_app, name="publish")
app.add_typer(graph_app, name="graph")
app.add_typer(profile_app, name="profile")
app.add_typer(bench_app, name="bench")

Home = Annotated[Path | None, typer.Option("--home", help="The folder with understudy.toml; default: this one.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Stage = Annotated[str, typer.Option(help="sft, or preference: from edits and votes, on the current voice.")]


# What a key may do in a day where nothing else is said.
REQUESTS, TOKENS = 1000, 200_000


def named_path(text: str) -> Path:
    """A path that somebody gave; an empty one, such as of a shell's unset variable, would be the folder they are in."""
    if not text.strip():
        raise UserMistake("The path is empty.")
    return Path(text)


@app.command()
def init(
    home: Home = None,
    creator: Annotated[str, typer.Option(help="The name of the person the twin stands in for.")] = "",
    creator_id: Annotated[list[str] | None, typer.Option(help="PLATFORM:ID of the creator; repeatable.")] = None,
    preset: Annotated[str, typer.Option(help="tiny, cpu, persona-3b, or gpu-8gb, -16gb, -24gb, -80gb.")] = "tiny",
    language: Annotated[str, typer.Option(help="en, zh-CN or zh-TW.")] = "en",
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
) -> None:
    """Write understudy.toml and .env in this folder."""
    from infra.cli.setup import init as run

    run(home, creator=creator, ids=creator_id or [], preset=preset, language=language, ask=not yes)


@app.command()
def doctor(
    home: Home = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="Instead: measure how this machine computes the voice fastest, and keep it.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --tune: change the base's format though there are adapters for it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check everything this set-up needs; exit 1 if anything is missing."""
    if tune:
        from infra.cli.tuning import tune as run_tune

        run_tune(home, force=force, as_json=as_json)
        return
    if force:
        raise UserMistake("--force belongs to --tune: understudy doctor --tune --force.")
    from infra.cli.setup import doctor as run

    run(home, as_json=as_json)


@app.command()
def up(
    home: Home = None,
    port: Annotated[int | None, typer.Option(help="Instead of api.port; 0 takes any.")] = None,
    playground: Annotated[
        bool, typer.Option("--playground", help="Try it on an invented Discord and Telegram; from a checkout only.")
    ] = False,
) -> None:
    """Run the twin: API and page, worker and scheduler, until Ctrl-C."""
    from infra.cli.run import up as run

    run(home, port=port, playground=playground)


@app.command()
def serve(
    home: Home = None,
    port: Annotated[int | None, typer.Option(help="Instead of api.port; 0 takes any.")] = None,
    parent: Annotated[int | None, typer.Option(hidden=True)] = None,
    voice: Annotated[
        bool, typer.Option("--voice", help="The voice alone, for a twin elsewhere that names it in voice.urls.")
    ] = False,
) -> None:
    """Run only the API and the page, for deployment."""
    from infra.cli.run import serve, serve_voice

    if voice:
        serve_voice(home, port=port)
    else:
        serve(home, port=port, parent=parent)


@app.command()
def bot(
    home: Home = None,
    platform: Annotated[str | None, typer.Option(help="discord or telegram; default: each that has a token.")] = None,
    parent: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run only the bots, beside the API or across the network from it (bot.api)."""
    from infra.cli.bots import bot as run

    run(home, platform, parent=parent)


@app.command()
def worker(
    home: Home = None,
    queue: Annotated[
        str, typer.Option(help="Of which queues, with commas between: default is for small tasks, gpu for trainings.")
    ] = "default,gpu",
    once: Annotated[bool, typer.Option("--once", help="Work on the trainings that wait, and end.")] = False,
) -> None:
    """Run only the Celery worker, for deployment."""
    from infra.cli.run import worker as run

    run(home, queues=queue, once=once)


@app.command()
def beat(home: Home = None) -> None:
    """Run only the scheduler, for deployment; exactly one."""
    from infra.cli.run import beat as run

    run(home)


@app.command()
def status(home: Home = None, as_json: Json = False) -> None:
    """How the twin is: voice, memory, inbox, trainings, parts, disk; exit code 1 where something is wrong."""
    from infra.cli.status import status as run

    run(home, as_json=as_json)


@app.command()
def health(
    part: Annotated[str, typer.Argument(help="api, worker, beat or bot, on this host.")], home: Home = None
) -> None:
    """Whether a part of the twin is at work, for whoever watches it; exit code 1 if not."""
    from infra.cli.run import health as run

    run(home, part)


@app.command()
def chat(home: Home = None) -> None:
    """Talk to the twin here: /good and /bad judge the last answer, /quit leaves."""
    from infra.cli.talk import chat as run

    run(home)


@app.command()
def ask(question: str, home: Home = None, as_json: Json = False) -> None:
    """Ask one question."""
    from infra.cli.talk import ask as run

    run(home, question, as_json=as_json)


@app.command()
def recall(question: str, home: Home = None, as_json: Json = False) -> None:
    """Show what memory would hand the model."""
    from infra.cli.talk import recall as run

    run(home, question, as_json=as_json)


@app.command()
def history(question: str, home: Home = None, as_json: Json = False) -> None:
    """Show every answer to a question, what replaced what, and how many people asked."""
    from infra.cli.talk import history as run

    run(home, question, as_json=as_json)


@app.command()
def teach(question: str, answer: str, home: Home = None, as_json: Json = False) -> None:
    """Teach one exchange; it is usable at once."""
    from infra.cli.feed import teach as run

    run(home, question, answer, as_json=as_json)


@app.command(name="import")
def import_(
    paths: Annotated[
        list[Path],
        typer.Argument(parser=named_path, metavar="PATHS", help="Files, folders or zips that the creator has."),
    ],
    home: Home = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Also remove what came from these folders before and is gone.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Read what the creator has: pages, books, documents, subtitles, questions and answers, chat exports."""
    from infra.cli.feed import import_files as run

    run(home, paths, prune=prune, as_json=as_json)


@app.command()
def documents(home: Home = None, as_json: Json = False) -> None:
    """List the files that were imported, and what is known from each."""
    from infra.cli.feed import documents as run

    run(home, as_json=as_json)


@inbox_app.command("list")
def inbox_list(home: Home = None, as_json: Json = False) -> None:
    """List what waits."""
    from infra.cli.feed import inbox_list as run

    run(home, as_json=as_json)


@inbox_app.command("answer")
def inbox_answer(number: int, answer: str, home: Home = None, as_json: Json = False) -> None:
    """Answer question NUMBER; the twin can from then on."""
    from infra.cli.feed import inbox_answer as run

    run(home, number, answer, as_json=as_json)


@inbox_app.command("dismiss")
def inbox_dismiss(number: int, home: Home = None, as_json: Json = False) -> None:
    """Take question NUMBER out of the inbox without an answer."""
    from infra.cli.feed import inbox_dismiss as run

    run(home, number, as_json=as_json)


@app.command()
def silence(
    state: Annotated[str, typer.Argument(help="on or off.")] = "on",
    home: Home = None,
) -> None:
    """The kill switch: the twin says nothing to anybody until `silence off`."""
    from infra.cli.feed import silence as run

    run(home, state)


@app.command()
def forget(
    home: Home = None,
    author: Annotated[str, typer.Option(help="PLATFORM:ID of a person: what they wrote, and was made of it.")] = "",
    place: Annotated[str, typer.Option(help="PLATFORM:ID of a channel or group, its threads included.")] = "",
    exchange: Annotated[str, typer.Option(help="The id of one question with its answer.")] = "",
    document: Annotated[str, typer.Option(help="The name of an imported document.")] = "",
    source: Annotated[str, typer.Option(help="How it came, for example chat-export.")] = "",
    after: Annotated[str, typer.Option(help="What was said from this date on.")] = "",
    before: Annotated[str, typer.Option(help="What was said before this date.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    retention: Annotated[bool, typer.Option("--retention", help="Let expire what [retention] says.")] = False,
    receipts: Annotated[bool, typer.Option("--receipts", help="List what was forgotten.")] = False,
    lift: Annotated[str, typer.Option(metavar="RECEIPT", help="Let what it names be imported again.")] = "",
    as_json: Json = False,
) -> None:
    """Erase from memory, datasets and voices what fits everything given; a receipt of what went."""
    from infra.cli import forgetting

    if receipts:
        forgetting.receipts(home, as_json=as_json)
    elif lift:
        forgetting.lift_receipt(home, lift)
    elif retention:
        forgetting.retention(home, as_json=as_json)
    else:
        wanted = forgetting.Wanted(author, place, exchange, document, source, after, before)
        forgetting.forget(home, wanted, dry_run=dry_run, yes=yes, as_json=as_json)


@journal_app.command("encrypt")
def journal_encrypt(home: Home = None) -> None:
    """Encrypt the journal with the key that journal.key_file names; stop the twin and its bots first."""
    from infra.cli.keeping import encrypt_journal as run

    run(home)


@app.command()
def backup(
    target: Annotated[
        str, typer.Argument(help="The tar to write, with --keep its folder: a path, s3://, sftp://, ...")
    ],
    to: Annotated[list[str] | None, typer.Option(help="Encrypt it for this public key of age; repeatable.")] = None,
    keep: Annotated[int, typer.Option(min=0, help="Keep this many in the folder, and remove older ones.")] = 0,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Write journal, adapters and settings without secrets into one file, while running."""
    from infra.cli.keeping import backup as run

    run(home, target, keep=keep, recipients=to or (), as_json=as_json)


@app.command()
def restore(
    source: Annotated[str, typer.Argument(help="A backup: a path, s3://, sftp://, ...")],
    replace: Annotated[bool, typer.Option("--replace", help="Instead of what is here.")] = False,
    identity: Annotated[Path | None, typer.Option(help="The file with age's identity, of an encrypted one.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Only see that it could be brought back.")] = False,
    until: Annotated[
        str, typer.Option(help="As it was at this time, 2026-11-20T12:00 (UTC, or +01:00), or event's number.")
    ] = "",
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Bring a backup back, without what was forgotten since; the index is made anew at the next start."""
    from infra.cli.keeping import restore as run

    run(home, source, replace=replace, identity=identity, check=check, until=until, as_json=as_json)


@app.command()
def migrate(
    journal: Annotated[str, typer.Option(help="Move the journal: postgresql://user@host/db, sqlite:////path.")] = "",
    to: Annotated[str, typer.Option(help="Move to another host, by way of this folder: sftp://, s3://, a path.")] = "",
    recipient: Annotated[
        list[str] | None, typer.Option(help="With --to: encrypt it for this public key of age.")
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Let one that moved be used here again.")] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Move to another database or host, compared before the old one is given up; stop every part first."""
    from infra.cli.moving import migrate as run

    run(home, journal=journal, to=to, recipients=tuple(recipient or ()), undo=undo, as_json=as_json)


@dataset_app.command("build")
def dataset_build(
    home: Home = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count, with reasons.")] = False,
    stage: Stage = "sft",
    as_json: Json = False,
) -> None:
    """Build a dataset from what may be learned from."""
    from infra.cli.learn import dataset_build as run

    run(home, dry_run=dry_run, stage=stage, as_json=as_json)


@dataset_app.command("quarantine")
def dataset_quarantine(
    home: Home = None,
    accept: Annotated[
        str, typer.Option(help="Let this one train: the beginning of its id, or all.", metavar="ID|all")
    ] = "",
    as_json: Json = False,
) -> None:
    """Show what looks planted and does not train, with the reasons; or say yes to it."""
    from infra.cli.learn import dataset_quarantine as run

    run(home, accept=accept, as_json=as_json)


@dataset_app.command("list")
def dataset_list(home: Home = None, as_json: Json = False) -> None:
    """List datasets."""
    from infra.cli.learn import dataset_list as run

    run(home, as_json=as_json)


@dataset_app.command("show")
def dataset_show(dataset: str, home: Home = None, as_json: Json = False) -> None:
    """Show one dataset's manifest."""
    from infra.cli.learn import dataset_show as run

    run(home, dataset, as_json=as_json)


@dataset_app.command("export")
def dataset_export(
    dataset: str,
    out: Annotated[Path, typer.Option(help="The folder to write train and validation files into.")],
    format_name: Annotated[str, typer.Option("--format", help="alpaca, sharegpt or messages.")] = "messages",
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Write a dataset in a format that other trainers read."""
    from infra.cli.learn import dataset_export as run

    run(home, dataset, out=out, format_name=format_name, as_json=as_json)


@app.command()
def distil(
    home: Home = None,
    rows: Annotated[int, typer.Option(min=1, help="How many imitations to ask for.")] = 500,
    budget_money: Annotated[float | None, typer.Option(min=0, help="Stop before it has cost more.")] = None,
    budget_tokens: Annotated[int | None, typer.Option(min=0, help="Stop before it has taken more tokens.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether the estimate is all right.")] = False,
    resume: Annotated[str, typer.Option(help="Go on with a run that was killed or stopped.")] = "",
    as_json: Json = False,
) -> None:
    """Have a teacher answer new questions in the creator's manner, for trainings to learn from."""
    from infra.cli.distil import Asked
    from infra.cli.distil import distil as run

    run(home, Asked(rows, budget_money, budget_tokens, yes, resume), as_json=as_json)


@app.command()
def retrain(
    home: Home = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show progress until the run ends.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Stop after counting what would be learned and estimating what it takes.")
    ] = False,
    tune: Annotated[
        int, typer.Option("--tune", min=0, help="Search among this many ranks, rates and epochs first, 2 to 32.")
    ] = 0,
    stage: Annotated[
        str,
        typer.Option(
            help="sft; preference: from edits and votes, on the current voice; grpo: to reason, from worked cases."
        ),
    ] = "sft",
    data: Annotated[Path | None, typer.Option(help="The worked cases: jsonl of question, answer, steps.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of --stage grpo.")] = 300,
    as_json: Json = False,
) -> None:
    """Build, train, evaluate, gate, swap."""
    from infra.cli.learn import retrain as run
    from infra.cli.reasoning import options_for

    options = options_for(home, stage, data=data, steps=steps)
    run(home, wait=wait, dry_run=dry_run, as_json=as_json, tune=tune, options=options)


@app.command()
def runs(
    run_id: Annotated[str, typer.Argument(help="One run; all if left out.")] = "",
    home: Home = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel the run.")] = False,
    as_json: Json = False,
) -> None:
    """Show runs, their progress and their verdicts."""
    from infra.cli.learn import runs as run

    run(home, run_id, cancel=cancel, as_json=as_json)


@app.command()
def evaluate(
    version: str,
    questions: Annotated[Path | None, typer.Option(help="A jsonl of questions to ask before and after.")] = None,
    sheet: Annotated[bool, typer.Option("--sheet", help="Ask the fixed sheet of questions before and after.")] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Make the eval card of an adapter again."""
    if sheet:
        from infra.cli.reasoning import sheet as run_sheet

        run_sheet(home, version, as_json=as_json)
        return
    from infra.cli.learn import evaluate as run

    run(home, version, questions=questions, as_json=as_json)


@voices_app.command("list")
def voices_list(home: Home = None, as_json: Json = False) -> None:
    """List adapters, and which of them speaks."""
    from infra.cli.learn import voices_list as run

    run(home, as_json=as_json)


@voices_app.command("promote")
def voices_promote(version: str, home: Home = None, as_json: Json = False) -> None:
    """Let adapter VERSION speak; it must have passed its gate. `base` is the bare model."""
    from infra.cli.learn import voices_promote as run

    run(home, version, as_json=as_json)


@voices_app.command("rollback")
def voices_rollback(home: Home = None, as_json: Json = False) -> None:
    """Go back to the voice before."""
    from infra.cli.learn import voices_rollback as run

    run(home, as_json=as_json)


@voices_app.command("history")
def voices_history(
    again: Annotated[bool, typer.Option("--again", help="Also measure every voice on the newest questions.")] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Is the twin getting better? All eval cards in a row, as a page with plots."""
    from infra.cli.learn import voices_history as run

    run(home, again=again, as_json=as_json)


@voices_app.command("canary")
def voices_canary(
    version: Annotated[str, typer.Argument(help="The adapter to try out.")] = "",
    share: Annotated[float, typer.Option(help="The part of the conversations that it answers.")] = SHARE,
    off: Annotated[bool, typer.Option("--off", help="End the trial.")] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Let adapter VERSION answer a share of the conversations, the voice the rest; promoting either ends it."""
    from infra.cli.learn import voices_canary as run

    run(home, version, share=share, off=off, as_json=as_json)


@voices_app.command("pin")
def voices_pin(
    version: Annotated[str, typer.Argument(help="The adapter that shall speak; `base` is the bare model.")] = "",
    community: Annotated[str, typer.Option(help="Discord server or Telegram group, as PLATFORM:ID.")] = "",
    language: Annotated[str, typer.Option(help="What the member speaks: en, zh-CN, zh-TW.")] = "",
    off: Annotated[bool, typer.Option("--off", help="Answer them like others again.")] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Let VERSION answer one community, one language, or one language in one community, whoever speaks to others."""
    from infra.cli.learn import voices_pin as run
    from infra.voice.chat import Audience

    run(home, version, audience=Audience(community, language), off=off, as_json=as_json)


@voices_app.command("export")
def voices_export(
    version: Annotated[str, typer.Argument(help="The adapter to take elsewhere.")],
    quant: Annotated[str, typer.Option(help="Formats of the files; also Q4_0, F16, BF16.")] = "Q4_K_M,Q5_K_M,Q8_0",
    out: Annotated[
        Path | None, typer.Option(parser=named_path, metavar="FOLDER", help="Default: data/exports/VERSION.")
    ] = None,
    licence: Annotated[
        str, typer.Option("--license", help="What others may do with it; default: all rights reserved.")
    ] = "",
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Write adapter VERSION as files for llama.cpp, Ollama and phones, with a model card and an AI label."""
    from infra.cli.export import voices_export as run

    run(home, version, quant=quant, out=out, licence=licence, as_json=as_json)


@publish_app.command("create")
def publish_create(
    name: Annotated[str, typer.Argument(help="Who gets the key, such as a site or an app.")],
    requests_per_day: Annotated[int, typer.Option(min=0, help="By UTC day; 0 is no limit.")] = REQUESTS,
    tokens_per_day: Annotated[int, typer.Option(min=0, help="Of prompts and answers; 0 is no limit.")] = TOKENS,
    expires: Annotated[str, typer.Option(help="The last day on which it works, as 2027-03-31; default: none.")] = "",
    voice: Annotated[str, typer.Option(help="The adapter that speaks to them; default: the current voice.")] = "",
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Make a key for NAME and print it, once: only its hash is kept."""
    from infra.cli.publish import create as run
    from infra.published import Quota

    run(home, name, quota=Quota(requests_per_day, tokens_per_day), expires=expires, voice=voice, as_json=as_json)


@publish_app.command("list")
def publish_list(home: Home = None, as_json: Json = False) -> None:
    """List keys by name, with their quotas and what they used today."""
    from infra.cli.publish import listing as run

    run(home, as_json=as_json)


@publish_app.command("revoke")
def publish_revoke(name: str, home: Home = None, as_json: Json = False) -> None:
    """Let the key of NAME open nothing any more, from the next request on."""
    from infra.cli.publish import revoke as run

    run(home, name, as_json=as_json)


@app.command()
def demo(
    home: Annotated[Path, typer.Option("--home", help="Where the demo keeps its data.")] = Path("demo"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Start clean instead of resuming.")] = False,
    report: Annotated[Path | None, typer.Option(help="Also write the printed report into this folder.")] = None,
) -> None:
    """The whole loop on a bundled community, start to end, and what it measured."""
    from infra.cli.demo import demo as run

    run(home, fresh=fresh, report=report)


@graph_app.command("stats")
def graph_stats(home: Home = None, as_json: Json = False) -> None:
    """Count things and edges; list what is spoken of most."""
    from infra.cli.graph import stats as run

    run(home, as_json=as_json)


@graph_app.command("show")
def graph_show(name: str, home: Home = None, as_json: Json = False) -> None:
    """Show one thing with its edges and their sources."""
    from infra.cli.graph import show as run

    run(home, name, as_json=as_json)


@graph_app.command("topics")
def graph_topics(home: Home = None, as_json: Json = False) -> None:
    """List what the creator's words are about, in their words."""
    from infra.cli.graph import topics as run

    run(home, as_json=as_json)


@graph_app.command("export")
def graph_export(
    file: Path,
    format_name: Annotated[str, typer.Option("--format", help="graphml or json.")] = "graphml",
    home: Home = None,
) -> None:
    """Write the graph for other programs: Gephi, yEd and Cytoscape read GraphML."""
    from infra.cli.graph import export as run

    run(home, file, format_name)


@graph_app.command("picture")
def graph_picture(file: Path, home: Home = None) -> None:
    """Draw the graph as FILE.svg."""
    from infra.cli.graph import picture as run

    run(home, file)


@graph_app.command("rebuild")
def graph_rebuild(home: Home = None, as_json: Json = False) -> None:
    """Make the graph again from all exchanges and passages."""
    from infra.cli.graph import rebuild as run

    run(home, as_json=as_json)


@profile_app.command("show")
def profile_show(home: Home = None, as_json: Json = False) -> None:
    """Show the profile that counts, and the creator's opinions with their sources."""
    from infra.cli.profile import show as run

    run(home, as_json=as_json)


@profile_app.command("draft")
def profile_draft(home: Home = None, as_json: Json = False) -> None:
    """Draft a profile from memory and use it."""
    from infra.cli.profile import draft as run

    run(home, as_json=as_json)


@profile_app.command("set")
def profile_set(
    field: Annotated[str, typer.Argument(help="about, cares or speaks.")],
    text: str,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Put one field into other words."""
    from infra.cli.profile import set_field as run

    run(home, field, text, as_json=as_json)


@profile_app.command("edit")
def profile_edit(home: Home = None) -> None:
    """Open the profile in your editor."""
    from infra.cli.profile import edit as run

    run(home)


@profile_app.command("versions")
def profile_versions(home: Home = None, as_json: Json = False) -> None:
    """List every version that was kept."""
    from infra.cli.profile import versions as run

    run(home, as_json=as_json)


@profile_app.command("restore")
def profile_restore(
    number: Annotated[int, typer.Argument(help="A version that `understudy profile versions` lists.")],
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Let an old version of the profile count again."""
    from infra.cli.profile import restore as run

    run(home, number, as_json=as_json)


@bench_app.command("serve")
def bench_serve(
    llama_cpp: Annotated[
        Path | None, typer.Option(help="Folder with llama-server and llama-batched-bench, to measure beside.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Our voice server beside llama_cpp.server and llama-server: same file, same threads, same traffic."""
    from infra.cli.bench import serve as run

    run(llama_cpp, as_json=as_json)


@bench_app.command("recall")
def bench_recall(as_json: Json = False) -> None:
    """How soon a taught answer is recalled, and how fast recall is."""
    from infra.cli.bench import recall as run

    run(as_json=as_json)


@bench_app.command("retrieval")
def bench_retrieval(
    files: Annotated[list[Path], typer.Argument(help="Labelled questions: jsonl pairs, SQuAD's shape or LoCoMo's.")],
    as_json: Json = False,
) -> None:
    """What recall finds first, beside each search alone and a plain fusion of both."""
    from infra.cli.bench import retrieval as run

    run(files, as_json=as_json)


@bench_app.command("abstention")
def bench_abstention(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Labelled questions beside the bundled ones, as for retrieval.")
    ] = None,
    as_json: Json = False,
) -> None:
    """What memory refuses, on questions that its confidence was not fitted on."""
    from infra.cli.bench import abstention as run

    run(files or [], as_json=as_json)


@bench_app.command("weeks")
def bench_weeks(
    files: Annotated[list[Path], typer.Argument(help="Exchanges as jsonl: question, answer, time.")],
    base: Annotated[int, typer.Option(min=8, help="Rows of the base part.")] = 90,
    week: Annotated[int, typer.Option(min=4, help="Rows of each week.")] = 45,
    heldout: Annotated[int, typer.Option(min=4, help="Of each part so many are held out beside them.")] = 16,
    epochs: Annotated[int, typer.Option(min=1)] = 1,
    folder: Annotated[Path | None, typer.Option(help="Keep the adapters here, and go on with what is here.")] = None,
    as_json: Json = False,
) -> None:
    """What each way of retraining learns in three weeks in a row, and what it forgets."""
    from infra.cli.bench import weeks as run

    run(files, base=base, week=week, heldout=heldout, epochs=epochs, folder=folder, as_json=as_json)


@bench_app.command("swap")
def bench_swap(as_json: Json = False) -> None:
    """Swaps under streaming load: lost tokens, gaps, memory."""
    from infra.cli.bench import swap as run

    run(as_json=as_json)


@bench_app.command("soak")
def bench_soak(
    requests: Annotated[int, typer.Option(help="Questions of every shape; some leave, some cannot fit.")] = 10_000,
    swaps: Annotated[int, typer.Option(help="Swaps in between, at least ten.")] = 500,
    as_json: Json = False,
) -> None:
    """Whether the voice lasts: memory, failures and places after each tenth of many requests and swaps."""
    from infra.cli.bench import soak as run

    run(requests=requests, swaps=swaps, as_json=as_json)


@bench_app.command("preference")
def bench_preference(
    rows: Annotated[int, typer.Option(help="Rows that the voice is tuned on.")] = 100,
    pairs: Annotated[int, typer.Option(help="Drafts that the creator edits.")] = 80,
    as_json: Json = False,
) -> None:
    """Tune a voice on the bundled community, let it draft, and learn from what the creator wrote instead."""
    from infra.cli.bench import preference as run

    run(rows=rows, pairs=pairs, as_json=as_json)


@bench_app.command("memorisation")
def bench_memorisation(
    epochs: Annotated[str, typer.Option(help="Numbers of epochs, each a training of its own.")] = "2",
    rows: Annotated[int, typer.Option(help="Rows to learn, and as many to keep apart.")] = 60,
    as_json: Json = False,
) -> None:
    """Plant secrets in training rows, train with the default settings, and attack what comes of it."""
    from infra.cli.bench import memorisation as run

    run(epochs, rows=rows, as_json=as_json)


@bench_app.command("graph")
def bench_graph(as_json: Json = False) -> None:
    """What the graph adds to recall, on labelled questions that one exchange does not answer; and how fast it is."""
    from infra.cli.bench import graph as run

    run(as_json=as_json)


@bench_app.command("multiply")
def bench_multiply(
    digits: Annotated[int, typer.Option(help="The longest numbers; 3 is for a base of 3B or more on a GPU.")] = 2,
    rows: Annotated[int, typer.Option(min=50, help="Worked examples to learn from.")] = 1000,
    epochs: Annotated[int, typer.Option(min=1)] = 1,
    preset: Annotated[str, typer.Option(help="Whose base: tiny, cpu or persona-3b.")] = "tiny",
    asked: Annotated[int, typer.Option(min=4, help="Questions of each pair of lengths, at most.")] = 40,
    keep: Annotated[Path | None, typer.Option(help="A folder for all answers; an aborted run goes on there.")] = None,
    as_json: Json = False,
) -> None:
    """Teach a base to multiply step by step: right answers before and after, by digits, on pairs it never saw."""
    from infra.cli.reasoning import multiply as run

    run(keep, digits=digits, rows=rows, epochs=epochs, preset=preset, asked=asked, as_json=as_json)


@bench_app.command("train")
def bench_train(
    base: Annotated[
        list[str] | None, typer.Option(help="packaged, small, or a Qwen2.5: 0.5b, 1.5b, 3b, 7b, 14b; repeatable.")
    ] = None,
    rank: Annotated[str, typer.Option(help="Ranks, with commas between.")] = "16,128",
    trainer: Annotated[str, typer.Option(help="unsloth, trl or both.")] = "unsloth,trl",
    length: Annotated[int, typer.Option(min=16, max=8192, help="Tokens of a row.")] = 2048,
    batch: Annotated[int, typer.Option(min=1, max=64, help="Rows at once.")] = 4,
    four_bit: Annotated[bool, typer.Option("--four-bit", help="QLoRA: a base in 4 bits, on CUDA.")] = False,
    as_json: Json = False,
) -> None:
    """Measure how fast a training goes here and what it holds."""
    from infra.cli.training import bench as run

    run(base or [], rank, trainer, length=length, batch=batch, four_bit=four_bit, as_json=as_json)


@bench_app.command("distil")
def bench_distil(
    file: Annotated[Path, typer.Argument(help="Real exchanges, a JSON object a line: question, answer, time.")],
    newest: Annotated[int, typer.Option(min=100, help="How many exchanges to use, the newest.")] = 700,
    rows: Annotated[int, typer.Option(min=20, help="Imitations to ask for.")] = 400,
    tokens: Annotated[int, typer.Option(min=1000, help="What each training may read.")] = 16_000,
    url: Annotated[str, typer.Option(help="An OpenAI-compatible teacher; default: the packaged model.")] = "",
    model: Annotated[str, typer.Option(help="What that server calls its model.")] = "",
    folder: Annotated[Path | None, typer.Option(help="Keep everything there, and go on there.")] = None,
    as_json: Json = False,
) -> None:
    """Adapters trained on real rows, on a teacher's imitations, and on both, on the same held-out exchanges."""
    from infra.cli.bench import distil as run

    run(file, newest=newest, rows=rows, tokens=tokens, url=url, model=model, folder=folder, as_json=as_json)


@bench_app.command("pairing")
def bench_pairing(as_json: Json = False) -> None:
    """Pairing of questions and answers beside the five-minute-window rule, on the labelled cases."""
    from infra.cli.bench import pairing as run

    run(as_json=as_json)


def refuse_bytes(arguments: list[str]) -> None:
    """Raise UserMistake for an argument whose bytes are no text: what is kept of it would not be what was meant."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            raise UserMistake(f"{argument!r} is not UTF-8: rename that file, or import the folder it is in.") from error


def main() -> None:
    """The console script: Typer's exit codes, and one sentence for every error of ours."""
    try:
        refuse_bytes(sys.argv[1:])
        app()
    except UnderstudyError as error:
        import logging

        from infra.logs import say

        say(f"understudy: {error}", level=logging.ERROR)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
