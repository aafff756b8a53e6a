"""Who may connect: the public keys in a folder, which may change while the node runs."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import zmq
import zmq.auth

log = logging.getLogger(__name__)

LOOK_AGAIN_S = 1.0

Seen = tuple[tuple[str, int, int], ...]
"""Name, time of change and size of each key file."""


class AllowedKeys:
    """The keys of the `*.key` files in `folder`, read again when one of them was added, changed or taken away. A file
    that holds no key is told in the log and counts as none; a folder that cannot be read admits nobody. Use from any
    thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: Seen | None = None
        self._keys: frozenset[str] = frozenset()
        self._looked_at = -LOOK_AGAIN_S
        self.look()

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether a client with this key may connect; asked by ZeroMQ's authenticator (ZAP) at each handshake."""
        self.look()
        return key.decode("ascii") in self._keys

    def admits(self, message: zmq.Frame) -> bool:
        """Whether who sent `message` is still allowed: a connection outlives its key. Looks at the folder about once a
        second."""
        if time.monotonic() - self._looked_at >= LOOK_AGAIN_S:
            self.look()
        return message.get("User-Id") in self._keys

    def look(self) -> None:
        """Take in what changed."""
        self._looked_at = time.monotonic()
        try:
            files = sorted(path for path in self._folder.iterdir() if path.suffix == ".key")
            seen = tuple((path.name, (now := path.stat()).st_mtime_ns, now.st_size) for path in files)
        except OSError as error:
            if self._keys or self._seen is None:
                log.error("the allowed keys cannot be read, nobody is admitted: %s", error)
            self._seen, self._keys = (), frozenset()
            return
        if seen != self._seen:
            keys = [key for path in files if (key := _public_key(path))]
            log.info("%d keys in %s are allowed", len(keys), self._folder)
            self._keys = frozenset(keys)
            self._seen = seen


def _public_key(path: Path) -> str:
    """As text of 40 characters (Z85); empty where the file holds none."""
    try:
        return zmq.auth.load_certificate(path)[0].decode("ascii")
    except (OSError, ValueError) as error:
        log.warning("%s is no public key, nobody is admitted by it: %s", path, error)
        return ""
