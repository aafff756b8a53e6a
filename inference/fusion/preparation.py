"""Compiles fusion for this machine in a process of its own: half a minute once, during which heights go on."""

from __future__ import annotations

import logging
import subprocess
import sys

import numpy as np
from numpy.typing import NDArray

from acquisition.frames import Optics
from acquisition.instrument import four_quadrant
from inference.calibration import calibrate

log = logging.getLogger(__name__)

PATIENCE_S = 5.0
SIZE_PX = 96


class Preparation:
    """Begun when first asked for. Where fusion was compiled before, that is a matter of two seconds."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def is_done(self) -> bool:
        """Whether fusion will start without a pause. The first call waits for it, up to `PATIENCE_S`."""
        if self._process is None:
            self._process = subprocess.Popen([sys.executable, "-m", "inference.fusion.preparation"])
            try:
                self._process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                log.warning("fusion is being compiled for this machine, once; until then each height is of one frame")
        return self._process.poll() is not None

    def close(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()


def prepare() -> None:
    """Fuse frames that drift by part of a pixel, so that every kernel is compiled and kept on disk.

    They are read-only, as frames of the stream are: numba compiles for that anew.
    """
    # The worker that begins this process needs none of the kernels, nor their compiler.
    from inference.fusion.estimator import Fusion
    from inference.fusion.resampling import resample

    instrument = four_quadrant()
    scan = instrument.scan
    optics = Optics(scan.pixel_size_m, 8e-3, 1e4, 1e-6, scan.scan_rotation_deg, instrument.calibration_hash)
    fusion = Fusion(4)
    for number in range(3):
        images = _frame(0.4 * number)
        fusion.add(images, calibrate(instrument, images), optics)
    # Heights are moved as the frames are.
    resample(np.zeros((1, SIZE_PX, SIZE_PX), np.float32), (0.2, 0.2))


def _frame(shift_px: float) -> NDArray[np.uint16]:
    """(4, H, W): waves of many lengths and directions under shot noise."""
    rng = np.random.default_rng(1)
    row, column = np.mgrid[:SIZE_PX, :SIZE_PX] + shift_px
    waves = rng.uniform(-1.0, 1.0, (24, 3))
    relief = sum(np.sin(down * row + across * column + 3.0 * phase) for down, across, phase in waves)
    electrons = 400.0 + 20.0 * np.asarray(relief)
    counts = 200.0 + 8.0 * np.random.default_rng(round(100 * shift_px)).poisson(electrons, (4, SIZE_PX, SIZE_PX))
    images: NDArray[np.uint16] = counts.astype(np.uint16)
    images.flags.writeable = False
    return images


if __name__ == "__main__":
    prepare()
