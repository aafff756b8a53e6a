"""Threads that finish in the order in which they began, also where one fails."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from inference.turns import Turns

PATIENCE_S = 30.0


def test_what_comes_after_the_wait_is_done_in_the_order_of_the_draws() -> None:
    turns, done = Turns(), []
    drawn = [turns.draw() for _ in range(4)]

    def work(number: int) -> None:
        with drawn[number] as turn:
            turn.wait()
            done.append(number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, (3, 2, 1, 0)))
    assert done == [0, 1, 2, 3]


def test_work_before_the_wait_is_done_beside_that_of_earlier_turns() -> None:
    turns, second_began = Turns(), threading.Event()
    first, second = turns.draw(), turns.draw()

    def later() -> None:
        with second:
            second_began.set()

    with ThreadPoolExecutor(1) as pool:
        with first as turn:
            under_way = pool.submit(later)
            assert second_began.wait(PATIENCE_S)
            turn.wait()
            assert not under_way.done()
        under_way.result(PATIENCE_S)


def test_a_turn_that_fails_is_over_too() -> None:
    turns = Turns()
    with pytest.raises(ValueError, match="bad frame"), turns.draw():
        raise ValueError("bad frame")
    with turns.draw() as turn:
        turn.wait()
