"""From one model set to another without a pause: it is loaded beside the one in use, and tried on a frame."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from acquisition.errors import EclipsError
from acquisition.frames import Frame
from acquisition.instrument import Instrument
from acquisition.model_order import ModelOrder
from inference.pipeline import Pipeline

log = logging.getLogger(__name__)

Load = Callable[[str], Pipeline]


@dataclass(frozen=True, slots=True)
class Carried:
    """What became of an order: its pipeline, warm, or the reason why there is none."""

    order: ModelOrder
    pipeline: Pipeline | None
    refused: str


class ModelSwitch:
    """Carries out one order at a time in a thread of its own; of those that come meanwhile the last one counts."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._under_way: Future[Carried] | None = None
        self._last: ModelOrder | None = None

    @property
    def busy(self) -> bool:
        return self._under_way is not None

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def follow(self, order: ModelOrder | None, tried_on: tuple[Frame, Instrument] | None) -> Carried | None:
        """Begin with `order` where it is new, on the frame that was reconstructed last; what has been carried out, once
        it is."""
        carried = None
        if self._under_way is not None and self._under_way.done():
            carried, self._under_way = self._under_way.result(), None
        if self._under_way is None and order is not None and order != self._last:
            self._last = order
            self._under_way = self._pool.submit(self._carry_out, order, tried_on)
        return carried

    def _carry_out(self, order: ModelOrder, tried_on: tuple[Frame, Instrument] | None) -> Carried:
        try:
            pipeline = self._load(order.model)
            if tried_on is not None:
                pipeline.reconstruct(*tried_on)
        except EclipsError as error:
            return Carried(order, None, str(error))
        except Exception as error:  # whatever the graphs of others may bring about
            log.exception("model set %s", order.model)
            return Carried(order, None, f"{type(error).__name__}: {error}")
        return Carried(order, pipeline, "")
