"""Wulff polyhedra with known faces, and in-plane directions of shapes with known sides at three doses of noise."""

from __future__ import annotations

import numpy as np
import pytest
from test_facets import NOISES_PX, mesa

from acquisition.errors import BadInput
from inference.metrology.crystal import load_crystal
from inference.metrology.directions import in_plane_directions
from inference.metrology.height_map import HeightMap
from inference.metrology.wulff import wulff_picture, wulff_polyhedron

CU2O = load_crystal("cu2o")


def test_ratios_make_a_cube_a_rhombic_dodecahedron_and_an_octahedron() -> None:
    cube = wulff_polyhedron(CU2O, {"110": 3.0, "111": 3.0})
    assert len(cube.faces) == 6 and cube.shares == pytest.approx({"{100}": 1.0, "{110}": 0.0, "{111}": 0.0})
    assert all(face.area == pytest.approx(4.0) for face in cube.faces)
    rhombic = wulff_polyhedron(CU2O, {"100": 3.0, "110": 1.0, "111": 3.0})
    assert len(rhombic.faces) == 12 and {len(face.corners) for face in rhombic.faces} == {4}
    octahedron = wulff_polyhedron(CU2O, {"100": 3.0, "110": 3.0, "111": 1.0})
    assert len(octahedron.faces) == 8 and {len(face.corners) for face in octahedron.faces} == {3}


def test_faces_of_the_default_crystal_close_a_body() -> None:
    shape = wulff_polyhedron(CU2O)
    normals = np.array([np.array(face.hkl) / np.linalg.norm(face.hkl) * face.area for face in shape.faces])
    np.testing.assert_allclose(normals.sum(axis=0), 0.0, atol=1e-6)
    assert sum(shape.shares.values()) == pytest.approx(1.0)
    corners = {tuple(np.round(corner, 6)) for face in shape.faces for corner in face.corners}
    edges = sum(len(face.corners) for face in shape.faces) // 2
    assert len(corners) - edges + len(shape.faces) == 2  # Euler


def test_the_picture_is_turned_with_the_crystal() -> None:
    shape = wulff_polyhedron(CU2O, {"110": 3.0, "111": 3.0})
    straight = np.asarray(wulff_picture(shape))
    quarter = np.asarray(wulff_picture(shape, np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])))
    eighth = np.asarray(wulff_picture(shape, np.array([[0.7071, -0.7071, 0], [0.7071, 0.7071, 0], [0, 0, 1.0]])))
    assert np.abs(straight.astype(int) - quarter).mean() < 2 < 8 < np.abs(straight.astype(int) - eighth).mean()


def test_wrong_ratios_are_told() -> None:
    with pytest.raises(BadInput, match="above 0"):
        wulff_polyhedron(CU2O, {"110": -1.0})
    with pytest.raises(BadInput, match="no family"):
        wulff_polyhedron(CU2O, {"311": 1.0})


@pytest.mark.parametrize("noise_px", NOISES_PX)
@pytest.mark.parametrize(("sides", "angle_deg"), [(4, 90.0), (8, 135.0)])
def test_sides_meet_at_the_angles_of_their_polygon(sides: int, angle_deg: float, noise_px: float) -> None:
    found = in_plane_directions(mesa(sides, 35.0, 20.0, noise_px), smoothing_px=2.0)
    assert len(found.directions) == len(found.meetings) == sides
    for one in found.meetings:
        assert one.angle_deg == pytest.approx(angle_deg, abs=0.3 + 4 * one.sigma_deg)
        assert one.sigma_deg < 1.0
    assert sum(found.histogram) == pytest.approx(1.0)
    assert any(abs(one.azimuth_deg - 20.0) < 0.5 for one in found.directions)


def test_a_flat_map_has_no_directions() -> None:
    with pytest.raises(BadInput, match="steeper"):
        in_plane_directions(HeightMap(np.zeros((40, 40)), 1e-9, 1e-9))
