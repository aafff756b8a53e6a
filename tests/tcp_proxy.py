"""A TCP connection that can be cut, stalled and damaged: what lies between a node and its consumers on a bad day."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import dataclass, field

CHUNK = 65536


@dataclass(slots=True)
class Link:
    """One connection through the proxy; `to_client` are the bytes that went from the node to the client."""

    client: socket.socket
    node: socket.socket
    to_client: int = 0
    cut_after: int | None = None
    flip_at: int | None = None
    closed: threading.Event = field(default_factory=threading.Event)

    def close(self) -> None:
        self.closed.set()
        for end in (self.client, self.node):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class TcpProxy:
    """Listens on `address` and passes everything on to a node's port, until told to do worse."""

    def __init__(self, node_address: str) -> None:
        self._node_port = int(node_address.rsplit(":", 1)[1])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._links: list[Link] = []
        self._flows = threading.Event()
        self._flows.set()
        self._accepts = True
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()
        self.flow()
        self.cut()

    def cut(self) -> None:
        """Break every connection now; new ones are taken."""
        for link in list(self._links):
            link.close()

    def cut_within(self, count: int) -> None:
        """Break every connection after `count` more bytes for the client: in the middle of a message."""
        for link in list(self._links):
            link.cut_after = link.to_client + count

    def flip_within(self, count: int) -> None:
        """Flip a bit of the byte that comes `count` bytes on, in what the client gets."""
        for link in list(self._links):
            link.flip_at = link.to_client + count

    def stall(self) -> None:
        """Pass nothing on, in any direction, and tell nobody."""
        self._flows.clear()

    def flow(self) -> None:
        self._flows.set()

    def refuse(self, refusing: bool) -> None:
        """Hang up on whoever connects."""
        self._accepts = not refusing

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not self._accepts:
                client.close()
                continue
            try:
                node = socket.create_connection(("127.0.0.1", self._node_port))
            except OSError:
                client.close()
                continue
            self.connections += 1
            link = Link(client, node)
            self._links.append(link)
            for source, target in ((client, node), (node, client)):
                threading.Thread(target=self._pass_on, args=(link, source, target), daemon=True).start()

    def _pass_on(self, link: Link, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while not link.closed.is_set() and (chunk := source.recv(CHUNK)):
                self._flows.wait()
                target.sendall(self._worsened(link, chunk) if target is link.client else chunk)
                if link.cut_after is not None and link.to_client >= link.cut_after:
                    time.sleep(0.01)
                    break
        link.close()
        with contextlib.suppress(ValueError):
            self._links.remove(link)

    def _worsened(self, link: Link, chunk: bytes) -> bytes:
        before, link.to_client = link.to_client, link.to_client + len(chunk)
        if link.flip_at is not None and before <= link.flip_at < link.to_client:
            damaged = bytearray(chunk)
            damaged[link.flip_at - before] ^= 4
            chunk, link.flip_at = bytes(damaged), None
        if link.cut_after is not None and link.to_client > link.cut_after:
            chunk = chunk[: max(0, link.cut_after - before)]
        return chunk
