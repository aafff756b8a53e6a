"""Faces and orientations of crystals that were turned by a known rotation."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from acquisition.errors import BadInput
from inference.metrology.crystal import angles_between, load_crystal, name_facets, top_facet
from inference.metrology.facets import Facet
from inference.metrology.orientation import fit_orientation

CU2O = load_crystal("cu2o")
NOISES_DEG = (0.1, 0.5, 1.5)


def facet(number: int, normal: np.ndarray, sigma_deg: float = 0.1, area_m2: float = 1e-14) -> Facet:
    inclination = math.degrees(math.acos(normal[2]))
    azimuth = math.degrees(math.atan2(normal[1], normal[0])) % 360
    centre = (0.0, 0.0)
    return Facet(
        number, number, inclination, sigma_deg, azimuth, sigma_deg, area_m2, 0.0, 100, centre, normal, sigma_deg
    )


def facets_of(hkls: list[tuple[int, int, int]], turn: Rotation, noise_deg: float = 0.0, seed: int = 1) -> list[Facet]:
    rng, found = np.random.default_rng(seed), []
    for number, hkl in enumerate(hkls, 1):
        bent = Rotation.from_rotvec(np.radians(noise_deg) * rng.normal(size=3))
        normal = (bent * turn).apply(np.array(hkl) / math.hypot(*hkl))
        found.append(facet(number, normal, max(noise_deg, 0.1)))
    return found


def test_the_papers_angles_are_in_the_table() -> None:
    cube, rhombic, octahedral = (CU2O.family(hkl) for hkl in ("100", "110", "111"))
    assert angles_between(cube, rhombic) == [45.0]
    assert angles_between(cube, octahedral) == pytest.approx([54.7356], abs=1e-3)
    assert angles_between(rhombic, octahedral)[0] == pytest.approx(35.2644, abs=1e-3)
    assert [len(family.members()) for family in CU2O.families] == [6, 12, 8]


def test_sides_of_a_flat_topped_crystal_are_named_from_its_top() -> None:
    tilted = Rotation.from_euler("xyz", [4, -3, 25], degrees=True)
    found = facets_of([(0, 0, 1), (1, 0, 1), (0, -1, 1), (1, 1, 1)], tilted)
    named = name_facets(found, found[0], CU2O, "100")
    assert [one.family for one in named] == ["{110}", "{110}", "{111}"]
    assert named[0].external_deg == pytest.approx(135.0) and named[0].expected_deg == 45.0


@pytest.mark.parametrize(("inclination_deg", "sigma_deg"), [(30.0, 0.1), (50.0, 3.0)])
def test_an_angle_of_none_or_of_two_families_is_undetermined(inclination_deg: float, sigma_deg: float) -> None:
    tilt = math.radians(inclination_deg)
    side = facet(2, np.array([math.sin(tilt), 0.0, math.cos(tilt)]), sigma_deg)
    (named,) = name_facets([side], facet(1, np.array([0.0, 0.0, 1.0])), CU2O, "100")
    assert named.family == "undetermined" and len(named.candidates) in (0, 2)


@pytest.mark.parametrize("noise_deg", NOISES_DEG)
def test_the_orientation_is_found_from_a_cut_cube_however_it_is_turned(noise_deg: float) -> None:
    hkls = [(0, 0, 1), (1, 0, 1), (-1, 0, 1), (0, 1, 1), (0, -1, 1), (1, 1, 1)]
    for seed in range(3):
        turn = Rotation.from_euler(
            "zyx", np.random.default_rng(seed).uniform([-180, -8, -8], [180, 8, 8]), degrees=True
        )
        found = fit_orientation(facets_of(hkls, turn, noise_deg, seed), CU2O)
        assert found.determined and found.none < 0.01
        best = found.candidates[0]
        off = (Rotation.from_matrix(best.matrix).inv() * turn * Rotation.create_group("O")).magnitude().min()
        assert math.degrees(off) < 0.2 + 1.5 * noise_deg < 0.2 + 5 * best.sigma_deg.max()
        assert {tuple(sorted(map(abs, hkl))) for hkl in best.faces if hkl} == {(0, 0, 1), (0, 1, 1), (1, 1, 1)}


def test_two_ways_to_see_the_same_three_facets_are_undetermined() -> None:
    """{100} between two {110}, or {110} between two {100}."""
    found = fit_orientation(facets_of([(0, 0, 1), (1, 0, 1), (-1, 0, 1)], Rotation.identity()), CU2O)
    assert not found.determined and len(found.candidates) > 1
    assert sum(one.probability for one in found.candidates) + found.none == pytest.approx(1.0)
    known = fit_orientation(
        facets := facets_of([(0, 0, 1), (1, 0, 1), (-1, 0, 1)], Rotation.identity()), CU2O, facets[0], "100"
    )
    assert known.determined


def test_facets_of_no_crystal_are_none() -> None:
    normals = [
        Rotation.from_euler("zy", [azimuth, tilt], degrees=True).apply([0, 0, 1])
        for azimuth, tilt in ((0, 0), (10, 23), (100, 17), (170, 28), (290, 12))
    ]
    found = fit_orientation([facet(n, normal) for n, normal in enumerate(normals, 1)], CU2O)
    assert not found.determined and found.none > 0.5


def test_a_stray_facet_is_told_from_faces() -> None:
    hkls = [(0, 0, 1), (1, 0, 1), (-1, 0, 1), (0, 1, 1), (0, -1, 1)]
    found = facets_of(hkls, Rotation.identity())
    tilt = math.radians(20)
    stray = facet(6, np.array([math.sin(tilt) * 0.8, math.sin(tilt) * 0.6, math.cos(tilt)]), area_m2=1e-16)
    best = fit_orientation([*found, stray], CU2O).candidates[0]
    assert best.faces[-1] is None and None not in best.faces[:-1]


def test_fewer_than_three_directions_are_refused() -> None:
    with pytest.raises(BadInput, match="at least 3"):
        fit_orientation(facets_of([(0, 0, 1), (1, 0, 1)], Rotation.identity()), CU2O)


def test_a_table_of_ones_own_is_read_and_a_wrong_one_told(tmp_path: Path) -> None:
    table = tmp_path / "mine.toml"
    table.write_text('[nio]\nname = "NiO"\nfamilies = [{ hkl = [1, 0, 0], ratio = 1.0 }]\n', encoding="utf-8")
    assert load_crystal("NiO", table).families[0].told == "{100}"
    with pytest.raises(BadInput, match="known: nio"):
        load_crystal("cu2o", table)
    table.write_text("[nio]\nfamilies = 3\n", encoding="utf-8")
    with pytest.raises(BadInput, match="no table of crystals"):
        load_crystal("nio", table)
    with pytest.raises(BadInput, match="known: 100, 110, 111"):
        CU2O.family("311")


def test_the_top_is_the_largest_level_facet() -> None:
    level, steep = facet(1, np.array([0.0, 0.0, 1.0])), facet(2, np.array([0.8, 0.0, 0.6]), area_m2=1.0)
    assert top_facet([steep, level]) is level
    with pytest.raises(BadInput, match="level"):
        top_facet([steep])
