"""Students outside Python: the exported file says what the library says, for every label and for any batch."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from lecture_lib import zoo
from lecture_lib.core import EDM, VELOCITY, Denoiser, RectifiedFlow, edm, quarter_log_noise, unit_input
from lecture_lib.distill import ConsistencyFunction
from lecture_lib.errors import MissingPackageError, RangeError, ShapeError
from lecture_lib.zoo.export import OneStepGenerator, OnnxGenerator, to_int8, to_onnx
from lecture_lib.zoo.models import digit_dit

NAME = "digits-dit-distilled"


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(n, seed=0):
    return torch.randn(n, 1, 8, 8, generator=seeded(seed))


def jump(model, x, cond):
    """The library's own way to the same picture: the consistency function at the noisy end."""
    with torch.no_grad():
        return ConsistencyFunction(model, cond)(x, torch.full((len(x),), model.path.t_max, dtype=torch.float64))


def small(path=None, parameterization=VELOCITY, **options):
    """A tiny label-conditional denoiser with weights that say something."""
    network = digit_dit(dim=16, depth=1, heads=2, ratio=2.0)
    for p in network.parameters():
        nn.init.normal_(p, std=0.15, generator=seeded(1))
    null = torch.tensor(10)
    return Denoiser(network, path or RectifiedFlow(), parameterization, null=null, **options).eval()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The model that hears w, exported once: in float32 and in int8."""
    folder = tmp_path_factory.mktemp("exported")
    file = to_onnx(OneStepGenerator(zoo.load(NAME)).eval(), (1, 8, 8), folder / "model.onnx")
    return file, to_int8(file, folder / "model-int8.onnx")


@pytest.mark.parametrize("kind", ["flow", "edm"])
def test_the_generator_is_the_jump_from_noise_to_data(kind):
    edm_options = {"network_time": quarter_log_noise, "input_scale": unit_input(0.5)}
    model = small() if kind == "flow" else small(EDM(), edm(0.5), **edm_options)
    labels = torch.arange(11)
    x = noise(11) * (1 if kind == "flow" else 80)
    expected = jump(model, x, labels)
    assert (expected - x).abs().max() > 0.1
    with torch.no_grad():
        assert torch.allclose(OneStepGenerator(model)(x, labels), expected, rtol=1e-5, atol=1e-4)
    with pytest.raises(ShapeError, match=r"got the inputs noise, label, w, expected noise, label$"):
        OneStepGenerator(model)(x, labels, torch.ones(11))


@pytest.mark.parametrize("n", [1, 7, 64])
def test_onnx_says_what_pytorch_says(files, n):
    """The bar is 1e-4; float32 rounding of four blocks gives 1e-5."""
    run, model = OnnxGenerator(files[0]), zoo.load(NAME)
    labels, w = torch.arange(n) % 11, torch.linspace(0, 6, n)
    got = run(noise(n), labels, w)
    assert (got - jump(model, noise(n), {"label": labels, "w": w})).abs().max() < 1e-4
    assert not torch.equal(got, run(noise(n), labels, w + 1)) and not torch.equal(got, run(noise(n), labels * 0 + 3, w))


def test_a_model_without_w_is_exported_without_it(tmp_path):
    model = small()
    run = OnnxGenerator(to_onnx(OneStepGenerator(model), (1, 8, 8), tmp_path / "label.onnx"))
    assert run.inputs == ("noise", "label")
    labels = torch.arange(11)
    assert (run(noise(11), labels) - jump(model, noise(11), labels)).abs().max() < 1e-4
    with pytest.raises(ShapeError, match=r"got the inputs noise, label, w, expected noise, label$"):
        run(noise(2), labels[:2], torch.ones(2))


def test_int8_is_small_and_close(files):
    """Close as pictures go: a few hundredths of a grey value in [-1, 1], and never equal."""
    exact, rough = (OnnxGenerator(file) for file in files)
    given = noise(200, 3), torch.arange(200) % 10, torch.full((200,), 1.5)
    error = (rough(*given) - exact(*given)).square().mean().sqrt()
    assert 1e-4 < error < 0.05
    assert files[1].stat().st_size < 0.4 * files[0].stat().st_size


def test_wrong_input_is_named(files):
    with pytest.raises(ShapeError, match="expected noise, label, w"):
        OnnxGenerator(files[0])(noise(2), torch.arange(2))
    with pytest.raises(RangeError, match="threads"):
        OnnxGenerator(files[0], threads=0)
    with pytest.raises(ShapeError, match="expected a label"):
        OneStepGenerator(Denoiser(nn.Identity(), RectifiedFlow(), VELOCITY))
    with pytest.raises(ShapeError, match="expected a label"):
        OneStepGenerator(Denoiser(nn.Identity(), RectifiedFlow(), VELOCITY, null={"tokens": torch.zeros(3)}))


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=rf"{package} is needed.*lecture-lib\[lab\]"):
        if package == "onnxruntime":
            OnnxGenerator(tmp_path / "model.onnx")
        else:
            to_onnx(OneStepGenerator(small()), (1, 8, 8), tmp_path / "model.onnx")


def test_labels_outside_a_graph_are_still_checked():
    """The check of labels stands aside only while a graph is made."""
    with pytest.raises(RangeError, match="labels must lie in"):
        OneStepGenerator(small())(noise(2), torch.tensor([3, 11]))
