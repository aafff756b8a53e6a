"""Another model set for every worker, wherever it runs: no frame is lost, and all go over or none does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol

from acquisition.errors import BadInput, ComponentFailed, RequestRefused
from acquisition.model_order import ModelOrder

PATIENCE_S = 30.0
POLL_S = 0.02


class WorkerDesk(Protocol):
    """What the choice needs of the stream."""

    def workers(self) -> list[dict[str, Any]]: ...

    def order_model(self, order: ModelOrder) -> None: ...


class ModelChoice:
    """Holds until the node ends; workers that come later follow it too. Each change is told, and so kept in the journal
    of the run."""

    def __init__(self, desk: WorkerDesk, tell: Callable[..., None]) -> None:
        self._desk = desk
        self._tell = tell
        self._changing = False
        self._chosen: str | None = None
        self.before: str | None = None

    @property
    def active(self) -> str | None:
        """The set that was chosen, before any choice the first worker's; None without either."""
        told = (worker.get("model") for worker in self._desk.workers())
        return self._chosen or next((str(model) for model in told if model), None)

    def tree(self) -> dict[str, Any]:
        return {"active": self.active, "before": self.before}

    async def use(self, model: str) -> dict[str, Any]:
        """Have every worker load `model` beside the set in use, try it, and go over to it between two frames.

        Raises `BadInput` with a worker's reason when one cannot, `RequestRefused` without workers and during another
        change, `ComponentFailed` when a worker does not answer within `PATIENCE_S`; all then keep the set in use.
        """
        active = self.active
        if active is None or not self._desk.workers():
            raise RequestRefused("no worker asks for frames: start one with `eclips infer`; nothing was changed")
        if self._changing:
            raise RequestRefused("another change of the model set is under way: ask again in a few seconds")
        self._changing = True
        try:
            workers = await self._carry_out(model, active)
        finally:
            self._changing = False
        if model != active:
            self.before = active
        self._chosen = model
        text = f"model set {model} in the place of {active}" if model != active else f"model set {model} loaded again"
        self._tell("model", text, model=model, before=active, workers=workers)
        return self.tree()

    async def roll_back(self) -> dict[str, Any]:
        """Go back to the set before; raises as `use`, and `RequestRefused` when there was none."""
        if self.before is None:
            raise RequestRefused("no other model set was in use since the node's start: choose one by its name")
        return await self.use(self.before)

    async def _carry_out(self, model: str, active: str) -> int:
        """How many workers went over."""
        order = self._give(model)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            workers = self._desk.workers()
            answered = [worker for worker in workers if order.is_answered(worker)]
            refused = next((worker for worker in answered if worker.get("refused")), None)
            if refused is not None:
                self._give(active)
                reason = f"worker {refused.get('name')} cannot use model set {model}: {refused['refused']}"
                self._tell("model", f"{reason}; {active} stays in use", "warning", model=model, before=active)
                raise BadInput(f"{reason}; {active} stays in use")
            if workers and len(answered) == len(workers):
                return len(workers)
            if time.monotonic() > deadline:
                self._give(active)
                missing = [worker for worker in workers if worker not in answered]
                silent = ", ".join(str(worker.get("name")) for worker in missing) or "any"
                raise ComponentFailed(
                    f"no answer of worker {silent} within {PATIENCE_S:g} s to model set {model}: {active} "
                    "stays in use; see the worker's log"
                )
            await asyncio.sleep(POLL_S)

    def _give(self, model: str) -> ModelOrder:
        order = ModelOrder(model, time.time_ns())
        self._desk.order_model(order)
        return order
