"""The latent plane: every control matters; densities, axes and decoded digits are those of the model itself."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA
from torch import nn
from widget_laws import (
    every_value_has_its_picture,
    one_thread,  # noqa: F401 - a fixture
    the_picture_goes_out_with_the_widget,
)

from lecture_lib import widgets, zoo
from lecture_lib.data import digits
from lecture_lib.errors import RangeError
from lecture_lib.families import VAE, DiscretisedLogistic
from lecture_lib.nets import EventMLP
from lecture_lib.widgets import latent_plane as shown

LATENT = 6


def some(latent=LATENT, classes=10, seed=0):
    """A VAE with random weights whose last two latents are the prior: the encoder is blind there, the decoder deaf."""
    torch.manual_seed(seed)
    encoder = EventMLP((1, 8, 8), (2 * latent,), width=32, n_classes=classes)
    decoder = EventMLP((latent,), (1, 8, 8), width=32, n_classes=classes)
    for network, gain in ((encoder, 1.5), (decoder, 3.0)):
        for weight in network.parameters():  # what starts at zero, the ears for the label above all, must count
            if not weight.any():
                nn.init.normal_(weight, std=0.3)
        nn.init.normal_(network.leave.weight, std=gain / 32**0.5)
    with torch.no_grad():
        if latent > 2:
            for rows in (slice(latent - 2, latent), slice(2 * latent - 2, 2 * latent)):
                encoder.leave.weight[rows], encoder.leave.bias[rows] = 0.0, 0.0
            decoder.enter.weight[:, -2:] = 0.0
    return VAE(encoder, decoder, DiscretisedLogistic((1, 8, 8)), latent, n_classes=classes).eval()


MODELS = {"one": some(), "two": some(seed=1)}


def test_every_control_changes_the_picture_at_every_value():
    explorer = widgets.latent_plane_explorer(MODELS)
    assert not explorer.failed and explorer.caption and explorer.alt
    for argument in explorer.controls:
        every_value_has_its_picture(explorer, argument)


def test_the_same_settings_give_the_same_picture_and_the_picture_goes_out_with_the_widget(monkeypatch):
    the_picture_goes_out_with_the_widget(lambda: widgets.latent_plane_explorer(MODELS), monkeypatch)


def test_axes_are_the_principal_components_of_the_codes():
    codes, train = shown.Codes(MODELS["one"]), digits("train")
    with torch.no_grad():
        means = MODELS["one"].posterior(train.images, train.labels).mean.double().numpy()
    found = PCA(LATENT).fit(means)
    assert codes.spread.numpy() == pytest.approx(found.explained_variance_, rel=1e-6, abs=1e-9)
    overlap = np.abs((codes.axes.numpy()[:3] * found.components_[:3]).sum(1))
    assert overlap == pytest.approx(np.ones(3), abs=1e-6)
    assert (codes.axes @ codes.axes.T - torch.eye(LATENT)).abs().max() < 1e-12
    assert codes.planes() == {shown.FIRST: (0, 1), shown.SECOND: (2, 3), shown.LAST: (4, 5)}
    assert shown.Codes(some(2)).planes() == {shown.FIRST: (0, 1)}


def test_the_aggregate_posterior_is_the_mean_of_the_projected_gaussians():
    """By scipy, digit by digit, at five places; and its integral over a wider lattice is 1."""
    codes, a = shown.Codes(MODELS["one"]), None
    a = codes.axes[:2].numpy()
    kept = (codes.labels == 4).numpy()
    means, variances = codes.means.numpy()[kept], codes.variances.numpy()[kept]
    density = codes.density((0, 1), 4)
    for row, column in ((33, 33), (10, 40), (50, 20), (30, 5), (60, 60)):
        place = [float(shown._LATTICE[column]), float(shown._LATTICE[row])]  # rows go with the second axis
        parts = [
            multivariate_normal(a @ m, a @ np.diag(v) @ a.T).pdf(place) for m, v in zip(means, variances, strict=True)
        ]
        assert float(density[row, column]) == pytest.approx(np.mean(parts), rel=1e-9)


def test_unused_axes_have_the_prior_as_aggregate_posterior_and_change_nothing():
    codes = shown.Codes(MODELS["one"])
    density = codes.density((4, 5), 3)
    r2 = shown._LATTICE[:, None] ** 2 + shown._LATTICE**2
    prior = (-r2 / 2).exp() / (2 * np.pi)
    assert codes.spread[4:].max() < 1e-12
    # The encoder's bias for these latents is zero, so that q = N(0, 1) there.
    assert (density - prior).abs().max() < 1e-6
    tiles = codes.decoded((4, 5), 3)
    assert (tiles - tiles[:1]).abs().max() < 1e-5 < (codes.decoded((0, 1), 3) - tiles[:1]).abs().max()


def test_the_map_and_the_point_are_what_the_decoder_says():
    """Cell (row 0, last column) is (u, v) = (3, 3); the middle one is the origin."""
    model, codes = MODELS["one"], shown.Codes(MODELS["one"])
    tiles = codes.decoded((0, 1), 7)
    corner = 3 * (codes.axes[0] + codes.axes[1]).float()[None]
    with torch.no_grad():
        expected = model.decode(corner, torch.tensor([7])).clamp(-1, 1)
        middle = model.decode(torch.zeros(1, LATENT), torch.tensor([7])).clamp(-1, 1)
    assert (tiles[shown.CELLS - 1] - expected[0]).abs().max() < 1e-5
    assert (tiles[shown.CELLS**2 // 2] - middle[0]).abs().max() < 1e-5
    painted = shown._tiles(tiles, shown.CELLS, 2)
    assert painted.shape == (90, 90) and np.allclose(painted[1:9, 81:89], expected[0, 0], atol=1e-5)


def test_the_note_tells_the_distance_to_the_nearest_code_and_what_the_judge_reads():
    explorer = widgets.latent_plane_explorer(MODELS).set(label=7, u=1.5, v=-1.0)
    codes = shown.Codes(MODELS["one"])
    place = torch.tensor([1.5, -1.0], dtype=torch.float64)
    near = min(float((row - place).norm()) for row in codes.means[codes.labels == 7] @ codes.axes[:2].T)
    told = re.search(r"is (\S+) prior .* plane (\S+) from the nearest of (\d+)", explorer.note).groups()
    assert [float(v) for v in told] == pytest.approx([3.25**0.5, near, int((codes.labels == 7).sum())], abs=0.006)
    z = (1.5 * codes.axes[0] - codes.axes[1]).float()[None]
    with torch.no_grad():
        read = zoo.judge().predict(MODELS["one"].decode(z, torch.tensor([7])).clamp(-1, 1))
    assert explorer.note.endswith(f"reads this digit as {int(read)}.")


def test_a_model_without_labels_and_one_with_two_latents_are_shown_too():
    explorer = widgets.latent_plane_explorer({"plain": some(2, classes=0), "wide": some()})
    assert not explorer.failed and explorer.controls["plane"].options == (shown.FIRST,)
    with pytest.raises(RangeError, match="too few latents"):
        shown.Spaces({"plain": some(2)}).scene("plain", shown.LAST, 3, 0.0, 0.0)
