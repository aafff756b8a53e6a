"""Long work that somebody asked for: it runs beside the requests, tells how far it is, and can be called off."""

from __future__ import annotations

import itertools
import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from acquisition.errors import BadInput, EclipsError, RequestRefused

log = logging.getLogger(__name__)

AT_ONCE = 1
MOST_WAITING = 8
REMEMBERED = 50


class Report(Protocol):
    """`report(done, total)`: how far the work is, and what is known so far. Raises when it was called off."""

    def __call__(self, done: int, total: int, so_far: dict[str, Any] | None = None, /) -> None: ...


Progress = Callable[[int, int], None]
"""The part of `Report` that work takes which a command can call too."""
Work = Callable[[Report, Path], dict[str, Any]]
"""Work with a folder of its own for what it makes; what it returns is told, `file` naming what can be fetched."""


class CalledOff(Exception):
    """Raised inside work that is no longer wanted."""


@dataclass(slots=True)
class Task:
    """`done` of `total`; `result` once it is done, before that what is known so far; `reason` when it failed."""

    id: str
    kind: str
    run_id: str
    state: Literal["waiting", "running", "done", "failed", "cancelled"] = "waiting"
    done: int = 0
    total: int | None = None
    result: dict[str, Any] | None = None
    reason: str = ""
    started_utc_ns: int = field(default_factory=time.time_ns)
    unwanted: bool = False

    @property
    def over(self) -> bool:
        return self.state in ("done", "failed", "cancelled")

    def tree(self) -> dict[str, Any]:
        names = ("id", "kind", "run_id", "state", "done", "total", "result", "reason", "started_utc_ns")
        return {name: getattr(self, name) for name in names}


class TaskBook:
    """One task at a time, for the cores are the run's; what tasks made is kept while they are remembered."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="eclips-tasks-"))
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="task")
        self._numbers = itertools.count(1)
        self._tasks: dict[str, Task] = {}
        self._changing = threading.Lock()

    def close(self) -> None:
        for task in list(self._tasks.values()):
            task.unwanted = True
        self._pool.shutdown(cancel_futures=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def all(self) -> list[Task]:
        """The newest first."""
        return list(self._tasks.values())[::-1]

    def find(self, id: str) -> Task:
        """Raises `BadInput` for an unknown id."""
        task = self._tasks.get(id)
        if task is None:
            raise BadInput(f"there is no task {id[:80]!r}; the last {REMEMBERED} are remembered")
        return task

    def start(self, kind: str, run_id: str, work: Work) -> Task:
        """Raises `RequestRefused` when too much is waiting already."""
        with self._changing:
            waiting = sum(task.state == "waiting" for task in self._tasks.values())
            if waiting >= MOST_WAITING:
                raise RequestRefused(f"{waiting} tasks are waiting, the limit is {MOST_WAITING}: ask again later")
            task = Task(f"{kind}-{next(self._numbers)}", kind, run_id)
            self._tasks[task.id] = task
            self._forget()
        self._pool.submit(self._carry_out, task, work)
        return task

    def cancel(self, id: str) -> Task:
        """Ends at the next report; what is over stays as it is."""
        task = self.find(id)
        task.unwanted = True
        return task

    def file(self, id: str) -> Path:
        """What a task made. Raises `RequestRefused` while there is nothing to fetch."""
        task = self.find(id)
        name = (task.result or {}).get("file")
        if name is None:
            raise RequestRefused(f"task {id} is {task.state} and has no file to fetch")
        return self._folder / id / str(name)

    def _carry_out(self, task: Task, work: Work) -> None:
        def report(done: int, total: int, so_far: dict[str, Any] | None = None, /) -> None:
            if task.unwanted:
                raise CalledOff
            task.done, task.total = done, total
            task.result = task.result if so_far is None else so_far

        folder = self._folder / task.id
        try:
            report(0, 0)
            task.state, task.total = "running", None
            folder.mkdir()
            task.result = work(report, folder)
            task.state = "done"
        except CalledOff:
            task.state = "cancelled"
        except (EclipsError, OSError) as error:
            task.reason, task.state = str(error), "failed"
        except Exception as error:
            log.exception("task %s", task.id)
            task.reason, task.state = f"{type(error).__name__}: {error}", "failed"
        if task.state != "done":
            shutil.rmtree(folder, ignore_errors=True)

    def _forget(self) -> None:
        over = [task for task in self._tasks.values() if task.over]
        for task in over[: max(0, len(self._tasks) - REMEMBERED)]:
            del self._tasks[task.id]
            shutil.rmtree(self._folder / task.id, ignore_errors=True)
