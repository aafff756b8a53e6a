"""A recording of which every number is known, played again and recorded again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from acquisition.clock import Instant, SystemClock
from acquisition.frames import Exposure, Frame, JoinedValue, RunFinished, RunStarted
from acquisition.recording import RecordedRun
from acquisition.replay import ReplaySource
from acquisition.run import RunMachine
from acquisition.run_plan import Progress, RunPlan
from acquisition.stamping import REPLAY_CHANGES
from recordings import finish, frame, header_changes, new_recorder, truth_m

SECOND_NS = 10**9
TIMES_S = (1.0, 1.25, 1.5, 3601.5, 3601.75)
"""When the exposures of the usual recording ended: quick ones, and a pause of an hour."""


class Ports:
    """What a node would do for a run, written down."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.told: list[str] = []

    def join_state(self, start: Instant, end: Instant) -> Mapping[str, JoinedValue]:
        return {"stage.x_m": JoinedValue(99.0, True, 0.0)}

    def publish_start(self, run: RunStarted) -> None: ...

    def publish_frame(self, frame: Frame, run: RunStarted) -> None:
        self.frames.append(frame)

    def publish_finish(self, finished: RunFinished) -> None: ...

    def acknowledge(self, run_id: str, sequence: int) -> None: ...

    def tell(self, name: str, text: str, severity: str = "info", **details: Any) -> None:
        self.told.append(f"{name}: {text}")

    async def run_over(self, progress: Progress, reason: str, whole: bool) -> None:
        if progress.recorder is not None:
            progress.recorder.close("complete" if whole else "incomplete", reason)


def taken(sequence: int, end_s: float) -> Frame:
    """A frame with something of its own in every field of its header."""
    made = frame(sequence)
    header = replace(
        made.header,
        monotonic_ns=round(end_s * SECOND_NS),
        utc_ns=1_700_000_000 * SECOND_NS + sequence,
        exposure_start_ns=round((end_s - 0.25) * SECOND_NS),
        exposure_end_ns=round(end_s * SECOND_NS),
        hardware_time_ns=77 + sequence,
        optics=replace(made.header.optics, working_distance_m=8e-3 + 1e-6 * sequence),
        state={"stage.x_m": JoinedValue(1e-6 * sequence, True, 0.01), "gauge.pressure_pa": JoinedValue(None, False, 9)},
        flags=frozenset({"simulated"}),
    )
    return Frame(header, made.images)


def source_run(folder: Path, times_s: Sequence[float] = TIMES_S, without: Sequence[int] = ()) -> Path:
    recorder = new_recorder(folder)
    for sequence, end_s in enumerate(times_s):
        if sequence not in without:
            recorder.write_frame(taken(sequence, end_s), truth_m(sequence))
    finish(recorder)
    return folder


def damage(run: Path, *sequences: int) -> None:
    recorded = RecordedRun(run)
    for sequence in sequences:
        place = recorded.frames[sequence].place
        with (run / place.file).open("r+b") as file:
            file.seek(place.offsets[1])
            file.write(b"\xff\x00\xff")


async def record_again(run: Path, folder: Path, **options: Any) -> tuple[Path, Ports, RunMachine]:
    """Replay `run` through a run machine that records into `folder`, as a node does."""
    ports = Ports()
    machine = RunMachine(folder, SystemClock(), ports, low_space_bytes=0)
    source = ReplaySource(run, SystemClock(), tell=ports.tell, **{"speed": "max"} | options)
    started = await machine.start(RunPlan(source, "replay of run", source.scan, keep_truth=True, simulated=True))
    await machine.wait()
    return folder / started.run_id, ports, machine


async def played(source: ReplaySource, count: int | None = None) -> list[Exposure]:
    return [exposure async for exposure in source.exposures(count)]


def numbers(exposures: Sequence[Exposure]) -> list[int]:
    """The numbers that frames had in their recording."""
    return [exposure.recorded.sequence for exposure in exposures if exposure.recorded is not None]


def assert_same(again: Path, source: Path) -> None:
    """Frame by frame all is equal but what a replay says it changes."""
    one, two = RecordedRun(source), RecordedRun(again)
    assert two.sequences == list(range(len(one.frames)))
    for sequence, before in zip(two.sequences, one.sequences, strict=True):
        first, second = one.read_frame(before), two.read_frame(sequence)
        assert second.images.tobytes() == first.images.tobytes()
        assert header_changes(first.header, second.header) <= REPLAY_CHANGES
        assert second.header.flags == first.header.flags | {"replayed"}
        first_truth, second_truth = one.read_truth(before), two.read_truth(sequence)
        assert first_truth is not None and second_truth is not None
        assert second_truth.tobytes() == first_truth.tobytes()
    assert two.instrument == one.instrument
    assert (again / "instrument.toml").read_bytes() == (source / "instrument.toml").read_bytes()
    assert two.started().optics.calibration_hash == two.instrument.calibration_hash == one.instrument.calibration_hash
    assert (two.manifest.simulated, two.manifest.shape) == (one.manifest.simulated, one.manifest.shape)
    assert two.finished is not None and one.finished is not None
    assert two.finished.digest == one.finished.digest
