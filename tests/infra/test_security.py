"""Secrets stay where they are, and a page elsewhere cannot use what is open to this machine."""

import gzip
import os
import secrets
import subprocess
import sys
import tarfile
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from infra.settings import Settings, child_environment, load_settings
from infra.voice.api import install
from infra.voice.weights import Weights
from tests.infra.running import QA, lend_weights, served
from tests.redis_server import free_port

HERE = "127.0.0.1"


@pytest.fixture
def address():
    """An address that asks for no token, because it is on loopback."""
    app = FastAPI()
    install(app, token=None, here_only=True)

    @app.get("/memory")
    @app.post("/memory")
    def memory() -> dict[str, str]:
        return {"what": "is known"}

    with served(app) as url:
        yield url


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "[::1]:{port}", "LOCALHOST", "127.0.0.1"])
def test_this_machines_programs_and_page_are_answered(address: str, host: str) -> None:
    name = host.format(port=httpx.URL(address).port)
    for headers in ({"Host": name}, {"Host": name, "Origin": f"http://{name}"}):
        assert httpx.get(f"{address}/memory", headers=headers).status_code == 200
        assert httpx.post(f"{address}/memory", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        # A page elsewhere that posts to loopback.
        ("127.0.0.1:{port}", "https://evil.example"),
        ("127.0.0.1:{port}", "null"),
        ("127.0.0.1:{port}", ""),
        ("127.0.0.1:{port}", "http://127.0.0.1:1"),
        ("127.0.0.1:{port}", "https://127.0.0.1:{port}"),
        # A name of theirs that leads here: DNS rebinding.
        ("evil.example:{port}", None),
        ("evil.example:{port}", "http://evil.example:{port}"),
        ("127.0.0.1.evil.example", None),
        ("127.0.0.1@evil.example", None),
        ("evil.example:80@127.0.0.1x", None),
        ("[::1", None),
        ("", None),
        ("0.0.0.0:{port}", None),
    ],
)
def test_pages_from_elsewhere_are_not(address: str, host: str, origin: str | None) -> None:
    port = httpx.URL(address).port
    headers = {"Host": host.format(port=port)} | ({} if origin is None else {"Origin": origin.format(port=port)})
    for method in ("GET", "POST"):
        answer = httpx.request(method, f"{address}/memory", headers=headers)
        assert answer.status_code in {400, 403}, (method, answer.text)
        assert "is known" not in answer.text


SECRETS = (
    "API__TOKEN", "INDEX__API_KEY", "QUEUE__PASSWORD", "JOURNAL__PASSWORD", "VOICE__TOKEN", "GRAPH__TOKEN", "TEACHER__TOKEN",
    "JUDGE__TOKEN", "TRACES__TOKEN", "DISCORD__TOKEN", "TELEGRAM__TOKEN", "TELEGRAM__WEBHOOK_SECRET",
)  # fmt: skip


@pytest.fixture
def planted(home: Path, weights: Weights) -> tuple[Settings, dict[str, str]]:
    """An installation with a secret in every place for one, in files beside it; what it would reach is not there."""
    lend_weights(home, weights)
    found, closed = {name: f"planted-{secrets.token_hex(12)}" for name in SECRETS}, free_port()
    folder = home / "secrets"
    folder.mkdir(mode=0o700)
    for name, value in found.items():
        (folder / name).write_text(value)
    (home / ".env").write_text("".join(f"UNDERSTUDY_{name}_FILE={folder / name}\n" for name in SECRETS))
    config = home / "understudy.toml"
    config.write_text(
        f'{config.read_text()}[queue]\nurl = "redis://{HERE}:{closed}/0"\n'
        f'[telegram]\napi = "http://{HERE}:{closed}"\n[discord]\napi = "http://{HERE}:{closed}/api"\n'
        f'[judge]\nmodel = "http://{HERE}:{closed}"\n[teacher]\nurl = "http://{HERE}:{closed}"\nname = "m"\n'
    )
    (home / "qa.csv").write_text(QA)
    return load_settings(home), found


def test_no_secret_is_in_output_log_or_artifact(planted, tmp_path: Path) -> None:
    """Through commands that work and commands that fail on what they cannot reach, and through what they leave."""
    settings, found = planted
    home, said = settings.home, []
    commands = [
        "import qa.csv", "ask Warm?", "recall flour", "status", "status --json", "doctor", "doctor --json", "retrain",
        "retrain --dry-run", "runs", "voices list", "dataset build --dry-run", "distil --rows 4 --yes", "health api",
        "worker --queue gpu --once", "backup kept.tar.gz", "bot --platform telegram", "bot --platform discord", "voices publish create me",
    ]  # fmt: skip
    for command in commands:
        arguments = [sys.executable, "-m", "infra.cli.main", *command.split(), "--home", str(home)]
        try:
            done = subprocess.run(
                arguments, capture_output=True, text=True, timeout=12, env=child_environment(), cwd=home, check=False
            )
            said.append(done.stdout + done.stderr)
        except subprocess.TimeoutExpired as running:  # a bot goes on trying
            said += [(part or b"").decode() for part in (running.stdout, running.stderr)]
    (home / "understudy.toml").write_text((home / "understudy.toml").read_text() + "[api]\nport = 99999\n")
    broken = [sys.executable, "-m", "infra.cli.main", "status", "--home", str(home)]
    said.append(subprocess.run(broken, capture_output=True, text=True, env=child_environment(), check=False).stderr)

    everything = "\n".join(said).encode() + b"".join(contents(home))
    assert b"Strong white" in everything  # so it would be found
    for name, value in found.items():
        assert value.encode() not in everything, name
    assert repr(settings).count("planted-") == 0


def contents(home: Path) -> list[bytes]:
    """Every file but the secrets themselves, and what is in a backup."""
    files = [
        path for path in home.rglob("*") if path.is_file() and "secrets" not in path.parts and path.suffix != ".gguf"
    ]
    found = [path.read_bytes() for path in files]
    for path in (path for path in files if path.name == "kept.tar.gz"):
        with tarfile.open(path) as tar:
            found += [file.read() for entry in tar if (file := tar.extractfile(entry))]
        assert gzip.decompress(path.read_bytes())
    return found


def test_what_is_private_is_its_owners_alone(planted) -> None:
    settings, _ = planted
    subprocess.run(
        [sys.executable, "-m", "infra.cli.main", "backup", "kept.tar", "--home", str(settings.home)],
        env=child_environment(), cwd=settings.home, check=True, capture_output=True,
    )  # fmt: skip
    assert os.stat(settings.home / "kept.tar").st_mode & 0o077 == 0
