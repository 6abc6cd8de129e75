"""A real SFTP server over a folder: `python -m tests.infra.sftp_server FOLDER`; says its port and key, ends with its input."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncssh

USER, PASSWORD = "twin", "a-password"


class Login(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == (USER, PASSWORD)


@contextmanager
def sftp_server(folder: Path) -> Iterator[tuple[int, str]]:
    """The port of a server that ends with the block, and its public key."""
    command = [sys.executable, "-m", "tests.infra.sftp_server", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        port, key = server.stdout.readline().split(maxsplit=1)
        try:
            yield int(port), key.strip()
        finally:
            server.stdin.close()


def trust(home: Path, port: int, key: str) -> None:
    """Let whoever's home this is know the host of a port, as ssh does after its question."""
    known = home / ".ssh" / "known_hosts"
    known.parent.mkdir(parents=True, exist_ok=True)
    with known.open("a", encoding="utf-8") as file:
        file.write(f"[127.0.0.1]:{port} {key}\n")


async def serve(folder: str) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_factory=Login,
        server_host_keys=[key],
        sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=folder),
    )
    public = key.export_public_key().decode().strip()
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]} {public}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
