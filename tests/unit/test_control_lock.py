"""One drives: leases, silence, taking over."""

from __future__ import annotations

import pytest

from acquisition.control_lock import LEASE_S, ControlLock
from acquisition.errors import RequestRefused


class Seconds:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def lock(seconds: Seconds) -> ControlLock:
    return ControlLock("by asking", seconds)


def test_everybody_may_drive_while_nobody_has_control(lock: ControlLock) -> None:
    lock.require("ada")
    lock.require("")


def test_a_silent_holder_loses_control(lock: ControlLock, seconds: Seconds) -> None:
    lock.take("ada", "Ada")
    seconds.now = LEASE_S - 1
    with pytest.raises(RequestRefused, match="Ada has control"):
        lock.require("bob")
    seconds.now = LEASE_S + 1
    lock.require("bob")
    assert lock.holder is None


def test_every_sign_of_life_renews_the_lease_of_the_holder_alone(lock: ControlLock, seconds: Seconds) -> None:
    lock.take("ada", "Ada")
    seconds.now = LEASE_S - 1
    lock.seen("ada")
    seconds.now = 2 * LEASE_S - 2
    lock.seen("bob")
    lock.require("ada")
    with pytest.raises(RequestRefused):
        lock.require("bob")
    seconds.now = 2 * LEASE_S
    assert lock.holder is None


def test_taking_again_keeps_the_time_since_when(lock: ControlLock) -> None:
    assert lock.take("ada", "Ada") is lock.take("ada", "Ada")


def test_only_the_holder_lets_go(lock: ControlLock) -> None:
    lock.take("ada", "Ada")
    lock.release("bob")
    assert lock.holder is not None
    lock.release("ada")
    assert lock.holder is None


def test_after_a_take_over_the_former_holder_looks_on(lock: ControlLock) -> None:
    lock.take("ada", "Ada")
    lock.take("bob", "Bob", take_over=True)
    with pytest.raises(RequestRefused, match="Bob has control") as refused:
        lock.require("ada")
    assert "take_over" in refused.value.permitted
