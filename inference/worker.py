"""Ask for frames, infer, hand the results back. Any number of workers may do so, on any machines.

A worker has two frames in hand: while one is copied, packed, or in a part of a graph that one core does alone, the
other has the cores. Their results go back in the order in which the frames came. Only fusion in time and live metrology
look beyond a frame: each worker goes by those that it gets itself, so they are strongest with one.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import zmq

from acquisition.consumer import DataConsumer, Delivery
from acquisition.credit import MAX_ABOUT_CHARACTERS
from acquisition.endpoints import CurveKeys
from acquisition.errors import ComponentFailed, EclipsError
from acquisition.frames import Frame, Result
from acquisition.instrument import Instrument, parse_instrument
from acquisition.model_order import ModelOrder
from inference.fusion.preparation import Preparation
from inference.model_switch import Carried, Load, ModelSwitch
from inference.pipeline import Pipeline
from inference.turns import Turn, Turns

if TYPE_CHECKING:
    from inference.fused_pipeline import FusedPipeline
    from inference.metrology.live import LiveMetrology

log = logging.getLogger(__name__)

LEASE_S = 30.0
ASK_S = 1.0
ASK_WHILE_LOADING_S = 0.05
FRAMES_IN_HAND = 2
MOST_PIXELS_BESIDE = 2048 * 2048
"""A learned set takes a kilobyte of memory a pixel: larger frames are reconstructed one after the other."""


class Worker:
    """Works until `stop` is set. A frame that cannot be reconstructed is logged and left; the node hands it out again
    and in the end gives it up, so one bad frame never ends a worker. `run_id` is what it works on, or worked on last;
    `restarts`, how often a supervisor had to start its program again, is told to the node with what it counts. Where
    fusion has never run before, frames that are to be fused are not until it is compiled; fused frames are worked on
    one after the other. When the node asks for another model set, `load` makes its pipeline beside the one in use,
    which goes on until the other is warm. `metrology` measures the heights as they are made; none does not."""

    def __init__(
        self,
        pipeline: Pipeline,
        address: str,
        keys: CurveKeys | None,
        stop: threading.Event,
        restarts: int = 0,
        load: Load = Pipeline,
        metrology: LiveMetrology | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._switch = ModelSwitch(load)
        self._metrology = metrology
        self._reconstructed: tuple[Frame, Instrument] | None = None
        self._fused: FusedPipeline | None = None
        self._fusion = Preparation()
        self._stop = stop
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._about = {
            "name": f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}",
            "provider": pipeline.provider,
            "model": pipeline.model,
            "restarts": str(restarts),
        }
        # To the node whoever asks has nothing in hand, so each frame in hand has a consumer of its own.
        self._consumers = [DataConsumer(self._context, address, keys, self._about) for _ in range(FRAMES_IN_HAND)]
        self._asking = threading.Lock()
        self._turns = Turns()
        self._heard: dict[DataConsumer, ModelOrder | None] = {}
        self._order: ModelOrder | None = None
        self.run_id = ""
        self.failed = 0
        self.done = 0

    def run(self, announce: Callable[[str], None]) -> None:
        announce(f"inference on {self._pipeline.provider} with model set {self._pipeline.model}")
        with ThreadPoolExecutor(FRAMES_IN_HAND, thread_name_prefix="frame") as pool:
            hands = [pool.submit(self._go_on, consumer, announce) for consumer in self._consumers]
        self._switch.close()
        self._fusion.close()
        for consumer in self._consumers:
            consumer.close()
        self._context.destroy(linger=200)
        for hand in hands:
            hand.result()

    def _go_on(self, consumer: DataConsumer, announce: Callable[[str], None]) -> None:
        try:
            while (taken := self._take(consumer, announce)) is not None:
                delivery, turn = taken
                with turn:
                    self._work(consumer, delivery, turn)
        except BaseException:
            self._stop.set()
            raise

    def _take(self, consumer: DataConsumer, announce: Callable[[str], None]) -> tuple[Delivery, Turn] | None:
        """None when it is time to stop. Who asks does so until something comes: the node may send to any who asked, and
        turns are drawn in the order in which frames come."""
        with self._asking:
            while not self._stop.is_set():
                rejected = sum(one.rejected for one in self._consumers)
                counted = {"done": self.done, "failed": self.failed, "rejected": rejected}
                self._about |= {name: str(number) for name, number in counted.items()}
                patience_s = ASK_WHILE_LOADING_S if self._switch.busy else ASK_S
                delivery = consumer.ask("work", timeout_s=patience_s, lease_s=LEASE_S)
                self._follow_order(consumer, announce)
                if delivery is not None:
                    return delivery, self._turns.draw()
        return None

    def _follow_order(self, consumer: DataConsumer, announce: Callable[[str], None]) -> None:
        """Between two frames, so that none is lost and each is of one set."""
        if consumer.order != self._heard.get(consumer):
            self._heard[consumer] = self._order = consumer.order
        carried = self._switch.follow(self._order, self._reconstructed)
        if carried is None:
            return
        with self._turns.draw() as turn:
            turn.wait()
            self._go_over(carried, announce)

    def _go_over(self, carried: Carried, announce: Callable[[str], None]) -> None:
        self._about |= {"order": str(carried.order.number), "refused": carried.refused[:MAX_ABOUT_CHARACTERS]}
        if carried.pipeline is None:
            log.error("model set %s: %s; %s stays in use", carried.order.model, carried.refused, self._pipeline.model)
            return
        self._pipeline = carried.pipeline
        if self._fused is not None:
            self._fused.pipeline = carried.pipeline
        self._about |= {"model": carried.pipeline.model, "provider": carried.pipeline.provider}
        announce(f"inference on {carried.pipeline.provider} with model set {carried.pipeline.model}")

    def _work(self, consumer: DataConsumer, delivery: Delivery, turn: Turn) -> None:
        frame = delivery.message
        assert isinstance(frame, Frame)
        self.run_id = frame.header.run_id
        name = f"frame {frame.header.sequence} of {frame.header.run_id}"
        try:
            instrument = parse_instrument(dict(delivery.run.instrument), f"run {delivery.run.run_id}")
            result = self._reconstruct(frame, instrument, delivery.run.fuse_frames, turn)
            turn.wait()
            if self._metrology is not None:
                result = self._metrology.measured(frame, instrument, result)
            self._reconstructed = (frame, instrument)
            reason = consumer.hand_back(result)
        except ComponentFailed as error:
            log.warning("%s: %s", name, error)
        except EclipsError as error:
            log.error("%s could not be reconstructed: %s", name, error)
        except Exception:  # whatever a frame from outside may bring about
            log.exception("%s could not be reconstructed", name)
        else:
            self.done += 1
            if reason:
                log.info("the height of %s was not needed: %s", name, reason)
            return
        turn.wait()
        self.failed += 1

    def _reconstruct(self, frame: Frame, instrument: Instrument, fuse_frames: int, turn: Turn) -> Result:
        if fuse_frames >= 2 or math.prod(frame.header.shape[-2:]) > MOST_PIXELS_BESIDE:
            turn.wait()
        if fuse_frames < 2 or not self._fusion.is_done():
            return self._pipeline.reconstruct(frame, instrument)
        if self._fused is None or self._fused.most_frames != fuse_frames:
            # Its kernels' compiler is slow to load, and most runs fuse nothing.
            from inference.fused_pipeline import FusedPipeline

            self._fused = FusedPipeline(self._pipeline, fuse_frames)
        return self._fused.reconstruct_both(frame, instrument)
