"""Recording exposures that no live run delivers: imported images, offline simulations."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from acquisition.errors import BadInput
from acquisition.frames import Exposure, JoinedValue, RunFinished, RunStarted
from acquisition.instrument import Instrument
from acquisition.recording.disk import check_disk_space
from acquisition.recording.manifest import replace_path
from acquisition.recording.writer import Recorder
from acquisition.stamping import stamp

State = Callable[[], Mapping[str, JoinedValue]]


async def record_offline(
    folder: Path,
    run: RunStarted,
    instrument: Instrument,
    exposures: AsyncIterator[Exposure],
    progress: Callable[[int], None],
    state: State = dict,
    *,
    simulated: bool,
) -> int:
    """Record `exposures` as the run `folder`, which must not exist; it appears only when all are in.

    Returns the number of frames. Raises `BadInput` when `folder` exists already.
    """
    if folder.exists():
        raise BadInput(f"{folder} exists already: choose another name for --out, or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    check_disk_space(folder.parent, run.shape, run.expected_frames, with_truth=simulated)
    unfinished = folder.with_name(folder.name + ".unfinished")
    if unfinished.exists():
        raise BadInput(f"{unfinished} is left from an earlier try: `eclips repair` it and rename it, or remove it")
    recorder = Recorder(unfinished, run, instrument, lambda _: None, simulated=simulated)
    frames = 0
    try:
        async for exposure in exposures:
            recorder.write_frame(stamp(run, frames, exposure, state()), exposure.truth_m)
            frames += 1
            progress(frames)
        recorder.finish_frames(
            RunFinished(
                run.run_id,
                run.source,
                frames,
                run.monotonic_ns,
                run.utc_ns,
                frames,
                frames - 1,
                "all taken",
                recorder.digest,
            )
        )
    except BaseException as error:
        recorder.close("incomplete", f"it was not finished: {error or type(error).__name__}")
        raise
    recorder.close("incomplete", "heights are still to be made: `eclips reprocess`")
    replace_path(unfinished, folder)
    return frames
