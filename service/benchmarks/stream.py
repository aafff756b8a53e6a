"""The live stream between two real processes over TCP loopback, against others that carry the same frames."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from rich.table import Table

from acquisition.errors import ComponentFailed
from service.benchmarks.measured import Measured, NotMeasured, Report, tell_progress
from service.benchmarks.stream_pair import Pair, Transfer, memcpy_gb_per_s, missing
from service.benchmarks.stream_peers import LATEST, OURS, P4P, RAW, WAYS
from service.benchmarks.stream_replay import pacing_error

WINDOW, SMALL_WINDOW, LATEST_WINDOW = 16, 64, 4
PACE_HZ = 20.0
MEMCPY_ROUNDS = 20
COUNTED = (OURS, LATEST)
"""Ways whose rows are about; a failure of any other way leaves that one out."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. Each way sends `frames` in each of `rounds`, one way after the other; `paced` are sent at
    20 frames/s for the latency, by peers `paced_peers`; `soak` of `soak_shape` lie in new memory each, for the growth
    (0: left out): they are of a size of which one more or less in flight does not show; `replayed` are recorded and
    played again at their times."""

    shape: tuple[int, int, int]
    small_shape: tuple[int, int, int]
    soak_shape: tuple[int, int, int]
    rounds: int
    frames: int
    small_frames: int
    paced: int
    paced_peers: int
    soak: int
    replayed: int


QUICK = Plan((4, 1024, 1024), (4, 64, 64), (4, 256, 256), 3, 50, 500, 40, 15, 0, 30)
FULL = Plan((4, 1024, 1024), (4, 64, 64), (4, 256, 256), 7, 100, 1000, 300, 60, 6000, 200)


@dataclass(slots=True)
class Seen:
    """All transfers of one way: of large frames at full speed, of small ones, and paced."""

    large: list[Transfer] = field(default_factory=list)
    small: list[Transfer] = field(default_factory=list)
    paced: list[Transfer] = field(default_factory=list)


def measure(quick: bool, plan: Plan | None = None) -> Report:
    """Rows of [stream]. Ratios are medians over rounds in which ours and peers take turns."""
    plan = plan or (QUICK if quick else FULL)
    reasons = {
        way: f"needs {module}: install eclips-live with the extra `bench`" for way in WAYS if (module := missing(way))
    }
    seen = {way: Seen() for way in WAYS if way not in reasons}
    tell_progress("memcpy")
    memcpy = memcpy_gb_per_s(plan.shape, MEMCPY_ROUNDS)
    with Pair() as pair:
        for number in range(plan.rounds):
            tell_progress(f"round {number + 1} of {plan.rounds}: {', '.join(seen)}")
            _each(seen, reasons, lambda way, of: of.large.append(_send(pair, way, plan.shape, plan.frames)))
            _each(seen, reasons, lambda way, of: of.small.append(_send(pair, way, plan.small_shape, plan.small_frames)))
        tell_progress(f"latency at {PACE_HZ:g} frames/s")
        _each(seen, reasons, lambda way, of: of.paced.append(_paced(pair, way, plan)))
        soak = None
        if plan.soak:
            tell_progress(f"{plan.soak} frames for the memory")
            soak = pair.transfer(OURS, plan.soak_shape, plan.soak, WINDOW, fresh=True)
    tell_progress(f"{plan.replayed} frames replayed at their pace")
    rows: dict[str, Measured | NotMeasured] = {
        "throughput_vs_raw_pyzmq": _ratio(seen, reasons, RAW),
        "throughput_vs_p4p": _ratio(seen, reasons, P4P),
        "latency_p99_ms": _latency(seen[LATEST]),
        "lost_frames": _lost([*seen[OURS].large, *seen[OURS].small, *([soak] if soak else [])]),
        "replay_pacing_p99_ms": pacing_error(plan.shape, plan.replayed),
    }
    if soak is not None:
        rows["memory_growth_pct"] = _growth(soak)
    return Report(rows, table=_table(seen, plan, memcpy))


def _each(seen: dict[str, Seen], reasons: dict[str, str], work: Callable[[str, Seen], None]) -> None:
    """`work` for each way that is left; a peer that fails is left out from then on."""
    for way, of in list(seen.items()):
        try:
            work(way, of)
        except ComponentFailed as error:
            if way in COUNTED:
                raise
            reasons[way] = str(error)
            del seen[way]


def _send(pair: Pair, way: str, shape: tuple[int, int, int], frames: int) -> Transfer:
    window = LATEST_WINDOW if way == LATEST else SMALL_WINDOW if math.prod(shape) < 2**20 else WINDOW
    return pair.transfer(way, shape, frames, window)


def _paced(pair: Pair, way: str, plan: Plan) -> Transfer:
    frames = plan.paced if way in COUNTED else plan.paced_peers
    return pair.transfer(way, plan.shape, frames, WINDOW, rate_hz=PACE_HZ)


def _ratio(seen: Mapping[str, Seen], reasons: Mapping[str, str], way: str) -> Measured | NotMeasured:
    if way not in seen:
        return NotMeasured(reasons[way])
    ours, theirs = seen[OURS].large, seen[way].large
    ratios = [a.frames_per_s / b.frames_per_s for a, b in zip(ours, theirs, strict=True)]
    return Measured(
        statistics.median(ratios),
        f"{_size(ours[0])}, two processes, TCP loopback, {os.cpu_count()} cores, median of {len(ratios)} rounds "
        f"({min(ratios):.2f} to {max(ratios):.2f}; of the fastest {_fastest(ours) / _fastest(theirs):.2f}): ours "
        f"{_median(ours, _gb):.2f} GB/s with {WAYS[OURS].checks}; {way} {_median(theirs, _gb):.2f} GB/s with checks: "
        f"{WAYS[way].checks}; CPU a frame of both processes {_median(ours, _cpu):.1f}, "
        f"{_median(theirs, _cpu):.1f} ms",
        peer=way,
        peer_value=1.0,
    )


def _latency(of: Seen) -> Measured:
    paced = of.paced[0]
    return Measured(
        paced.latency_ms(99),
        f"{_size(paced)} at {PACE_HZ:g} frames/s, mode latest, from the pixels before their checksum to the frame "
        f"checked in another process: p50 {paced.latency_ms(50):.1f} ms over {len(paced.sequences)} frames, "
        f"{paced.lost} skipped",
    )


def _lost(transfers: Iterable[Transfer]) -> Measured:
    """Those that did not come, or came twice, out of order or changed."""
    every = list(transfers)
    return Measured(
        sum(one.lost + one.wrong for one in every),
        f"of {sum(len(one.sent_ns) for one in every)} frames sent in mode every: lost, twice, out of order or changed, "
        "by sequence and xxh3",
    )


def _growth(soak: Transfer) -> Measured | NotMeasured:
    growth = soak.growth_pct
    if growth is None:
        return NotMeasured("this system does not tell the memory of a process in /proc")
    ends = " and ".join(f"{one[-1] / 2**20:.0f}" for one in (soak.source_resident, soak.sink_resident))
    return Measured(
        growth,
        f"least resident memory of the last quarter against the one before, {len(soak.sent_ns)} {_size(soak)} in new "
        f"memory each, of the process that grew more; source and sink end at {ends} MiB",
    )


def _table(seen: Mapping[str, Seen], plan: Plan, memcpy: float) -> Table:
    large, small = (f"{side[0]} x {side[1]} x {side[2]}" for side in (plan.shape, plan.small_shape))
    table = Table(title=f"two processes, TCP loopback, {os.cpu_count()} cores; medians of {plan.rounds} rounds")
    headings = (
        "way",
        f"frames/s\n{large}",
        "GB/s",
        f"p50, p99 ms\nat {PACE_HZ:g}/s",
        "CPU ms a frame\nsource, sink",
        f"frames/s\n{small}",
        "skipped",
        "checks",
    )
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("way", "checks") else "right", no_wrap=True)
    for way, of in seen.items():
        source, sink = (statistics.median(one.cpu_ms()[end] for one in of.large) for end in (0, 1))
        table.add_row(
            way,
            f"{_median(of.large, _fps):.0f}",
            f"{_median(of.large, _gb):.2f}",
            f"{of.paced[0].latency_ms(50):.1f}, {of.paced[0].latency_ms(99):.1f}",
            f"{source:.1f}, {sink:.1f}",
            f"{_median(of.small, _fps):.0f}",
            f"{sum(one.lost for one in of.large)} of {sum(len(one.sent_ns) for one in of.large)}",
            WAYS[way].checks,
        )
    table.add_row("memcpy, one process", "", f"{memcpy:.2f}", "", "", "", "", "")
    return table


def _size(transfer: Transfer) -> str:
    segments, height, width = transfer.job.shape
    return f"frames of {segments} x {height} x {width} uint16 ({transfer.job.frame_bytes / 2**20:.3g} MiB)"


def _median(transfers: Iterable[Transfer], figure: Callable[[Transfer], float]) -> float:
    return statistics.median(map(figure, transfers))


def _fastest(transfers: Iterable[Transfer]) -> float:
    return max(map(_fps, transfers))


def _fps(transfer: Transfer) -> float:
    return transfer.frames_per_s


def _gb(transfer: Transfer) -> float:
    return transfer.gb_per_s


def _cpu(transfer: Transfer) -> float:
    return sum(transfer.cpu_ms())
