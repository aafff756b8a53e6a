"""Where the service may listen: keys never travel unencrypted where others can read them."""

from __future__ import annotations

import ipaddress
import ssl
from pathlib import Path

from acquisition.errors import BadInput
from service.settings import ServeSettings


def check_nobody_listens(serve: ServeSettings) -> None:
    """Raise `BadInput` for an address beyond loopback without TLS, unless its network is said to be trusted: everybody
    on the way could read the key. Also for a certificate and a key that cannot be used."""
    if serve.tls is not None:
        _check_pair(*serve.tls)
        return
    try:
        here = serve.host == "localhost" or ipaddress.ip_address(serve.host).is_loopback
    except ValueError:
        here = False
    if not here and not serve.trusted_network:
        raise BadInput(
            f"serve.host = {serve.host!r} would let keys travel unencrypted: give serve.certificate and "
            "serve.private_key, leave it at 127.0.0.1 and come in by `ssh -L 8080:127.0.0.1:8080 THIS_MACHINE`, or set "
            "serve.trusted_network = true where nobody can listen"
        )


def _check_pair(certificate: Path, private_key: Path) -> None:
    try:
        # A key with a passphrase fails here rather than to ask for it where nobody can answer.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, private_key, password="")
    except OSError as error:
        raise BadInput(
            f"serve.certificate {certificate} and serve.private_key {private_key} cannot be used: {error}; they are "
            "PEM files that belong together, the key without a passphrase"
        ) from error
