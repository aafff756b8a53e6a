"""The data and state sockets: credits, leases, gaps, results, and peers that misbehave."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise

import cbor2
import numpy as np
import pytest
import zmq
import zmq.auth

from acquisition import wire
from acquisition.consumer import DataConsumer, StateListener
from acquisition.endpoints import CurveKeys, Endpoints
from acquisition.errors import BadInput
from acquisition.frames import (
    Event,
    Frame,
    FrameHeader,
    Optics,
    Result,
    ResultHeader,
    RunStarted,
    checksum,
)
from acquisition.stream import StreamServer
from programs import free_ports, wait_until

OPTICS = Optics(5e-9, 8e-3, 1e4, 1e-6, 0.0, "calibration")
SHAPE = (4, 16, 16)
FRAME_BYTES = 4 * 16 * 16 * 2
RUN = RunStarted("run", "test", 0, 1, 2, SHAPE, "uint16", OPTICS, {}, None, "")


def frame(sequence: int) -> Frame:
    images = np.full(SHAPE, sequence, np.uint16)
    header = FrameHeader("run", "test", sequence, 1, 2, 3, 4, None, SHAPE, "uint16", checksum(images), OPTICS)
    return Frame(header, images)


def result(sequence: int) -> Result:
    header = ResultHeader("run", "test", sequence, 1, 2, "m", {}, "CPU", "c", 5e-9, {}, {})
    return Result(header, {"height": np.full((16, 16), sequence, np.float32)})


class Rig:
    """A server with what it took, and a way to make consumers."""

    def __init__(self, keys: CurveKeys | None = None) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        data, state, control = (f"tcp://127.0.0.1:{port}" for port in free_ports(3))
        self.endpoints = Endpoints(data, state, control)
        self.taken: list[int] = []
        self.server = StreamServer(self.context, self.endpoints, self._take, 4 * FRAME_BYTES, keys)
        self.consumers: list[DataConsumer] = []

    def _take(self, result: Result) -> str:
        sequence = result.header.sequence
        if sequence in self.taken:
            return "already there"
        self.taken.append(sequence)
        return ""

    def consumer(self, keys: CurveKeys | None = None) -> DataConsumer:
        about = {"name": f"test {len(self.consumers)}"}
        self.consumers.append(DataConsumer(self.context, self.endpoints.data, keys, about))
        return self.consumers[-1]

    def publish(self, *sequences: int) -> None:
        for sequence in sequences:
            self.server.publish_frame(frame(sequence), RUN)

    def close(self) -> None:
        for consumer in self.consumers:
            consumer.close()
        self.server.close()
        self.context.destroy(linger=0)


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


def test_latest_hands_out_the_newest_and_tells_what_was_skipped(rig: Rig) -> None:
    consumer = rig.consumer()
    rig.publish(0)
    first = consumer.ask("frames", timeout_s=5)
    rig.publish(1, 2, 3)
    time.sleep(0.2)
    second = consumer.ask("frames", timeout_s=5)
    assert first is not None and second is not None
    assert isinstance(second.message, Frame)
    assert (second.message.header.sequence, second.skipped) == (3, 2)
    np.testing.assert_array_equal(second.message.images, 3)
    assert second.run == RUN


def test_a_waiting_credit_is_answered_when_a_frame_comes(rig: Rig) -> None:
    consumer = rig.consumer()
    assert consumer.ask("frames", timeout_s=0.2) is None
    rig.publish(7)
    delivery = consumer.ask("frames", timeout_s=5)
    assert delivery is not None and delivery.message.header.sequence == 7


def test_every_gives_all_in_order_and_tells_the_gap_exactly(rig: Rig) -> None:
    consumer = rig.consumer()
    rig.publish(0)
    got = []
    first = consumer.ask("frames", mode="every", timeout_s=5)
    assert first is not None
    rig.publish(*range(1, 10))
    time.sleep(0.2)
    while (delivery := consumer.ask("frames", mode="every", timeout_s=0.3)) is not None:
        got.append((delivery.message.header.sequence, delivery.skipped))
    sequences = [0, *(sequence for sequence, _ in got)]
    assert sequences[-3:] == [7, 8, 9] and len(sequences) in (4, 5)
    # One more came where the request that was sent ahead was there before the ring was full.
    gaps = [after - before - 1 for before, after in pairwise(sequences)]
    assert [skipped for _, skipped in got] == gaps


def test_a_frame_that_was_asked_for_ahead_comes_once_whatever_is_asked_between(rig: Rig) -> None:
    consumer, worker = rig.consumer(), rig.consumer()
    rig.publish(0, 1, 2)
    first = consumer.ask("frames", mode="every", timeout_s=5)
    assert first is not None and first.message.header.sequence == 0
    assert worker.ask("work", timeout_s=5, lease_s=30) is not None
    assert consumer.hand_back(result(2)) == ""
    assert consumer.ask("results", timeout_s=5) is not None
    followed = [consumer.ask("frames", mode="every", timeout_s=5) for _ in range(2)]
    assert [delivery.message.header.sequence for delivery in followed if delivery is not None] == [1, 2]
    assert consumer.ask("frames", mode="every", timeout_s=0.3) is None


def test_viewers_do_not_take_frames_from_workers(rig: Rig) -> None:
    viewer, worker, other = rig.consumer(), rig.consumer(), rig.consumer()
    rig.publish(0)
    assert viewer.ask("frames", timeout_s=5) is not None
    assert worker.ask("work", timeout_s=5, lease_s=30) is not None
    assert other.ask("work", timeout_s=0.3, lease_s=30) is None


def test_an_expired_lease_goes_to_another_worker(rig: Rig) -> None:
    dead, living = rig.consumer(), rig.consumer()
    rig.publish(0)
    assert dead.ask("work", timeout_s=5, lease_s=0.1) is not None
    delivery = living.ask("work", timeout_s=6, lease_s=30)
    assert delivery is not None and delivery.message.header.sequence == 0


def test_a_frame_that_was_let_go_is_for_a_worker_with_nothing_else_in_hand(rig: Rig) -> None:
    """Whatever ended the one that had it would end the other frame too."""
    first, second = rig.consumer(), DataConsumer(rig.context, rig.endpoints.data, None, {"name": "test 0"})
    rig.consumers.append(second)
    rig.publish(0)
    assert rig.consumer().ask("work", timeout_s=5, lease_s=0.1) is not None
    rig.publish(1)
    fresh = first.ask("work", timeout_s=5, lease_s=30)
    assert fresh is not None and fresh.message.header.sequence == 1
    assert second.ask("work", timeout_s=1.5, lease_s=30) is None
    assert len(rig.server.workers()) == 2, "two consumers of one name are one worker"
    assert first.hand_back(result(1)) == ""
    again = second.ask("work", timeout_s=5, lease_s=30)
    assert again is not None and again.message.header.sequence == 0


def test_a_result_is_acknowledged_once_and_reaches_viewers(rig: Rig) -> None:
    worker, viewer = rig.consumer(), rig.consumer()
    rig.publish(0)
    assert worker.ask("work", timeout_s=5, lease_s=30) is not None
    assert worker.hand_back(result(0)) == ""
    assert worker.hand_back(result(0)) == "already there"
    assert rig.taken == [0]
    seen = viewer.ask("results", timeout_s=5)
    assert seen is not None and isinstance(seen.message, Result)
    np.testing.assert_array_equal(seen.message.height_m, 0)


def test_recorded_frames_without_height_are_offered(rig: Rig) -> None:
    worker = rig.consumer()
    rig.server.add_backfill(RUN, lambda: [3, 5], frame)
    for sequence in (3, 5):
        delivery = worker.ask("work", timeout_s=5, lease_s=30)
        assert delivery is not None and delivery.message.header.sequence == sequence
        assert worker.hand_back(result(sequence)) == ""
    assert worker.ask("work", timeout_s=0.3, lease_s=30) is None


def test_a_worker_that_asks_again_has_let_go_of_its_frame(rig: Rig) -> None:
    worker = rig.consumer()
    rig.publish(0)
    for _ in range(2):
        delivery = worker.ask("work", timeout_s=5, lease_s=30)
        assert delivery is not None and delivery.message.header.sequence == 0


def test_garbage_on_the_socket_is_counted_and_harms_nobody(rig: Rig) -> None:
    rude = rig.context.socket(zmq.DEALER)
    rude.connect(rig.endpoints.data)
    credit = {"kind": "credit", "wants": "frames", "mode": "latest", "after": 0, "nonce": 1, "epoch": 0}
    messages = [
        [b""],
        [b"\xff" * 100],
        [cbor2.dumps([1, 2])],
        [wire.dump_map({"kind": "gossip"})],
        [wire.dump_map({**credit, "wants": "everything"})],
        [wire.dump_map({**credit, "after": "now"})],
        [wire.dump_map({**credit, "lease_s": 1e9})],
        [wire.dump_map({"kind": "result", "nonce": 1}), b"\x00"],
        [b"x" * (wire.MAX_HEADER_BYTES + 1)],
    ]
    for parts in messages:
        rude.send_multipart(parts)
    wait_until(lambda: rig.server.rejected == len(messages), lambda: f"{rig.server.rejected} rejected")
    rude.close(0)
    rig.publish(1)
    assert rig.consumer().ask("frames", timeout_s=5) is not None


def test_events_reach_listeners(rig: Rig) -> None:
    listener = StateListener(rig.context, rig.endpoints.state)
    event = Event("run", "test", 1, 2, 3, "alarm", "alarm", "text")

    def heard() -> bool:
        rig.server.publish(event)
        return listener.next(0.1) == event

    wait_until(heard, lambda: "the event never came")
    listener.close()


def test_an_address_beyond_loopback_is_refused_without_keys() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    endpoints = Endpoints("tcp://0.0.0.0:5999", "tcp://127.0.0.1:5998", "tcp://127.0.0.1:5997")
    with pytest.raises(BadInput, match="eclips keys"):
        StreamServer(context, endpoints, lambda _: "", 1000)
    context.destroy(linger=0)


def test_only_clients_with_an_allowed_key_are_served(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from acquisition.endpoints import authenticate_clients

    allowed = tmp_path / "allowed"
    allowed.mkdir()
    for name in ("node", "friend", "stranger"):
        zmq.auth.create_certificates(tmp_path, name)
    (allowed / "friend.key").write_bytes((tmp_path / "friend.key").read_bytes())
    rig = Rig(node_keys := CurveKeys(tmp_path / "node.key_secret", allowed))
    authenticator = authenticate_clients(rig.context, node_keys)
    rig.publish(0)
    node_public = tmp_path / "node.key"
    friend = rig.consumer(CurveKeys(tmp_path / "friend.key_secret", node_public))
    stranger = rig.consumer(CurveKeys(tmp_path / "stranger.key_secret", node_public))
    nobody = rig.consumer()
    assert friend.ask("frames", timeout_s=5) is not None
    assert stranger.ask("frames", timeout_s=1) is None
    assert nobody.ask("frames", timeout_s=1) is None
    authenticator.stop()
    rig.close()
