"""Frames posted by another program: the sender as it is shipped, and everything that a broken or hostile one may send.
Each refusal says what to do, and never costs more than its own connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acquisition.clock import SystemClock
from acquisition.devices import ScanRequest
from acquisition.errors import BadInput, DeviceFailed
from acquisition.frames import Exposure
from acquisition.instrument import four_quadrant
from acquisition.state import StateKeeper
from hardware_drivers.push import PushDetector, push_detector
from hostile import Change, bounded_memory, changed, changes, few
from microscopes import converse, post, push_header, scan_of, until

SENDER = Path(__file__).parents[2] / "deploy" / "push_sender.py"
KEY = "the-key-of-this-test"
HEIGHT, WIDTH = 48, 64
GENEROUS_S = 30.0


def frame(number: int, /, **changes: Any) -> bytes:
    """A good frame but for `changes` of its header."""
    images = scan_of(number, HEIGHT, WIDTH)
    return json.dumps({**push_header(number, images), **changes}).encode() + b"\n" + images.astype("<u2").tobytes()


def request(body: bytes, method: str = "POST", path: str = "/frames", **headers: str) -> bytes:
    all_headers = {"Authorization": f"Bearer {KEY}", "Content_Length": str(len(body)), **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in all_headers.items() if value)
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


@asynccontextmanager
async def armed(**arguments: Any) -> AsyncIterator[tuple[PushDetector, AsyncIterator[Exposure]]]:
    async with push_detector(four_quadrant(), KEY, port=0, **arguments) as detector:
        await detector.configure(ScanRequest(WIDTH, HEIGHT))
        await detector.arm()
        async with aclosing(detector.exposures(None)) as exposures:  # type: ignore[type-var]
            yield detector, exposures


async def taken(exposures: AsyncIterator[Exposure]) -> int:
    """The number of the frame that comes next, which must be as it was sent."""
    async with asyncio.timeout(GENEROUS_S):
        exposure = await anext(exposures)
    number = int(exposure.images[0, 0, 0]) // 100
    np.testing.assert_array_equal(exposure.images, scan_of(number, HEIGHT, WIDTH))
    assert exposure.hardware_time_ns == 1_000_000 * number
    return number


async def still_takes(detector: PushDetector, exposures: AsyncIterator[Exposure], number: int = 7) -> None:
    assert await post(detector.address, KEY, frame(number)) == (200, {"number": number, "taken": True})
    assert await taken(exposures) == number


async def run_sender(detector: PushDetector, *arguments: str, key: str = KEY) -> asyncio.subprocess.Process:
    address = detector.address.removeprefix("http://").removesuffix("/frames")
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, str(SENDER), address, key, *arguments, stdout=pipe, stderr=pipe
    )


async def test_the_shipped_sender_sends_faster_than_frames_are_used_and_loses_none() -> None:
    async with armed() as (detector, exposures):
        sender = await run_sender(detector, "3")
        async with asyncio.timeout(GENEROUS_S):
            found = [await anext(exposures) for _ in range(3)]
            out, error = await sender.communicate()
        for number, exposure in enumerate(found):
            expected = [1000 * place + number for place in (1, 2, 3, 4)]
            np.testing.assert_array_equal(
                exposure.images, np.array(expected)[:, None, None] + np.zeros((HEIGHT, WIDTH))
            )
            assert exposure.optics.pixel_size_m == 5e-9 and exposure.hardware_time_ns is not None
        assert [json.loads(line)["number"] for line in out.splitlines()] == [0, 1, 2] and error == b""
        assert detector.told() == []


async def test_the_shipped_sender_says_why_it_was_refused() -> None:
    async with push_detector(four_quadrant(), KEY, port=0) as detector:
        await detector.configure(ScanRequest(WIDTH, HEIGHT))
        async with asyncio.timeout(GENEROUS_S):
            _, idle = await (await run_sender(detector)).communicate()
            _, stranger = await (await run_sender(detector, key="another-key-than-it")).communicate()
    assert b"409" in idle and b"start a run" in idle
    assert b"401" in stranger and b"Authorization" in stranger


async def test_who_asks_is_told_what_is_expected() -> None:
    async with armed() as (detector, _):
        status, expected = await converse(detector.address, request(b"", method="GET"))
        assert status == 200 and expected["armed"] is True
        assert (expected["segments"], expected["width_px"], expected["height_px"]) == (list("ABCD"), WIDTH, HEIGHT)


async def test_a_second_frame_in_hand_is_sent_again_later() -> None:
    async with armed() as (detector, exposures):
        assert (await post(detector.address, KEY, frame(1)))[0] == 200
        status, problem = await post(detector.address, KEY, frame(2))
        assert status == 503 and "send again" in problem["detail"]
        assert await taken(exposures) == 1
        await still_takes(detector, exposures, 2)
        assert detector.told() == []


async def test_busy_is_said_with_the_time_to_wait() -> None:
    async with armed() as (detector, _):
        assert (await post(detector.address, KEY, frame(1)))[0] == 200
        host, port = detector.address.removeprefix("http://").partition("/")[0].split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request(frame(2)))
        async with asyncio.timeout(GENEROUS_S):
            answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 503 ") and b"\r\nRetry-After: 1\r\n" in answer


async def test_a_frame_that_is_sent_again_is_taken_once() -> None:
    async with armed() as (detector, exposures):
        await still_takes(detector, exposures, 1)
        status, answer = await post(detector.address, KEY, frame(1))
        assert (status, answer["taken"]) == (200, False)
        await still_takes(detector, exposures, 2)
        assert detector.told() == []


async def test_gaps_in_the_senders_numbers_are_counted_and_told() -> None:
    async with armed() as (detector, exposures):
        for number in (3, 4, 8, 0):
            await still_takes(detector, exposures, number)
        gap, restart = detector.told()
        assert "3 frames of the sender never came: after 4 came 8" in gap and "begin again" in restart
        assert (await detector.read())["frames_lost"].value == 3
        assert (await detector.read())["frames_taken"].value == 4


async def test_segments_may_come_in_any_order_and_with_settings_of_their_own() -> None:
    async with armed() as (detector, exposures):
        images = scan_of(5, HEIGHT, WIDTH)
        header = {**push_header(5, images), "segments": list("DBCA"), "pixel_size_m": 2e-9, "energy_ev": 5e3}
        body = json.dumps(header).encode() + b"\n" + images[[3, 1, 2, 0]].astype("<u2").tobytes()
        assert (await post(detector.address, KEY, body))[0] == 200
        async with asyncio.timeout(GENEROUS_S):
            exposure = await anext(exposures)
        np.testing.assert_array_equal(exposure.images, images)
        assert (exposure.optics.pixel_size_m, exposure.optics.landing_energy_ev) == (2e-9, 5e3)


WRONG: dict[str, tuple[bytes, int, str]] = {
    "segments": (frame(1, segments=["A", "B", "C", "E"]), 422, "the instrument has"),
    "a segment too few": (frame(1, segments=["A", "B", "C"]), 422, "the instrument has"),
    "a segment twice": (frame(1, segments=["A", "B", "C", "C"]), 422, "the instrument has"),
    "size": (frame(1, width_px=WIDTH + 1), 422, "65 x 48 px, the run was started for 64 x 48"),
    "no size": (frame(1, height_px=0), 422, "64 x 0 px"),
    "huge size": (frame(1, height_px=2**62, width_px=2**62), 422, "the run was started for"),
    "a size beyond any": (frame(1, height_px=10**400), 422, "height_px"),
    "dtype": (frame(1, dtype="float64"), 422, "dtype"),
    "number": (frame(1, number="one"), 422, "number"),
    "pixel size": (frame(1, pixel_size_m=-1e-9), 422, "pixel_size_m"),
    "a key that is none": (frame(1, widht_px=5), 422, "widht_px"),
    "too many pixels": (frame(1) + b"\0\0", 413, "make"),
    "too few pixels": (frame(1)[:-2], 400, "make"),
    "no header": (b"\0" * 100 + b"\n", 422, "header"),
    "lists in lists": (b"[" * 60_000 + b"\n", 422, "header"),
    "a header without end": (b"{" + b" " * 200_000, 400, "one line of JSON"),
}


@pytest.mark.parametrize("what", WRONG)
async def test_a_wrong_frame_is_refused_with_its_reason_and_the_next_is_taken(what: str) -> None:
    body, status, reason = WRONG[what]
    async with armed() as (detector, exposures):
        found, problem = await post(detector.address, KEY, body)
        assert (found, problem["status"]) == (status, status) and reason in problem["detail"], problem
        (text,) = detector.told()
        assert "refused" in text and (await detector.read())["frames_refused"].value == 1
        await still_takes(detector, exposures)


REQUESTS: dict[str, tuple[bytes, int]] = {
    "wrong key": (request(frame(1), Authorization="Bearer the-key-of-this-tesT"), 401),
    "no key": (request(frame(1), Authorization=""), 401),
    "key of other letters": (request(frame(1), Authorization="Bearer ключ").replace(b"\xd0", b"\xff"), 401),
    "another path": (request(frame(1), path="/"), 404),
    "another method": (request(b"", method="DELETE"), 404),
    "no length": (request(frame(1), Content_Length=""), 411),
    "chunks": (request(frame(1), Transfer_Encoding="chunked"), 411),
    "a length that is none": (request(frame(1), Content_Length="-5"), 400),
    "a length of digits without end": (request(frame(1), Content_Length="9" * 5000), 400),
    "a huge length": (request(frame(1), Content_Length="9" * 15), 413),
    "no request": (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
    "a line that is no header": (b"POST /frames HTTP/1.1\r\nnothing\r\n\r\n", 400),
    "a head without end": (b"POST /frames HTTP/1.1\r\n" + b"a: b\r\n" * 40_000, 431),
}


@pytest.mark.parametrize("what", REQUESTS)
async def test_a_wrong_request_is_answered_and_the_next_frame_is_taken(what: str) -> None:
    content, status = REQUESTS[what]
    async with armed() as (detector, exposures):
        found, problem = await converse(detector.address, content)
        assert (found, problem["status"]) == (status, status) and problem["detail"]
        await still_takes(detector, exposures)


async def test_a_declared_size_takes_no_memory() -> None:
    async with armed() as (detector, exposures):
        huge = 2**40
        line = json.dumps(push_header(1, scan_of(1, 2, 2)) | {"width_px": 2**20, "height_px": 2**17}).encode() + b"\n"
        with bounded_memory():
            found, _ = await converse(detector.address, request(line, Content_Length=str(huge)))
        assert found == 422
        await still_takes(detector, exposures)


async def test_a_sender_that_waits_to_be_asked_is_asked() -> None:
    async with armed() as (detector, exposures):
        host, port = detector.address.removeprefix("http://").partition("/")[0].split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head, _, body = request(frame(1), Expect="100-continue").partition(b"\r\n\r\n")
        async with asyncio.timeout(GENEROUS_S):
            writer.write(head + b"\r\n\r\n")
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(body)
            assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        writer.close()
        assert await taken(exposures) == 1


@pytest.mark.parametrize("kept", [0, 10, 100, 400, -1])
async def test_a_sender_that_is_too_slow_is_told_so_and_holds_nothing_up(kept: int) -> None:
    async with armed(patience_s=0.3) as (detector, exposures):
        content = request(frame(1))
        found, problem = await converse(detector.address, content[:kept])
        assert found == 408 and "0.3 s" in problem["detail"]
        for number in (7, 8):
            with contextlib.suppress(TimeoutError):
                await still_takes(detector, exposures, number)
                break
        else:
            pytest.fail("no frame was taken any more")


async def test_a_sender_that_goes_away_in_the_middle_is_told_and_holds_nothing_up() -> None:
    async with armed() as (detector, exposures):
        host, port = detector.address.removeprefix("http://").partition("/")[0].split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        content = request(frame(3))
        writer.write(content[: len(content) // 2])
        await writer.drain()
        writer.close()
        texts: list[str] = []
        await until(lambda: bool(texts.extend(detector.told()) or texts))
        assert "of frame 3" in texts[0]
        await still_takes(detector, exposures)


async def test_a_frame_in_hand_when_the_run_ends_is_told() -> None:
    async with armed() as (detector, _):
        assert (await post(detector.address, KEY, frame(1)))[0] == 200
        await detector.stop()
        assert "in hand" in detector.told()[0]
        assert (await post(detector.address, KEY, frame(2)))[0] == 409


async def test_leaving_does_not_wait_for_a_silent_sender() -> None:
    async with asyncio.timeout(GENEROUS_S / 2), armed(patience_s=GENEROUS_S) as (detector, _):
        host, port = detector.address.removeprefix("http://").partition("/")[0].split(":")
        silent = [await asyncio.open_connection(host, int(port)) for _ in range(3)]
        await still_expected(detector)
    for _, writer in silent:
        writer.close()


async def still_expected(detector: PushDetector) -> None:
    assert (await converse(detector.address, request(b"", method="GET")))[0] == 200


async def test_a_port_in_use_is_named_and_entering_again_works() -> None:
    async with push_detector(four_quadrant(), KEY, port=0) as first:
        port = int(first.address.rsplit(":", 1)[1].partition("/")[0])
        second = push_detector(four_quadrant(), KEY, port=port)
        with pytest.raises(DeviceFailed, match=rf"127\.0\.0\.1:{port}.*in use"):
            await second.__aenter__()
    for _ in range(2):
        async with second:
            assert second.address.endswith(f":{port}/frames")


async def test_what_is_told_reaches_who_keeps_the_devices() -> None:
    said: list[tuple[str, str]] = []
    detector = push_detector(four_quadrant(), KEY, port=0)
    keeper = StateKeeper({"detector": detector}, SystemClock(), lambda *_: None, lambda *told: said.append(told))
    await keeper.start()
    try:
        await detector.configure(ScanRequest(WIDTH, HEIGHT))
        await detector.arm()
        assert (await post(detector.address, KEY, frame(1, dtype="int8")))[0] == 422
        await until(lambda: bool(said))
    finally:
        await keeper.stop()
    ((name, text),) = said
    assert name == "detector" and "dtype" in text


@pytest.mark.parametrize("arguments", [{"key": "short"}, {"key": "ü" * 20}, {"port": 70_000}, {"patience_s": 0.0}])
def test_a_source_that_cannot_be_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        push_detector(four_quadrant(), **{"key": KEY, **arguments})


@pytest.mark.soak
@few
@given(st.lists(st.lists(changes, min_size=1, max_size=3), min_size=4, max_size=4), st.sampled_from([120, 400, 10**6]))
def test_a_request_with_changed_bytes_is_answered_or_dropped_and_the_next_is_taken(
    tries: list[list[Change]], reach: int
) -> None:
    """`reach`: the changes hit the head, the header, or anything."""
    content = request(frame(1))

    async def go() -> None:
        async with push_detector(four_quadrant(), KEY, port=0) as detector:
            await detector.configure(ScanRequest(WIDTH, HEIGHT))
            for several in tries:
                await detector.arm()
                damaged = changed(content[:reach], several) + content[reach:]
                status, _ = await converse(detector.address, damaged, ended=True)
                assert status in (0, 200, 400, 401, 404, 411, 413, 422, 431), status
                await detector.stop()
            await detector.arm()
            async with aclosing(detector.exposures(None)) as exposures:  # type: ignore[type-var]
                await still_takes(detector, exposures)

    asyncio.run(go())
