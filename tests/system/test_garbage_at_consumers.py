"""Whatever reaches a consumer, a listener or a worker and is no sound message is rejected and counted, and the next
good one is taken."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acquisition import wire
from acquisition.consumer import StateListener
from acquisition.frames import Event, Frame
from garbage import (
    DELIVERY,
    EVENT,
    FRAME,
    NOTE,
    OTHER_RUN,
    RESULT,
    RUN,
    FalseNode,
    Parts,
    as_bytes,
    changed,
    damaged,
    few,
    wait_for,
)
from recordings import frame
from streams import PATIENCE_S, QuickPipeline, WorkerThread


@pytest.fixture(scope="module")
def false_node() -> Iterator[FalseNode]:
    node = FalseNode([*RUN, *FRAME])
    yield node
    node.close()


@few
@given(st.lists(damaged(DELIVERY), min_size=1, max_size=20))
def test_damaged_deliveries_are_counted_and_told_as_skipped(false_node: FalseNode, messages: list[Parts]) -> None:
    consumer = false_node.victim(list(messages))
    told, deadline = 0, time.monotonic() + PATIENCE_S
    while consumer.rejected < len(messages):
        assert time.monotonic() < deadline, f"{consumer.rejected} of {len(messages)} were counted"
        delivery = consumer.ask("frames", mode="every", timeout_s=PATIENCE_S)
        assert delivery is not None and isinstance(delivery.message, Frame)
        told += delivery.skipped
        np.testing.assert_array_equal(delivery.message.images, frame(3).images)
    assert consumer.rejected == len(messages)
    assert told <= len(messages)
    consumer.close()


@pytest.mark.parametrize(
    "bad",
    [
        [NOTE, *OTHER_RUN, *FRAME],
        [NOTE, *RUN, *RESULT],
        [NOTE, *FRAME, *RUN],
        [NOTE, *RUN],
        [NOTE, *RUN, *changed(FRAME, schema=2)],
        [NOTE, *RUN, *changed(FRAME, run_id="another")],
        [NOTE, *RUN, *changed(FRAME, shape=[4, 24, 33])],
        [NOTE, *changed(RUN, kind="gossip"), *FRAME],
    ],
)
def test_one_wrong_delivery_is_counted_and_told_as_one_skipped(false_node: FalseNode, bad: Parts) -> None:
    consumer = false_node.victim([bad])
    delivery = consumer.ask("frames", mode="every", timeout_s=PATIENCE_S)
    assert delivery is not None
    assert (consumer.rejected, delivery.skipped) == (1, 1)
    consumer.close()


@few
@given(st.lists(damaged([*RUN, *FRAME]), min_size=1, max_size=20), st.booleans())
def test_a_worker_outlives_every_damaged_frame(false_node: FalseNode, messages: list[Parts], noted: bool) -> None:
    false_node.bad = [[NOTE, *parts] if noted else parts for parts in messages]
    false_node.results.clear()
    worker = WorkerThread(false_node.address)
    wait_for(lambda: min(len(false_node.results), 1), 1, "heights came back")
    worker.close()
    np.testing.assert_array_equal(false_node.results[0].height_m, frame(3).images[0] * np.float32(1e-9))


def test_a_worker_outlives_frames_on_which_its_networks_fail(false_node: FalseNode) -> None:
    failed: list[int] = []

    def fail(frame: Frame) -> None:
        failed.append(frame.header.sequence)
        raise ZeroDivisionError

    worker = WorkerThread(false_node.address)
    worker.worker._pipeline = QuickPipeline(begun=fail)  # type: ignore[assignment]
    wait_for(lambda: min(len(failed), 3), 3, "failures")
    worker.worker._pipeline = QuickPipeline()  # type: ignore[assignment]
    false_node.results.clear()
    wait_for(lambda: min(len(false_node.results), 1), 1, "heights came back")
    worker.close()


@few
@given(st.lists(damaged(EVENT), min_size=1, max_size=20))
def test_damaged_state_messages_are_counted(false_node: FalseNode, messages: list[Parts]) -> None:
    listener = StateListener(false_node.context, false_node.state_address)
    wait_for(
        lambda: (false_node.state.send_multipart([b"event", *EVENT]), int(listener.next(0.02) is not None))[1], 1, ""
    )
    for parts in messages:
        false_node.state.send_multipart([b"event", *parts])
    false_node.state.send_multipart([b"heartbeat", *EVENT])
    false_node.state.send_multipart([b"event"])
    last = Event("run", "test", 2, 2, 3, "last", "info", "")
    false_node.state.send_multipart([b"event", *as_bytes(wire.encode(last))])
    with ExitStack() as stack:
        stack.callback(listener.close)
        while listener.next(PATIENCE_S) != last:
            continue
        assert listener.rejected == len(messages) + 2
