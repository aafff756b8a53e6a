"""How the node stands is told by its heartbeats, but never as of before what was commanded here."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import pytest

from acquisition.errors import ComponentFailed
from service.hub import Hub
from service.run_control import RunControl
from service.standing import Standing


class Node:
    """A hub and a way to command, both of one node whose clock is counted by hand."""

    def __init__(self) -> None:
        self.status: dict[str, Any] = {}
        self.status_at = 0.0
        self.utc_ns = 0
        self.carried_out = 0
        self.asked = 0
        self.silent = False

    def beats(self, utc_ns: int) -> None:
        self.status, self.status_at = {"utc_ns": utc_ns}, time.monotonic()

    def call(self, name: str, deadline_s: float) -> dict[str, Any]:
        if self.silent:
            raise ComponentFailed(f"the node did not answer {name}")
        self.asked += 1
        return {"utc_ns": self.utc_ns}


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
def standing(node: Node) -> Standing:
    return Standing(cast("Hub", node), cast("RunControl", node))


def told(standing: Standing) -> int:
    return int(asyncio.run(standing.tree())["utc_ns"])


def test_a_fresh_heartbeat_answers_without_the_node(node: Node, standing: Standing) -> None:
    node.beats(10)
    assert (told(standing), node.asked) == (10, 0)


def test_after_a_command_the_node_itself_is_asked_once(node: Node, standing: Standing) -> None:
    node.beats(10)
    node.carried_out, node.utc_ns = 1, 20
    assert [told(standing), told(standing)] == [20, 20]
    assert node.asked == 1


def test_a_heartbeat_of_before_the_command_that_comes_after_it_is_not_believed(node: Node, standing: Standing) -> None:
    node.carried_out, node.utc_ns = 1, 20
    told(standing)
    node.beats(15)
    assert told(standing) == 20
    node.beats(21)
    assert (told(standing), node.asked) == (21, 1)


def test_a_node_that_no_longer_beats_is_asked_and_its_silence_is_told(node: Node, standing: Standing) -> None:
    node.beats(10)
    node.status_at -= 1.0
    node.silent = True
    with pytest.raises(ComponentFailed, match="did not answer status"):
        told(standing)
