"""What every detector refuses alike: a set-up amid its scan, a raster beyond its limits, and frames unless armed."""

from __future__ import annotations

from acquisition.devices import Limits, ScanRequest
from acquisition.errors import RequestRefused

PIXEL_SIZE_M = Limits(1e-10, 1e-4, "the detector's range")
"""From below what any probe resolves to fields wider than any microscope's; what its optics cannot give they settle
nearby, and tell."""


def require_set_up_possible(name: str, scan: ScanRequest, size_limits: Limits, *, scanning: bool) -> None:
    """Raise `RequestRefused` while scanning, and `LimitExceeded` for width, height or pixel size."""
    if scanning:
        raise RequestRefused(f"{name} is scanning; stop it before configuring", permitted=("stop",))
    size_limits.check(scan.width_px, f"{name} width_px")
    size_limits.check(scan.height_px, f"{name} height_px")
    if scan.pixel_size_m is not None:
        PIXEL_SIZE_M.check(scan.pixel_size_m, f"{name} pixel_size_m")


def require_frames_possible(name: str, *, armed: bool, scanning: bool) -> None:
    """Raise `RequestRefused` unless armed, or while another iterator scans."""
    if scanning:
        raise RequestRefused(f"{name} is scanning already", permitted=("stop",))
    if not armed:
        raise RequestRefused(f"{name} is not armed", permitted=("arm",))
