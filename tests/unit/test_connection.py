"""A connection answers or fails in time, and never takes one question's answer for another's."""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from collections.abc import AsyncIterator

import pytest

from acquisition.errors import DeviceFailed
from hardware_drivers.connection import Connection, Step
from hardware_drivers.emulators.line import Fault, Line

TIMEOUT_S = 0.2
KINDS = ["tcp"] + (["terminal"] if os.name == "posix" else [])


class Parrot:
    """Answers each line `WORD` with `<WORD>`; `heard` are all lines in order."""

    def __init__(self) -> None:
        self.fault = Fault.NONE
        self.heard: list[bytes] = []
        self._partial = b""

    def restart(self) -> None:
        self._partial = b""

    def receive(self, data: bytes) -> bytes:
        *words, self._partial = (self._partial + data).split(b"\r")
        self.heard += words
        return b"".join(b"<" + word + b">\r" for word in words)


@pytest.fixture
async def line(request: pytest.FixtureRequest) -> AsyncIterator[Line]:
    async with Line(Parrot(), terminal=getattr(request, "param", KINDS[-1]) == "terminal") as line:
        yield line


on_each_kind = pytest.mark.parametrize("line", KINDS, indirect=True)


@pytest.fixture
async def connection(line: Line) -> AsyncIterator[Connection]:
    connection = Connection(line.address, timeout_s=TIMEOUT_S)
    await connection.open()
    yield connection
    await connection.close()


async def ask(connection: Connection, word: str) -> str:
    return (await connection.ask(word.encode() + b"\r", b"\r")).decode()


def parrot(line: Line) -> Parrot:
    assert isinstance(line.instrument, Parrot)
    return line.instrument


@on_each_kind
async def test_an_answer_comes_without_its_end(connection: Connection) -> None:
    assert [await ask(connection, word) for word in ("A", "B")] == ["<A>", "<B>"]


async def test_steps_are_one_exchange(connection: Connection) -> None:
    steps = (Step(b"A\r", b"\r"), Step(b"B\rC\r", b"\r"), Step(b"", b">"))
    assert await connection.converse(*steps) == [b"<A>", b"<B>", b"<C"]


async def test_what_is_told_awaits_no_answer(connection: Connection) -> None:
    await connection.tell(b"TO")
    assert await ask(connection, "GETHER") == "<TOGETHER>"


@on_each_kind
@pytest.mark.parametrize("fault", [Fault.SILENCE, Fault.HALF, Fault.SLOW])
async def test_no_whole_answer_is_told_with_address_question_and_way_out(
    connection: Connection, line: Line, fault: Fault
) -> None:
    line.fault = fault
    with pytest.raises(DeviceFailed, match=rf"{re.escape(line.address)}.*b'A\\r'.*check power, cable"):
        await ask(connection, "A")
    assert not connection.in_step


async def test_garbage_is_given_as_it_came_for_the_driver_to_judge(connection: Connection, line: Line) -> None:
    line.fault = Fault.GARBAGE
    assert await connection.ask(b"ABCDEFGH\r", b"\r") != b"<ABCDEFGH>"
    line.fault = Fault.NONE
    assert await ask(connection, "A") == "<A>"


async def test_after_a_failure_nothing_is_sent_until_it_is_opened_anew(connection: Connection, line: Line) -> None:
    line.fault = Fault.SILENCE
    with pytest.raises(DeviceFailed):
        await ask(connection, "A")
    line.fault = Fault.NONE
    with pytest.raises(DeviceFailed, match=r"out of step.*nothing was sent"):
        await ask(connection, "B")
    await connection.open()
    assert await ask(connection, "C") == "<C>"
    assert parrot(line).heard == [b"A", b"C"]


@on_each_kind
async def test_a_late_answer_is_not_taken_for_the_next_ones(connection: Connection, line: Line) -> None:
    line.fault, line.slow_s = Fault.SLOW, 1.5 * TIMEOUT_S
    with pytest.raises(DeviceFailed):
        await ask(connection, "A")
    line.slow_s = 0.5 * TIMEOUT_S
    await connection.open()
    assert await ask(connection, "B") == "<B>"


async def test_what_was_said_unasked_is_dropped(connection: Connection, line: Line) -> None:
    line.send(b"HELLO\r")
    await asyncio.sleep(0.1)
    assert await ask(connection, "A") == "<A>"


@on_each_kind
async def test_an_unplugged_instrument_is_told_and_answers_once_it_is_back(connection: Connection, line: Line) -> None:
    line.fault = Fault.UNPLUGGED
    with pytest.raises(DeviceFailed, match=re.escape(line.address)):
        await ask(connection, "A")
    with pytest.raises(DeviceFailed, match=re.escape(line.address)):
        await connection.open()
        await ask(connection, "B")
    line.fault = Fault.NONE
    await connection.open()
    assert await ask(connection, "C") == "<C>"


async def test_tasks_never_interleave(connection: Connection) -> None:
    async def twice(word: str) -> list[bytes]:
        step = Step(word.encode() + b"\r", b"\r")
        return await connection.converse(step, step)

    words = [f"W{i}" for i in range(20)]
    answers = await asyncio.gather(*(twice(word) for word in words))
    assert answers == [[f"<{word}>".encode()] * 2 for word in words]


@on_each_kind
async def test_a_cancelled_exchange_that_is_answered_leaves_the_next_in_step(
    connection: Connection, line: Line
) -> None:
    line.fault, line.slow_s = Fault.SLOW, TIMEOUT_S / 2
    cancelled = asyncio.create_task(ask(connection, "A"))
    await heard(line, b"A")
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    line.fault = Fault.NONE
    assert await ask(connection, "B") == "<B>"


@on_each_kind
async def test_a_cancelled_exchange_that_fails_fails_the_next_before_anything_is_sent(
    connection: Connection, line: Line
) -> None:
    line.fault = Fault.SILENCE
    cancelled = asyncio.create_task(ask(connection, "A"))
    await heard(line, b"A")
    cancelled.cancel()
    line.fault = Fault.NONE
    with pytest.raises(DeviceFailed, match="out of step"):
        await ask(connection, "B")
    assert parrot(line).heard == [b"A"]


async def test_a_question_cancelled_while_it_waits_is_never_sent(connection: Connection, line: Line) -> None:
    line.fault, line.slow_s = Fault.SLOW, TIMEOUT_S / 2
    first = asyncio.create_task(ask(connection, "A"))
    await heard(line, b"A")
    waiting = asyncio.create_task(ask(connection, "B"))
    await asyncio.sleep(0)
    waiting.cancel()
    assert await first == "<A>"
    assert await ask(connection, "C") == "<C>"
    assert parrot(line).heard == [b"A", b"C"]


async def test_greetings_reach_the_instrument_and_their_answers_are_dropped(line: Line) -> None:
    connection = Connection(line.address, timeout_s=TIMEOUT_S)
    await connection.open(b"STOP\r", b"REST\r")
    assert await ask(connection, "A") == "<A>"
    assert parrot(line).heard == [b"STOP", b"REST", b"A"]
    await connection.close()


async def test_a_hanging_port_fails_in_time(
    connection: Connection, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    monkeypatch.setattr("hardware_drivers.connection.HANG_AFTER_S", 0.1)
    port = connection._port
    assert port is not None
    monkeypatch.setattr(port._serial, "reset_input_buffer", lambda: released.wait(30))
    with pytest.raises(DeviceFailed, match="hung"):
        await ask(connection, "A")
    released.set()
    await connection.open()
    assert await ask(connection, "B") == "<B>"
    assert parrot(line).heard == [b"B"], "what hung is not sent later"


@on_each_kind
async def test_threads_end_with_their_ports(line: Line) -> None:
    connection = Connection(line.address, timeout_s=TIMEOUT_S)
    for _ in range(3):
        await connection.open()
        assert await ask(connection, "A") == "<A>"
    await connection.close()
    async with asyncio.timeout(10):
        while any(thread.name.startswith(line.address) for thread in threading.enumerate()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_closed_and_wrong_addresses_say_so() -> None:
    with pytest.raises(DeviceFailed, match="not open; nothing was sent"):
        await ask(Connection("socket://127.0.0.1:9"), "A")
    for address in ("/dev/no-such-port", "telepathy://there", "socket://127.0.0.1"):
        with pytest.raises(DeviceFailed, match=f"{address} could not be opened.*check"):
            await Connection(address).open()


async def heard(line: Line, word: bytes) -> None:
    ends = time.monotonic() + 10
    while word not in parrot(line).heard:
        assert time.monotonic() < ends
        await asyncio.sleep(0.01)
