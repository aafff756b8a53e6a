"""Who has a key, what it opens and until when: one of this start that opens everything, others kept as hashes."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, TypeAdapter

from acquisition.errors import BadInput, RecordingFailed, RequestRefused
from acquisition.recording.manifest import replace_path

Scope = Literal["read", "operate", "hardware", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""Each opens what those before it open: look; run and replay; heater, gas and stage; keys."""
MAX_KEYS = 100
MAX_LIFE_S = 366 * 86_400.0
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,39}$")]


@dataclass(frozen=True, slots=True)
class Key:
    """`sha256` of the key's text, which is told once and kept nowhere. Keys are random, so a plain hash suffices."""

    name: Name
    scope: Scope
    sha256: str
    expires_utc_ns: int

    @property
    def expired(self) -> bool:
        return time.time_ns() >= self.expires_utc_ns

    def opens(self, needed: Scope) -> bool:
        return SCOPES.index(self.scope) >= SCOPES.index(needed)


_KEYS = TypeAdapter(list[Key])


class KeyBook:
    """The keys of one service. `first` opens everything for as long as the service runs; the others are in `path`.

    Raises `BadInput` for a file that does not hold.
    """

    def __init__(self, first: str, path: Path) -> None:
        self._path = path
        self._changing = threading.Lock()
        self._first = Key("link", "admin", _sha256(first), 2**63 - 1)
        self._by_hash = {key.sha256: key for key in (*_read(path), self._first)}

    def find(self, offered: str) -> Key | None:
        """The key with this text, expired or not."""
        return self._by_hash.get(_sha256(offered))

    def made(self) -> list[Key]:
        """All but the first."""
        return [key for key in self._by_hash.values() if key is not self._first]

    def make(self, name: str, scope: Scope, life_s: float) -> tuple[str, Key]:
        """A new key's text, and what is kept of it. Raises `RequestRefused` for a name in use or too many keys."""
        text = new_key()
        key = Key(name, scope, _sha256(text), time.time_ns() + round(life_s * 1e9))
        with self._changing:
            kept = [known for known in self.made() if not known.expired]
            if any(known.name == name for known in (*kept, self._first)):
                raise RequestRefused(f"there is a key {name!r} already; revoke it first, or take another name")
            if len(kept) >= MAX_KEYS:
                raise RequestRefused(f"there are {len(kept)} keys, the limit is {MAX_KEYS}: revoke one first")
            self._keep([*kept, key])
        return text, key

    def revoke(self, name: str) -> None:
        """At once, for whoever uses it. Raises `BadInput` for an unknown name."""
        with self._changing:
            kept = [key for key in self.made() if key.name != name]
            if len(kept) == len(self.made()):
                raise BadInput(f"there is no key {name[:80]!r} to revoke")
            self._keep(kept)

    def _keep(self, keys: list[Key]) -> None:
        _write(self._path, keys)
        self._by_hash = {key.sha256: key for key in (*keys, self._first)}


def new_key() -> str:
    return secrets.token_urlsafe(24)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _read(path: Path) -> list[Key]:
    try:
        return _KEYS.validate_json(path.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise BadInput(f"the keys in {path} cannot be read: {error}; delete the file to revoke all of them") from error


def _write(path: Path, keys: list[Key]) -> None:
    """Atomically, for the owner alone."""
    temporary = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump([asdict(key) for key in keys], file, indent=2)
        replace_path(temporary, path)
    except OSError as error:
        raise RecordingFailed(f"the keys cannot be written to {path}: {error}") from error
