"""A real S3-compatible server over a folder of buckets: rclone's, from its package, with a key."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.redis_server import free_port

KEY, SECRET = "a-key-of-the-twin", "a-secret-of-the-twin"


def options(port: int) -> dict[str, Any]:
    """What fsspec has to know of it, as in ~/.config/fsspec."""
    return {"key": KEY, "secret": SECRET, "endpoint_url": f"http://127.0.0.1:{port}"}


@contextmanager
def s3_server(folder: Path) -> Iterator[int]:
    """The port of a server that ends with the block; `folder` holds the buckets."""
    port = free_port()
    program = Path(sys.executable).with_name("rclone")
    address = ["--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY},{SECRET}"]
    command = [program, "serve", "s3", str(folder), *address, "--config", "/dev/null"]
    # Tests look into its folder, and write there, behind its back.
    command += ["--dir-cache-time", "1ms"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        while not answers(port):
            assert server.poll() is None, "rclone does not start"
            time.sleep(0.05)
        try:
            yield port
        finally:
            server.terminate()


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/").is_client_error  # without a signature
    except httpx.TransportError:
        return False
