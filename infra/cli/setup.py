"""`init` writes a folder's settings; `doctor` checks that everything they need is there, with its cure."""

import importlib.util
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import typer

from infra.cli.console import err, out, print_json
from infra.errors import ServiceTrouble, UnderstudyError, UserMistake
from infra.files import write_atomic
from infra.settings import CONFIG, Settings, find_home, load_settings

# The base model, its re-quantised copy, an adapter with its checkpoints and a few runs, rounded up.
NEEDED_BYTES = 2 * 1024**3


def init(home: Path | None, *, creator: str, ids: list[str], preset: str, language: str, ask: bool) -> None:
    """Write understudy.toml and .env; asks on a terminal for what was not given. Refuses to overwrite."""
    folder = find_home(home).resolve()
    path = folder / CONFIG
    if path.exists():
        raise UserMistake(f"{str(path)!r} is already there; edit it, or remove it to start again.")
    if not creator and ask and sys.stdin.isatty():
        creator = typer.prompt("Whose stand-in is this (the creator's name)")
    if not creator.strip():
        raise UserMistake('Whose stand-in is this? Give --creator NAME, as in: understudy init --yes --creator "Wren".')
    write_atomic(path, settings_text(creator=creator.strip(), ids=ids, preset=preset, language=language))
    try:
        load_settings(folder)
    except UserMistake:
        path.unlink()
        raise
    env = folder / ".env"
    if not env.exists():
        write_atomic(env, ENV_TEXT)
        env.chmod(0o600)
    err().print(f"Wrote {path} and {env.name}. Next: understudy doctor, then understudy import YOUR-FILES.")


def settings_text(*, creator: str, ids: list[str], preset: str, language: str) -> str:
    """A commented understudy.toml that says only what the operator decided."""
    import tomli_w

    given = tomli_w.dumps({"preset": preset, "creator": {"name": creator, "ids": ids, "language": language}})
    return f"{SETTINGS_HEAD}\n{given}"


SETTINGS_HEAD = """# Understudy's settings. Everything left out has a default: docs/settings.md lists each key.
# Any key can come from the environment (UNDERSTUDY_API__PORT=8400) and any secret from a file
# (UNDERSTUDY_API__TOKEN_FILE=/run/secrets/token). `ids` are PLATFORM:ID, as in "telegram:12345": names prove nothing.
"""
ENV_TEXT = """# Secrets; keep this file private. The environment wins over it. docs/settings.md lists what there is.
# UNDERSTUDY_API__TOKEN=
# UNDERSTUDY_DISCORD__TOKEN=
# UNDERSTUDY_TELEGRAM__TOKEN=
"""


@dataclass(frozen=True)
class Check:
    """One thing this set-up needs: whether it is there, and how to get it if not."""

    name: str
    passed: bool
    found: str


def doctor(home: Path | None, *, as_json: bool) -> None:
    """Run every check, show all of them, exit 1 if any failed."""
    settings = load_settings(find_home(home))
    checks = [run_check(name, check, settings) for name, check in CHECKS.items()]
    if as_json:
        print_json([check.__dict__ for check in checks])
    else:
        console = out()
        for check in checks:
            console.print(
                f"{'ok  ' if check.passed else 'FAIL'}  {check.name}: {check.found}", markup=False, soft_wrap=True
            )
    if not all(check.passed for check in checks):
        raise typer.Exit(1)


def run_check(name: str, check: Callable[[Settings], str], settings: Settings) -> Check:
    """One check's outcome; its own errors already say what to do."""
    try:
        return Check(name, passed=True, found=check(settings))
    except UnderstudyError as error:
        return Check(name, passed=False, found=str(error))


def check_python(settings: Settings) -> str:
    missing = [
        name
        for name in ("llama_cpp", "torch", "trl", "peft", "qdrant_edge", "onnx", "onnxruntime")
        if not importlib.util.find_spec(name)
    ]
    if missing:
        raise UserMistake(f"Packages are missing: {', '.join(missing)}. Run: pip install understudy.")
    return f"Python {sys.version.split()[0]} with every package"


def check_disk(settings: Settings) -> str:
    settings.data_folder.mkdir(parents=True, exist_ok=True)
    probe = settings.data_folder / ".doctor"
    write_atomic(probe, b"writable")
    probe.unlink()
    free = shutil.disk_usage(settings.data_folder).free
    if free < NEEDED_BYTES:
        raise ServiceTrouble(f"Only {free / 1e9:.1f} GB free under {str(settings.data_folder)!r}; training needs 2 GB.")
    return f"{free / 1e9:.0f} GB free under {settings.data_folder}"


def check_journal(settings: Settings) -> str:
    from infra.cli.compose import open_journal

    counts = open_journal(settings).counts()
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def check_index(settings: Settings) -> str:
    """What the running twin says, since the index is its own."""
    from infra.remote import Remote

    twin = Remote.find(settings)
    if twin is None:
        return "the twin is not running, and opens it when it starts"
    return index_said(twin.get("/api/status").get("index"))


def index_said(filling: Mapping[str, int] | None) -> str:
    """Whether the index is as the settings want it."""
    if filling is None:
        return "up to date with the embedder"
    return f"the one before answers while the new embedder's is filled: {filling['done']} of {filling['total']}"


def check_model(settings: Settings) -> str:
    from infra.cli.compose import served_weights

    weights = served_weights(settings)
    return f"{settings.models.base} as {weights.format}, {weights.path.stat().st_size / 1e6:.0f} MB"


def check_computing(settings: Settings) -> str:
    """How the voice computes, and why so."""
    from infra.cli.compose import served_tuning, served_weights

    if settings.voice.url:
        return f"{settings.voice.url} speaks"
    tuning, why = served_tuning(settings, served_weights(settings))
    layers = {0: "nothing on a GPU", -1: "all layers on a GPU"}
    return f"{tuning}; {layers.get(tuning.gpu_layers, f'{tuning.gpu_layers} layers on a GPU')}; {why}"


def check_training(settings: Settings) -> str:
    """Which trainer would run, and what keeps a faster one from it."""
    from trainer.gpu import Found, means

    models, plain = settings.models, settings.training.trainer == "trl"
    return str(means(Found.here(), trainable=models.trainable, four_bit=models.four_bit, plain=plain))


def check_reranker(settings: Settings) -> str:
    from infra.cli.compose import open_reranker

    reranker = open_reranker(settings)
    return f"{settings.recall.reranker} is prepared" if reranker else "none; the order of the searches stands"


def check_adapter(settings: Settings) -> str:
    from infra.adapters import BASE
    from infra.cli.compose import adapter_store

    store = adapter_store(settings)
    current, canary = store.current(), store.canary()
    found = "the base model speaks; no adapter yet"
    if current is not None:
        store.verify(current)
        found = f"{current} is whole"
    if canary is not None:
        store.may_try(canary.version, canary.share, beside=current)
        store.verify(canary.version)
        found += f"; canary {canary.version} is whole"
    for audience, version in store.pins().items():
        store.may_pin(version, audience)
        found += f"; {version or BASE} speaks to {audience}"
        if version is not None:
            store.verify(version)
    return found


def check_voice_servers(settings: Settings) -> str:
    """Which servers answer; as many as possible have to, and every one is named."""
    from infra.cli.compose import adapter_store, voice_servers

    aim, servers = adapter_store(settings).aim(), voice_servers(settings)
    if not servers:
        return f"the one at {settings.voice.url}" if settings.voice.url else "none; the engine speaks here"
    troubles = []
    for server in servers:
        try:
            if not server.look(aim).aligned:
                troubles.append(f"{server.url} does not speak with the current adapter")
        except UnderstudyError as error:
            troubles.append(str(error).rstrip("."))
    if troubles:
        answering = len(servers) - len(troubles)
        raise ServiceTrouble(f"{answering} of {len(servers)} answer as they shall: {'; '.join(troubles)}.")
    return f"all {len(servers)} answer"


def check_creator(settings: Settings) -> str:
    if not settings.creator.ids:
        return f"{settings.creator.name}; no platform ids yet, so chat exports cannot be paired (creator.ids)"
    return f"{settings.creator.name}, known as {', '.join(settings.creator.ids)}"


def check_discord(settings: Settings) -> str:
    from infra.cli.platforms import check_discord as check

    return check(settings)


def check_telegram(settings: Settings) -> str:
    from infra.cli.platforms import check_telegram as check

    return check(settings)


def check_traces(settings: Settings) -> str:
    from infra.traces import MISSING, installed

    if not settings.traces.url:
        return "none are sent: traces.url is empty"
    if not installed():
        raise UserMistake(MISSING)
    return f"go to {settings.traces.url}"


CHECKS: dict[str, Callable[[Settings], str]] = {
    "packages": check_python,
    "disk": check_disk,
    "creator": check_creator,
    "journal": check_journal,
    "index": check_index,
    "base model": check_model,
    "computing": check_computing,
    "training": check_training,
    "reranker": check_reranker,
    "adapter": check_adapter,
    "voice servers": check_voice_servers,
    "traces": check_traces,
    "discord": check_discord,
    "telegram": check_telegram,
}
