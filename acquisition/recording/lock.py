"""One writer at a time: a lock on an open file that ends with the program that holds it, however that ends."""

from __future__ import annotations

import errno
import io
import os
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
try:
    import msvcrt as _msvcrt
except ImportError:  # everything else
    _msvcrt = None  # type: ignore[assignment]
# Its functions are unknown to type checkers elsewhere.
msvcrt: Any = _msvcrt

LOCKED_BYTE = 2**31 - 2
"""On Windows nobody else can read what is locked: the last byte that can be, and no journal grows that far."""


def hold(file: io.FileIO) -> bool:
    """Whether nobody else held `file`, which is ours then until `release`. True too on disks that know no locks."""
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            _on_the_byte(file, msvcrt.LK_NBLCK)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
    return True


def release(file: io.FileIO) -> None:
    """Before it is closed: Windows gives a lock that was not released back some time later. Harmless without one."""
    if fcntl is None:
        try:
            _on_the_byte(file, msvcrt.LK_UNLCK)
        except OSError:
            return


def _on_the_byte(file: io.FileIO, what: int) -> None:
    """Leaves the file's position where it was."""
    position = os.lseek(file.fileno(), 0, os.SEEK_CUR)
    os.lseek(file.fileno(), LOCKED_BYTE, os.SEEK_SET)
    try:
        msvcrt.locking(file.fileno(), what, 1)
    finally:
        os.lseek(file.fileno(), position, os.SEEK_SET)
