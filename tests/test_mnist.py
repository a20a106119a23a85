"""MNIST without a network: a stand-in for OpenML at scikit-learn's border, and families trained on what it gives."""

from __future__ import annotations

import csv
from dataclasses import replace
from urllib.error import URLError

import numpy as np
import pytest
import sklearn.datasets
import torch
from typer.testing import CliRunner

from lecture_lib import cli, zoo
from lecture_lib.data import digits
from lecture_lib.data import mnist as fetch_mnist
from lecture_lib.errors import DamagedFileError, UnknownNameError, UnreachableError
from lecture_lib.metrics import Judge, frechet_distance
from lecture_lib.zoo import mnist as room
from lecture_lib.zoo import store
from lecture_lib.zoo.families_exact import FFJORD, REALNVP
from lecture_lib.zoo.families_flow import FLOW_MATCHING, RECTIFIED
from lecture_lib.zoo.families_latent import VAE_DIGITS
from lecture_lib.zoo.families_patches import CLIPS, PICTURES
from lecture_lib.zoo.library import features, judge, keep
from lecture_lib.zoo.pictures import DIGITS, Pictures
from lecture_lib.zoo.recipe import trained
from lecture_lib.zoo.recipes import FEATURES, RECIPES
from lecture_lib.zoo.workshop import initial, train

MODULE = __import__("sys").modules["lecture_lib.data.mnist"]  # the package holds the function of that name
TRAIN, TEST = 300, 100


@pytest.fixture(autouse=True)
def fresh():
    """What one stand-in gave must not outlive it."""
    for cached in (MODULE._mnist, judge):
        cached.cache_clear()
    yield
    for cached in (MODULE._mnist, judge):
        cached.cache_clear()


@pytest.fixture
def openml(monkeypatch):
    """Digits of the course as 28x28 pixels in 0..255; counts every fetch."""
    source, asked = digits(), []
    levels = (8 * (source.images[: TRAIN + TEST, 0] + 1)).round()
    wide = (levels * 255 / 16).round().repeat_interleave(4, 1).repeat_interleave(4, 2)
    pixels = wide[:, 2:30, 2:30].reshape(len(wide), 784).double().numpy()
    labels = source.labels[: TRAIN + TEST]

    def fetch(name, **options):
        asked.append((name, options))
        return pixels, np.array([str(int(label)) for label in labels], dtype=object)

    counts = {"train": labels[:TRAIN], "test": labels[TRAIN:]}
    monkeypatch.setattr(MODULE, "COUNTS", {k: tuple(v.bincount(minlength=10).tolist()) for k, v in counts.items()})
    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetch)
    return pixels, labels, asked


def unreachable(*args, **options):
    raise URLError("[Errno -2] Name or service not known")


def test_the_official_split_pooled_by_hand(openml):
    pixels, labels, asked = openml
    train, test = fetch_mnist("train"), fetch_mnist("test")
    padded = np.zeros((TRAIN + TEST, 32, 32))
    padded[:, 2:30, 2:30] = pixels.reshape(-1, 28, 28)
    means = np.array(
        [[padded[:, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].mean((1, 2)) for j in range(8)] for i in range(8)]
    )
    expected = torch.from_numpy(np.round(means.transpose(2, 0, 1) / 255 * 16) / 8 - 1).float()[:, None]
    assert torch.equal(torch.cat([train.images, test.images]), expected)
    assert torch.equal(train.labels, labels[:TRAIN]) and torch.equal(test.labels, labels[TRAIN:])
    assert train.images.shape == (TRAIN, 1, 8, 8) and train.images.dtype == torch.float32
    assert train.images.min() == -1 and train.images.max() == 1  # 0 and 255
    inner = train.images[:, :, 1:-1, 1:-1]  # the stand-in cuts half of the border's pixels off
    assert torch.equal(inner, digits().images[:TRAIN, :, 1:-1, 1:-1])
    assert [name for name, _ in asked] == ["mnist_784"] and asked[0][1]["version"] == 1  # once for both splits
    train.images.zero_()
    assert fetch_mnist("train").images.std() > 0.5  # its user cannot spoil it


def test_its_official_counts_are_those_of_the_files():
    assert [sum(counts) for counts in MODULE.COUNTS.values()] == [60_000, 10_000]


def test_what_is_no_mnist_is_refused(openml, monkeypatch):
    with pytest.raises(UnknownNameError, match="validation"):
        fetch_mnist("validation")
    shifted = {**MODULE.COUNTS, "test": tuple(reversed(MODULE.COUNTS["test"]))}
    monkeypatch.setattr(MODULE, "COUNTS", shifted)
    with pytest.raises(DamagedFileError, match="classes"):
        fetch_mnist()


@pytest.mark.parametrize("failure", [URLError("no route to host"), TimeoutError("timed out"), ConnectionResetError()])
def test_without_a_network_it_says_what_to_do_and_writes_nothing(monkeypatch, tmp_path, capsys, failure):
    def fetch(*args, **options):
        raise failure

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetch)
    with pytest.raises(UnreachableError, match=r"connect to a network.*openml/") as error:
        fetch_mnist()
    assert error.value.__cause__ is failure
    monkeypatch.setattr("sys.argv", ["course", "mnist", str(tmp_path / "runs")])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2 and "mnist: got no answer" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def tiny(recipe, steps=3):
    return replace(recipe, steps=steps, batch_size=16, warmup=1)


@pytest.fixture
def small_run(openml, monkeypatch):
    """Six families, three updates each, measured on a few digits."""
    flow = tiny(FLOW_MATCHING)
    chosen = (tiny(VAE_DIGITS), tiny(REALNVP), flow, replace(tiny(RECTIFIED), teacher=flow), tiny(PICTURES), CLIPS)
    monkeypatch.setattr(room, "FAMILIES", chosen)
    monkeypatch.setattr(room, "FEATURES", tiny(FEATURES, 150))
    few = lambda folder: Pictures("mnist", fetch_mnist, drawn=40, scored=20, shown=200, folder=folder)  # noqa: E731
    monkeypatch.setattr(room, "mnist_pictures", few)
    return few


def test_one_command_trains_all_of_them_and_measures_them(small_run, tmp_path):
    before = (store.WEIGHTS / "manifest.json").read_bytes()
    done = CliRunner().invoke(cli.app, ["mnist", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0
    with (tmp_path / "families.csv").open() as file:
        found = {row["what"]: float(row["value"]) for row in csv.DictReader(file)}
    assert (tmp_path / "families.png").stat().st_size > 10_000
    for name in ("vae", "realnvp", "flow-matching", "rectified-flow"):
        assert np.isfinite(found[f"mnist-{name} | Frechet distance to test digits"])
        assert found[f"mnist-{name} | precision, 20 of each"] <= 1
    bits = [what for what in found if what.startswith("mnist-realnvp | bits")]
    assert bits == ["mnist-realnvp | bits per dimension of test digits, lower bound"]
    assert found["mnist-jepa | effective rank of the features"] >= 1
    # Measured by its own judge and its own features, on its own pictures.
    data = small_run(tmp_path / "weights")
    own = Judge(*(tensor[:200] for tensor in (fetch_mnist().images, fetch_mnist().labels)))
    missed = 1 - own.accuracy(fetch_mnist("test").images, fetch_mnist("test").labels)
    assert found["real digits (training against test) | share that the judge misreads"] == pytest.approx(missed)
    apart = frechet_distance(data.train(40).images, data.test().images, features(data).features)
    assert found["real digits (training against test) | Frechet distance to test digits"] == pytest.approx(
        apart, rel=1e-4
    )
    with torch.no_grad():
        ours, theirs = (network(fetch_mnist().images) for network in (features(data), zoo.load("digits-features")))
    assert (ours - theirs).abs().max() > 1
    # The second flow was made from the first one of the same folder, and the clips stayed where they are.
    teacher, reflow = (trained(r) for r in room.mnist_recipes(data)[1][2:4])
    assert all(torch.equal(a, b) for a, b in zip(teacher.denoiser.parameters(), reflow.first.parameters(), strict=True))
    assert set(store.manifest(data.folder)) == {
        *(f"mnist-{n}" for n in ("features", "vae", "realnvp", "flow-matching", "rectified-flow", "jepa"))
    }
    assert (store.WEIGHTS / "manifest.json").read_bytes() == before


def test_the_command_goes_on_where_it_was(small_run, tmp_path, monkeypatch):
    _, families = room.mnist_recipes(small_run(tmp_path / "weights"))
    for _ in train(families[0], tmp_path / "whole"):
        pass
    stopped = train(families[0], tmp_path, save_every=1)
    next(stopped), next(stopped), stopped.close()
    monkeypatch.setattr(room, "FAMILIES", (tiny(VAE_DIGITS),))
    made = []

    def counted(recipe, directory, **options):
        for step in train(recipe, directory, **options):
            made.append(f"{recipe.name} {step.number}")
            yield step

    monkeypatch.setattr(zoo, "train", counted)
    for _ in range(2):  # at the second time, all is done
        CliRunner().invoke(cli.app, ["mnist", str(tmp_path)], catch_exceptions=False)
    assert [update for update in made if "vae" in update] == ["mnist-vae 3"]  # the first two had been saved
    keep(families[0], tmp_path / "whole" / "mnist-vae.ckpt", folder=tmp_path / "whole")
    whole, parts = (store.read("mnist-vae", folder)[0] for folder in (tmp_path / "whole", tmp_path / "weights"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_normalisations_start_from_the_pictures_of_the_recipe(openml):
    data = Pictures("mnist", fetch_mnist, drawn=40, scored=20, shown=200)
    dark = Pictures(
        "dark", lambda split: replace(fetch_mnist(split), images=fetch_mnist(split).images / 4 - 0.75), 40, 20, 200
    )
    ours, theirs, darker = (initial(FFJORD.on(d)).center for d in (DIGITS, data, dark))
    assert (ours - theirs).abs().max() > 1e-3 and torch.allclose(darker, theirs / 4 - 0.75, atol=0.05)
    first, second = (initial(REALNVP.on(d)).layers[1].shift for d in (data, dark))
    assert (first - second).abs().max() > 0.5


def test_recipes_of_the_zoo_are_described_as_they_were():
    assert not any("data" in recipe.describe() for recipe in RECIPES.values())
    other = VAE_DIGITS.on(Pictures("mnist", fetch_mnist, 40, 20, 200))
    assert other.describe() == VAE_DIGITS.describe() | {"name": "mnist-vae", "data": "mnist"}
    assert FEATURES.on(DIGITS) == FEATURES


def test_all_families_of_pictures_are_there():
    _, recipes = room.mnist_recipes(room.mnist_pictures(None))
    names = [recipe.name for recipe in recipes]
    assert len(set(names)) == 29 and "mnist-vjepa" not in names and all(n.startswith("mnist-") for n in names)
    assert names.index("mnist-flow-matching") < names.index("mnist-rectified-flow")


def test_scored_pictures_are_spread_over_the_test_split():
    test = DIGITS.test(100)
    assert len(test) == 100 and torch.equal(test.images, digits("test").images[:300:3])
    assert torch.equal(DIGITS.test().images, digits("test").images) and len(DIGITS.train(7)) == 7
