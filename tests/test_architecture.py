"""The fence around the design: who may import whom, who owns which library, what may happen at import."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PARTS = ("infra", "memory", "bot", "trainer")
MAY_IMPORT = {
    "infra": {"infra"},
    "memory": {"infra", "memory"},
    "bot": {"infra", "memory", "bot"},
    "trainer": {"infra", "memory", "trainer"},
}
# Start-up and pages put the parts together.
EDGES = ("infra/cli/", "infra/desk/")
# Each third-party library has the modules that own it; nobody else imports it.
OWNERS = {
    "llama_cpp": {"infra/voice/llama.py"},
    "qdrant_client": {"memory/vectors.py"},
    "qdrant_edge": {"memory/vectors.py"},
    "onnxruntime": {"memory/prepared.py"},
    "networkx": {"memory/network.py"},
    "celery": {"infra/queue.py", "trainer/app.py", "trainer/tasks.py"},
    "kombu": {"infra/queue.py"},
    "prometheus_client": {"infra/desk/metrics.py"},
    "opentelemetry": {"infra/traces.py"},
    "fsspec": {"infra/artifacts.py"},
    "pyrage": {"infra/backup.py"},
    "sqlcipher3": {"infra/database.py"},
    "trl": {"trainer/lora.py", "trainer/grpo.py", "trainer/prefer.py"},
    "peft": {"trainer/lora.py", "trainer/parity.py", "trainer/grpo.py", "trainer/prefer.py"},
    "unsloth": {"trainer/gpu.py"},
    "fastapi": {"infra/voice/api.py", "infra/voice/serve_bench.py", "infra/voice/replica.py", "infra/desk/"},
    "typer": {"infra/cli/"},
    "discord": {"bot/discord_"},
    "telegram": {"bot/telegram_"},
    "telegramify_markdown": {"bot/telegram_show.py"},
    "pypdf": {"memory/importers/pdf.py"},
    "docx": {"memory/importers/docx.py"},
    "webvtt": {"memory/importers/subtitles.py"},
}
# What runs whatever is in a file, or in words.
NEVER = {"pickle", "cPickle", "_pickle", "dill", "marshal", "shelve", "joblib", "cloudpickle"}
NEVER_CALLED = {"eval", "exec", "torch.load", "yaml.load", "numpy.load", "np.load", "os.system", "compile"}
PURE = (
    "bot/policy.py",
    "memory/ranking.py",
    "memory/terms.py",
    "memory/prompt.py",
    "memory/messages.py",
    "trainer/gate.py",
)
# Values and errors are no I/O.
PURE_MAY_IMPORT = (
    "infra.voice.chat",
    "infra.errors",
    "memory.messages",
    "memory.persona",
    "memory.terms",
    "trainer.card",
)


def modules() -> list[Path]:
    return [path for part in PARTS for path in sorted((ROOT / part).rglob("*.py"))]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[str]:
    """Every module that `path` imports anywhere, also inside functions and for types only."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} imports relatively"
            yield node.module or ""


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    name = name_of(path)
    part = name.split("/")[0]
    ours = {top for module in imports(path) if (top := module.split(".")[0]) in PARTS}

    assert name.startswith(EDGES) or ours <= MAY_IMPORT[part]


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_each_library_is_imported_by_its_owners_only(path: Path) -> None:
    name = name_of(path)
    foreign = {
        library
        for library in {module.split(".")[0] for module in imports(path)}
        if library in OWNERS and not any(name.startswith(owner) for owner in OWNERS[library])
    }

    assert not foreign


@pytest.mark.parametrize("name", PURE)
def test_the_pure_modules_do_no_io(name: str) -> None:
    banned = {"os", "pathlib", "sqlalchemy", "httpx", "subprocess", "socket", "asyncio"}
    found = set(imports(ROOT / name))

    assert not {module for module in found if module.split(".")[0] in banned}
    assert {m for m in found if m.split(".")[0] in PARTS} <= set(PURE_MAY_IMPORT)


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_only_settings_reads_the_environment(path: Path) -> None:
    reads = {"environ", "getenv", "environb"}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in reads]

    assert not found or name_of(path) == "infra/settings.py"


def called(node: ast.Call) -> str:
    """A call by its dotted name, as far as it has one."""
    return ast.unparse(node.func) if isinstance(node.func, ast.Attribute | ast.Name) else ""


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_nothing_runs_what_is_in_a_file(path: Path) -> None:
    """No pickle, no torch.load, no eval, no shell: only formats that hold data, and fixed argument lists."""
    assert not {module.split(".")[0] for module in imports(path)} & NEVER
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    assert not {called(node) for node in calls} & NEVER_CALLED
    shells = [keyword for node in calls for keyword in node.keywords if keyword.arg in {"shell", "allow_pickle"}]
    assert not shells


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_the_command_line_starts_light() -> None:
    """What `understudy --help` imports decides how long a person waits for it."""
    heavy = "torch transformers llama_cpp sqlalchemy fastapi celery numpy qdrant_client qdrant_edge pydantic_settings"
    program = f"import sys, infra.cli.main; print([m for m in '{heavy}'.split() if m in sys.modules])"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)

    assert done.stdout.strip() == "[]"


def test_importing_a_part_does_nothing(tmp_path: Path) -> None:
    """No folder is made, no file written, no thread started by importing everything there is."""
    names = [name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in modules()]
    program = (
        "import importlib, sys, threading\n"
        f"for name in {[n for n in names if not n.endswith('__main__')]!r}: importlib.import_module(name)\n"
        "print(threading.active_count(), [m for m in ('torch', 'llama_cpp') if m in sys.modules])"
    )
    environment = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "PATH": ""}

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
    )

    assert (done.stdout.strip(), done.stderr) == ("1 []", "")
    assert list(tmp_path.iterdir()) == []
