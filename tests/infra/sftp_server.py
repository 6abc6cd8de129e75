"""A real SFTP server over a folder: `python -m tests.infra.sftp_server FOLDER`; says its port, and ends with its input."""

import asyncio
import sys

import asyncssh

USER, PASSWORD = "twin", "a-password"


class Login(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == (USER, PASSWORD)


async def serve(folder: str) -> None:
    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_factory=Login,
        server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
        sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=folder),
    )
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
