"""The zoo's figures, measured anew: generated digits against real ones, several seeds, bars beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from lecture_lib.core import Denoiser, Path, RectifiedFlow, rebase, uniform_grid
from lecture_lib.data import LabelledImages, digits
from lecture_lib.guidance import fused, linear
from lecture_lib.metrics import fidelity_diversity, frechet_distance, frechet_infinity
from lecture_lib.samplers import DPMSolverPP2M, Heun, Sampler, last, sample
from lecture_lib.tensors import check_count
from lecture_lib.zoo import evaluate_control, evaluate_lcm, evaluate_masked, evaluate_shapes
from lecture_lib.zoo.evaluate_families import family_rows
from lecture_lib.zoo.evaluate_patches import transfusion_rows
from lecture_lib.zoo.evaluate_plane import plane_rows
from lecture_lib.zoo.evaluate_students import CHUNK, SETS, student_rows
from lecture_lib.zoo.library import (
    judge,
    lcm_lora_text_to_image,
    lcm_text_to_image,
    load,
    masked_text_to_image,
    names,
    recipe,
    text_to_image,
    transformer_text_to_image,
)
from lecture_lib.zoo.row import Row
from lecture_lib.zoo.shapes_text import shapes_tokenizer

# name: (largest Frechet distance over that of train against test, least judge accuracy at w = 1.5)
BARS = {"digits-dit": (1.05, 0.99), "digits-dit-eps": (1.15, 0.99), "digits-dit-v": (1.15, 0.99)}
SHAPES_BARS = {
    "shapes-kl-f4": {"psnr": 32.0, "read": 0.97},
    "shapes-vq": {"psnr": 30.0, "read": 0.95},
    "shapes-maskgit": {"one thing": 0.80},
    "shapes-text-to-image": {"one thing": 0.92, "held-out pairs": 0.85, "two things": 0.70},
    "shapes-lcm": {"all captions": 0.95},  # of its teacher's rate
}
PLAIN = "w = 1, 32 DPMSolverPP2M steps"
DRAWS = 20  # of training digits with replacement, beside the pools of a model


def evaluate(models: Iterable[str] | None = None, *, seeds: Iterable[int] = (0, 1, 2)) -> Iterator[Row]:
    """Rows of measured figures, model by model, each yielded as soon as it is known.

    At w = 1 denoisers are judged by what DPM-Solver++(2M) draws in 32 steps: it adds no noise of its own, its NFE are
    its steps, and it works on every path; at w = 1.5 by what Heun draws on the straight path, whichever they learned.
    A seed gives one pool of ``SETS`` sets; each set has the size and the labels of the training split. Denoisers
    without a bar get one pool, the others one per seed. Distances are to the test split, in the features of
    ``digits-features``. Up to 100 s per pool on one core.

    Args:
        models: names; default all.
        seeds: seeds of the initial noise.

    Raises:
        UnknownNameError, DamagedFileError: as in ``load``.
        RangeError: no seeds.
    """
    measure = {
        "denoiser": _denoiser,
        "distilled": _distilled,
        "few-step student": student_rows,
        "noise-aware classifier": _classifier,
        "features": _features,
        "autoencoder": _autoencoder,
        "contrastive pair": _contrastive,
        "language model": _language,
        "latent denoiser": _text_to_image,
        "token autoencoder": _tokens,
        "masked image model": _masked,
        "control branch": _control,
        "latent consistency model": _latent_consistency,
        "latent consistency adapter": _latent_consistency,
        "student on the ring": plane_rows,
        "family": family_rows,
        "words and pictures": transfusion_rows,
    }
    seeds = tuple(seeds)
    check_count("seeds", len(seeds))
    for name in names() if models is None else models:
        yield from measure[recipe(name).kind](name, seeds)


def summary(rows: Iterable[Row]) -> dict[str, str]:
    """Rows of one model as text, measure by measure: what ``embed`` puts into their weights."""
    return {row.measure: row.figure for row in rows}


def guided_digits(
    model: Denoiser,
    labels: Tensor,
    w: float,
    steps: int,
    *,
    sampler: Sampler | None = None,
    path: Path | None = None,
    generator: torch.Generator,
) -> Float[Tensor, " n 1 8 8"]:
    """Digits of the given labels from a denoiser with label dropout, equal steps, in chunks.

    Defaults: Heun, on the model's own path.
    """
    return torch.cat([_guided(model, part, w, steps, sampler, path, generator) for part in labels.split(CHUNK)])


@torch.inference_mode()
def _guided(model, labels, w, steps, sampler, path, generator):
    denoise = model.given(labels) if w == 1 else fused(model, None, labels, linear(w))
    path = model.path if path is None else path
    if path != model.path:
        denoise = rebase(denoise, model.path, path)
    noise = torch.randn(len(labels), 1, 8, 8, generator=generator)
    return last(sample(denoise, path, sampler or Heun(), uniform_grid(path, steps), noise, generator=generator))


def _repeated(seeds: tuple[int, ...], make: Callable[[torch.Generator], Tensor]) -> list[Tensor]:
    return [make(torch.Generator().manual_seed(seed)) for seed in seeds]


def _denoiser(name: str, seeds: tuple[int, ...]) -> Iterator[Row]:
    """Frechet distances, fidelity and diversity, and the judge's verdict with and without guidance."""
    model, train = load(name), digits("train")
    many = train.labels.repeat(SETS)
    pools = _repeated(
        seeds if name in BARS else seeds[:1],
        lambda g: guided_digits(model, many, 1.0, 32, sampler=DPMSolverPP2M(), generator=g),
    )
    sets = [part for pool in pools for part in pool.split(len(train))]
    yield from _frechet(name, pools, sets)
    if name in BARS:
        yield from _memoriser(name, SETS)
    yield from _fidelity(name, sets)
    yield Row(name, f"judge accuracy, {PLAIN}", tuple(judge().accuracy(x, many) for x in pools))
    # All on the straight path: there Heun finds the finite slope at t = 0 that it wants, and only the models differ.
    straight = RectifiedFlow()
    guided = _repeated(seeds, lambda g: guided_digits(model, train.labels, 1.5, 8, path=straight, generator=g))
    accuracy = tuple(judge().accuracy(x, train.labels) for x in guided)
    yield Row(name, "judge accuracy, w = 1.5, 8 Heun steps", accuracy, _bar(name, 1))


def _frechet(name: str, pools: list[Tensor], sets: list[Tensor]) -> Iterator[Row]:
    """Distance to the test digits, then the same as a multiple of what the training digits score as they stand.

    The distance is biased upwards for few samples. A model is a distribution, so it is measured on a whole pool, where
    that bias is small; what is left is scatter from pool to pool. The training digits are the fixed set that it was to
    learn: drawing those and nothing else would score 1. Below 1 is not "better than real digits": as draws from all
    handwriting, 1442 of them carry the bias themselves. The last two rows show it: the ratio that a pool tends to as
    it grows, and that of sets as small as the training split.
    """
    train, test, features = digits("train").images, digits("test").images, load("digits-features").features

    def distance(x: Tensor) -> float:
        return frechet_distance(x, test, features)

    real, fakes = distance(train), tuple(distance(pool) for pool in pools)
    yield Row(name, f"Frechet distance, {PLAIN}", fakes)
    measure, ratios = f"... over train against test ({real:.3f}), n = {len(pools[0])}", tuple(x / real for x in fakes)
    yield Row(name, measure, ratios, _bar(name, 0), at_least=False)
    limits = tuple(frechet_infinity(pool, test, features, parts=SETS) / real for pool in pools)
    yield Row(name, "... the same, extrapolated to n = infinity", limits, _bar(name, 0), at_least=False)
    yield Row(name, f"... the same, n = {len(sets[0])}", tuple(distance(x) / real for x in sets))


def _memoriser(name: str, sets: int) -> Iterator[Row]:
    """The same for ``sets`` times the training digits, drawn with replacement class by class, as pools are.

    It is what a model that knows just these would score. The mean is what the bar can ask at this n, the spread how far
    one pool may be off. For infinitely many the ratio is 1 by construction: the last row shows how well that is met.
    """
    train, test, features = digits("train"), digits("test").images, load("digits-features").features
    members = [train.of(label) for label in range(10)]
    real, ratios, limits = frechet_distance(train.images, test, features), [], []
    for seed in range(DRAWS):
        generator = torch.Generator().manual_seed(seed)
        redrawn = torch.cat([x[_places(len(x), generator)] for _ in range(sets) for x in members])
        ratios.append(frechet_distance(redrawn, test, features) / real)
        limits.append(frechet_infinity(redrawn, test, features, parts=sets) / real)
    yield Row(name, f"... of training digits redrawn, n = {sets * len(train)}", tuple(ratios))
    yield Row(name, "... of them, extrapolated to n = infinity", tuple(limits))


def _places(n: int, generator: torch.Generator) -> Tensor:
    return torch.randint(n, (n,), generator=generator)


def _bar(name: str, which: int) -> float | None:
    return BARS[name][which] if name in BARS else None


def _fidelity(name: str, sets: list[Tensor]) -> Iterator[Row]:
    """Precision and coverage, which depend on n: every set has the size of the training split."""
    features = load("digits-features").features
    test = features(digits("test").images)
    scores = [fidelity_diversity(test, features(x)) for x in sets]
    yield Row(name, "precision (k = 3), w = 1", tuple(s.precision for s in scores))
    yield Row(name, "coverage (k = 3), w = 1", tuple(s.coverage for s in scores))


def _distilled(name: str, seeds: tuple[int, ...]) -> Iterator[Row]:
    """How far one pass of the student is from two of its teacher, along the path, and the judge's verdict."""
    model, teacher, test, train = load(name), load(recipe(name).teacher.name), digits("test"), digits("train")
    for w in (1.0, 1.5, 3.0, 6.0):
        errors = tuple(_relative_error(model, teacher, test, w, seed) for seed in seeds)
        yield Row(name, f"relative error of the velocity, w = {w:g}", errors)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    images = [distilled_digits(model, train.labels, 1.5, 8, generator=g) for g in generators]
    yield Row(name, "judge accuracy, w = 1.5, 8 Heun steps", tuple(judge().accuracy(x, train.labels) for x in images))


@torch.inference_mode()
def distilled_digits(
    model: Denoiser, labels: Tensor, w: float, steps: int, *, generator: torch.Generator
) -> Float[Tensor, " n 1 8 8"]:
    """Digits from a guidance-distilled denoiser: one evaluation where guidance would need two."""
    cond = {"label": labels, "w": torch.full((len(labels),), float(w))}
    noise = torch.randn(len(labels), 1, 8, 8, generator=generator)
    return last(sample(model.given(cond), model.path, Heun(), uniform_grid(model.path, steps), noise))


@torch.inference_mode()
def _relative_error(model: Denoiser, teacher: Denoiser, test: LabelledImages, w: float, seed: int) -> float:
    generator = torch.Generator().manual_seed(seed)
    t = torch.rand(len(test), generator=generator, dtype=torch.float64)
    x_t = model.path.mix(test.images, torch.randn(test.images.shape, generator=generator), t)
    target = fused(teacher, None, test.labels, linear(w))(x_t, t).velocity
    got = model.given({"label": test.labels, "w": torch.full((len(test),), float(w))})(x_t, t).velocity
    return float((got - target).norm() / target.norm())


@torch.inference_mode()
def _classifier(name: str, seeds: tuple[int, ...]) -> Iterator[Row]:
    """Accuracy on noisy test images, from clean to almost nothing left."""
    model, test = load(name), digits("test")
    for t in (0.0, 0.25, 0.5, 0.75, 0.95):
        times = torch.full((len(test),), t, dtype=torch.float64)
        noisy = _repeated(
            seeds,
            lambda g, times=times: model.path.mix(test.images, torch.randn(test.images.shape, generator=g), times),
        )
        hits = tuple(float((model(x, times).argmax(dim=1) == test.labels).double().mean()) for x in noisy)
        yield Row(name, f"test accuracy at t = {t:g}", hits)


@torch.inference_mode()
def _features(name: str, seeds: tuple[int, ...]) -> Iterator[Row]:
    """Accuracy on clean test images, of the network and of the judge."""
    model, test = load(name), digits("test")
    accuracy = float((model(test.images).argmax(dim=1) == test.labels).double().mean())
    yield Row(name, "test accuracy", (accuracy,))
    yield Row(name, "test accuracy of the independent judge", (judge().accuracy(test.images, test.labels),))


def _autoencoder(name: str, seeds: tuple[int, ...]) -> Iterator[Row]:
    return evaluate_shapes.autoencoder_rows(name, load(name), SHAPES_BARS.get(name, {}), seeds)


def _contrastive(name: str, seeds: tuple[int, ...]) -> Iterator[Row]:
    return evaluate_shapes.contrastive_rows(name, load(name), shapes_tokenizer(), seeds)


def _language(name: str, seeds: tuple[int, ...]) -> Iterator[Row]:
    return evaluate_shapes.language_rows(name, load(name), seeds)


def _text_to_image(name: str, seeds: tuple[int, ...]) -> Iterator[Row]:
    model = {"shapes-text-to-image": text_to_image, "shapes-mmdit": transformer_text_to_image}[name]()
    return evaluate_shapes.text_to_image_rows(name, model, SHAPES_BARS.get(name, {}), seeds)


def _tokens(name: str, seeds: tuple[int, ...]) -> Iterator[Row]:
    return evaluate_masked.token_rows(name, load(name), SHAPES_BARS.get(name, {}), seeds)


def _masked(name: str, seeds: tuple[int, ...]) -> Iterator[Row]:
    return evaluate_masked.masked_rows(name, masked_text_to_image(), SHAPES_BARS.get(name, {}), seeds)


def _control(name: str, seeds: tuple[int, ...]) -> Iterator[Row]:
    return evaluate_control.control_rows(name, text_to_image(), load(name), SHAPES_BARS.get(name, {}), seeds)


def _latent_consistency(name: str, seeds: tuple[int, ...]) -> Iterator[Row]:
    model = {"shapes-lcm": lcm_text_to_image, "shapes-lcm-lora": lcm_lora_text_to_image}[name]()
    return evaluate_lcm.jump_rows(name, model, SHAPES_BARS.get(name, {}), seeds)
