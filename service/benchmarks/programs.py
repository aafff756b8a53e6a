"""Parts of a benchmark that must be programs of their own: a line of JSON in, a line of JSON out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from acquisition.errors import ComponentFailed

PATIENCE_S = 10.0


class Program:
    """`python -m module arguments`, killed at the end of a `with` if it does not end by itself."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._name = module.rpartition(".")[2]
        command = [sys.executable, "-m", module, *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def tell(self, job: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()

    def hear(self) -> Any:
        """The next answer. Raises `ComponentFailed` when the program has ended or says that it failed."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith("\n"):
            raise ComponentFailed(f"{self._name} has ended with {self._process.wait()}")
        answer = json.loads(line)
        if isinstance(answer, dict) and "error" in answer:
            raise ComponentFailed(f"{self._name}: {answer['error']}")
        return answer

    def rest(self) -> list[Any]:
        """All whole answers that are left of a program that has ended."""
        assert self._process.stdout is not None
        return [json.loads(line) for line in self._process.stdout if line.endswith("\n")]

    def kill(self) -> None:
        """At once, as a crash or a power cut of the program would; what it said before can still be heard."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.close()
            self._process.wait(PATIENCE_S)
        except (OSError, subprocess.TimeoutExpired):
            self.kill()
        self._process.stdout.close()

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.kill()
        self.close()


def answer_jobs(work: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    """What such a program does: `work` each job until there are no more."""
    for line in sys.stdin:
        try:
            answer = work(json.loads(line))
        except Exception as error:  # whatever a peer's library raises belongs into the report, not into a lost line
            answer = {"error": f"{type(error).__name__}: {error}"}
        say_line(answer)


def say_line(answer: Any) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
