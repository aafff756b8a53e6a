"""The figures of heights as they come, as readings that recipes may wait for and hold: of live frames only."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping

from acquisition.clock import Instant
from acquisition.devices import Reading
from acquisition.frames import FrameHeader, ResultHeader

PREFIX = "figures."
MEASURED: Mapping[str, str] = {
    "step_velocity_m_per_s": "of steps along their normals, downhill positive",
    "step_velocity_error_m_per_s": "its standard error",
    "step_density_per_m": "length of steps over area",
    "spirals": "how many spiral cores are in view",
    "drift_x_m": "how far the specimen crept to the right since the first frame of this view",
    "drift_y_m": "how far it crept down",
}
"""What a worker with `inference.metrology` tells where it is determined; a recipe may name it before it was read."""

REMEMBERED_FRAMES = 256


class LiveFigures:
    """A figure is as old as its frame, however long its height took; one that a height does not tell grows old.

    Heights that come late, of another run, or of replayed frames change nothing. `begin` and `exposed` are called by
    the run, `take` by the stream's thread.
    """

    def __init__(self) -> None:
        self._exposed: OrderedDict[tuple[str, int], Instant] = OrderedDict()
        self._latest: dict[str, Reading] = {}

    def begin(self) -> None:
        """Another run: what was measured before says nothing of it."""
        self._exposed, self._latest = OrderedDict(), {}

    def exposed(self, frame: FrameHeader) -> None:
        """A frame was taken."""
        if "replayed" in frame.flags:
            return
        self._exposed[frame.key] = Instant(frame.monotonic_ns, frame.utc_ns)
        while len(self._exposed) > REMEMBERED_FRAMES:
            self._exposed.popitem(last=False)

    def take(self, header: ResultHeader) -> None:
        """A height that was kept."""
        at = self._exposed.get(header.key)
        if at is not None:
            self.put(header.figures, at)

    def put(self, figures: Mapping[str, float], at: Instant) -> None:
        """What was so `at` that time; values that are no numbers are left out."""
        latest = self._latest
        for name, value in figures.items():
            channel = f"{PREFIX}{name}"
            before = latest.get(channel)
            if math.isfinite(value) and (before is None or at.seconds_since(before.instant) > 0):
                latest[channel] = Reading(value, True, at)

    def latest(self) -> dict[str, Reading]:
        """The newest reading of every figure, named `figures.…` as in the trends."""
        return dict(self._latest)
