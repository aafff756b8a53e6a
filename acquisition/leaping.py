"""An event loop whose time leaps: whenever everything sleeps, it is at once the time of the first to wake."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
S = TypeVar("S")


def run_leaping(work: Coroutine[Any, Any, T]) -> T:
    """Like `asyncio.run`, with every `asyncio.sleep` and timeout as long as ever by the loop's time, and no longer than
    the sums take by the wall's. What is handed to other threads is done at once instead, and takes no time at all."""
    with asyncio.Runner(loop_factory=_LeapingLoop) as runner:
        runner.get_loop().set_default_executor(_AtOnce())
        return runner.run(work)


class _AtOnce(ThreadPoolExecutor):
    def submit(self, fn: Callable[..., S], /, *args: Any, **kwargs: Any) -> Future[S]:
        future: Future[S] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


class _LeapingSelector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.leapt_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(None if timeout is None else 0)
        if not ready and timeout is not None:
            self.leapt_s += max(timeout, 0.0)
        return ready


class _LeapingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._leaping = _LeapingSelector()
        super().__init__(self._leaping)

    def time(self) -> float:
        return self._leaping.leapt_s
