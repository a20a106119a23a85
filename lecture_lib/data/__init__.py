"""Data of the course: two-dimensional worlds, the 8x8 digits, MNIST like them, clips, batches on their device."""

from lecture_lib.data.clips import DIRECTIONS, LabelledClips, moving_digits
from lecture_lib.data.digits import LabelledImages, digits
from lecture_lib.data.loaders import Batches, Dequantised, Draws
from lecture_lib.data.mnist import mnist
from lecture_lib.data.toy import checkerboard, labelled_mixture, moons, ring, spirals

__all__ = [
    "DIRECTIONS",
    "Batches",
    "Dequantised",
    "Draws",
    "LabelledClips",
    "LabelledImages",
    "checkerboard",
    "digits",
    "labelled_mixture",
    "mnist",
    "moons",
    "moving_digits",
    "ring",
    "spirals",
]
