"""What a consumer asks for: one request at a time for each thing that it wants, checked as it comes in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from acquisition.clock import NANOSECONDS_PER_SECOND
from acquisition.errors import MessageRejected

WANTS = ("frames", "results", "work")
MODES = ("latest", "every")
MAX_LEASE_S = 120.0
MAX_ABOUT = 10
MAX_ABOUT_CHARACTERS = 400


@dataclass(slots=True)
class Credit:
    """One outstanding request of one consumer. `epoch` tells whose serial numbers `after` belongs to, `received` is
    the nonce of the last request that was answered to it."""

    identity: bytes
    wants: str
    mode: str
    after: int
    nonce: int
    epoch: int
    received: int
    lease_ns: int
    about: dict[str, str] = field(default_factory=dict)


def read_credit(identity: bytes, request: Mapping[str, Any]) -> Credit:
    """The credit that a request of kind `credit` holds. Raises `MessageRejected` for anything else."""
    wants, mode = request.get("wants"), request.get("mode")
    after, nonce, epoch, received = numbers = [request.get(key, 0) for key in ("after", "nonce", "epoch", "received")]
    lease_s = request.get("lease_s", 0.0)
    if wants not in WANTS or mode not in MODES:
        raise MessageRejected(f"a credit wants {str(wants)[:40]!r} in mode {str(mode)[:40]!r}; known: {WANTS}, {MODES}")
    if not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
        raise MessageRejected("a credit needs whole numbers after, nonce, epoch and received, none negative")
    if not isinstance(lease_s, int | float) or not 0 <= lease_s <= MAX_LEASE_S:
        raise MessageRejected(f"lease of {str(lease_s)[:40]} s is outside 0 to {MAX_LEASE_S:g} s")
    lease_ns = round(lease_s * NANOSECONDS_PER_SECOND)
    about = _about(request.get("about", {}))
    return Credit(identity, wants, mode, after, nonce, epoch, received, lease_ns, about)


def _about(tree: Any) -> dict[str, str]:
    """What a consumer says of itself goes on to every listener of the state: little, and only text."""
    if not isinstance(tree, dict) or len(tree) > MAX_ABOUT:
        raise MessageRejected(f"a consumer may say up to {MAX_ABOUT} things about itself")
    for text in (*tree.keys(), *tree.values()):
        if not isinstance(text, str) or len(text) > MAX_ABOUT_CHARACTERS:
            raise MessageRejected(
                f"what a consumer says about itself is text of up to {MAX_ABOUT_CHARACTERS} characters"
            )
    return tree
