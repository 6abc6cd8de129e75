"""docker-compose.yml as Docker reads it, and its services as processes of this machine instead of containers.

No container engine runs here. What a service runs, its health check, its variables and its secrets are taken from the
file, and only its host names, ports and paths are replaced by those of this machine.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

from infra.settings import child_environment
from tests.redis_server import free_port

ROOT = Path(__file__).parents[2]
VARIABLE = re.compile(r"\$\$|\$\{(\w+)(?:(:-|:\?)([^}]*))?\}")


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """The file with its variables replaced. Raises ValueError where one that must be set is not."""

    def value(found: re.Match[str]) -> str:
        name, kind, rest = found.groups()
        if name is None:
            return "$"
        given = variables.get(name, "")
        if not given and kind == ":?":
            raise ValueError(rest)
        return given or (rest if kind == ":-" else "")

    return VARIABLE.sub(value, text)


def composed(**variables: str) -> dict[str, Any]:
    """The file as a document, with variables as from the `.env` beside it."""
    return yaml.safe_load(interpolated((ROOT / "docker-compose.yml").read_text(encoding="utf-8"), variables))


class Host:
    """This machine in the place of Docker: a folder for volumes and secrets, and a port for each service that has one."""

    def __init__(self, folder: Path, document: Mapping[str, Any], places: Mapping[str, str]) -> None:
        self.folder, self.services, self.places = folder, document["services"], dict(places)
        self.ports = {name: free_port() for name in ("voice", "dashboard")}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def here(self, value: str) -> str:
        """A value of the file with what is a name or path in containers as it is on this machine."""
        for name, port in self.ports.items():
            value = value.replace(f"http://{name}:8321", f"http://127.0.0.1:{port}")
        for there, own in self.places.items():
            value = value.replace(there, own)
        return value.replace("/run/secrets/", f"{self.folder}/secrets/").replace("/twin/", f"{self.folder}/")

    def environment(self, name: str) -> dict[str, str]:
        given = {key: self.here(str(value)) for key, value in self.services[name]["environment"].items()}
        given |= {"UNDERSTUDY_HOME": str(self.folder), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        if name in self.ports:
            given["UNDERSTUDY_API__PORT"] = str(self.ports[name])
        return child_environment(**given)

    def start(self, name: str) -> None:
        log = (self.folder / f"{name}.log").open("ab")
        command = ["understudy", *map(str, self.services[name]["command"])]
        self.processes[name] = subprocess.Popen(
            command, cwd=self.folder, env=self.environment(name), stdout=log, stderr=log, start_new_session=True
        )
        log.close()

    def healthy(self, name: str) -> bool:
        """Its health check, run once as Docker would."""
        test = self.services[name]["healthcheck"]["test"]
        assert test[0] == "CMD"
        done = subprocess.run(test[1:], cwd=self.folder, env=self.environment(name), capture_output=True, timeout=60)
        return done.returncode == 0

    def until_healthy(self, name: str, within_s: float = 180) -> None:
        deadline = time.monotonic() + within_s
        while not self.healthy(name):
            log = (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
            assert self.processes[name].poll() is None, f"{name} has ended: {log[-2000:]}"
            assert time.monotonic() < deadline, f"{name} is not healthy: {log[-2000:]}"
            time.sleep(0.5)

    def stop(self, name: str) -> float:
        """As Docker does: SIGTERM, and no SIGKILL within the grace period; returns the seconds it took."""
        began, process = time.monotonic(), self.processes.pop(name)
        process.terminate()
        process.wait(seconds(self.services[name]["stop_grace_period"]))
        return time.monotonic() - began

    def close(self) -> None:
        for process in self.processes.values():
            with suppress(psutil.NoSuchProcess):
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
            process.kill()
            process.wait()


@contextmanager
def host(folder: Path, document: Mapping[str, Any], places: Mapping[str, str]) -> Iterator[Host]:
    """A host whose processes end with the block."""
    found = Host(folder, document, places)
    try:
        yield found
    finally:
        found.close()


def seconds(duration: str) -> float:
    """A duration of the file, such as 30s or 1m30s."""
    units = {"h": 3600, "m": 60, "s": 1}
    return float(sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([hms])", duration)))


def megabytes(size: str) -> float:
    return float(size[:-1]) * {"m": 1, "g": 1024}[size[-1]]
