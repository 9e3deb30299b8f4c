from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metacalo.showers import Grid
from metacalo.simulate.job import Job, Shot
from metacalo.simulate.mesh_deposits import along, on_mesh

JOB = Job("barrel", 800.0, 4000.0, (), {}, 9, 16, 45, 10.0, 5.0, "e-", "G4EmStandardPhysics", 0.7)
GRID = Grid()


def in_frame(shot: Shot, r: float, phi: float, z: float) -> np.ndarray:
    """The place of mesh coordinates, worked out by rotation matrices around z and y."""
    turn = np.array(
        [[math.cos(shot.phi), -math.sin(shot.phi), 0], [math.sin(shot.phi), math.cos(shot.phi), 0], [0, 0, 1]]
    )
    tilt = np.array(
        [[math.cos(shot.theta), 0, math.sin(shot.theta)], [0, 1, 0], [-math.sin(shot.theta), 0, math.cos(shot.theta)]]
    )
    local = np.array([r * math.cos(phi), r * math.sin(phi), z])
    entrance = np.array([0, 0, JOB.inner_radius_mm / math.sin(shot.theta)])
    return turn @ tilt @ (local + entrance)


ANGLES = st.tuples(st.floats(0.5, 2.6), st.floats(0.0, 6.28))


@given(ANGLES, st.integers(0, 8), st.integers(0, 15), st.integers(0, 44))
def test_the_middle_of_a_cell_is_scored_in_that_cell(angles, ring, sector, layer):
    shot = Shot(0, 1000.0, *angles, 1)
    place = in_frame(shot, (ring + 0.5) * JOB.dr_mm, GRID.phi_centres[sector], (layer + 0.5) * JOB.dz_mm)
    cells = on_mesh(JOB, shot, np.array([3.0]), place[None]).reshape(GRID.shape)
    assert cells[ring, sector, layer] == 3.0
    assert cells.sum() == 3.0


@given(ANGLES)
def test_the_axes_are_a_rotation_that_ends_in_the_direction(angles):
    axes = along(Shot(0, 1000.0, *angles, 1))
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(axes) == pytest.approx(1)
    np.testing.assert_allclose(axes[2] @ [0, 0, 1], math.cos(angles[0]), atol=1e-12)
    assert math.atan2(axes[2][1], axes[2][0]) % (2 * math.pi) == pytest.approx(angles[1])


def test_what_lies_outside_the_mesh_is_left_out():
    shot = Shot(0, 1000.0, math.pi / 2, 0.0, 1)
    outside = [in_frame(shot, r, 0.1, z) for r, z in ((91.0, 5.0), (5.0, -0.1), (5.0, 225.1))]
    assert on_mesh(JOB, shot, np.ones(3), np.array(outside)).sum() == 0
