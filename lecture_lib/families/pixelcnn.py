"""PixelCNN: pixel by pixel, with convolutions that see only what has been read."""

from __future__ import annotations

from lecture_lib.families.autoregressive import AutoregressiveModel, small_digits
from lecture_lib.nets import GatedPixelCNN


class PixelCNN(AutoregressiveModel):
    """A softmax over the levels of each pixel, given all pixels above it and those to its left.

    Trained in one pass over all pixels; sampled in as many steps as there are pixels. What the rows above say is
    worked out once per row, so that a step costs one row of the horizontal stack.
    """

    formula = r"\log p(x)=\sum_{i}\log p(x_i\mid\text{rows above},\ \text{left in the row})"
    source = "van den Oord et al. 2016 (1601.06759, section 3; gated, without a blind spot: 1606.05328)"

    network: GatedPixelCNN

    def logits(self, x, numbers, cond):
        return self.network(x, cond).flatten(2).transpose(1, 2)  # (b, h w, levels)

    def read(self, x, cond):
        height, width = self.network.size
        for row in range(height):
            told = self.network.rows_above(x, cond)
            for column in range(width):
                yield self.network.across_rows(x, told, slice(row, row + 1), cond)[:, :, 0, column]

    @classmethod
    def digits(
        cls, *, width: int = 32, depth: int = 7, kernel: int = 3, n_classes: int = 10, p_uncond: float = 0.1
    ) -> PixelCNN:
        """For pictures (1, 8, 8) of 17 levels; seven layers of three pixels reach from edge to edge."""
        network = GatedPixelCNN(17, (8, 8), width=width, depth=depth, kernel=kernel, n_classes=n_classes)
        return cls(network, (1, 8, 8), null=n_classes or None, p_uncond=p_uncond)

    @classmethod
    def small(cls):
        return cls.digits(width=16, depth=4, kernel=5, n_classes=0), small_digits(), 100
