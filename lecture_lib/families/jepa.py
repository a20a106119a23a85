"""Joint-embedding prediction: guess what an encoder would say of the hidden parts. No pixels, and no generative model.

    context    s   = encoder(visible patches)
    target     s_i = LN(target encoder(all patches))_i        no gradient
    guess      g_i = predictor(s, mask token + position of i)
    loss       mean over target places of distance(g_i, s_i)
    target encoder <- decay target encoder + (1 - decay) encoder

If the targets, too, followed the gradient, the cheapest way to be predictable would be to say the same of everything:
the features collapse to a constant. There is neither a density nor a prior here, so two of the five verbs have no
meaning; the family stands in the course to show what the others do that it does not.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from lecture_lib.data import Batches, digits
from lecture_lib.data.clips import moving_digits
from lecture_lib.errors import NotDefined, RangeError, ShapeError
from lecture_lib.families.base import Batch, GenerativeModel
from lecture_lib.nets import PatchEncoder, PlacePredictor, patches_3d, patchify, positions_2d, positions_3d
from lecture_lib.tensors import check_count, check_number

NO_DENSITY = "predicts features from features, expected a family with a p(x): a JEPA has none"


class Masks(NamedTuple):
    """What is seen and what is asked for.

    Attributes:
        visible: the context, (b, n).
        targets: m sets of places to be predicted, each on its own; none is visible.
    """

    visible: Bool[Tensor, " b n"]
    targets: Bool[Tensor, " b m n"]


def hide_blocks(
    b: int, grid: tuple[int, int], block: tuple[int, int], blocks: int, *, generator: torch.Generator
) -> Masks:
    """``blocks`` rectangles per picture at random places, which may overlap; the context is all that no block covers.

    Should the blocks cover everything, the first place is shown all the same.

    Args:
        b: number of pictures.
        grid: rows and columns of places, n of them.
        block: rows and columns of a block.
        blocks: m.

    Raises:
        RangeError: a block that is larger than the grid, or empty; no blocks.
    """
    if not all(1 <= length <= side for side, length in zip(grid, block, strict=True)):
        raise RangeError(f"block: got {tuple(block)}, expected rows and columns from 1 to those of the grid {grid}")
    check_count("blocks", blocks)
    axes = []
    for side, length in zip(grid, block, strict=True):
        device = generator.device
        start = torch.randint(side - length + 1, (b, blocks, 1), generator=generator, device=device)
        axes.append((torch.arange(side, device=device) >= start) & (torch.arange(side, device=device) < start + length))
    targets = (axes[0][..., :, None] & axes[1][..., None, :]).flatten(2)  # (b, m, n)
    visible = ~targets.any(dim=1)
    visible[:, 0] |= ~visible.any(dim=1)
    return Masks(visible, targets & ~visible[:, None])


class JointEmbedding(GenerativeModel):
    """Encoder, its moving average and a predictor; what is left open is how data are cut, hidden and compared.

    Args:
        encoder: on the patches of ``cut``.
        predictor: of the encoder's features at the places of mask tokens.
        event: shape of one sample.
        decay: of the average. The papers let it rise to 1 in the course of training.
    """

    def __init__(
        self, encoder: PatchEncoder, predictor: PlacePredictor, event: tuple[int, ...], *, decay: float = 0.99
    ) -> None:
        super().__init__()
        self.encoder, self.predictor, self.event = encoder, predictor, tuple(event)
        self.target = copy.deepcopy(encoder).requires_grad_(False)
        self.decay = check_number("decay", decay, 0, 1)

    # What a family decides -----------------------------------------------------------------------------------------

    @abstractmethod
    def cut(self, x: Float[Tensor, " b *event"]) -> Float[Tensor, " b n k"]:
        """Data as patches."""

    @abstractmethod
    def masks(self, b: int, generator: torch.Generator) -> tuple[Masks, ...]:
        """One or several ways of hiding, each with a context of its own."""

    @abstractmethod
    def distance(self, guess: Float[Tensor, "*b d"], target: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
        """How far a guess is off, averaged over the features."""

    # What follows --------------------------------------------------------------------------------------------------

    def targets(self, patches: Float[Tensor, " b n k"]) -> Float[Tensor, " b n d"]:
        """``LN(target encoder(everything))``: what is to be guessed."""
        with torch.no_grad():
            seen = self.target(patches, patches.new_ones(patches.shape[:2], dtype=torch.bool))
            return F.layer_norm(seen, seen.shape[-1:])

    def loss(self, batch: Batch, phase: str = "all", *, generator: torch.Generator) -> Float[Tensor, " b"]:
        patches = self.cut(batch[0])
        targets = self.targets(patches)
        ways = [Masks(*(part.to(patches.device) for part in way)) for way in self.masks(len(patches), generator)]
        return sum(self.mistaken(patches, targets, masks) for masks in ways) / len(ways)

    def mistaken(
        self, patches: Float[Tensor, " b n k"], targets: Float[Tensor, " b n d"], masks: Masks
    ) -> Float[Tensor, " b"]:
        """The distance at the target places, block by block: the mask tokens of one block do not see another's."""
        m = masks.targets.shape[1]
        many = [x.repeat_interleave(m, dim=0) for x in (self.encoder(patches, masks.visible), masks.visible, targets)]
        asked = masks.targets.flatten(0, 1)  # (b m, n)
        each = self.distance(self.predictor(many[0], many[1], asked), many[2])
        return ((each * asked).sum(dim=1) / asked.sum(dim=1).clamp(min=1)).unflatten(0, (-1, m)).mean(dim=1)

    @torch.no_grad()
    def after_update(self, phase):
        """``target <- decay target + (1 - decay) encoder``: forget this, and the targets are a random network's."""
        torch._foreach_lerp_(list(self.target.parameters()), list(self.encoder.parameters()), 1 - self.decay)

    @torch.no_grad()
    def features(self, x: Float[Tensor, " b *event"]) -> Float[Tensor, " b n*d"]:
        """What the target encoder says of the whole picture, place by place, side by side: for probes.

        The papers average over the places. In 16 patches of 2x2 pixels that throws away where a stroke is.
        """
        patches = self.cut(x)
        return self.target(patches, patches.new_ones(patches.shape[:2], dtype=torch.bool)).flatten(1)

    # What there is not ---------------------------------------------------------------------------------------------

    def forward_process(self, x, t, *, generator=None):
        raise NotDefined(f"forward_process: {type(self).__name__} hides and never noises, expected a family with a t")

    def reverse_process(self, z, cond=None, *, steps=None, generator):
        raise NotDefined(f"reverse_process: {type(self).__name__} has no way back from features to data, expected one")

    def sample(self, n, cond=None, *, steps=None, generator):
        """Raises NotDefined: there is no p(x) to draw from."""
        raise NotDefined(f"sample: {type(self).__name__} {NO_DENSITY} to draw from")

    def log_prob(self, x, cond=None, *, generator=None):
        """Raises NotDefined: there is no p(x)."""
        raise NotDefined(f"log_prob: {type(self).__name__} {NO_DENSITY}")


class JEPA(JointEmbedding):
    """Pictures: a few rectangles are guessed from the rest, in smooth L1 (the paper writes L2, its code smooth L1).

    Args:
        event: (c, h, w).
        patch: side of a patch.
        dim, depth, heads: of the encoder.
        block, blocks: size of a target block in patches, and how many of them. The paper has 4 of 15 to 20 % each.
        decay: of the target encoder.
    """

    formula = r"\min\,\|g(s_{visible},\,m+pos_i)-\mathrm{LN}(\bar s_i)\|,\quad\bar\theta\leftarrow\mathrm{EMA}(\theta)"
    source = "Assran et al. 2023 (2301.08243), I-JEPA, section 3"

    def __init__(
        self,
        event: tuple[int, int, int] = (1, 8, 8),
        *,
        patch: int = 2,
        dim: int = 64,
        depth: int = 2,
        heads: int = 4,
        block: tuple[int, int] = (2, 2),
        blocks: int = 3,
        decay: float = 0.99,
    ) -> None:
        channels, *sides = event
        if any(side % patch for side in sides):
            raise ShapeError(f"patch: got {patch} for a picture {tuple(event)}, expected a divisor of its sides")
        grid = (sides[0] // patch, sides[1] // patch)
        table = positions_2d(*grid, dim)
        encoder = PatchEncoder(patch**2 * channels, table, depth=depth, heads=heads)
        predictor = PlacePredictor(dim, positions_2d(*grid, dim // 2), depth=1, heads=heads)
        super().__init__(encoder, predictor, event, decay=decay)
        self.patch, self.grid, self.block, self.blocks = patch, grid, block, check_count("blocks", blocks)

    def cut(self, x):
        return patchify(x, self.patch)

    def masks(self, b, generator):
        return (hide_blocks(b, self.grid, self.block, self.blocks, generator=generator),)

    def distance(self, guess, target):
        return F.smooth_l1_loss(guess, target, reduction="none").mean(dim=-1)

    @classmethod
    def small(cls):
        return cls(dim=32, depth=2), Batches((digits().images,), 64), 200


class VJEPA(JointEmbedding):
    """Clips: tubes through all frames are guessed, in L1; once a few small ones, once a few that leave little to see.

    What is hidden in one frame only could be read off the next one.

    Args:
        event: (frames, c, h, w).
        tube: frames, rows and columns of a patch.
        dim, depth, heads: of the encoder.
        short, long: (rows, columns, how many) of the blocks of the two ways of hiding. The paper: 8 of 15 % of a frame,
            and 2 of 70 %.
        decay: of the target encoder.
    """

    formula = r"\min\,\|g(s_{visible},\,m+pos_i)-\mathrm{LN}(\bar s_i)\|_1,\quad i\in\text{tubes}"
    source = "Bardes et al. 2024 (2404.08471), V-JEPA, section 3"

    def __init__(
        self,
        event: tuple[int, int, int, int] = (4, 1, 12, 12),
        *,
        tube: tuple[int, int, int] = (2, 3, 3),
        dim: int = 64,
        depth: int = 2,
        heads: int = 4,
        short: tuple[int, int, int] = (2, 2, 3),
        long: tuple[int, int, int] = (3, 3, 2),
        decay: float = 0.99,
    ) -> None:
        frames, channels, *sides = event
        lengths = tuple(zip((frames, *sides), tube, strict=True))
        if any(length % part for length, part in lengths):
            raise ShapeError(f"tube: got {tube} for a clip {tuple(event)}, expected divisors of frames, rows, columns")
        grid = tuple(length // part for length, part in lengths)
        features = tube[0] * tube[1] * tube[2] * channels
        encoder = PatchEncoder(features, positions_3d(*grid, dim), depth=depth, heads=heads)
        predictor = PlacePredictor(dim, positions_3d(*grid, dim // 2), depth=1, heads=heads)
        super().__init__(encoder, predictor, event, decay=decay)
        self.tube, self.grid, self.ways = tube, grid, (short, long)

    def cut(self, x):
        return patches_3d(x, self.tube)

    def masks(self, b, generator):
        """Two ways of hiding; all blocks of one are guessed together, as in the paper."""
        found = []
        for rows, columns, blocks in self.ways:
            masks = hide_blocks(b, self.grid[1:], (rows, columns), blocks, generator=generator)
            visible = masks.visible.repeat(1, self.grid[0])  # the same in every frame: tubes
            found.append(Masks(visible, ~visible[:, None]))
        return tuple(found)

    def distance(self, guess, target):
        return (guess - target).abs().mean(dim=-1)

    @classmethod
    def small(cls):
        return cls(dim=32, depth=2), Batches((moving_digits(2000).clips,), 32), 150
