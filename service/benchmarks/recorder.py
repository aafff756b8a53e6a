"""The recorder on the disk that runs go to: against the same bytes written plainly, and killed while it writes."""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from acquisition.errors import EclipsError
from acquisition.frames import Frame
from acquisition.recording import RecordedRun, repair
from acquisition.recording.disk import check_disk_space
from service.benchmarks import recorder_peers
from service.benchmarks.measured import Measured, Report, tell_progress
from service.benchmarks.programs import Program
from service.benchmarks.recorder_peers import KEEPERS, OURS, PICTURES, RAW, Written, stamped, write_all
from service.settings import load_settings

KILLED_WITHIN_S = 0.6


@dataclass(frozen=True, slots=True)
class Plan:
    """Each way writes `frames` in each of `rounds`, one way after the other; `kills` recorders are killed."""

    shape: tuple[int, int, int]
    rounds: int
    frames: int
    kills: int


QUICK = Plan((4, 1024, 1024), 4, 24, 3)
FULL = Plan((4, 1024, 1024), 8, 48, 8)


@dataclass(frozen=True, slots=True)
class Killed:
    """What killed recorders had acknowledged, and how much of it could not be read back as it was."""

    acknowledged: int
    lost: int


def measure(quick: bool, plan: Plan | None = None) -> Report:
    """Rows of [recorder], in a new folder beside the runs folder. Raises `RequestRefused` without room there."""
    plan = plan or (QUICK if quick else FULL)
    beside = _existing(load_settings().runs_folder)
    check_disk_space(beside, plan.shape, plan.frames)
    written: dict[str, list[Written]] = {name: [] for name in KEEPERS}
    frames = stamped(plan.shape, plan.frames)
    with tempfile.TemporaryDirectory(prefix="eclips-bench-", dir=beside) as folder:
        for number in range(plan.rounds):
            tell_progress(f"round {number + 1} of {plan.rounds}: {', '.join(KEEPERS)}")
            # What was written before leaves memory and disk in some state for the next: each comes after each other.
            turns = random.Random(number).sample(list(written), len(written))
            for name in turns:
                with tempfile.TemporaryDirectory(dir=folder) as empty:
                    written[name].append(write_all(name, Path(empty), frames))
        tell_progress(f"{plan.kills} recorders killed while they write")
        killed = [_kill(Path(folder) / f"killed-{number}", frames, number) for number in range(plan.kills)]
        disk = _filesystem(Path(folder))
    rows = {"throughput_vs_raw_file": _ratio(written, plan, disk), "lost_acknowledged_frames": _lost(killed, disk)}
    return Report(rows, table=_table(written, plan, disk))


def _ratio(written: Mapping[str, Sequence[Written]], plan: Plan, disk: str) -> Measured:
    ours, raw = written[OURS], written[RAW]
    return Measured(
        _median(ours, _mb) / _median(raw, _mb),
        f"{plan.frames} frames of {_mib(ours[0]):.3g} MiB on {disk}, medians of {plan.rounds} rounds: "
        f"{_median(ours, _mb):.0f} MB/s against {_median(raw, _mb):.0f} of the bytes alone in one file (fastest "
        f"{max(map(_mb, ours)):.0f} and {max(map(_mb, raw)):.0f}), both with the same fdatasync policy and the last "
        "one in the time; ours writes TIFF pages, a journal line a frame and the manifest besides; CPU a frame "
        f"{_median(ours, lambda one: one.cpu_ms):.1f} and {_median(raw, lambda one: one.cpu_ms):.1f} ms",
        peer=RAW,
        peer_value=1.0,
    )


def _lost(killed: Sequence[Killed], disk: str) -> Measured:
    return Measured(
        sum(one.lost for one in killed),
        f"of {sum(one.acknowledged for one in killed)} acknowledged by {len(killed)} recorders, each ended by kill -9 "
        f"while it wrote on {disk}, after `eclips repair`: not there, or with another checksum than was recorded (a "
        "power cut is not tested)",
    )


def _kill(folder: Path, frames: Sequence[Frame], number: int) -> Killed:
    """Record in another program, kill it at a moment drawn from `number`, and read back what it had acknowledged."""
    chance = random.Random(number)
    with Program(recorder_peers.__name__) as program:
        program.tell({"folder": str(folder), "shape": frames[0].header.shape})
        last = int(program.hear())
        time.sleep(chance.uniform(0.0, KILLED_WITHIN_S))
        program.kill()
        last = max([last, *map(int, program.rest())])
    repair(folder)
    run = RecordedRun(folder)
    lost = sum(not _is_there(run, sequence, frames[sequence % PICTURES]) for sequence in range(last + 1))
    return Killed(last + 1, lost)


def _is_there(run: RecordedRun, sequence: int, expected: Frame) -> bool:
    try:
        return run.read_frame(sequence).header.xxh3 == expected.header.xxh3
    except EclipsError:
        return False


def _table(written: Mapping[str, Sequence[Written]], plan: Plan, disk: str) -> Table:
    size = " x ".join(map(str, plan.shape))
    table = Table(title=f"{plan.frames} frames of {size} uint16 on {disk}; medians of {plan.rounds} rounds")
    for heading in ("way", "frames/s", "MB/s", "fastest", "p50, p99 ms\nof one write", "CPU ms\na frame", "the disk"):
        table.add_column(heading, justify="left" if heading in ("way", "the disk") else "right", no_wrap=True)
    for name, kept in written.items():
        table.add_row(
            name,
            f"{_median(kept, lambda one: one.frames_per_s):.1f}",
            f"{_median(kept, _mb):.0f}",
            f"{max(map(_mb, kept)):.0f}",
            f"{_median(kept, lambda one: one.write_ms(50)):.1f}, {_median(kept, lambda one: one.write_ms(99)):.1f}",
            f"{_median(kept, lambda one: one.cpu_ms):.1f}",
            KEEPERS[name][1],
        )
    return table


def _mb(written: Written) -> float:
    return written.mb_per_s


def _mib(written: Written) -> float:
    return written.nbytes / len(written.writes_s) / 2**20


def _median(written: Iterable[Written], figure: Callable[[Written], float]) -> float:
    return statistics.median(map(figure, written))


def _existing(folder: Path) -> Path:
    """The folder that `folder` lies in, or the nearest one above that exists."""
    return next(path for path in folder.absolute().parents if path.is_dir())


def _filesystem(folder: Path) -> str:
    """Its kind, where the system tells; memory is called what it is."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return f"the disk of {folder.parent}"
    above = {str(path) for path in (folder, *folder.parents)}
    kinds = [(len(point), kind) for point, kind in mounts if point in above]
    kind = max(kinds, default=(0, "unknown"))[1]
    return f"{kind}, which is memory and no disk" if kind in ("tmpfs", "ramfs") else kind
