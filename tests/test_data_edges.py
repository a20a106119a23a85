"""Edges: scipy's Sobel filter, a ramp by hand, and that they show form and no colour."""

from __future__ import annotations

import pytest
import torch
from scipy.ndimage import sobel as scipy_sobel

from lecture_lib.data.shapes import COLOURS, Scene, Scenes, Thing, draw, draw_scenes, edges, sobel
from lecture_lib.errors import NonFiniteError, RangeError, ShapeError


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(2, 3, 9, 13), (1, 1, 1, 5)])
def test_sobel_is_that_of_scipy(shape):
    x = torch.randn(shape, generator=seeded(), dtype=torch.float64)
    for axis, slopes in zip((1, 0), sobel(x), strict=True):
        for plane, slope in zip(x.flatten(0, 1), slopes.flatten(0, 1), strict=True):
            theirs = torch.from_numpy(scipy_sobel(plane.numpy(), axis=axis, mode="nearest"))
            assert (slope - theirs / 8).abs().max() <= 1e-14


def test_a_ramp_has_its_slope():
    x = (3 * torch.arange(6.0) + 7 * torch.arange(5.0)[:, None]).expand(1, 2, 5, 6)
    dx, dy = sobel(x)
    assert torch.allclose(dx[..., 1:-1, 1:-1], torch.tensor(3.0)) and torch.allclose(
        dy[..., 1:-1, 1:-1], torch.tensor(7.0)
    )


def test_the_change_is_measured_over_channels_and_directions():
    """Slopes (3, 0), (0, 4) in two channels make 5 together."""
    ramps = torch.stack([3 * torch.arange(5.0).expand(5, 5), 4 * torch.arange(5.0)[:, None].expand(5, 5)])[None]
    assert edges(ramps, 4.99)[..., 2, 2].item() == 1 and edges(ramps, 5.01)[..., 2, 2].item() == 0


def test_edges_show_the_form_and_no_colour():
    """A square has a frame: nothing inside, nothing far outside, the same in every colour."""
    frames = []
    for colour in COLOURS:
        image = draw(Scenes.of([Scene((Thing("square", colour, "large", (16.0, 16.0)),))]))
        frames.append(edges(image)[0, 0])
    assert all(torch.equal(frame, frames[0]) for frame in frames)
    frame = frames[0]
    assert frame[11:21, 11:21].sum() == 0 and frame[:7].sum() == 0 and frame[:, 26:].sum() == 0
    assert frame[9, 10:22].all() and frame[10:22, 22].all()


def test_edges_are_two_valued_and_of_every_thing():
    scenes = draw_scenes(200, seeded(1), two=0.0)
    found = edges(draw(scenes))
    assert found.shape == (200, 1, 32, 32) and set(found.unique().tolist()) == {0.0, 1.0}
    assert found.sum((1, 2, 3)).min() >= 20


def test_errors():
    with pytest.raises(ShapeError, match="images"):
        edges(torch.zeros(2, 3, 4, 4, dtype=torch.long))
    with pytest.raises(NonFiniteError, match="images"):
        edges(torch.full((2, 3, 4, 4), float("nan")))
    with pytest.raises(RangeError, match="threshold"):
        edges(torch.zeros(2, 3, 4, 4), -1.0)
