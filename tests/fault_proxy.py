"""A network to spoil: forwards TCP to a port or a socket's file, and delays, slows, cuts or swallows on command.

Each direction has its own faults: `up` is from the client to the server, `down` its answers. What a connection has
swallowed is gone: it stays as silent as a link that died without a word, also once the network is well again.
"""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

# Small, so that a limit on bytes per second makes a stream slow and not a series of bursts.
CHUNK = 4096
# Closes with a reset, and at once.
ABRUPTLY = struct.pack("ii", 1, 0)

Address = tuple[str, int] | Path


@dataclass
class Faults:
    """What one direction suffers; nothing, as it is made. The connection that carries byte `cut_after` is cut, once."""

    delay_s: float = 0.0
    bytes_per_s: float = float("inf")
    cut_after: int | None = None
    swallows: bool = False


@dataclass(eq=False)
class Link:
    """One connection and its other half."""

    client: socket.socket
    server: socket.socket
    silent: bool = False

    def cut(self) -> None:
        for end in (self.client, self.server):
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABRUPTLY)
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class FaultProxy:
    """The proxy, on a loopback port of its own."""

    def __init__(self, target: Address) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.up, self.down = Faults(), Faults()
        self._links: set[Link] = set()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def heal(self) -> None:
        """Let connections be as good as any from now on; silent ones stay silent."""
        self.up, self.down = Faults(), Faults()

    def sever(self) -> None:
        """Cut every connection there is."""
        for link in list(self._links):
            link.cut()

    def close(self) -> None:
        """Cut everything, and return when no thread is left."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        self.heal()
        self.sever()
        for thread in self._threads:
            thread.join()

    def _start(self, work, *arguments: object) -> None:
        self._threads.append(threading.Thread(target=work, args=arguments, daemon=True, name="fault proxy"))
        self._threads[-1].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = self._connected()
            except OSError:  # the server is down: as if there were no proxy before it
                client.close()
                continue
            link = Link(client, server)
            self._links.add(link)
            self._start(self._pump, link, "up")
            self._start(self._pump, link, "down")

    def _connected(self) -> socket.socket:
        if isinstance(self._target, tuple):
            return socket.create_connection(self._target)
        server = socket.socket(socket.AF_UNIX)
        server.connect(str(self._target))
        return server

    def _pump(self, link: Link, way: str) -> None:
        """Forward one direction until either end closes; an end that nobody may hear of is kept from the other."""
        source, sink = (link.client, link.server) if way == "up" else (link.server, link.client)
        with suppress(OSError):
            while chunk := source.recv(CHUNK):
                faults: Faults = getattr(self, way)
                if faults.delay_s or faults.bytes_per_s < float("inf"):
                    time.sleep(faults.delay_s + len(chunk) / faults.bytes_per_s)
                if link.silent or faults.swallows:
                    link.silent = True
                elif faults.cut_after is None:
                    sink.sendall(chunk)
                else:
                    sink.sendall(chunk[: faults.cut_after])
                    faults.cut_after -= len(chunk)
                    if faults.cut_after < 0:
                        faults.cut_after = None
                        break
        if not link.silent:
            link.cut()
            self._links.discard(link)


@contextmanager
def fault_proxy(target: Address) -> Iterator[FaultProxy]:
    """A proxy that ends with the block."""
    proxy = FaultProxy(target)
    try:
        yield proxy
    finally:
        proxy.close()
