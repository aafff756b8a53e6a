"""Heights along a line of a map whose heights are known."""

from __future__ import annotations

import numpy as np
import pytest

from service.routes.profiles import along

Y, X = np.mgrid[:20, :30].astype(np.float32)


@pytest.mark.parametrize("width_px", [1, 2, 5])
@pytest.mark.parametrize("end_px", [(25.0, 10.0), (5.0, 16.0), (20.0, 15.0), (2.5, 4.0)])
def test_a_plane_is_a_straight_line_in_any_direction_and_width(end_px: tuple[float, float], width_px: int) -> None:
    found = along(2 * X + 3 * Y, (5.0, 5.0), end_px, width_px)
    np.testing.assert_allclose(found, np.linspace(25.0, 2 * end_px[0] + 3 * end_px[1], len(found)), rtol=1e-5)


def test_width_averages_across_the_line_and_not_along_it() -> None:
    comb = np.where(Y == 10, 3.0, 0.0).astype(np.float32)
    np.testing.assert_allclose(along(comb, (5.0, 10.0), (15.0, 10.0), 1), np.full(11, 3.0))
    np.testing.assert_allclose(along(comb, (5.0, 10.0), (15.0, 10.0), 3), np.full(11, 1.0))
    assert along(comb, (5.0, 5.0), (5.0, 15.0), 3).tolist() == [0] * 5 + [3] + [0] * 5
