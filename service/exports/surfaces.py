"""A height map as a surface of triangles, for 3D programs and printers.

Rows of an image run down, and heights towards the reader: that is a left-handed system. Programs for surfaces have a
right-handed one, so y is the negative row; otherwise each spiral would turn the other way.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.exports.heights import Heights, check_room
from service.tasks import Progress

STL_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def stl(heights: Heights, out: Path, report: Progress) -> None:
    """Binary STL in micrometres, from the middle of the first pixel; normals point up."""
    rows, columns = heights.shape
    check_room(out, STL_TRIANGLE.itemsize * 2 * rows * columns)
    points, corners = _points_um(heights), _triangles(rows, columns)
    triangles = np.zeros(len(corners), STL_TRIANGLE)
    triangles["corners"] = points[corners]
    a, b, c = (points[corners[:, corner]] for corner in range(3))
    normals = np.cross(b - a, c - a)
    triangles["normal"] = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    with out.open("wb") as file:
        file.write(f"height of frame {heights.numbers[0]}, micrometres".encode().ljust(80))
        file.write(np.uint32(len(triangles)).astype("<u4").tobytes())
        file.write(triangles.tobytes())
    report(1, 1)


def ply(heights: Heights, out: Path, report: Progress) -> None:
    """Binary PLY of double precision in micrometres, from the middle of the first pixel."""
    rows, columns = heights.shape
    check_room(out, (24 + 26) * rows * columns)
    points, corners = _points_um(heights), _triangles(rows, columns)
    faces = np.zeros(len(corners), np.dtype([("count", "u1"), ("corners", "<i4", 3)]))
    faces["count"], faces["corners"] = 3, corners
    heading = (
        "ply\nformat binary_little_endian 1.0\n"
        f"comment height of frame {heights.numbers[0]}, micrometres\n"
        f"element vertex {len(points)}\nproperty double x\nproperty double y\nproperty double z\n"
        f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    with out.open("wb") as file:
        file.write(heading.encode("ascii"))
        file.write(points.astype("<f8").tobytes())
        file.write(faces.tobytes())
    report(1, 1)


def _points_um(heights: Heights) -> NDArray[np.float64]:
    """(H * W, 3): x right, y up the image, z towards the reader."""
    height_m = next(iter(heights)).astype(np.float64)
    width_um = 1e6 * heights.pixels_m[0]
    row, column = np.mgrid[: height_m.shape[0], : height_m.shape[1]]
    return np.stack([column * width_um, -row * heights.aspect * width_um, 1e6 * height_m], axis=-1).reshape(-1, 3)


def _triangles(rows: int, columns: int) -> NDArray[np.int32]:
    """(2 * cells, 3) corners, anticlockwise as seen from above."""
    index = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
    a, b, c, d = (part.ravel() for part in (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]))
    return np.concatenate([np.column_stack([a, c, b]), np.column_stack([b, c, d])])
