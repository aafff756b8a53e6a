"""Where sockets bind and connect, and the keys without which nothing leaves this machine."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import zmq
import zmq.auth
from zmq.auth.thread import ThreadAuthenticator

from acquisition.allowed_keys import AllowedKeys
from acquisition.errors import BadInput


@dataclass(frozen=True, slots=True)
class Endpoints:
    """ZeroMQ addresses of one acquisition node, e.g. `tcp://127.0.0.1:5601`."""

    data: str
    state: str
    control: str


@dataclass(frozen=True, slots=True)
class CurveKeys:
    """Key files as `eclips keys` writes them. A node's `peers` is its folder of allowed clients' public keys; a
    client's `peers` is the node's public key file."""

    own: Path
    peers: Path


def check_reachable_only_by_friends(address: str, keys: CurveKeys | None) -> None:
    """Raise `BadInput` for an address beyond loopback without keys."""
    try:
        host = urlsplit(address).hostname or ""
    except ValueError as error:
        raise BadInput(f"{address!r} is no address: {error}") from None
    if keys is None and not _is_loopback(host):
        raise BadInput(
            f"{address} can be reached from other machines, which needs keys: make them with `eclips keys` and name "
            "them under [stream] own_key and peer_keys, or use 127.0.0.1"
        )


def authenticate_clients(context: zmq.Context[zmq.Socket[bytes]], keys: CurveKeys) -> ThreadAuthenticator:
    """Start admitting only clients whose public key lies in `keys.peers` when they connect; stop it when the sockets
    are closed."""
    authenticator = ThreadAuthenticator(context)
    authenticator.start()
    authenticator.configure_curve_callback(domain="*", credentials_provider=AllowedKeys(keys.peers))
    return authenticator


def secure_server(socket: zmq.Socket[bytes], keys: CurveKeys | None) -> None:
    """Make a binding socket accept CURVE clients only, when there are keys."""
    if keys is not None:
        socket.curve_publickey, socket.curve_secretkey = _load_pair(keys.own)
        socket.curve_server = True


def secure_client(socket: zmq.Socket[bytes], keys: CurveKeys | None) -> None:
    """Make a connecting socket speak CURVE to the node whose public key is `keys.peers`, when there are keys."""
    if keys is not None:
        socket.curve_publickey, socket.curve_secretkey = _load_pair(keys.own)
        socket.curve_serverkey, _ = zmq.auth.load_certificate(keys.peers)


def _load_pair(path: Path) -> tuple[bytes, bytes]:
    try:
        public, secret = zmq.auth.load_certificate(path)
    except (OSError, ValueError) as error:
        raise BadInput(f"key file {path} cannot be read: {error}; make one with `eclips keys`") from error
    if secret is None:
        raise BadInput(f"key file {path} holds no secret key; name the .key_secret file")
    return public, secret


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
