"""Inside the autoencoder: what f = 2, 4, 8 keep, what each latent channel holds, and what a wrong scale factor does."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache, partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lecture_lib import zoo
from lecture_lib.data.shapes import Captioned, captioned
from lecture_lib.errors import RangeError
from lecture_lib.families import LatentSpace, TextToImage, psnr
from lecture_lib.guidance import linear
from lecture_lib.viz import captioned_grid, stack
from lecture_lib.widgets.controls import choice, count, ladder, number
from lecture_lib.widgets.explorer import Explorer, Scene

SCENES = 32
SIDE = 32
SCALE, WIDTH = 4, 190  # every picture is 128 wide, its caption a little wider
LOUD = 0.5  # errors from here on are white
SPREAD = 3.0  # latents from -3 (black) to 3 (white)
FACTORS = (0.1, 0.2, 0.5, 0.8, 1.0, 1.25, 2.0, 5.0, 10.0)
STRENGTH, STEPS, W = 0.6, 10, 3.0  # of the picture that is half forgotten and painted again
EVERYWHERE, HERE = "everywhere", "at one place"


@cache
def scenes() -> Captioned:
    """The test scenes of the slider."""
    return captioned(SCENES, torch.Generator().manual_seed(0), split="test")


@cache
def zoo_spaces() -> dict[int, LatentSpace]:
    """The zoo's autoencoders by their factor f; latents scaled to variance 1 (f = 4: as the denoiser was trained)."""
    images = captioned(256, torch.Generator().manual_seed(1)).images
    fitted = {f: LatentSpace.fitted(zoo.load(f"shapes-kl-f{f}"), images) for f in (2, 8)}
    return dict(sorted((fitted | {4: zoo.text_to_image().space}).items()))


# What is done to a latent ---------------------------------------------------------------------------------------------


def edited(
    z: Float[Tensor, " 1 k h w"], channel: int, amount: float, place: tuple[int, int] | None = None
) -> Float[Tensor, " 1 k h w"]:
    """``amount`` added to one channel, everywhere or at one place (row, column); the latents have variance 1."""
    z = z.clone()
    rows, columns = (slice(None), slice(None)) if place is None else place
    z[:, channel, rows, columns] += amount
    return z


@torch.inference_mode()
def painted_again(model: TextToImage, i: int, factor: float) -> Float[Tensor, " 1 3 32 32"]:
    """Image to image with latents that are ``factor`` times too large for the denoiser, and divided by it at the end.

    Encoder and decoder make the same mistake, so without the sampler in between nobody would notice.
    """
    generator = torch.Generator().manual_seed(i)
    z = factor * model.space.encode(scenes().images[i : i + 1])
    t = torch.full((1,), STRENGTH * model.path.t_max, dtype=torch.float64)
    z_t = model.path.mix(z, torch.randn(z.shape, generator=generator), t)
    denoise = model.guided(scenes().captions[i], rule=linear(W))
    *_, final = model.frames(denoise, z_t, steps=round(STRENGTH * STEPS), start=STRENGTH)
    return model.space.decode(final.x / factor).clamp(-1, 1)


@torch.inference_mode()
def invented(model: TextToImage, i: int) -> Float[Tensor, " 1 k h w"]:
    """The latent of a new picture of the scene's caption."""
    generator = torch.Generator().manual_seed(i)
    noise = model.noise(1, generator)
    *_, final = model.frames(model.guided(scenes().captions[i], rule=linear(W)), noise, steps=STEPS)
    return final.x


class Samples:
    """What the denoiser makes of a scene; remembered, since it takes far longer than decoding."""

    def __init__(self, model: TextToImage) -> None:
        self.factor, self.space = model.space.autoencoder.factor, model.space
        self.again = lru_cache(maxsize=256)(partial(painted_again, model))
        self.latent = lru_cache(maxsize=64)(partial(invented, model))


# The picture ----------------------------------------------------------------------------------------------------------


def _shades(values: Float[Tensor, " n h w"], white: float) -> Float[Tensor, " n 3 32 32"]:
    """Maps in grey, each number a square: -white is black, white is white."""
    grown = F.interpolate((values / white).clamp(-1, 1)[:, None], size=(SIDE, SIDE), mode="nearest")
    return grown.expand(-1, 3, -1, -1)


def _difference(a: Tensor, b: Tensor) -> Float[Tensor, " 1 3 32 32"]:
    """Mean absolute difference over the colours; black is none, white ``LOUD`` or more."""
    return _shades(2 * (a - b).abs().mean(1).clamp(0, LOUD) - LOUD, LOUD)


@torch.inference_mode()
def latent_scene(
    spaces: Mapping[int, LatentSpace],
    samples: Samples,
    scene: int,
    f: int,
    channel: int,
    amount: float,
    where: str,
    across: int,
    down: int,
    factor: float,
) -> Scene:
    """Twelve pictures: the way there and back, the latent channels, and two interventions.

    Raises:
        RangeError: the latents have no such channel.
    """
    space, x = spaces[f], scenes().images[scene : scene + 1]
    z = space.encode(x)
    if channel > z.shape[1]:
        raise RangeError(f"channel: got {channel}, expected at most {z.shape[1]}")
    place = None if where == EVERYWHERE else (down // f, across // f)
    z_new = edited(z, channel - 1, amount, place)
    back, changed, wrong = (space.decode(v).clamp(-1, 1) for v in (z, z_new, factor * z))
    top = [x, back, _difference(x, back), changed]
    words = [
        "test scene",
        f"f = {f}: back from\n{tuple(z.shape[1:])}, {float(psnr(back, x)):.1f} dB",
        f"error\n(white: {LOUD:g} or more)",
        f"channel {channel} {amount:+g}\n{where}" + ("" if place is None else f" {place}"),
    ]
    maps = [f"channel {k + 1}\nmean {m.mean():+.2f}, sd {m.std():.2f}" for k, m in enumerate(z_new[0])]
    bottom = [_difference(back, changed), wrong]
    last = ["what that changed\n(error scale)", f"decoder given {factor:g} z"]
    if f == samples.factor:
        bottom += [samples.again(scene, factor), samples.space.decode(factor * samples.latent(scene)).clamp(-1, 1)]
        last += [f"image to image,\nlatents {_size(factor)}", f"new picture,\ndecoded as {factor:g} z"]
    rows = [(torch.cat(top), words), (_shades(z_new[0], SPREAD), maps), (torch.cat(bottom), last)]
    picture = stack(*(captioned_grid(images, text, columns=4, scale=SCALE, width=WIDTH) for images, text in rows))
    return Scene(picture, _note(scene, f, z.numel(), factor, samples.factor))


def _size(factor: float) -> str:
    if factor == 1:
        return "of the right size"
    return f"{factor:g} times too large" if factor > 1 else f"{1 / factor:g} times too small"


def _note(scene: int, f: int, numbers: int, factor: float, trained: int) -> str:
    words = f"{scenes().captions[scene]}: {3 * SIDE**2} numbers become {numbers}. "
    if f != trained:
        return words + f"The course's denoiser works on the latents of f = {trained}; pick that to see samples."
    return words + (
        f"Latents {_size(factor)}. Image to image forgets the scene as far as t = {STRENGTH:g} and paints its caption "
        "again; the new picture is made from noise alone, and only its decoding is wrong."
    )


def latent_explorer(model: TextToImage | None = None, spaces: Mapping[int, LatentSpace] | None = None) -> Explorer:
    """Encoder and decoder from inside.

    Args:
        model: its sampler is shown at work; default ``zoo.text_to_image()``.
        spaces: latent spaces by their factor f; default: those of the zoo, f = 2, 4, 8.
    """
    model = zoo.text_to_image() if model is None else model
    spaces = zoo_spaces() if spaces is None else dict(spaces)
    first = model.space.autoencoder.factor if model.space.autoencoder.factor in spaces else min(spaces)
    channels = max(space.latent_shape(SIDE, SIDE)[0] for space in spaces.values())
    ladder_of_factors = [(f"{v:g}" if v >= 1 else f"1/{1 / v:g}", v) for v in FACTORS]
    controls = {
        "scene": count("scene", 0, 0, SCENES - 1, "Which test scene"),
        "f": choice("f, side ratio", first, sorted(spaces), "Image side over latent side"),
        "channel": count("channel", 1, 1, channels, "The latent channel that is changed"),
        "amount": number("add to it", 2.0, -4.0, 4.0, 0.5, "In standard deviations of the latents"),
        "where": choice("where", HERE, [EVERYWHERE, HERE], "Change the whole channel or one number of it"),
        "across": count("from the left, px", 16, 0, SIDE - 1, "The place, if only one is changed"),
        "down": count("from the top, px", 16, 0, SIDE - 1, "The place, if only one is changed"),
        "factor": ladder(
            "scale is off by", 1.0, ladder_of_factors, "Latents are this many times too large; 1 is right"
        ),
    }
    return Explorer(
        partial(latent_scene, spaces, Samples(model)),
        controls,
        caption="Compare the error maps of f = 2, 4 and 8: errors sit on edges. Change one number of one channel: how "
        "many pixels move? Then turn the scale factor away from 1. The decoder paints other colours. Image to image "
        "hardly forgets latents that are too large, since the noise is small beside them; where they are too small it "
        "returns latents of the size it was trained on, and the decoder gets too much.",
        alt="Three rows of pictures. Scene, reconstruction, error map, reconstruction after a change to the latent; "
        "the latent channels in grey; what the change did, and pictures decoded and sampled with a wrong scale factor.",
    )
