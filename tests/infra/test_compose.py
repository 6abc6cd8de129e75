"""docker-compose.yml and the Dockerfile: valid, hardened, and each service's own command and health check at work."""

import json
import re
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.settings import child_environment
from infra.voice.weights import Weights
from tests.infra.compose_file import ROOT, Host, composed, host, interpolated, megabytes, seconds
from tests.infra.running import lend_weights
from tests.redis_server import RedisServer, free_port, program

DOCUMENT = composed()
SERVICES: dict[str, dict[str, Any]] = DOCUMENT["services"]
OURS = ("voice", "dashboard", "bot", "worker", "beat", "trainer")


def run(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def test_the_file_is_what_the_compose_specification_says() -> None:
    checker = Path(sys.executable).with_name("check-jsonschema")
    done = run(str(checker), "--builtin-schema", "vendor.compose-spec", str(ROOT / "docker-compose.yml"))
    assert done.returncode == 0, done.stdout


def test_the_images_are_built_as_they_should_be() -> None:
    done = run(str(Path(sys.executable).with_name("hadolint")), str(ROOT / "Dockerfile"))
    assert done.returncode == 0, done.stdout


def test_a_file_with_a_mistake_in_it_is_found(tmp_path: Path) -> None:
    """The two checks can fail."""
    broken = tmp_path / "docker-compose.yml"
    broken.write_text((ROOT / "docker-compose.yml").read_text().replace("stop_grace_period", "stop_grace"))
    checker = Path(sys.executable).with_name("check-jsonschema")
    assert run(str(checker), "--builtin-schema", "vendor.compose-spec", str(broken)).returncode == 1
    (tmp_path / "Dockerfile").write_text("FROM python\nRUN cd /tmp && sudo rm x\n")
    assert run(str(Path(sys.executable).with_name("hadolint")), str(tmp_path / "Dockerfile")).returncode == 1


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_may_only_compute(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert not any("docker.sock" in str(volume) for volume in service.get("volumes", []))
    assert service["restart"] == "unless-stopped"
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "5"}
    assert service["healthcheck"]["test"]
    assert seconds(service["stop_grace_period"]) >= 15
    assert megabytes(service["mem_limit"]) >= 256
    # A version, and not whatever is newest.
    assert re.search(r":v?\d+\.\d+(\.\d+)?(-\w+)?$", service["image"])
    if name != "qdrant":  # whose unprivileged image names its user itself
        assert service["user"].split(":")[0] not in {"", "0", "root"}


def test_qdrants_server_is_one_that_the_client_speaks_with() -> None:
    """By its own rule: the same major version, and minor versions that are one apart at most."""
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    server, client = (
        re.search(pattern, text)
        for pattern, text in (
            (r":v(\d+)\.(\d+)", SERVICES["qdrant"]["image"]),
            (r"qdrant-client==(\d+)\.(\d+)", pinned),
        )
    )
    assert server
    assert client
    assert server[1] == client[1]
    assert abs(int(server[2]) - int(client[2])) <= 1


def test_only_pages_are_to_be_had_and_on_this_machine_alone() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if service.get("ports")}
    assert published == {"dashboard": ["127.0.0.1:8321:8321"], "grafana": ["127.0.0.1:3000:3000"]}
    assert DOCUMENT["networks"]["inside"] == {"internal": True}
    for name in ("redis", "qdrant", "postgres", "worker", "beat", "prometheus"):
        assert SERVICES[name]["networks"] == ["inside"]


def test_secrets_are_files_and_nothing_secret_is_a_variable() -> None:
    for name, service in SERVICES.items():
        for key, value in service.get("environment", {}).items():
            if re.search(r"TOKEN|PASSWORD|KEY", key) and isinstance(value, str):
                assert key.endswith("_FILE"), f"{name} {key}"
                assert value.removeprefix("/run/secrets/") in service["secrets"]
    assert set(SERVICES["voice"]["secrets"]) == {"api_token"}


def test_a_platform_token_reaches_the_bots_alone() -> None:
    assert [name for name, each in SERVICES.items() if "telegram_token" in each["secrets"]] == ["bot"]


def test_everything_waits_for_what_it_needs_to_be_ready() -> None:
    conditions = [
        each["condition"] for service in SERVICES.values() for each in dict(service.get("depends_on", {})).values()
    ]
    assert set(conditions) == {"service_healthy"}
    assert set(SERVICES["worker"]["depends_on"]) == {"redis", "qdrant", "postgres", "dashboard"}
    # Without its profile there is no PostgreSQL to wait for.
    assert SERVICES["dashboard"]["depends_on"]["postgres"]["required"] is False


def test_a_worker_is_given_longer_than_a_checkpoint_takes() -> None:
    from infra.cli.run import CHECKPOINT_S, REPLIES_S
    from trainer.supervise import SAVING_S

    for name in ("worker", "trainer"):
        assert seconds(SERVICES[name]["stop_grace_period"]) > CHECKPOINT_S > SAVING_S
    assert seconds(SERVICES["bot"]["stop_grace_period"]) > REPLIES_S


def test_a_gpu_is_asked_for_by_its_profile_alone() -> None:
    asking = {name: service for name, service in SERVICES.items() if "deploy" in service}
    assert list(asking) == ["trainer"]
    assert asking["trainer"]["profiles"] == ["gpu"]
    device = asking["trainer"]["deploy"]["resources"]["reservations"]["devices"][0]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])


def test_what_must_be_set_is_asked_for_in_words() -> None:
    assert interpolated("${A:-x} $${B} ${C:?say C}", {"C": "c"}) == "x ${B} c"
    with pytest.raises(ValueError, match="say C"):
        interpolated("${C:?say C}", {})


def test_secrets_are_written_once(tmp_path: Path) -> None:
    script = ROOT / "infra" / "docker" / "secrets.sh"
    assert run("sh", str(script), cwd=tmp_path).returncode == 0
    first = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert set(first) == set(DOCUMENT["secrets"])
    assert {len(first[name]) for name in first if not name.endswith("m_token") and name != "discord_token"} == {64}
    assert first["discord_token"] == first["telegram_token"] == ""

    assert run("sh", str(script), cwd=tmp_path).returncode == 0
    assert {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()} == first


def test_an_image_holds_no_secret_and_no_data() -> None:
    kept = (ROOT / ".dockerignore").read_text().splitlines()
    assert next(line for line in kept if line and not line.startswith("#")) == "*"
    assert not {"!secrets", "!data", "!.env", "!.git"} & set(kept)


def test_the_bots_need_no_torch_and_no_model(home: Path) -> None:
    """What they import is what their image has; see small_image.py."""
    config = home / "understudy.toml"
    config.write_text(
        f'{config.read_text()}[bot]\napi = "http://127.0.0.1:1"\n[queue]\nurl = "redis://127.0.0.1:1"\n'
        '[discord]\ntoken = "12345:abcdefghijklmnopqrstuvwxyz"\n[telegram]\ntoken = "12345:abcdefghijklmnopqrstuvwxyz"\n'
    )
    done = run(sys.executable, "-m", "tests.infra.small_image", str(home), cwd=ROOT, env=child_environment())
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("rows") > 50
    assert found == {"started": True, "voices": "Gone", "torch": False}


@pytest.fixture
def deployed(tmp_path: Path, home: Path, weights: Weights, postgres: str) -> Iterator[Host]:
    """The file's services on this machine, with a real PostgreSQL, and a Redis that runs the file's own command.

    Its Qdrant cannot be had as a package; the dashboard has the embedded one.
    """
    assert run("sh", str(ROOT / "infra" / "docker" / "secrets.sh"), cwd=home).returncode == 0
    lend_weights(home, weights)
    for name in ("voice", "data"):
        (home / name).mkdir(exist_ok=True)
    (home / "voice" / "models").symlink_to(home / "data" / "models")
    document, port = composed(JOURNAL_URL="postgresql://understudy@postgres/understudy"), free_port()
    for service in document["services"].values():
        variables = service.get("environment", {})
        variables.pop("UNDERSTUDY_INDEX__URL", None)
        # This server knows whoever is here by a socket, and asks for no password.
        if variables.pop("UNDERSTUDY_JOURNAL__PASSWORD_FILE", None):
            variables["UNDERSTUDY_JOURNAL__URL"] = postgres
    with host(home, document, {"redis://redis:6379": f"redis://127.0.0.1:{port}"}) as found:
        folder = tmp_path / "redis"
        folder.mkdir()
        told = found.here(document["services"]["redis"]["command"][2])
        told = told.replace("/tmp/auth.conf", str(folder / "auth.conf")).replace("--dir /data", f"--dir {folder}")
        told = f"{told.replace('exec redis-server', f'exec {program()}')} --bind 127.0.0.1 --port {port}"
        found.processes["redis"] = subprocess.Popen(["sh", "-c", told], stdout=subprocess.DEVNULL)
        password = (home / "secrets" / "redis_password").read_text()
        server = RedisServer(folder, port=port, password=password)
        while not server.answers():
            assert found.processes["redis"].poll() is None
            time.sleep(0.05)
        yield found


def test_the_deployment_answers_learns_and_ends_in_good_order(deployed: Host) -> None:
    """Every part by its own command, healthy by its own check; taught in one, heard in another, trained for in a third."""
    for name in ("voice", "dashboard"):
        deployed.start(name)
    deployed.until_healthy("voice")
    deployed.until_healthy("dashboard")
    for name in ("worker", "beat"):
        assert not deployed.healthy(name)
        deployed.start(name)
    for name in ("worker", "beat"):
        deployed.until_healthy(name)

    url = f"http://127.0.0.1:{deployed.ports['dashboard']}"
    token = (deployed.folder / "secrets" / "api_token").read_text()
    assert httpx.get(f"{url}/api/status").status_code == httpx.get(f"{url}/metrics").status_code == 401
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60) as client:
        taught = {"question": "How warm should the dough be?", "answer": "24 °C, friend. Trust the dough."}
        assert client.post("/api/teach", json=taught).is_success
        asked = {"question": taught["question"], "conversation": "c", "message": "1"}
        answered = client.post("/api/ask", json=asked)
        assert answered.is_success, answered.text
        assert "24" in answered.text
        # A worker for small tasks leaves trainings alone; one with the queue gpu takes it, and finds too little to learn.
        run_id = client.post("/api/retrain").json()["run"]
        trainer = deployed.services["worker"] | {"command": ["worker", "--queue", "gpu"]}
        deployed.services["trainer"] = trainer
        deployed.start("trainer")
        deadline = time.monotonic() + 90
        while (found := run_of(client, run_id))["state"] in {"queued", "running"}:
            assert time.monotonic() < deadline, (deployed.folder / "trainer.log").read_text()[-2000:]
            time.sleep(0.5)
        assert found["state"] == "refused", found
        counted = client.get("/metrics").text
        assert 'understudy_answers_total{outcome="answered",platform="own"} 1.0' in counted, counted
        assert 'understudy_runs{state="refused"} 1.0' in counted
        heard = client.get(f"http://127.0.0.1:{deployed.ports['voice']}/metrics")
        assert 'understudy_voice_info{voice="smollm2-135m-instruct"} 1.0' in heard.text

    deployed.processes["voice"].kill()
    deployed.processes["voice"].wait()
    deadline = time.monotonic() + 60
    while deployed.healthy("dashboard"):  # it lives, and is soon not ready: nobody speaks
        assert time.monotonic() < deadline
    deployed.start("voice")
    deployed.until_healthy("dashboard")

    for name in ("trainer", "worker", "beat", "dashboard", "voice"):
        assert deployed.stop(name) < 15
    for name in ("voice", "dashboard", "worker", "beat"):
        assert token not in (deployed.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")


def run_of(client: httpx.Client, run_id: str) -> dict[str, Any]:
    return next(run for run in client.get("/api/runs").json() if run["id"] == run_id)
