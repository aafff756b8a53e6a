"""Frames are handed to one worker at a time, the newest first, and none is forgotten."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from acquisition.ring import MAX_ATTEMPTS, Backfill, Ring, WorkBoard

LEASE_NS = 100


def board(frames: int, budget_bytes: int = 10_000) -> WorkBoard:
    work = WorkBoard(Ring(budget_bytes))
    for sequence in range(frames):
        work.frames.add(("run", sequence), b"about", [b"x" * 10])
    return work


def test_the_newest_frame_goes_first_and_what_was_skipped_is_counted() -> None:
    work = board(3)
    entry = work.next(0, LEASE_NS)
    assert entry is not None and entry.key == ("run", 2)
    assert work.skipped == 2
    assert work.next(0, LEASE_NS) is None


def test_two_workers_never_hold_the_same_frame() -> None:
    work = board(1)
    first = work.next(0, LEASE_NS)
    work.frames.add(("run", 1), b"about", [b"x"])
    second = work.next(1, LEASE_NS)
    assert first is not None and second is not None
    assert first.key != second.key


def test_an_expired_lease_is_given_to_another() -> None:
    work = board(1)
    assert work.next(0, LEASE_NS) is not None
    assert work.next(LEASE_NS - 1, LEASE_NS) is None
    again = work.next(LEASE_NS + 1, LEASE_NS)
    assert again is not None and again.key == ("run", 0)


def test_a_finished_frame_is_not_handed_out_again() -> None:
    work = board(1)
    work.next(0, LEASE_NS)
    work.finish(("run", 0))
    assert work.next(10 * LEASE_NS, LEASE_NS) is None


def test_a_frame_on_which_workers_die_is_given_up() -> None:
    work = board(1)
    for _ in range(MAX_ATTEMPTS):
        assert work.next(0, LEASE_NS) is not None
        work.release(("run", 0))
    assert work.next(0, LEASE_NS) is None
    assert work.given_up == {("run", 0)}


def test_a_frame_on_which_a_worker_died_is_for_one_with_nothing_else_in_hand() -> None:
    work = board(1)
    work.next(0, LEASE_NS)
    work.release(("run", 0))
    work.frames.add(("run", 1), b"about", [b"\1"])
    assert [entry and entry.key for entry in (work.next(0, LEASE_NS, alone=False) for _ in range(2))] == [
        ("run", 1),
        None,
    ]
    again = work.next(0, LEASE_NS)
    assert again is not None and again.key == ("run", 0)


def test_old_runs_are_filled_in_only_when_nothing_newer_waits() -> None:
    work = board(1)
    work.add_backfill(Backfill("old", b"about", deque([4, 5]), lambda sequence: [bytes([sequence])]))
    keys = [entry.key for _ in range(3) if (entry := work.next(0, LEASE_NS))]
    assert keys == [("run", 0), ("old", 4), ("old", 5)]


def test_a_skipped_frame_is_read_back_from_the_recording_only_once_it_has_left_the_ring() -> None:
    ring, read = Ring(2), []
    for sequence in range(3):
        ring.add(("run", sequence), b"about", [bytes([sequence])])
    work = WorkBoard(ring)
    work.add_backfill(Backfill("run", b"about", deque([0, 1]), lambda sequence: read.append(sequence) or [b"read"]))
    handed = {entry.key[1]: entry.parts for _ in range(3) if (entry := work.next(0, LEASE_NS))}
    assert handed == {2: [b"\2"], 0: [b"read"], 1: [b"\1"]}
    assert read == [0]


def test_a_dropped_run_leaves_no_work_behind() -> None:
    work = board(2)
    work.add_backfill(Backfill("run", b"about", deque([0]), lambda _: [b"x"]))
    work.drop_run("run")
    assert work.next(0, LEASE_NS) is None


@given(st.lists(st.integers(1, 400), min_size=1, max_size=60), st.integers(1, 1000))
def test_the_ring_keeps_the_newest_within_its_budget(sizes: list[int], budget_bytes: int) -> None:
    ring = Ring(budget_bytes)
    for sequence, size in enumerate(sizes):
        ring.add(("run", sequence), b"", [bytes(size)])
        newest = ring.newest_after(0)
        assert newest is not None and newest.key == ("run", sequence)
    kept, serial = [], 0
    while (entry := ring.next_after(serial)) is not None:
        kept.append(entry)
        serial = entry.serial
    assert [entry.serial for entry in kept] == list(range(kept[0].serial, len(sizes) + 1))
    assert len(kept) == 1 or sum(entry.nbytes for entry in kept) <= budget_bytes
