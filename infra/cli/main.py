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
graph_app = typer.Typer(
    help="What memory's graph knows: things, how they hang together, what the creator thinks of them."
)
profile_app = typer.Typer(help="Who the twin is told that it stands in for.")
bench_app = typer.Typer(help="Measure this machine: medians and ratios, side by side in one run.")
app.add_typer(inbox_app, name="inbox")
app.add_typer(journal_app, name="journal")
app.add_typer(dataset_app, name="dataset")
app.add_typer(voices_app, name="voices")
app.add_typer(graph_app, name="graph")
app.add_typer(profile_app, name="profile")
app.add_typer(bench_app, name="bench")

Home = Annotated[Path | None, typer.Option("--home", help="The folder with understudy.toml; default: this one.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


@app.command()
def init(
    home: Home = None,
    creator: Annotated[str, typer.Option(help="The name of the person the twin stands in for.")] = "",
    creator_id: Annotated[list[str] | None, typer.Option(help="PLATFORM:ID of the creator; repeatable.")] = None,
    preset: Annotated[str, typer.Option(help="tiny, cpu or persona-3b.")] = "tiny",
    language: Annotated[str, typer.Option(help="en, zh-CN or zh-TW.")] = "en",
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
) -> None:
    """Write understudy.toml and .env in this folder."""
    from infra.cli.setup import init as run

    run(home, creator=creator, ids=creator_id or [], preset=preset, language=language, ask=not yes)


@app.command()
def doctor(home: Home = None, as_json: Json = False) -> None:
    """Check everything this set-up needs; exit 1 if anything is missing."""
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
    home: Home = None, port: Annotated[int | None, typer.Option(help="Instead of api.port; 0 takes any.")] = None
) -> None:
    """Run only the API and the page, for deployment."""
    from infra.cli.run import serve as run

    run(home, port=port)


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
def worker(home: Home = None) -> None:
    """Run only the Celery worker, for deployment."""
    from infra.cli.run import worker as run

    run(home)


@app.command()
def beat(home: Home = None) -> None:
    """Run only the scheduler, for deployment; exactly one."""
    from infra.cli.run import beat as run

    run(home)


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
    paths: Annotated[list[Path], typer.Argument(help="Files, folders or zips that the creator has.")],
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
    target: Annotated[Path, typer.Argument(help="The tar to write; with --keep the folder for it.")],
    keep: Annotated[int, typer.Option(min=0, help="Keep this many in the folder, and remove older ones.")] = 0,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Write journal, adapters and settings without secrets into one file, while running."""
    from infra.cli.keeping import backup as run

    run(home, target, keep=keep, as_json=as_json)


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(help="A backup.")],
    replace: Annotated[bool, typer.Option("--replace", help="Instead of what is here.")] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Bring a backup back, without what was forgotten since; the index is made anew at the next start."""
    from infra.cli.keeping import restore as run

    run(home, source, replace=replace, as_json=as_json)


@dataset_app.command("build")
def dataset_build(
    home: Home = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count, with reasons.")] = False,
    as_json: Json = False,
) -> None:
    """Build a dataset from what may be learned from."""
    from infra.cli.learn import dataset_build as run

    run(home, dry_run=dry_run, as_json=as_json)


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
def retrain(
    home: Home = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show progress until the run ends.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Stop after counting what would be learned.")] = False,
    as_json: Json = False,
) -> None:
    """Build, train, evaluate, gate, swap."""
    from infra.cli.learn import retrain as run

    run(home, wait=wait, dry_run=dry_run, as_json=as_json)


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
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Make the eval card of an adapter again."""
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
def bench_serve(as_json: Json = False) -> None:
    """Our voice server beside llama_cpp.server: same model, same threads, same traffic."""
    from infra.cli.bench import serve as run

    run(as_json=as_json)


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


@bench_app.command("swap")
def bench_swap(as_json: Json = False) -> None:
    """Swaps under streaming load: lost tokens, gaps, memory."""
    from infra.cli.bench import swap as run

    run(as_json=as_json)


@bench_app.command("graph")
def bench_graph(as_json: Json = False) -> None:
    """What the graph adds to recall, on labelled questions that one exchange does not answer; and how fast it is."""
    from infra.cli.bench import graph as run

    run(as_json=as_json)


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
        sys.stderr.write(f"understudy: {error}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
