"""The operator page in a real browser: frames sent at a camera's pace, counted when they are drawn, with their age;
and the recorder while many watch."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from acquisition.errors import ComponentFailed
from service.benchmarks.chromium import Tab, chromium_program, opened
from service.benchmarks.measured import Measured, NotMeasured, Report, tell_progress
from service.benchmarks.page_lab import PACE_HZ, PATIENCE_S, SIZE_PX, come_to_rest, programs, sending
from service.benchmarks.page_watchers import watched_rows

SECONDS, QUICK_SECONDS, WARM_S = 600.0, 10.0, 8.0
HEAP_EVERY_S = 10.0
CONNECTS = 6
"""The page's link is told a moment before it answers; the waits between attempts double from half a second on."""
WIDTH_PX, HEIGHT_PX = 1280, 800

WATCH = """(() => {
  const seen = (window.seen = []), utc = new Map();
  let newest = null;
  window.WebSocket = class extends WebSocket {
    constructor(...what) {
      super(...what);
      if (this.url.endsWith("/live")) this.addEventListener("message", ({ data }) => {
        const length = new DataView(data).getUint32(0, true);
        newest = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length))).frame;
        utc.set(newest.sequence, newest.utc_ns / 1e6);
        utc.delete(newest.sequence - 100);
      });
    }
  };
  const now = () => performance.timeOrigin + performance.now();
  document.addEventListener("DOMContentLoaded", () => {
    const note = document.getElementById("height-note");
    new MutationObserver(() => {
      const number = Number(/frame (\\d+)/.exec(note.textContent)[1]);
      const came = utc.get(number) ?? newest.utc_ns / 1e6 - (newest.sequence - number) * PACE_MS;
      seen.push([now(), now() - came]);
    }).observe(note, { childList: true });
  });
})()""".replace("PACE_MS", f"{1e3 / PACE_HZ:g}")
"""The note of the height tells the frame's number; the panes made of the height are drawn in the same turn, and those
of the segments were drawn before. The time of a frame that was itself never sent is told by the camera's pace: that of
a result is when it was made, which would leave the reconstruction out."""


def measure(quick: bool, seconds: float | None) -> Report:
    """Rows of [page]; `seconds`: how long the page is watched, None for 10 min, 10 s when quick. Raises
    `ComponentFailed` when the programs or the browser do not start."""
    if chromium_program() is None:
        return Report({}, left_out="needs a browser: `apt install chromium`")
    seconds = seconds or (QUICK_SECONDS if quick else SECONDS)
    with tempfile.TemporaryDirectory(prefix="eclips-bench-") as folder, programs(Path(folder)) as running:
        base, key = running.link.split("/?key=")
        patient = httpx.HTTPTransport(retries=CONNECTS)
        head = {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=f"{base}/api/v1", headers=head, timeout=PATIENCE_S, transport=patient) as api:
            _start(api, record=False)
            with sending(running.pushing):
                tell_progress(f"{seconds:g} s of {PACE_HZ:g} frames/s, {SIZE_PX} x {SIZE_PX}, all panes")
                with opened(running.link, WATCH, WIDTH_PX, HEIGHT_PX) as tab:
                    drawn_ms, ages_ms, heaps_mb = _watch(tab, seconds)
                watched: dict[str, Measured | NotMeasured] = {}
                if not quick:
                    _start(api, record=True)
                    watched = watched_rows(running, api)
    if len(drawn_ms) < 2:
        raise ComponentFailed(f"the page drew {len(drawn_ms)} frames in {seconds:g} s")
    return Report(_rows(drawn_ms, ages_ms, heaps_mb) | watched)


def _start(api: httpx.Client, *, record: bool) -> None:
    come_to_rest(api)
    api.post("/run", json={"record": record, "name": "page"}).raise_for_status()


def _rows(drawn_ms: list[float], ages_ms: list[float], heaps_mb: list[float]) -> dict[str, Any]:
    frames, seconds = len(drawn_ms), (drawn_ms[-1] - drawn_ms[0]) / 1e3
    conditions = (
        f"{frames} of {seconds * PACE_HZ:.0f} frames sent in {seconds:.0f} s, {SIZE_PX} x {SIZE_PX}, all panes "
        f"at {WIDTH_PX} x {HEIGHT_PX} in headless Chromium without a GPU, heights made beside, "
        f"{os.cpu_count()} cores with a load of {os.getloadavg()[0]:.1f}"
    )
    age = "from the frame's arrival at the microscope's program until its height and every pane of it is drawn"
    shown = heaps_mb[:: max(1, len(heaps_mb) // 12)]
    heap = f"{seconds:.0f} s, after garbage collection: {', '.join(f'{heap:.0f}' for heap in shown)} MB"
    return {
        "fps_drawn": Measured((frames - 1) / seconds, conditions),
        "age_p50_ms": Measured(float(np.percentile(ages_ms, 50)), age),
        "age_p99_ms": Measured(float(np.percentile(ages_ms, 99)), age),
        "heap_growth_mb": Measured(heaps_mb[-1] - heaps_mb[0], heap),
    }


def _watch(tab: Tab, seconds: float) -> tuple[list[float], list[float], list[float]]:
    """When frames were drawn, how old they then were (ms), and the browser's heap over time (MB)."""
    tab.wait_for("window.seen.length > 3")
    tab.press("p")
    time.sleep(WARM_S)
    heaps_mb = list[float]()
    tab.evaluate("void (window.seen.length = 0)")
    began = time.monotonic()
    while (left_s := began + seconds - time.monotonic()) > 0:
        heaps_mb.append(tab.heap_mb())
        time.sleep(min(left_s, HEAP_EVERY_S))
    seen = tab.evaluate("window.seen")
    heaps_mb.append(tab.heap_mb())
    return [at for at, _ in seen], [age for _, age in seen], heaps_mb
