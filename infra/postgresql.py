"""Connections to PostgreSQL that notice when the network or the server is gone without a word.

Where packets are dropped, the kernel notices by itself, as it is told here. Where something in between goes on to take
them, such as a tunnel or a container's proxy, nothing but a limit on the wait for an answer does.
"""

import time
from collections.abc import Generator
from typing import Any

import psycopg

# A server that says nothing for so long, in seconds, is taken for gone. Locks are waited for less long.
SILENCE_S = 60.0
# Nobody who is there takes longer to let somebody in.
CONNECT_S = 10
# The kernel asks a silent server after 10 s, three times; what was sent and not received breaks the connection, too.
PATIENCE = {
    "connect_timeout": CONNECT_S,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
# The same for the server, which would hold the locks of a client that went in the middle of a write for two hours.
SERVER_PATIENCE = "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3"


class Silence(psycopg.OperationalError):
    """The server says nothing any more."""


class Connection(psycopg.Connection[Any]):
    """psycopg's, with an end to every wait; who sends a statement that takes its time says so by `silence_s`."""

    silence_s: float | None = None

    def wait(self, gen: Generator[Any, Any, Any], *arguments: Any, **named: Any) -> Any:
        """See psycopg. Raises Silence, with the connection closed, after so long without a word of the server's."""
        try:
            limit_s = SILENCE_S if self.silence_s is None else self.silence_s
            return super().wait(noticing(gen, limit_s), *arguments, **named)
        except Silence:
            self.close()
            raise


def noticing(waiting: Generator[Any, Any, Any], silence_s: float) -> Generator[Any, Any, Any]:
    """The same wait for a socket; psycopg comes back to it ten times a second, with nothing if nothing was heard."""
    heard = time.monotonic()
    try:
        wanted = next(waiting)
        while True:
            ready = yield wanted
            if ready:
                heard = time.monotonic()
            elif time.monotonic() - heard > silence_s:
                waiting.close()
                raise Silence(f"the server has been silent for {silence_s:g} s")
            wanted = waiting.send(ready)
    except StopIteration as ended:
        return ended.value


def connect(*arguments: Any, **given: Any) -> psycopg.Connection[Any]:
    """A connection; what is given, as by a URL, counts more than `PATIENCE`. Raises as psycopg."""
    return Connection.connect(*arguments, **{**PATIENCE, **given})
