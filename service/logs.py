"""Logs: what people should know to the terminal, and all that helps later as JSON lines into a file of bounded size.

One file for each program. It is written by a thread of its own, so no disk, full, slow or gone, holds up a program.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import platform
import queue
import re
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener, RotatingFileHandler
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from service.settings import LogSettings

log = logging.getLogger(__name__)

OURS = ("acquisition", "hardware_drivers", "inference", "service")
LOCK = ".lock"
KEPT_FILES = 5
MAX_ALIKE = 16
MAX_TEXT = 16_384
WAITING_RECORDS = 10_000
END_PATIENCE_S = 2.0
SECRET = re.compile(r"(?i)(\b(?:key|token|password|eclips_key)=|\bbearer\s+)[^\s&;,'\"]+")

RunId = Callable[[], str]
"""The run that a program is busy with at present; empty when there is none."""


def tell_terminal() -> None:
    """Warnings and worse to stderr, for people; what was `announced` on the terminal already is left out."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(_Hiding("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(lambda record: not getattr(record, "announced", False))
    logging.getLogger().addHandler(handler)


class Logs:
    """Writes a program's JSON lines from `start` to `stop`, which comes by itself at the end of the process. Set
    `run_id` as soon as it is known."""

    def __init__(self, program: str, secrets: Sequence[str] = ()) -> None:
        self._formatter = JsonLines(program, lambda: self.run_id(), secrets)
        self._queue: queue.Queue[Any] = queue.Queue(WAITING_RECORDS)
        self._program = program
        self._ending = contextlib.ExitStack()
        self.run_id: RunId = lambda: ""

    def start(self, folder: Path, settings: LogSettings) -> None:
        """Never fails: a folder that cannot be written is told on the terminal, and the program goes on without."""
        for name in OURS:
            logging.getLogger(name).setLevel(settings.level.upper())
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = self._ending.enter_context(_claim(folder, self._program))
        except OSError as error:
            log.warning("there will be no log in %s: %s", folder, error)
            return
        writer = _Writer(self._queue, _PatientFile(lock.name.removesuffix(LOCK), settings.max_bytes))
        handler = _NeverWaiting(self._queue)
        handler.setFormatter(self._formatter)
        logging.getLogger().addHandler(handler)
        writer.start()
        self._ending.callback(writer.stop)
        self._ending.callback(logging.getLogger().removeHandler, handler)
        self._ending.callback(log.info, "ended")
        threading.excepthook = _log_thread_error
        atexit.register(self.stop)
        log.info("started: process %d, Python %s, %s", os.getpid(), platform.python_version(), platform.platform())

    def stop(self) -> None:
        """Harmless when stopped, or never started."""
        self._ending.close()


class JsonLines(logging.Formatter):
    """A record as one JSON object: time (UTC, ISO 8601), level, logger, program, run_id where known, message, and
    exception with its traceback. Secrets are hidden."""

    def __init__(self, program: str, run_id: RunId, secrets: Sequence[str] = ()) -> None:
        super().__init__()
        self._program = program
        self._run_id = run_id
        self._secrets = tuple(filter(None, secrets))

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "program": self._program,
        }
        run_id = getattr(record, "run_id", "") or self._run_id()
        if run_id:
            line["run_id"] = run_id
        line["message"] = hidden(record.getMessage(), self._secrets)[:MAX_TEXT]
        if record.exc_info:
            line["exception"] = hidden(self.formatException(record.exc_info), self._secrets)[-MAX_TEXT:]
        return json.dumps(line, ensure_ascii=False)


def hidden(text: str, secrets: Sequence[str] = ()) -> str:
    """`text` without `secrets`, and without whatever else looks like a key or token."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return SECRET.sub(r"\1***", text)


class _Hiding(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return hidden(super().format(record))


class _NeverWaiting(QueueHandler):
    """Formats in the thread that logs, where the present run is known. What does not fit into the queue is lost: then
    nobody has written for ten thousand records."""

    def enqueue(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(queue.Full):
            self.queue.put_nowait(record)


class _Writer(QueueListener):
    def stop(self) -> None:
        """Write what waits, but wait no longer than `END_PATIENCE_S` for a disk that does not answer."""
        with contextlib.suppress(queue.Full):
            self.enqueue_sentinel()
        thread: threading.Thread | None = self._thread
        if thread is not None:
            thread.join(END_PATIENCE_S)
            if not thread.is_alive():
                self.handlers[0].close()


class _PatientFile(RotatingFileHandler):
    """A file that cannot be written is opened anew for each record; the first failure is told on the terminal."""

    def __init__(self, path: str, max_bytes: int) -> None:
        super().__init__(path, "a", max_bytes, KEPT_FILES - 1, "utf-8", delay=True, errors="backslashreplace")
        self._told = False

    def handleError(self, record: logging.LogRecord) -> None:
        stream, self.stream = self.stream, None
        with contextlib.suppress(OSError, ValueError):
            if stream is not None:
                stream.close()
        if not self._told:
            self._told = True
            with contextlib.suppress(OSError):
                sys.stderr.write(f"eclips: the log {self.baseFilename} cannot be written: {sys.exc_info()[1]}\n")


def _claim(folder: Path, program: str) -> IO[bytes]:
    """The locked, open `NAME.jsonl.lock` of a log file that no other process writes: several programs of a kind may
    run on one machine, and two writers would lose each other's lines when the file turns over."""
    for number in range(1, MAX_ALIKE + 1):
        name = f"{program}.jsonl" if number == 1 else f"{program}-{number}.jsonl"
        file = (folder / f"{name}{LOCK}").open("ab")
        if _locked(file):
            return file
        file.close()
    raise OSError(f"{MAX_ALIKE} programs write {program} logs there already")


def _locked(file: IO[bytes]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True  # some network disks know no locks
    return True


def _log_thread_error(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_value is not None and not issubclass(failed.exc_type, SystemExit):
        name = failed.thread.name if failed.thread else "a thread"
        log.critical("%s ended by an error", name, exc_info=failed.exc_value)
