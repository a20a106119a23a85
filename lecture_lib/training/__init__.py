"""Training as a generator: the loop yields, and logging, averaging, saving and stopping belong to the caller."""

from lecture_lib.training.checkpoint import restore, save
from lecture_lib.training.ema import Ema
from lecture_lib.training.schedule import Schedule, constant, warmup_cosine
from lecture_lib.training.train import Step, adamw, bfloat16, full_precision, train

__all__ = [
    "Ema",
    "Schedule",
    "Step",
    "adamw",
    "bfloat16",
    "constant",
    "full_precision",
    "restore",
    "save",
    "train",
    "warmup_cosine",
]
